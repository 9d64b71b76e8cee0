"""The documents that a dataset's training tokens were made of, as text.

A dataset's tokens are made of the kept documents of the stage before tokenization, of which it holds some out. The
text is there for as long as that stage's files are.
"""

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute

from infra.manifest import DatasetManifest, StageManifest, stage_folder
from infra.store import Store
from tasks.heldout import HeldoutSettings, is_heldout
from tasks.stage import finished_stage, texts
from tasks.tokens.mix import COPY_MARK
from tasks.tokens.tokenization import TOKENIZATION

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them


class TrainingDocuments(NamedTuple):
    """Where a dataset's documents stand, and which of them were held out."""

    stage: StageManifest
    heldout: HeldoutSettings


def training_documents(store: Store, dataset: DatasetManifest) -> TrainingDocuments | None:
    """The stage that tokenization read; None where it is gone or the dataset was not made of documents."""
    tokenized = _stage(store, dataset, TOKENIZATION.name)
    if tokenized is None:
        return None
    (parent,) = tokenized.parents
    source = _stage(store, dataset, parent)
    if source is None or source.digest != tokenized.parents[parent]:
        return None
    if finished_stage(store, f"{source.folder}/manifest.json") is None:
        return None
    return TrainingDocuments(source, HeldoutSettings.model_validate(tokenized.settings["heldout"]))


def _stage(store: Store, dataset: DatasetManifest, name: str) -> StageManifest | None:
    if name not in dataset.stages:
        return None
    path = f"{stage_folder(name, dataset.stages[name])}/manifest.json"
    return StageManifest.load(store, path) if store.exists(path) else None


def trained_on(table: pa.Table, heldout: HeldoutSettings) -> pa.Table:
    """Documents that were not held out, each once however many copies a mixture made of it."""
    originals = table.filter(pc.invert(pc.match_substring(table["id"], COPY_MARK)))
    return originals.filter(pa.array([not is_heldout(text, heldout) for text in texts(originals)], pa.bool_()))
