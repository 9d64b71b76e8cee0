"""`gristmill preview`: what other filter settings would keep of a dataset, and the command that makes it so."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from flows.config import PipelineSettings
from infra.configuration import assignment, explain, merged, nested
from infra.errors import BadInput
from infra.manifest import DatasetManifest, StageManifest, load_dataset
from infra.report import printable, short
from infra.settings import Settings
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.filters import FilterInputs, FilterSettings
from tasks.ledger import LEDGER
from tasks.pipeline import manifest_path
from tasks.preview import Amount, Change, Preview, measured_signals, preview

ROWS = 20
"""Most reasons, languages and changes that the terminal shows."""
_UNKNOWN_PATH = "PATH"
_FILTER = "filter."


class ChangedSetting(Settings):
    """A filter setting that is not that of the dataset."""

    setting: str
    before: Any
    after: Any


class PreviewResult(Settings):
    """What `gristmill preview` prints."""

    dataset: str
    """NAME/VERSION."""
    changed: tuple[ChangedSetting, ...]
    preview: Preview
    command: str
    """What makes a dataset of these settings without reading the source."""

    def text(self) -> str:
        """The same for people."""
        shown = self.preview
        lines = [f"Dataset {self.dataset}: {shown.measured.documents:,} measured documents judged by their signals"]
        lines += [f"  {each.setting}: {_json(each.before)} -> {_json(each.after)}" for each in self.changed]
        lines += [] if self.changed else ["  The filter settings are those of the dataset."]
        lines.append(f"Kept by the filter: {_change(shown.kept)}")
        for title, changes in (("Dropped", shown.reasons), ("Kept", shown.languages)):
            names = list(changes)
            lines += [f"{title} by {'reason' if title == 'Dropped' else 'language'}" if names else ""]
            lines += [f"  {name:<{max(map(len, names[:ROWS]))}}  {_change(changes[name])}" for name in names[:ROWS]]
            lines += [f"  and {len(names) - ROWS} more"] if len(names) > ROWS else []
        lines += ["Changed verdicts"] if shown.moves else []
        for move in shown.moves[:ROWS]:
            lines.append(f"  {move.before or 'kept'} -> {move.after or 'kept'}: {_amount(move.amount)}")
            lines += [f"    {each.id}  {each.language}  {(each.url or '')[:120]}" for each in move.examples]
        lines += ["To make it:", f"  {self.command}"]
        return printable("\n".join(line for line in lines if line))


def run_preview(store: Store, settings: PipelineSettings) -> PreviewResult:
    """Judge a dataset's documents anew by its own settings and those that were given over them.

    The dataset is dataset.name, in dataset.version or the newest. Settings count as given if a preset, a file, --set
    or a short form names them; all others are the dataset's.
    """
    chosen = settings.dataset
    dataset = load_dataset(store, chosen.name, chosen.version)
    ledger = StageManifest.load(store, manifest_path(dataset, LEDGER.name))
    was = dict(stored_values(CorpusSettings(), dataset.settings))
    now = was | dict(values_of(settings.corpus, given=True))
    found = preview(store, ledger, FilterInputs(filter=_filter(now), signals=measured_signals(ledger)))
    return PreviewResult(
        dataset=f"{dataset.name}/{dataset.version}",
        changed=tuple(
            ChangedSetting(setting=f"corpus.{path}", before=was.get(path), after=value)
            for path, value in now.items()
            if path.startswith(_FILTER) and was.get(path) != value
        ),
        preview=found,
        command=rebuild_command(settings, dataset, now),
    )


def rebuild_command(settings: PipelineSettings, dataset: DatasetManifest, values: Mapping[str, Any]) -> str:
    """The command that makes a dataset of some corpus settings from the measured documents of another."""
    usual = dict(values_of(CorpusSettings(), given=False))
    words = ["gristmill", "corpus", "--root", settings.environment.root]
    given = {"dataset.name": dataset.name, "dataset.rebuild": f"{dataset.name}/{dataset.version}"}
    given |= {f"corpus.{path}": value for path, value in values.items() if value != usual.get(path)}
    for path, value in given.items():
        words += ["--set", _assignment(path, value)]
    return shlex.join(words)


def values_of(settings: Settings, given: bool, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and JSON values of all settings, or of those that were given explicitly."""
    dumped = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if given and name not in settings.model_fields_set:
            continue
        if isinstance(value, Settings) and isinstance(field.get_default(call_default_factory=True), Settings):
            yield from values_of(value, given, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", dumped[name]


def stored_values(like: Settings, values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The same of settings in a manifest, which leaves operational ones out; `like` says where to descend."""
    for name, value in values.items():
        inner = getattr(like, name, None)
        if isinstance(inner, Settings) and isinstance(value, Mapping):
            yield from stored_values(inner, value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _filter(values: Mapping[str, Any]) -> FilterSettings:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        if path.startswith(_FILTER):
            tree = merged(tree, nested(path.removeprefix(_FILTER), value))
    try:
        return FilterSettings.model_validate(tree)
    except ValidationError as error:
        raise _unlike(explain(FilterSettings, error)) from error


def _unlike(error: BadInput) -> BadInput:
    return BadInput(error.value, "the dataset's filter settings must be those of this version", "Build it anew")


def _assignment(path: str, value: Any) -> str:
    """`path=value` as --set takes it: text plain where it is read back as it is, everything else as JSON."""
    if isinstance(value, str) and assignment(f"{path}={value}")[1] == value:
        return f"{path}={value}"
    return f"{path}={json.dumps(_with_paths(value))}"


def _with_paths(value: Any) -> Any:
    """A value from a manifest, with a word in place of the paths of files that manifests leave out."""
    if isinstance(value, Mapping):
        filled = {name: _with_paths(each) for name, each in value.items()}
        return {"path": _UNKNOWN_PATH, **filled} if "sha256" in filled else filled
    return [_with_paths(each) for each in value] if isinstance(value, list) else value


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _amount(amount: Amount) -> str:
    return f"{amount.documents:,} document{'s' if amount.documents != 1 else ''}, {short(amount.words)} words"


def _change(change: Change) -> str:
    before, after = change.before, change.after
    if before == after:
        return _amount(before)
    difference = after.documents - before.documents
    words = f"{short(before.words)} -> {short(after.words)} words"
    return f"{before.documents:,} -> {after.documents:,} documents ({difference:+,}), {words}"
