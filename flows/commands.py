"""Commands about what is there already, by its name: indexes, batches, checkpoints, evaluated runs."""

from pathlib import Path
from typing import Any

import click
from pydantic import Field

from flows import progress
from flows.ablations.settings import AblationSettings
from flows.command_line import JSON, ROOT, answer, join, print_json, serve, with_own_settings
from flows.config import DatasetSettings
from flows.refreshes.settings import RefreshOptions
from flows.servers import init as initializing
from flows.servers import stack
from flows.servers.automations import HeartbeatSettings
from flows.servers.stack import StackSettings
from infra.environment import Environment
from infra.settings import Settings, operational
from infra.store import Store
from model.findings.comparing import ComparisonSettings
from model.findings.verdict import PromotionSettings
from tasks.retention import RetentionSettings
from tasks.tokens.tokenizer import TokenizerSettings


@click.command("index")
@click.argument("name")
@ROOT
@click.option("--retire-id", "ids", multiple=True, metavar="ID", help="A document that is to match no more.")
@click.option("--retire-url", "urls", multiple=True, metavar="URL", help="The same by its address.")
@click.option("--retire-dataset", "datasets", multiple=True, metavar="NAME/VERSION", help="All documents of a dataset.")
@JSON
def index(name: str, root: str, as_json: bool, **retired: tuple[str, ...]) -> None:
    """Show what an index of earlier datasets holds, and retire entries of it."""
    from flows.indexes import change_index

    answer(lambda: change_index(Store(root), name, retired["ids"], retired["urls"], retired["datasets"]), as_json)


@click.command("batch")
@click.argument("run")
@click.option("--step", type=click.IntRange(1), required=True, help="The step whose batch is wanted.")
@click.option("--rank", type=click.IntRange(0), help="Only what this data-parallel replica took.")
@ROOT
@JSON
def batch(run: str, step: int, rank: int | None, root: str, as_json: bool) -> None:
    """Name the documents of a past step of RUN: addresses, files and places of each."""
    from flows.batches import batch_details

    answer(lambda: batch_details(Store(root), run, step, rank), as_json)


@click.command("export")
@click.argument("run")
@click.option("--step", type=click.IntRange(1), help="Checkpoint to write; the newest is taken otherwise.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Where to; below the run otherwise.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Type of weights, if another.")
@ROOT
@JSON
def export(run: str, step: int | None, out: Path | None, dtype: Any, root: str, as_json: bool) -> None:
    """Write a checkpoint of RUN as transformers and all that reads its form want it, tokenizer included."""
    from flows.interchange import export_run
    from model.interchange.export import ExportSettings

    answer(lambda: export_run(Store(root), run, out, ExportSettings(step=step, dtype=dtype)), as_json)


@click.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--sequence-length", type=click.IntRange(8), help="Tokens of a training sample, if others.")
@ROOT
@JSON
def import_(folder: Path, name: str, sequence_length: int | None, root: str, as_json: bool) -> None:
    """Take a transformers model in FOLDER as NAME, to go on training from: training.start_from=models/NAME."""
    from flows.interchange import import_folder

    answer(lambda: import_folder(Store(root), folder, name, sequence_length), as_json)


@click.command("benchmarks")
@click.argument("source", type=click.Path())
@click.argument("folder", type=click.Path())
@JSON
def benchmarks(source: str, folder: str, as_json: bool) -> None:
    """Make FOLDER, a tasks_dir of lm-evaluation-harness, of the published benchmark files in SOURCE."""
    from flows.benchmarks import convert_benchmarks

    answer(lambda: convert_benchmarks(source, folder), as_json)


class TokenizerOptions(Settings):
    """Settings of `gristmill tokenizer`."""

    environment: Environment = operational(Environment())
    """Where the work is done."""
    dataset: DatasetSettings = DatasetSettings()
    """Whose texts it learns from."""
    tokenizer: TokenizerSettings = TokenizerSettings()
    """How it is learned."""
    measured_bytes: int = Field(default=20_000_000, ge=1)
    """Held-out text to measure bytes per token on, at most."""


@with_own_settings("tokenizer", TokenizerOptions, click.argument("name"))
def tokenizer(settings: TokenizerOptions, as_json: bool, name: str) -> None:
    """Learn a tokenizer NAME from the texts of a dataset, for several corpora to share."""
    settings = serve(settings)
    from flows.tokenizer import train_tokenizer

    chosen = (settings.dataset, name, settings.tokenizer, settings.environment, settings.measured_bytes)
    _show(train_tokenizer(*chosen), as_json)


class CompareOptions(Settings):
    """Settings of `gristmill compare`."""

    environment: Environment = operational(Environment())
    """Where the work is done."""
    comparison: ComparisonSettings = ComparisonSettings()
    """How sure a comparison is to be."""


@with_own_settings("compare", CompareOptions, click.argument("runs", nargs=-1, metavar="RUN[@STEP] ..."))
def compare(settings: CompareOptions, as_json: bool, runs: tuple[str, ...]) -> None:
    """Put evaluated runs beside the first: tables, figures, paired differences."""
    settings = serve(settings)
    from flows.comparison import compare as compare_flow

    _show(compare_flow(runs, settings.comparison, settings.environment), as_json)


class PromoteOptions(Settings):
    """Settings of `gristmill promote`."""

    environment: Environment = operational(Environment())
    """Where the work is done."""
    promotion: PromotionSettings = PromotionSettings()
    """When a checkpoint takes the champion's place."""


