"""`gristmill export` and `gristmill import`: models to transformers and from there."""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from flows.runs import find_run
from infra.exported_tokenizer import check_ids, tokenizer_files
from infra.manifest import DatasetManifest
from infra.settings import Settings, flatten
from infra.store import Store
from infra.vocabulary import load_vocabulary
from model.interchange.export import ExportSettings, export_checkpoint
from model.interchange.imported import ImportedModel, import_model
from model.run import open_run_folder, step_name

_CHECKED_DOCUMENTS = 1000


class Export(Settings):
    """What `gristmill export` has written."""

    folder: str
    run: str
    """Folder of the run, relative to the root."""
    step: int
    bytes: int
    """Of all files."""
    checked: int
    """Held-out documents whose ids were compared between training's tokenizer and the exported one."""
    different: int
    """Of these, those with other ids; see infra.fast_tokenizer for how that can be."""

    def text(self) -> str:
        """The same for people."""
        return (
            f"step {self.step:,} of {self.run}: {self.bytes:,} bytes\n"
            f"ids of {self.checked:,} held-out documents compared, {self.different} differ\n"
            f"Model    {self.folder}"
        )


class Import(Settings):
    """What `gristmill import` has taken in."""

    imported: ImportedModel
    folder: str

    def text(self) -> str:
        """Where it is, and the settings with which a training goes on from it."""
        model = self.imported
        changed = model.model.model_dump(mode="json", exclude_defaults=True)
        whole = {name: value for name, value in model.model.model_dump(mode="json").items() if name in changed}
        settings = {f"training.model.{name}": value for name, value in flatten(whole).items()}
        settings |= {"training.start_from": model.folder, "corpus.tokenizer.path": self.tokenizer}
        lines = [f"{self.folder}: {len(model.tensors)} tensors, {model.rows:,} rows in the embedding"]
        return "\n".join(
            [*lines, "Settings to go on from it:", *(f"  --set {k}={_value(v)}" for k, v in settings.items())]
        )

    @property
    def tokenizer(self) -> str:
        """Path of its tokenizer."""
        return f"{self.folder}/{Path(self.imported.tokenizer_path).name}"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def export_run(store: Store, run: str, out: Path | None = None, settings: ExportSettings | None = None) -> Export:
    """Write a run's checkpoint for transformers, by default into `exports/` under the root.

    `run` is a run's name, or its folder if the name has several. Raises what
    `model.interchange.export` and `check_ids` raise.
    """
    settings = settings or ExportSettings()
    folder = find_run(store, run)
    _, record, dataset = open_run_folder(folder)
    written = out or store.local_path(f"exports/{record.name}/{folder.name}{_suffix(settings)}")
    tokenizer, texts = dataset.tokenizer, _heldout_texts(store, dataset)
    data = store.read_bytes(tokenizer.path)
    content = tokenizer_files(data, tokenizer, record.training.model.sequence_length)["tokenizer.json"]
    different = check_ids(data, tokenizer, content, texts)
    provenance = export_checkpoint(store, record, dataset, written, settings)
    return Export(
        folder=str(written.absolute()),
        run=record.folder,
        step=provenance.step,
        bytes=sum(path.stat().st_size for path in written.iterdir()),
        checked=len(texts),
        different=different,
    )


def _suffix(settings: ExportSettings) -> str:
    step = "" if settings.step is None else f"-{step_name(settings.step)}"
    return step + ("" if settings.dtype is None else f"-{settings.dtype}")


def _heldout_texts(store: Store, dataset: DatasetManifest) -> Sequence[str]:
    """The first held-out documents, as their tokens spell them."""
    vocabulary = load_vocabulary(store, dataset.tokenizer)
    tokens = (
        document.values.to_numpy()
        for shard in dataset.split("heldout")
        for document in store.read_table(shard.path, ["tokens"])["tokens"]
    )
    return [vocabulary.decode(ids) for ids in islice(tokens, _CHECKED_DOCUMENTS)]


def import_folder(store: Store, folder: Path, name: str, sequence_length: int | None = None) -> Import:
    """Take in a checkpoint of transformers to go on training from; BadInput for what cannot be trained on."""
    imported = import_model(store, folder, name, sequence_length)
    return Import(imported=imported, folder=str(store.local_path(imported.folder).absolute()))
