"""Manifests: the small JSON files that say what is done, and are written last.

A *fingerprint* names work before it is done: stage, version, settings, library versions and the digests of its
parents. A *digest* names a result: the content hashes of what was written. A stage lives in a folder that bears its
fingerprint; its children build on its digest, so that they are made again exactly when its bytes change.

Manifests hold nothing that differs between two runs of the same work. Times and machines go into `Telemetry` beside
them.
"""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version as library_version
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from infra.errors import BadInput, DamagedData
from infra.settings import Settings
from infra.store import Store

FINGERPRINT_DIGITS = 12


def canonical_json(value: Any) -> bytes:
    """JSON with one spelling for each value; TypeError for what JSON cannot express."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def fingerprint(**parts: Any) -> str:
    """Short hash of named JSON values, equal whenever the values are equal."""
    return hashlib.sha256(canonical_json(parts)).hexdigest()[:FINGERPRINT_DIGITS]


def library_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of the libraries whose behaviour decides a stage's bytes."""
    return {name: library_version(name) for name in names}


class Manifest(Settings):
    """A JSON document that is read and written whole."""

    def save(self, store: Store, path: str) -> None:
        """Write durably; the file's existence means that what it describes is complete."""
        store.write_bytes(path, self.model_dump_json(indent=1).encode() + b"\n")

    @classmethod
    def load(cls, store: Store, path: str) -> Self:
        """Read back; FileNotFoundError if absent, DamagedData if it does not parse."""
        try:
            return cls.model_validate_json(store.read_bytes(path))
        except ValidationError as error:
            raise DamagedData(
                f"{store.full_path(path)} is not a {cls.__name__} ({error.errors()[0]['msg']})",
                "manifests are written whole by the version that reads them",
                "Remove the file and run again to make it anew",
            ) from error


class FileRecord(Settings):
    """One file: path relative to its stage's folder, rows, size and content hash."""

    path: str
    rows: int
    bytes: int
    sha256: str


class ShardRecord(Manifest):
    """What one shard function committed; its existence means that the shard is done."""

    index: int
    """Position of the shard in the stage."""
    source: str
    """What the shard was made from: a WARC path, or a file of the parent stage."""
    rows_in: int
    """Documents or records that entered."""
    kept: FileRecord
    """Documents that go on."""
    dropped: FileRecord
    """Documents that stop here, each with its reason."""
    others: dict[str, FileRecord] = Field(default_factory=dict)
    """Further outputs by name: records that could not be read, documents held out."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """Dropped documents by reason code."""
    quarantined: dict[str, int] = Field(default_factory=dict)
    """Records that could not be read, by reason code."""
    counters: dict[str, int] = Field(default_factory=dict)
    """Other counts that the stage keeps, such as redactions by kind."""
    incomplete: bool = False
    """The shard's source could not be read to its end for a reason that may pass; a rerun tries it again."""


class StageManifest(Manifest):
    """A finished stage."""

    stage: str
    version: int
    fingerprint: str
    settings: dict[str, Any]
    libraries: dict[str, str]
    parents: dict[str, str]
    """Digests of the inputs by name."""
    shards: tuple[ShardRecord, ...]
    digest: str
    """Hash over the content of every shard."""

    @property
    def folder(self) -> str:
        """Folder of the stage, relative to the root."""
        return stage_folder(self.stage, self.fingerprint)

    @property
    def rows_in(self) -> int:
        """Documents or records that entered."""
        return sum(shard.rows_in for shard in self.shards)

    @property
    def kept(self) -> int:
        """Documents that went on, held-out ones included."""
        return sum(shard.kept.rows for shard in self.shards) + self.rows_of("heldout")

    @property
    def kept_paths(self) -> list[str]:
        """The kept files, relative to the root: what the next stage reads."""
        return [f"{self.folder}/{shard.kept.path}" for shard in self.shards]

    def rows_of(self, output: str) -> int:
        """Rows of one of the further outputs."""
        return sum(shard.others[output].rows for shard in self.shards if output in shard.others)

    def total(self, field: Literal["reasons", "quarantined", "counters"]) -> dict[str, int]:
        """Counts summed over shards, largest first."""
        totals: dict[str, int] = {}
        for shard in self.shards:
            for key, count in getattr(shard, field).items():
                totals[key] = totals.get(key, 0) + count
        return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


