"""The `gristmill` command: the chain and its parts. `flows.commands` has those about what is there already.

Flows are imported after Prefect's environment is set, because Prefect reads it when it is imported.
"""

import logging
from functools import partial

import click

from flows import commands, maintenance
from flows.command_line import prepare, print_json, serve, with_settings
from flows.config import PipelineSettings
from flows.plans import plan_command
from flows.servers.server import look_further
from infra.running_services import ask_loopback_directly
from infra.store import Store

logger = logging.getLogger(__name__)
_CORPUS_SECTIONS = ("environment", "dataset", "corpus")
_TRAINING_SECTIONS = ("environment", "dataset", "run", "training")


@click.group(context_settings={"max_content_width": 110})
@click.version_option(package_name="gristmill")
def main() -> None:
    """From the web crawl to an evaluated language model."""
    ask_loopback_directly()


@partial(with_settings, "demo")((*_CORPUS_SECTIONS, "run", "training", "evaluation", "tracking"))
def demo(settings: PipelineSettings, as_json: bool) -> None:
    """Run the whole chain: on the sample crawl of packaged web pages, or with --crawl on a real one."""
    from flows.outcome import Outcome
    from infra.report import render_text

    store = prepare(settings)
    outcome = Outcome.recall(store, settings)
    if outcome is None:
        settings = serve(settings)
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


@partial(with_settings, "corpus")((*_CORPUS_SECTIONS, "tracking"))
def corpus(settings: PipelineSettings, as_json: bool) -> None:
    """Build a dataset: fetch, extract, filter, deduplicate, redact and tokenize a crawl."""
    from infra.dataset_report import report_paths
    from infra.report import render_text

    settings = serve(settings)
    from flows.corpus import build_corpus

    result = build_corpus(settings.corpus, settings.dataset, settings.environment, settings.tracking)
    if as_json:
        return print_json(result.report)
    click.echo(render_text(result.report))
    page = Store(settings.environment.root).full_path(report_paths(result.dataset.folder)[0])
    click.echo(f"Report   {page}")
    return None


@partial(with_settings, "pretrain")((*_TRAINING_SECTIONS, "tracking"))
def pretrain(settings: PipelineSettings, as_json: bool) -> None:
    """Train a model on a dataset, or go on where an interrupted training stopped."""
    settings = serve(settings)
    from flows.pretraining import pretrain as pretrain_flow

    chosen = (settings.dataset, settings.run, settings.training)
    result = pretrain_flow(*chosen, settings.environment, settings.tracking)
    if as_json:
        return print_json(result)
    summary = result.summary
    click.echo(f"{summary.steps:,} steps, {summary.tokens:,} tokens, {summary.tokens_per_second:,.0f} tokens/s")
    click.echo(f"loss {summary.loss.first:.4f} -> {summary.loss.last:.4f}   {result.run.folder}")
    return None


@partial(with_settings, "evaluate")((*_TRAINING_SECTIONS, "evaluation", "contamination"))
def evaluate(settings: PipelineSettings, as_json: bool) -> None:
    """Measure a finished run on held-out text and on benchmarks, with intervals, and write samples."""
    settings = serve(settings)
    from flows.evaluation import evaluate as evaluate_flow
    from flows.reports.task_table import evaluation_text

    made_with = (settings.training, settings.dataset)
    result = evaluate_flow(
        settings.run, settings.evaluation, settings.contamination, *made_with, environment=settings.environment
    )
    if as_json:
        return print_json(result)
    click.echo(evaluation_text(result.record))
    if (bits := result.record.bits_per_byte) is not None:
        numbers = f"trained {bits.trained:.3f}, untrained {bits.untrained:.3f}, unigram {bits.unigram:.3f}"
        click.echo(f"\nbits per byte: {numbers}")
    click.echo(f"Report   {result.page}")
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


for _command in (
    demo,
    plan_command.COMMAND,
    corpus,
    preview,
    pretrain,
    evaluate,
    show,
    *commands.ALL,
    *maintenance.ALL,
):
    main.add_command(_command)
