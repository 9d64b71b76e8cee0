"""Where signed documents stand, new ones and those of earlier datasets, and how to look some of them up by ref."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from infra.manifest import StageManifest
from infra.store import Store
from tasks.duplicates.signatures import OLD, SIGNED, ref_parts, ref_segments, segment_bits
from tasks.sorted_runs import take_keys


@dataclass(frozen=True)
class Shards:
    """The files of a stage of `count` shards; small, so that every task can carry it."""

    folder: str
    count: int

    @classmethod
    def of(cls, manifest: StageManifest) -> "Shards":
        """The files of a finished stage."""
        return cls(manifest.folder, len(manifest.shards))

    def path(self, part: int, output: str = "") -> str:
        """The kept file of a shard, or that of another output."""
        return f"{self.folder}/{f'{output}/' if output else ''}part-{part:05d}-of-{self.count:05d}.arrow"

    def paths(self, output: str = "") -> list[str]:
        """The files of all shards."""
        return [self.path(part, output) for part in range(self.count)]


@dataclass(frozen=True)
class Segment:
    """The documents of one earlier dataset, in the layout of the signatures stage."""

    dataset: str
    version: str
    shards: Shards

    @property
    def name(self) -> str:
        """NAME/VERSION."""
        return f"{self.dataset}/{self.version}"


@dataclass(frozen=True)
class Library:
    """All documents that can be looked up: the new ones and the segments of the index."""

    new: Shards
    old: tuple[Segment, ...] = ()

    def take(self, store: Store, refs: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Some columns of SIGNED for sorted distinct refs, in their order."""
        files = ref_segments(refs) * (1 << 20) + ref_parts(refs).astype(np.int64)
        starts = np.flatnonzero(np.diff(files, prepend=-1 << 62))
        found = [SIGNED.empty_table().select(list(columns))]
        for start, stop in pairwise([*starts.tolist(), len(refs)]):
            segment, part = int(ref_segments(refs[start : start + 1])[0]), int(ref_parts(refs[start : start + 1])[0])
            shards, bits = (
                (self.new, np.uint64(0)) if segment < 0 else (self.old[segment].shards, segment_bits(segment))
            )
            found.append(take_keys(store, shards.path(part), refs[start:stop] ^ bits, columns, "ref"))
        return pa.concat_tables(found)


def is_old(refs: np.ndarray) -> np.ndarray:
    """Which refs are of earlier datasets."""
    return refs >= np.uint64(OLD)
