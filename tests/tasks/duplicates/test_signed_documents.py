"""Looking signed documents up by ref, across shards and earlier datasets."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from infra.store import Store
from tasks.duplicates.signatures import SIGNED, SignatureSettings, refs_at, segment_bits, sign_batch
from tasks.duplicates.signed_documents import Library, Segment, Shards, is_old
from tests.tasks.documents import documents


def write(store: Store, shards: Shards, name: str) -> None:
    for part in range(shards.count):
        table = documents([{"id": f"{name}{part}{row}", "text": f"{name} {part} {row}"} for row in range(600)])
        refs = refs_at(np.full(600, part), np.arange(600))
        signed, _ = sign_batch(table, refs, SignatureSettings())
        with store.create(shards.path(part)) as out, ipc.new_file(cast("Any", out), SIGNED) as writer:
            writer.write_table(signed, 100)


def test_rows_come_in_the_order_of_their_refs(tmp_path: Path) -> None:
    store, new, old = Store(str(tmp_path)), Shards("new", 3), Shards("old", 2)
    write(store, new, "n")
    write(store, old, "o")
    library = Library(new, (Segment("a", "1", old), Segment("b", "2", old)))
    refs = refs_at(np.array([0, 0, 2, 2]), np.array([0, 599, 7, 8]))
    earlier = refs_at(np.array([0, 1]), np.array([3, 4])) | segment_bits(1)
    table = library.take(store, np.concatenate([refs, earlier]), ["id", "words"])
    assert table["id"].to_pylist() == ["n00", "n0599", "n27", "n28", "o03", "o14"]
    assert table["words"].to_pylist() == [3] * 6
    assert is_old(np.concatenate([refs, earlier])).tolist() == [False] * 4 + [True] * 2
    assert library.take(store, refs[:0], ["id"]).schema == pa.schema([SIGNED.field("id")])
    assert [each.name for each in library.old] == ["a/1", "b/2"]
