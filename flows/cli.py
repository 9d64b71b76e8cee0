"""The `gristmill` command. Exit code 0: done; 1: a run failed; 2: bad input.

Flows are imported after Prefect's environment is set, because Prefect reads it when it is imported.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from flows import progress
from flows.config import PipelineSettings
from flows.presets import PRESETS, preset
from flows.server import ensure_prefect_server, look_further
from infra.configuration import assignment, describe, load_settings
from infra.errors import BadInput, GristmillError, RunFailed
from infra.settings import Environment, Settings
from infra.store import Store

logger = logging.getLogger(__name__)
_SHORT_FORMS = {
    "root": "environment.root",
    "workers": "environment.workers",
    "crawl": "corpus.source.crawl",
    "base_url": "corpus.source.base_url",
    "shards": "corpus.source.shards",
    "max_records": "corpus.source.max_records",
}
_CORPUS_SECTIONS = ("environment", "dataset", "corpus")
_TRAINING_SECTIONS = ("environment", "dataset", "run", "training")


class SettingsCommand(click.Command):
    """A command whose help lists every setting of its sections with default and explanation."""

    sections: tuple[str, ...] = ()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the settings below the options."""
        with formatter.section("Settings, for --set and --config (TOML, YAML or JSON)"):
            rows = describe(PipelineSettings, self.sections)
            formatter.write_dl([(f"{path}={default}", text) for path, default, text in rows], col_max=44)


