"""What all commands share: settings from options, the environment of a flow, answers and errors.

Exit code 0: done; 1: a run failed; 2: bad input.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import click

from flows import progress
from flows.config import PipelineSettings
from flows.presets import PRESETS, preset
from flows.servers.running import beside, running_stack
from flows.servers.server import ensure_prefect_server, reach_prefect_server
from infra.configuration import assignment, describe, load_settings
from infra.environment import Environment
from infra.errors import BadInput, GristmillError, RunFailed
from infra.settings import Settings
from infra.store import Store

_SHORT_FORMS = {
    "root": "environment.root",
    "workers": "environment.workers",
    "crawl": "corpus.source.crawl",
    "base_url": "corpus.source.base_url",
    "shards": "corpus.source.shards",
    "max_records": "corpus.source.max_records",
}

ROOT = click.option("--root", metavar="DIR", default=Environment().root, help="Where datasets, runs and indexes lie.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


_CONFIG = click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A file of settings.")
_SET = click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="One setting over the file.")


class HasEnvironment(Protocol):
    """Settings with this section."""

    @property
    def environment(self) -> Environment:
        """Where the work is done."""
        ...

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self:
        """The same with other values."""
        ...


Served = TypeVar("Served", bound=HasEnvironment)


class SettingsCommand(click.Command):
    """A command whose help lists every setting of its sections with default and explanation."""

    kind: type[Settings] = PipelineSettings
    sections: tuple[str, ...] = ()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the settings below the options."""
        with formatter.section("Settings, for --set and --config (TOML, YAML or JSON)"):
            rows = describe(self.kind, self.sections)
            formatter.write_dl([(f"{path}={default}", text) for path, default, text in rows], col_max=44)


def settings_options() -> tuple[Any, ...]:
    """The options by which a command line gives a PipelineSettings; `gather` takes them."""
    return (
        click.option("--preset", "preset_name", metavar="NAME", help=f"Start from one of: {', '.join(PRESETS)}."),
        _CONFIG,
        _SET,
        click.option("--root", metavar="DIR", help="Short for environment.root."),
        click.option("--crawl", metavar="ID", help="Short for corpus.source.crawl."),
        click.option("--base-url", metavar="URL", help="Short for corpus.source.base_url."),
        click.option("--shards", type=int, metavar="N", help="Short for corpus.source.shards."),
        click.option("--max-records", type=int, metavar="N", help="Short for corpus.source.max_records."),
        click.option("--workers", type=int, metavar="N", help="Short for environment.workers."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text."),
    )


def with_settings(
    name: str, sections: tuple[str, ...], takes_dataset: bool = False
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function of (settings, json output) a command with the options that all commands share.

    If it takes a dataset, NAME or NAME/VERSION may follow the command; the function is told whether one did.
    """
    dataset = click.argument("dataset", metavar="[NAME[/VERSION]]", required=False)
    options = settings_options()

    def decorate(function: Callable[..., Any]) -> click.Command:
        def run(as_json: bool, **given: Any) -> None:
            named = {"named": given["dataset"] is not None} if takes_dataset else {}
            exit_with(lambda: function(gather(name, **given), as_json, **named), as_json)

        command: Any = run
        for option in reversed((dataset, *options) if takes_dataset else options):
            command = option(command)
        made = click.command(name, cls=SettingsCommand, help=function.__doc__)(command)
        made.sections = sections
        return made

    return decorate


def with_own_settings(name: str, kind: type[Settings], *arguments: Any) -> Callable[..., click.Command]:
    """Make a function of (settings, json output) and some arguments a command whose settings are a class of its own.

    The class has a section `environment`.
    """
    options = (_CONFIG, _SET, click.option("--root", metavar="DIR", help="Short for environment.root."), JSON)

    def decorate(function: Callable[..., Any]) -> click.Command:
        def run(
            as_json: bool, config: Path | None, assignments: tuple[str, ...], root: str | None, **named: Any
        ) -> None:
            def act() -> None:
                given = [assignment(text) for text in assignments]
                given += [("environment.root", root)] if root is not None else []
                function(load_settings(kind, kind(), config, given), as_json, **named)

            exit_with(act, as_json)

        command: Any = run
        for option in reversed((*arguments, *options)):
            command = option(command)
        made = click.command(name, cls=SettingsCommand, help=function.__doc__)(command)
        made.kind, made.sections = kind, tuple(kind.model_fields)
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


def answer(find: Callable[[], Any], as_json: bool) -> None:
    """Print what a command found, which has a text() of its own."""

    def act() -> None:
        found = find()
        print_json(found) if as_json else click.echo(found.text())

    exit_with(act, as_json)


def prepare(settings: HasEnvironment) -> Store:
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


def serve(settings: Served) -> Served:
    """Prepare for a flow, and have a Prefect server: the user's, that of `gristmill up`, or one for this command.

    The settings that come back name MLflow's server too, where `gristmill up` runs for the root.
    """
    store = prepare(settings)
    joined = join(settings)
    ensure_prefect_server(prefect_home(store))
    reach_prefect_server()
    return joined


def join(settings: Served) -> Served:
    """Have Prefect, and by the settings that come back MLflow, use the servers of a `gristmill up` of the root."""
    store = Store(settings.environment.root)
    if (stack := running_stack(store)) is None:
        return settings
    environment = beside(stack, settings.environment, store.local_path("").absolute())
    return settings.model_copy(update={"environment": environment})


def prefect_home(store: Store) -> Path:
    """Where our own Prefect server keeps its files: under the root, or in the user's home if the root is remote."""
    return store.local_path("prefect").absolute() if store.is_local else Path.home() / ".prefect"


def print_json(value: Settings) -> None:
    """Print one JSON object."""
    click.echo(value.model_dump_json(indent=1, by_alias=True))


def exit_with(action: Callable[[], None], as_json: bool) -> None:
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
