"""`gristmill copy`: a dataset from one root to another, such as from an object store to the disk of who trains on it.

Training and evaluation map token shards into memory, so they need a folder of this machine. What they read is copied:
tokens, the tokenizer, and the ledger, which knows of each held-out document where it is from. The dataset's manifest
comes last; a copy that was interrupted goes on where it stopped.
"""

import logging
from collections.abc import Iterator

from infra.errors import BadInput, DamagedData
from infra.manifest import DatasetManifest, load_dataset, stage_folder
from infra.settings import Settings
from infra.store import TEMPORARY_SUFFIX, Store, StoredFile

logger = logging.getLogger(__name__)
_READ = {"tokenization": False, "tokenizer": False, "ledger": True}
"""Stages that training and evaluation read, and whether their files are for their owner alone."""


class Copied(Settings):
    """What `gristmill copy` did."""

    dataset: str
    root: str
    files: int
    """Files that were copied."""
    bytes: int
    """Bytes that were copied."""
    present: int
    """Files that were there already."""

    def text(self) -> str:
        """For people."""
        there = f", {self.present:,} files were there" if self.present else ""
        return f"{self.dataset}: {self.files:,} files, {self.bytes:,} bytes copied to {self.root}{there}"


def copy_dataset(source: Store, target: Store, name: str, version: str | None = None) -> Copied:
    """Copy a dataset, its newest version unless one is given, and compare digests.

    BadInput if the dataset is not there, or the target has another one of its name; DamagedData if a file is not what
    the dataset's manifest says.
    """
    dataset = load_dataset(source, name, version)
    manifest = f"{dataset.folder}/manifest.json"
    _refuse_another(target, manifest, dataset)
    digests = {shard.path: shard.sha256 for shard in dataset.shards} | {
        dataset.tokenizer.path: dataset.tokenizer.sha256
    }
    files = size = present = 0
    for file, private in _files(source, dataset):
        wanted = digests.pop(file.path, None)
        if _is_there(target, file, wanted):
            present += 1
            continue
        _copy(source, target, file, wanted, private)
        files, size = files + 1, size + file.bytes
    if digests:
        raise DamagedData(
            f"{source.full_path(min(digests))} is missing",
            "every file of a dataset's manifest is below its root",
            "Restore the file, or build the dataset again",
        )
    target.write_bytes(manifest, source.read_bytes(manifest))
    title = f"{dataset.name}/{dataset.version}"
    return Copied(dataset=title, root=target.full_path(""), files=files, bytes=size, present=present)


def _refuse_another(target: Store, manifest: str, dataset: DatasetManifest) -> None:
    if target.exists(manifest) and DatasetManifest.load(target, manifest).fingerprint != dataset.fingerprint:
        raise BadInput(
            f"{target.full_path(manifest)} is another dataset of the same name and version",
            "a published version never changes",
            "Choose another --root, or remove it there",
        )


def _files(source: Store, dataset: DatasetManifest) -> Iterator[tuple[StoredFile, bool]]:
    """Files of the stages that are wanted, manifests after what they speak of; and whether each is private."""
    stages = {stage_folder(name, dataset.stages[name]): _READ[name] for name in _READ if name in dataset.stages}
    folders = {path.rpartition("/")[0]: False for path in (dataset.tokenizer.path, *(s.path for s in dataset.shards))}
    # Token shards may lie in folders of their stage; a tokenizer that was given is in one of its own.
    own = {
        folder: private
        for folder, private in folders.items()
        if not any(f"{folder}/".startswith(f"{stage}/") for stage in stages)
    }
    for folder, private in {**stages, **own}.items():
        for file in sorted(source.files(folder), key=lambda each: (each.path.endswith("manifest.json"), each.path)):
            if not file.path.endswith(TEMPORARY_SUFFIX):
                yield file, private


def _is_there(target: Store, file: StoredFile, digest: str | None) -> bool:
    if not target.exists(file.path) or target.size(file.path) != file.bytes:
        return False
    return digest is None or target.sha256(file.path) == digest


def _copy(source: Store, target: Store, file: StoredFile, digest: str | None, private: bool) -> None:
    with target.create(file.path, private) as out:
        for block in source.blocks(file.path):
            out.write(block)
        if digest not in (None, out.sha256):
            raise DamagedData(
                f"{source.full_path(file.path)} has SHA-256 {out.sha256} instead of {digest}",
                "a file is what the dataset's manifest says of it",
                "Restore the file, or build the dataset again",
            )
    logger.info("%s: %s bytes", file.path, f"{file.bytes:,}")
