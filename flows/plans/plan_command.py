"""`gristmill plan FLOW`: what a flow will take and cost, before it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from flows.ablations.settings import AblationSettings
from flows.command_line import (
    SettingsCommand,
    exit_with,
    gather,
    join,
    prepare,
    print_json,
    settings_options,
)
from flows.commands import CompareOptions, PromoteOptions, RetainOptions, TokenizerOptions
from flows.plans import Planned
from flows.refreshes.settings import RefreshOptions
from infra.configuration import assignment, load_settings
from infra.errors import BadInput

if TYPE_CHECKING:
    from flows.plans.flow_plan import FlowPlan
    from flows.plans.whole_plan import PlanOptions

FLOWS = get_args(Planned)
Own = TypeVar("Own", AblationSettings, CompareOptions, PromoteOptions, RefreshOptions, RetainOptions, TokenizerOptions)
_OPTIONS = (
    click.argument("flow", type=click.Choice(FLOWS), default="build_corpus", required=False, metavar="[FLOW]"),
    click.argument("runs", nargs=-1, metavar="[RUN ...]"),
    *settings_options(),
    click.option("--sample-shards", type=click.IntRange(1), default=2, show_default=True, help="Shards to measure on."),
    click.option(
        "--sample-records", type=click.IntRange(1), default=300, show_default=True, help="Records to read of each."
    ),
    click.option("--device", metavar="NAME", help="What is trained on: H200, A100, CPU; this machine's GPU otherwise."),
    click.option(
        "--mfu", type=click.FloatRange(0, 1, min_open=True), help="Part of the device's peak that training reaches."
    ),
    click.option("--tokens-per-second", type=click.FloatRange(0, min_open=True), help="Of one device, if you know it."),
    click.option("--measure", type=click.IntRange(4), metavar="STEPS", help="Make some steps here and measure them."),
    click.option("--70b", "seventy_billion", is_flag=True, help="Show layouts of a 70 B model instead."),
)


def plan(as_json: bool, **given: Any) -> None:
    """Say what a flow will take before it runs: time, bytes, memory, machines, money.

    FLOW is crawl_to_model, build_corpus (the default), refresh_corpus, train_tokenizer, pretrain, evaluate, ablate,
    compare, promote or retain; RUN is for compare and promote. A corpus is measured on a sample of its source; what
    is there already is taken off. Of a promotion the verdict is told, of a retention what would be deleted. Prices and
    a budget are settings, such as environment.cost.gpu_hour=2.5. Exit code 1: the flow would be refused.
    """
    exit_with(lambda: _plan(as_json, **given), as_json)


def _plan(as_json: bool, seventy_billion: bool, **given: Any) -> None:
    if seventy_billion:
        return _show_seventy_billion(as_json)
    from flows.plans.whole_plan_text import render_flow

    made = _made(**given)
    print_json(made) if as_json else click.echo(render_flow(made))
    if made.refused:
        raise SystemExit(1)
    return None


def _made(flow: Planned, runs: tuple[str, ...], **given: Any) -> "FlowPlan":
    """The plan of a flow; BadInput for runs where the flow takes none, or another number of them."""
    if runs and flow not in ("compare", "promote"):
        raise BadInput(f"{flow} of {', '.join(runs)}", "only compare and promote are of runs", "Leave them out")
    from flows.plans.sampling import PlanSettings
    from flows.plans.whole_plan import PlanOptions, plan_pipeline

    sample = PlanSettings(sample_shards=given.pop("sample_shards"), sample_records=given.pop("sample_records"))
    stated = {name: given.pop(name) for name in ("device", "mfu", "tokens_per_second")}
    options = PlanOptions(sample=sample, measure_steps=given.pop("measure"), **stated)
    if flow in ("crawl_to_model", "build_corpus", "pretrain", "evaluate"):
        chosen = gather("plan", **given)
        prepare(chosen)
        return plan_pipeline(flow, chosen, options)
    return _with_own_settings(flow, runs, options, given)


def _with_own_settings(
    flow: Planned, runs: tuple[str, ...], options: "PlanOptions", given: dict[str, Any]
) -> "FlowPlan":
    """The plan of a flow whose settings are not those of the chain."""
    from flows.plans.ablation_plan import plan_ablation
    from flows.plans.rehearsal import plan_comparison, plan_promotion, plan_retention
    from flows.plans.tokenizer_plan import plan_tokenizer

    if flow == "ablate":
        return plan_ablation(_own_settings(AblationSettings, **given), options)
    if flow == "refresh_corpus":
        from flows.plans.refresh_plan import plan_refresh  # it knows of training, which takes seconds to import

        refresh = join(_own_settings(RefreshOptions, **given))
        return plan_refresh(refresh.refresh, refresh.environment, options)
    if flow == "train_tokenizer":
        tokenizer = _own_settings(TokenizerOptions, **given)
        return plan_tokenizer(tokenizer.dataset, tokenizer.tokenizer, tokenizer.measured_bytes, tokenizer.environment)
    if flow == "compare":
        compared = _own_settings(CompareOptions, **given)
        return plan_comparison(runs, compared.comparison, compared.environment)
    if flow == "promote":
        promoted = join(_own_settings(PromoteOptions, **given))
        return plan_promotion(_only(runs), promoted.promotion, promoted.environment)
    retained = _own_settings(RetainOptions, **given)
    return plan_retention(retained.retention, retained.environment)


def _only(runs: tuple[str, ...]) -> str:
    if len(runs) != 1:
        raise BadInput(f"{len(runs)} runs to promote", "it is one", "Name it: `gristmill plan promote RUN`")
    return runs[0]


def _own_settings(
    kind: type[Own], config: Path | None, assignments: tuple[str, ...], root: str | None, **others: Any
) -> Own:
    """Settings of a flow that are not a part of the chain's; BadInput for the short forms of that."""
    named = [name for name, value in others.items() if value is not None]
    if named:
        option = f"--{named[0].replace('_', '-')}"
        raise BadInput(option, "it is of the chain from crawl to model", "Name the setting by --set or --config")
    given = [assignment(text) for text in assignments]
    given += [("environment.root", root)] if root is not None else []
    chosen = load_settings(kind, kind(), config, given)
    prepare(chosen)
    return chosen


def _show_seventy_billion(as_json: bool) -> None:
    from flows.plans.training_plan import plan_seventy_billion
    from flows.plans.training_plan_text import render_training

    made = plan_seventy_billion()
    print_json(made) if as_json else click.echo(render_training(made))


def _command() -> click.Command:
    command: Any = plan
    for option in reversed(_OPTIONS):
        command = option(command)
    made = click.command("plan", cls=SettingsCommand, help=plan.__doc__)(command)
    made.sections = ("environment", "dataset", "corpus", "training", "evaluation")
    return made


COMMAND = _command()
