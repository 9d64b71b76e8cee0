"""A model's answers on disk as they come, so that an evaluation that was killed goes on where it stopped.

    answers/<SHA-256>.json      the answers of one group of requests by their digests, named by its own digest

A group is asked whole or not at all, and its file is whole or absent. A file that is not what its name says is left
out with a warning, and its group is asked again.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from infra.store import Store

logger = logging.getLogger(__name__)


class Answers:
    """Answers by the digest of what was asked of one checkpoint."""

    def __init__(self, store: Store | None = None, folder: str = "") -> None:
        """Read what is in a folder; without a store, answers live as long as this object."""
        self._store, self._folder = store, folder
        self._known: dict[str, Any] = {}
        if store is not None:
            store.remove_temporary(folder)
            for name in store.names(folder):
                self._read(store, name)

    def _read(self, store: Store, name: str) -> None:
        path = f"{self._folder}/{name}"
        data = store.read_bytes(path)
        if name == f"{hashlib.sha256(data).hexdigest()}.json":
            self._known |= json.loads(data)
        else:
            logger.warning("%s is damaged: its answers are asked for again", store.full_path(path))
            store.remove(path)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, digest: str) -> bool:
        return digest in self._known

    def __getitem__(self, digest: str) -> Any:
        return self._known[digest]

    def add(self, answers: Mapping[str, Any]) -> None:
        """Keep the answers of a group, which JSON can hold, and write them whole."""
        self._known |= answers
        if self._store is not None:
            data = json.dumps(answers, separators=(",", ":")).encode()
            self._store.write_bytes(f"{self._folder}/{hashlib.sha256(data).hexdigest()}.json", data)


def request_digest(kind: str, *tokens: Sequence[int], **settings: Any) -> str:
    """Digest of a request: its kind, its sequences of tokens, and settings that JSON can hold."""
    digest = hashlib.blake2b(json.dumps([kind, settings], sort_keys=True).encode(), digest_size=16)
    for sequence in tokens:
        digest.update(len(sequence).to_bytes(8, "little"))
        digest.update(np.array(sequence, np.uint32).tobytes())
    return digest.hexdigest()