@with_own_settings("promote", PromoteOptions, click.argument("run"))
def promote(settings: PromoteOptions, as_json: bool, run: str) -> None:
    """Register RUN's evaluated checkpoint in MLflow, and make it champion if all conditions hold."""
    settings = serve(settings)
    from flows.promotion import promote as promote_flow

    _show(promote_flow(run, settings.promotion, settings.environment), as_json)


@with_own_settings(
    "champion",
    PromoteOptions,
    click.option("--take-back", metavar="REASON", help="Let the previous champion be champion again."),
)
def champion(settings: PromoteOptions, as_json: bool, take_back: str | None) -> None:
    """Show which checkpoint is champion, which was before, and which is candidate."""
    from flows import promotion

    settings = join(settings)
    environment, model = settings.environment, settings.promotion.model
    if take_back is None:
        _show(promotion.champion_of(environment, model), as_json)
    else:
        _show(promotion.take_back(environment, model, take_back), as_json)


@with_own_settings("refresh", RefreshOptions)
def refresh(settings: RefreshOptions, as_json: bool) -> None:
    """Take what is new in a source's crawls into a new version of a dataset, and say what changed."""
    settings = serve(settings)
    from flows.refresh import refresh_corpus

    _show(refresh_corpus(settings.refresh, settings.environment), as_json)


class RetainOptions(Settings):
    """Settings of `gristmill retain`."""

    environment: Environment = operational(Environment())
    """Where the work is done."""
    retention: RetentionSettings = RetentionSettings()
    """How long texts from before redaction are kept."""


@with_own_settings("retain", RetainOptions, click.option("--dry-run", is_flag=True, help="Only say what would go."))
def retain(settings: RetainOptions, as_json: bool, dry_run: bool) -> None:
    """Delete pages and texts from before redaction after retention.older_than_days; datasets stay as they are."""
    settings = serve(settings)
    from flows.retention import retain as retain_flow

    chosen = settings.retention.model_copy(update={"dry_run": True}) if dry_run else settings.retention
    _show(retain_flow(chosen, settings.environment), as_json)


@with_own_settings("ablate", AblationSettings)
def ablate(settings: AblationSettings, as_json: bool) -> None:
    """Train the same small model on several corpora (`variants` of a configuration), and say which is better."""
    settings = serve(settings)
    from flows.ablation import ablate as ablate_flow

    _show(ablate_flow(settings), as_json)


@with_own_settings("up", StackSettings)
def up(settings: StackSettings, as_json: bool) -> None:
    """Start Prefect, MLflow and Dask on loopback, with every flow registered, until Ctrl-C or `gristmill down`."""
    progress.to_terminal()
    stack.up(settings, lambda found: print_json(found) if as_json else click.echo(found.text()))


@click.command("down")
@ROOT
@JSON
def down(root: str, as_json: bool) -> None:
    """Stop what `gristmill up` has started."""
    answer(lambda: stack.down(root), as_json)


@click.command("status")
@ROOT
@JSON
def status(root: str, as_json: bool) -> None:
    """Say what `gristmill up` has started: where, since when, and what is wrong."""
    answer(lambda: stack.status(root), as_json)


@click.command("copy")
@click.argument("dataset", metavar="NAME[/VERSION]")
@click.option("--from", "source", metavar="ROOT", required=True, help="Folder or URL, such as s3://bucket/root.")
@ROOT
@JSON
def copy(dataset: str, source: str, root: str, as_json: bool) -> None:
    """Copy a dataset from another root: training needs it on a disk of this machine."""
    from flows.copying import copy_dataset

    name, _, version = dataset.partition("/")
    answer(lambda: copy_dataset(Store(source), Store(root), name, version or None), as_json)


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True), default=".")
@JSON
def init(folder: Path, as_json: bool) -> None:
    """Make the passwords of docker-compose.yml that are missing in FOLDER/.env; never change one that is there."""
    answer(lambda: initializing.init(folder), as_json)


class RegisterOptions(Settings):
    """Settings of `gristmill register`."""

    environment: Environment = operational(Environment())
    """Addresses that forms are filled in with; those that are not stated stay as they are registered."""
    pool: str = Field(default="gristmill", min_length=1)
    """Prefect's work pool."""
    heartbeats: HeartbeatSettings = HeartbeatSettings()
    """When a run whose process has died is marked so."""
    queues: tuple[str, ...] = ()
    """Work queues of the pool, beside `default`, that workers of other machines ask."""


class Registered(Settings):
    """What `gristmill register` did."""

    deployments: tuple[str, ...]

    def text(self) -> str:
        """A line for each deployment, as FLOW/NAME."""
        return "\n".join(self.deployments)


@with_own_settings("register", RegisterOptions)
def register(settings: RegisterOptions, as_json: bool) -> None:
    """Register every flow with the server of PREFECT_API_URL or of a `gristmill up`; repeated, it changes nothing."""
    join(settings)  # for the address of Prefect's server alone: others that are not stated stay as they are registered
    from flows.servers.registration import make_queues
    from flows.servers.registration import register as register_deployments

    names = register_deployments(settings.environment, settings.pool, settings.heartbeats)
    make_queues(settings.pool, settings.queues)
    _show(Registered(deployments=tuple(names)), as_json)


def _show(found: Any, as_json: bool) -> None:
    print_json(found) if as_json else click.echo(found.text())


ALL = (
    *(index, batch, export, import_, benchmarks, tokenizer, compare, promote, champion, refresh, retain, ablate),
    *(up, down, status, init, register, copy),
)
