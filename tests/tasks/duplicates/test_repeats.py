import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from infra.cluster import open_cluster
from infra.environment import Environment
from infra.schema import DOCUMENTS
from infra.store import Store
from tasks.duplicates.repeats import RepeatSettings, cut_units, levelled, places, repeats, window_hashes
from tasks.stage import Split, Stage, StageRunner, conform
from tests.tasks.documents import prose, tree

BANNER = "Subscribe to our newsletter for weekly news!"


def rows(texts: list[str], shard: int = 0) -> pa.Table:
    ids = [f"{shard}-{number}" for number in range(len(texts))]
    fixed = {"source": ["s"] * len(texts), "file": ["f"] * len(texts), "offset": list(range(len(texts)))}
    columns = {"id": ids, "text": texts, **fixed}
    arrays = {name: pa.array(values, DOCUMENTS.field(name).type) for name, values in columns.items()}
    return conform(arrays, len(texts), DOCUMENTS)


SHARDS = {
    "a": rows([f"{prose()[0]}\n{BANNER}", f"{BANNER}\n{prose()[1]}"], 0),
    "b": rows([f"{prose()[2]}\n\nsubscribe to our  newsletter for weekly news\n\n{prose()[3]}", BANNER], 1),
}


def shard(_: Store, source: str, settings: RepeatSettings):
    yield Split(SHARDS[source])


def chain(root: Path, settings: RepeatSettings, workers: int = 1):
    store = Store(str(root))
    with open_cluster(Environment(workers=workers)) as cluster:
        runner = StageRunner(store, cluster)
        parent = runner.run(Stage("documents", 1), shard, ["a", "b"], RepeatSettings(), {})
        found = repeats(runner, parent, settings)
    return store, found


def test_a_line_that_many_documents_share_stays_in_the_first_alone(tmp_path: Path) -> None:
    store, found = chain(tmp_path, RepeatSettings(units=("line",)))
    kept = pa.concat_tables([store.read_table(path) for path in found[-1].kept_paths])
    dropped = pa.concat_tables([store.read_table(f"{found[-1].folder}/{s.dropped.path}") for s in found[-1].shards])
    assert [("ubscribe" in text) for text in kept["text"].to_pylist()] == [True, False, False]
    assert kept["text"][1].as_py() == prose()[1]
    assert dropped.select(["id", "reason", "value"]).to_pylist() == [
        {"id": "1-1", "reason": "mostly_repeated", "value": 1.0}
    ]
    assert dropped["text"].to_pylist() == [BANNER]  # as it was before the cut
    assert found[-1].total("counters")["removed_units"] == 3


def test_two_documents_are_too_few(tmp_path: Path) -> None:
    _, found = chain(tmp_path, RepeatSettings(units=("line",), min_documents=5))
    assert found[-1].total("counters") == {"removed_units": 0, "removed_characters": 0, "trimmed_documents": 0}


def test_bytes_depend_neither_on_workers_nor_on_ranges(tmp_path: Path) -> None:
    settings = RepeatSettings(units=("line", "paragraph", "span"), min_documents=2, span_words=10, span_stride=2)
    chain(tmp_path / "one", settings)
    chain(tmp_path / "two", settings.model_copy(update={"range_bytes": 1 << 16}), workers=2)
    one, two = (
        {path: digest for path, digest in tree(tmp_path / name).items() if path.startswith("stages/trim")}
        for name in ("one", "two")
    )
    assert one == two


@pytest.mark.parametrize(
    ("text", "expected"),
    [("  Crème   BRÛLÉE, for 12!", "creme brulee for 00"), ("—", ""), ("\uff12\uff10", "00")],
)
def test_levelling(text: str, expected: str) -> None:
    assert levelled(text) == expected


def test_a_shared_passage_is_cut_wherever_it_stands() -> None:
    passage = " ".join(prose()[4].split()[:60])
    settings = RepeatSettings(units=("span",), span_words=20, span_stride=1)
    shared = {place.key for place in places(passage, settings)}
    left, count = cut_units(f"{prose()[5]}\n{passage}\n{prose()[6]}", shared, settings)
    assert re.findall(r"\w+", left) == re.findall(r"\w+", f"{prose()[5]} {prose()[6]}")
    assert count == len(re.findall(r"\w+", passage)) - 20 + 1


def test_sampled_windows_of_a_passage_are_the_same_in_every_context() -> None:
    settings = RepeatSettings(units=("span",), span_words=20, span_stride=4)
    alone = {place.key for place in places(prose()[4], settings)}
    within = {place.key for place in places(f"{prose()[5]} {prose()[4]} {prose()[6]}", settings)}
    assert alone
    assert alone <= within


def test_window_hashes_tell_windows_apart() -> None:
    words = np.random.default_rng(1).integers(0, 1 << 63, 500, dtype=np.uint64)
    hashes = window_hashes(np.concatenate([words, words]), 7)
    assert np.array_equal(hashes[:494], hashes[500:994])
    assert len(np.unique(hashes[:500])) == 500


def test_paragraphs_and_lines_have_their_places() -> None:
    text = "The first line of it all\nand the second line of it\n\n\nAnother paragraph follows here"
    settings = RepeatSettings(units=("paragraph",))
    assert [text[p.start : p.end] for p in places(text, settings)] == [text[:50], text[53:]]
    settings = RepeatSettings(units=("line",))
    assert [text[p.start : p.end] for p in places(text, settings)] == [each for each in text.split("\n") if each]
