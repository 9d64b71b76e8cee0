"""Datasets: a name and a version for people, over the content-addressed stages that hold the bytes."""

from datetime import UTC, datetime
from typing import Any

from infra.errors import BadInput
from infra.manifest import (
    DatasetManifest,
    StageManifest,
    TokenizerRecord,
    TokenShard,
    dataset_folder,
    dataset_versions,
    fingerprint,
    newest_version,
)
from infra.settings import flatten
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.tokens.tokenization import TOKENIZATION

_READ = ("source", "collections")
"""Settings of what was read."""


class NothingLeft(BadInput):
    """So little is left of a source that a split of its dataset would have no document."""


def publish(
    store: Store,
    name: str,
    version: str | None,
    settings: CorpusSettings,
    stages: list[StageManifest],
    tokenizer: TokenizerRecord,
    origin: DatasetManifest | None = None,
) -> DatasetManifest:
    """Write the manifest of a dataset, or find the version that already has this content.

    Without a version it is named by today's date, as the newest: with a suffix if today's is another dataset, behind a
    newest one that would come after it. The `origin` is the dataset whose measured documents were taken instead of a
    source. BadInput if the given version exists with other content, naming the settings that differ; NothingLeft if no
    document is left for a split.
    """
    shards = token_shards(next(stage for stage in stages if stage.stage == TOKENIZATION.name))
    draft = DatasetManifest(
        name=name,
        version="",
        fingerprint=fingerprint(tokenizer=tokenizer.sha256, shards=[[each.split, each.sha256] for each in shards]),
        stages={stage.stage: stage.fingerprint for stage in stages},
        settings=settings.identity() | _read(origin),
        tokenizer=tokenizer,
        shards=tuple(shards),
    )
    _require_tokens(draft)
    for existing in _versions(store, name):
        if existing.fingerprint == draft.fingerprint and version in (None, existing.version):
            return existing
        if existing.version == version:
            raise BadInput(
                f"dataset {name}/{version} exists with other content ({_differences(existing, draft)})",
                "a published version never changes",
                "Choose another dataset.version, or leave it out to take today's date",
            )
    manifest = draft.model_copy(update={"version": version or _new_version(store, name)})
    manifest.save(store, f"{manifest.folder}/manifest.json")
    return manifest


def _read(origin: DatasetManifest | None) -> dict[str, Any]:
    """What had been read for another dataset, where its documents were taken."""
    return {} if origin is None else {name: origin.settings[name] for name in _READ if name in origin.settings}


def token_shards(tokenized: StageManifest) -> list[TokenShard]:
    """The token files of a finished tokenization stage, training first; empty files are left out."""
    shards = []
    for split in ("train", "heldout"):
        for record in tokenized.shards:
            file = record.kept if split == "train" else record.others["heldout"]
            if file.rows:
                shards.append(
                    TokenShard(
                        path=f"{tokenized.folder}/{file.path}",
                        split=split,
                        documents=file.rows,
                        tokens=record.counters[f"tokens_{split}"],
                        text_bytes=record.counters[f"text_bytes_{split}"],
                        bytes=file.bytes,
                        sha256=file.sha256,
                    )
                )
    return shards


def _versions(store: Store, name: str) -> list[DatasetManifest]:
    paths = [f"{dataset_folder(name, version)}/manifest.json" for version in store.names(f"datasets/{name}")]
    return [DatasetManifest.load(store, path) for path in paths if store.exists(path)]


def _new_version(store: Store, name: str) -> str:
    today, names = datetime.now(UTC).strftime("%Y.%m.%d"), dataset_versions(store, name)
    same = sum(today in each for each in names)
    return newest_version(f"{today}-{same + 1}" if same else today, names)


def _require_tokens(draft: DatasetManifest) -> None:
    for split in ("train", "heldout"):
        if not draft.split(split):
            few = split == "train" or draft.settings["heldout"]["fraction"] > 0
            raise (NothingLeft if few else BadInput)(
                f"dataset {draft.name}: no document is left in the {split} split",
                "training and evaluation need one at least",
                "Fetch more shards, loosen the filters, or change heldout.fraction",
            )


def _differences(existing: DatasetManifest, draft: DatasetManifest) -> str:
    """The settings in which two datasets differ, or that their input did."""
    old, new = flatten(existing.settings), flatten(draft.settings)
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return (
        "; ".join(f"{name}: {old.get(name)!r} -> {new.get(name)!r}" for name in names) or "same settings, other input"
    )