def with_settings(
    name: str, sections: tuple[str, ...], takes_dataset: bool = False, own: Mapping[str, Any] = MappingProxyType({})
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function of (settings, json output) a command with the options that all commands share.

    If it takes a dataset, NAME or NAME/VERSION may follow the command; the function is told whether one did.
    Options of its own, by name, are given to the function too.
    """
    dataset = click.argument("dataset", metavar="[NAME[/VERSION]]", required=False)
    options = (
        click.option("--preset", "preset_name", metavar="NAME", help=f"Start from one of: {', '.join(PRESETS)}."),
        click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings over the preset."),
        click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="One setting over both."),
        click.option("--root", metavar="DIR", help="Short for environment.root."),
        click.option("--crawl", metavar="ID", help="Short for corpus.source.crawl."),
        click.option("--base-url", metavar="URL", help="Short for corpus.source.base_url."),
        click.option("--shards", type=int, metavar="N", help="Short for corpus.source.shards."),
        click.option("--max-records", type=int, metavar="N", help="Short for corpus.source.max_records."),
        click.option("--workers", type=int, metavar="N", help="Short for environment.workers."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text."),
    )

    def decorate(function: Callable[..., Any]) -> click.Command:
        def run(as_json: bool, **given: Any) -> None:
            named = {"named": given["dataset"] is not None} if takes_dataset else {}
            named |= {option: given.pop(option) for option in own}
            _exit_with(lambda: function(gather(name, **given), as_json, **named), as_json)

        command: Any = run
        for option in reversed((dataset, *options) if takes_dataset else (*own.values(), *options)):
            command = option(command)
        made = click.command(name, cls=SettingsCommand, help=function.__doc__)(command)
        made.sections = sections
        return made

    return decorate


def gather(
    command: str,
    preset_name: str | None,
    config: Path | None,
    assignments: tuple[str, ...],
    dataset: str | None = None,
    **short_forms: Any,
) -> PipelineSettings:
    """The settings that a command line means: preset, then file, then --set, then short forms and a named dataset."""
    chosen = preset(preset_name or ("demo" if command == "demo" else "default"))
    given = [assignment(text) for text in assignments]
    given += [(_SHORT_FORMS[name], value) for name, value in short_forms.items() if value is not None]
    if dataset is not None:
        name, _, version = dataset.partition("/")
        given += [("dataset.name", name), ("dataset.version", version or None)]
    return load_settings(PipelineSettings, chosen, config, given)


@click.group(context_settings={"max_content_width": 110})
@click.version_option(package_name="gristmill")
def main() -> None:
    """From the web crawl to an evaluated language model."""


@partial(with_settings, "demo")((*_CORPUS_SECTIONS, "run", "training", "evaluation"))
def demo(settings: PipelineSettings, as_json: bool) -> None:
    """Run the whole chain: on the sample crawl of packaged web pages, or with --crawl on a real one."""
    from flows.outcome import Outcome
    from infra.report import render_text

    store = prepare(settings)
    outcome = Outcome.recall(store, settings)
    if outcome is None:
        ensure_prefect_server(prefect_home(store))
        from flows.end_to_end import crawl_to_model

        outcome = crawl_to_model(settings)
    else:
        logger.info("everything is done already; remove %s to start afresh", store.full_path(""))
    if as_json:
        return print_json(outcome.report)
    click.echo(render_text(outcome.report))
    click.echo(f"Report   {store.local_path(outcome.run).absolute() / 'report.html'}")
    for name, command in look_further(store).items():
        click.echo(f"{name:<8} {command}")
    return None


@partial(with_settings, "corpus")(_CORPUS_SECTIONS)
def corpus(settings: PipelineSettings, as_json: bool) -> None:
    """Build a dataset: fetch, extract, filter, deduplicate, redact and tokenize a crawl."""
    from infra.dataset_report import report_paths
    from infra.report import render_text

    store = prepare(settings)
    ensure_prefect_server(prefect_home(store))
    from flows.corpus import build_corpus

    result = build_corpus(settings.corpus, settings.dataset, settings.environment)
    if as_json:
        return print_json(result.report)
    click.echo(render_text(result.report))
    click.echo(f"Report   {store.full_path(report_paths(result.dataset.folder)[0])}")
    return None


_SAMPLE = {
    "sample_shards": click.option(
        "--sample-shards", type=click.IntRange(1), default=2, show_default=True, help="Shards to measure on."
    ),
    "sample_records": click.option(
        "--sample-records", type=click.IntRange(1), default=300, show_default=True, help="Records to read of each."
    ),
}


_ON_PAPER = {
    "training": click.option("--training", is_flag=True, help="Plan the training instead: memory, time, layouts."),
    "seventy_billion": click.option("--70b", "seventy_billion", is_flag=True, help="Show layouts of a 70 B model."),
}


@partial(with_settings, "plan", own={**_SAMPLE, **_ON_PAPER})((*_CORPUS_SECTIONS, "training"))
def plan(
    settings: PipelineSettings,
    as_json: bool,
    sample_shards: int,
    sample_records: int,
    training: bool,
    seventy_billion: bool,
) -> None:
    """Say what `corpus` will download and take in disk, time and memory, measured on a sample of the same source."""
    if training or seventy_billion:
        return _plan_training(settings, as_json, seventy_billion=seventy_billion)
    from flows.plan_text import render
    from flows.planning import PlanSettings, make_plan

    prepare(settings)
    sample = PlanSettings(sample_shards=sample_shards, sample_records=sample_records)
    made = make_plan(settings.corpus, settings.environment, sample)
    if as_json:
        return print_json(made)
    click.echo(render(made))
    return None


def _plan_training(settings: PipelineSettings, as_json: bool, *, seventy_billion: bool) -> None:
    from flows.training_plan import plan_seventy_billion, plan_training, render_training

    vocabulary_size = settings.corpus.tokenizer.vocabulary_size
    made = plan_seventy_billion() if seventy_billion else plan_training(settings.training, vocabulary_size)
    print_json(made) if as_json else click.echo(render_training(made))


@partial(with_settings, "pretrain")(_TRAINING_SECTIONS)
def pretrain(settings: PipelineSettings, as_json: bool) -> None:
    """Train a model on a dataset, or go on where an interrupted training stopped."""
    ensure_prefect_server(prefect_home(prepare(settings)))
    from flows.pretraining import pretrain as pretrain_flow

    result = pretrain_flow(settings.dataset, settings.run, settings.training, settings.environment)
    if as_json:
        return print_json(result)
    summary = result.summary
    click.echo(f"{summary.steps:,} steps, {summary.tokens:,} tokens, {summary.tokens_per_second:,.0f} tokens/s")
    click.echo(f"loss {summary.loss.first:.4f} -> {summary.loss.last:.4f}   {result.run.folder}")
    return None


@partial(with_settings, "evaluate")((*_TRAINING_SECTIONS, "evaluation"))
def evaluate(settings: PipelineSettings, as_json: bool) -> None:
    """Measure held-out loss, perplexity and bits per byte of a finished run, and write samples."""
    ensure_prefect_server(prefect_home(prepare(settings)))
    from flows.evaluation import evaluate as evaluate_flow

    result = evaluate_flow(settings.dataset, settings.run, settings.training, settings.evaluation, settings.environment)
    if as_json:
        return print_json(result)
    click.echo(f"step {result.record.step:,}: loss {result.record.loss:.4f}, perplexity {result.record.perplexity:.2f}")
    if (bits := result.record.bits_per_byte) is not None:
        numbers = f"trained {bits.trained:.3f}, untrained {bits.untrained:.3f}, unigram {bits.unigram:.3f}"
        click.echo(f"bits per byte: {numbers}")
    return None


@partial(with_settings, "show", takes_dataset=True)((*_CORPUS_SECTIONS, "run", "training", "evaluation"))
def show(settings: PipelineSettings, as_json: bool, named: bool = False) -> None:
    """List the datasets and runs under the root; of NAME or NAME/VERSION, show what was kept and where it lies."""
    from flows.dataset_details import dataset_details
    from flows.inventory import take_inventory

    store = Store(settings.environment.root)
    found = dataset_details(store, settings.dataset) if named else take_inventory(store, settings)
    if as_json:
        return print_json(found)
    click.echo(found.text())
    return None


@partial(with_settings, "preview", takes_dataset=True)(_CORPUS_SECTIONS)
def preview(settings: PipelineSettings, as_json: bool, named: bool = False) -> None:
    """Tell in seconds what other filter settings would keep of a dataset: from its ledger, without any text.

    All filter settings are the dataset's, but for those that are given: --set corpus.filter.language.min_score=0.5
    """
    from flows.previewing import run_preview

    found = run_preview(Store(settings.environment.root), settings)
    if as_json:
        return print_json(found)
    click.echo(found.text())
    return None


_ROOT = click.option("--root", metavar="DIR", default=Environment().root, help="Where datasets, runs and indexes lie.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


@click.command("index")
@click.argument("name")
@_ROOT
@click.option("--retire-id", "ids", multiple=True, metavar="ID", help="A document that is to match no more.")
@click.option("--retire-url", "urls", multiple=True, metavar="URL", help="The same by its address.")
@click.option("--retire-dataset", "datasets", multiple=True, metavar="NAME/VERSION", help="All documents of a dataset.")
@_JSON
def index(name: str, root: str, as_json: bool, **retired: tuple[str, ...]) -> None:
    """Show what an index of earlier datasets holds, and retire entries of it."""
    from flows.indexes import change_index

    _answer(lambda: change_index(Store(root), name, retired["ids"], retired["urls"], retired["datasets"]), as_json)


def _answer(find: Callable[[], Any], as_json: bool) -> None:
    """Print what a command found, which has a text() of its own."""

    def act() -> None:
        found = find()
        print_json(found) if as_json else click.echo(found.text())

    _exit_with(act, as_json)


@click.command("batch")
@click.argument("run")
@click.option("--step", type=click.IntRange(1), required=True, help="The step whose batch is wanted.")
@click.option("--rank", type=click.IntRange(0), help="Only what this data-parallel replica took.")
@_ROOT
@_JSON
def batch(run: str, step: int, rank: int | None, root: str, as_json: bool) -> None:
    """Name the documents of a past step of RUN: addresses, files and places of each."""
    from flows.batches import batch_details

    _answer(lambda: batch_details(Store(root), run, step, rank), as_json)


@click.command("export")
@click.argument("run")
@click.option("--step", type=click.IntRange(1), help="Checkpoint to write; the newest is taken otherwise.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Where to; below the run otherwise.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Type of weights, if another.")
@_ROOT
@_JSON
def export(run: str, step: int | None, out: Path | None, dtype: Any, root: str, as_json: bool) -> None:
    """Write a checkpoint of RUN as transformers and all that reads its form want it, tokenizer included."""
    from flows.interchange import export_run
    from model.interchange.export import ExportSettings

    _answer(lambda: export_run(Store(root), run, out, ExportSettings(step=step, dtype=dtype)), as_json)


@click.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--sequence-length", type=click.IntRange(8), help="Tokens of a training sample, if others.")
@_ROOT
@_JSON
def import_(folder: Path, name: str, sequence_length: int | None, root: str, as_json: bool) -> None:
    """Take a transformers model in FOLDER as NAME, to go on training from: training.start_from=models/NAME."""
    from flows.interchange import import_folder

    _answer(lambda: import_folder(Store(root), folder, name, sequence_length), as_json)


for _command in (batch, export, import_):
    main.add_command(_command)
for _command in (demo, plan, corpus, preview, pretrain, evaluate, show, index):
    main.add_command(_command)


def prepare(settings: PipelineSettings) -> Store:
    """Open the root and set up logs before Prefect is imported. The user's own environment comes first."""
    defaults = {
        "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(progress.PACKAGES),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the terminal gets our own log and one error
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    logging.captureWarnings(True)
    progress.to_terminal()
    store = Store(settings.environment.root)
    store.make_folder("")
    return store


def prefect_home(store: Store) -> Path:
    """Where our own Prefect server keeps its files: under the root, or in the user's home if the root is remote."""
    return store.local_path("prefect").absolute() if store.is_local else Path.home() / ".prefect"


def print_json(value: Settings) -> None:
    """Print one JSON object."""
    click.echo(value.model_dump_json(indent=1, by_alias=True))


def _exit_with(action: Callable[[], None], as_json: bool) -> None:
    """Run a command; errors of ours become one message and an exit code."""
    try:
        action()
    except GristmillError as error:
        _fail(error, as_json)
    except KeyboardInterrupt:
        stopped = RunFailed("stopped by the user", "what was finished is kept", "Run the same command to go on")
        _fail(stopped, as_json)


def _fail(error: GristmillError, as_json: bool) -> None:
    if as_json:
        parts = {"type": type(error).__name__, "value": error.value, "rule": error.rule, "remedy": error.remedy}
        click.echo(json.dumps({"error": parts}, indent=1))
    else:
        kind = "Bad input" if isinstance(error, BadInput) else "Failed"
        click.echo(f"{kind}: {error}", err=True)
    raise SystemExit(error.exit_code)