class Telemetry(Manifest):
    """How a stage ran: true of one run only, so kept out of the manifest."""

    seconds: float
    """Wall time of the run that completed the stage."""
    shards_reused: int
    """Shards that an earlier, interrupted run had finished."""
    workers: int
    peak_worker_bytes: int
    """Largest resident set that any worker process had had, in this or an earlier stage, when it ended a shard."""
    finished_at: str
    counts: dict[str, int] = Field(default_factory=dict)
    """What shards counted that is true of one run only, such as refused requests; `cpu_ms` is the processor time of
    workers and of the children that they ended."""


class TokenizerRecord(Settings):
    """The tokenizer of a dataset."""

    path: str
    """The tokenizer's file as it was learned or given, relative to the root."""
    sha256: str
    vocabulary_size: int
    """One more than the largest id."""
    end_of_document: int
    pad: int | None
    """Id of the padding token; None if the tokenizer has none: training masks what is padded and needs none."""
    kind: Literal["sentencepiece", "huggingface", "tiktoken"] = "sentencepiece"
    """Format of the file: a sentencepiece model, a tokenizer.json, or ranks as tiktoken reads them."""
    pattern: str | None = None
    """How tiktoken cuts text into words, a regular expression; the other formats hold it in their files."""
    control: dict[str, int] = Field(default_factory=dict)
    """Tokens that text can never spell, with their ids; without any, those that a sentencepiece model marks as such."""


class TokenShard(Settings):
    """One Arrow IPC file of token lists."""

    path: str
    """Relative to the root."""
    split: Literal["train", "heldout"]
    documents: int
    tokens: int
    text_bytes: int
    bytes: int
    sha256: str


class DatasetManifest(Manifest):
    """An immutable dataset: a name and version for people, a fingerprint of content for machines."""

    name: str
    version: str
    fingerprint: str
    stages: dict[str, str]
    """Fingerprint of each stage, in order."""
    settings: dict[str, Any]
    """Corpus settings that made it."""
    tokenizer: TokenizerRecord
    shards: tuple[TokenShard, ...]

    @property
    def folder(self) -> str:
        """Folder of the dataset, relative to the root."""
        return dataset_folder(self.name, self.version)

    def split(self, split: Literal["train", "heldout"]) -> tuple[TokenShard, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def tokens(self, split: Literal["train", "heldout"]) -> int:
        """Tokens in one split."""
        return sum(shard.tokens for shard in self.split(split))


def stage_folder(stage: str, stage_fingerprint: str) -> str:
    """Folder of a stage, relative to the root."""
    return f"stages/{stage}/{stage_fingerprint}"


def dataset_folder(name: str, version: str) -> str:
    """Folder of a dataset, relative to the root."""
    return f"datasets/{name}/{version}"


def load_dataset(store: Store, name: str, version: str | None = None) -> DatasetManifest:
    """Find a dataset by name, newest version unless one is given; BadInput names what there is instead."""
    versions = dataset_versions(store, name)
    chosen = version or next(reversed(versions), None)
    if chosen is None or chosen not in versions:
        known = [f"{each}/{v}" for each in store.names("datasets") for v in dataset_versions(store, each)]
        raise BadInput(
            f"dataset {name}/{version or 'newest'}",
            f"a dataset must exist under {store.full_path('datasets')}; known: {', '.join(known) or 'none'}",
            "Build one with `gristmill corpus`, or name one that exists",
        )
    return DatasetManifest.load(store, f"{dataset_folder(name, chosen)}/manifest.json")


def dataset_versions(store: Store, name: str) -> list[str]:
    """Versions of a dataset, oldest first, whose manifest is there: a folder without one was left by a killed run."""
    versions = store.names(f"datasets/{name}")
    published = [each for each in versions if store.exists(f"{dataset_folder(name, each)}/manifest.json")]
    return sorted(published, key=version_key)


def newest_version(version: str, names: Sequence[str]) -> str:
    """A name for what is to be the newest version: beside 2026.42 another's 2026.11.23 is 2026.42-2026.11.23.

    `names` are those of all versions, oldest first.
    """
    if not names:
        return version
    for candidate in (version, f"{names[-1].split('-')[0]}-{version}"):
        if version_key(candidate) > version_key(names[-1]):
            return candidate
    return f"{names[-1]}-{version}"


def version_key(version: str) -> tuple[tuple[int, str], ...]:
    """Order 2026.11.9 before 2026.11.22 and 2026.11.22-2 before 2026.11.22-10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in version.replace("-", ".").split("."))
