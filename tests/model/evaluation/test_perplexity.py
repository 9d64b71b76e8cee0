"""Figures of held-out text: their definitions, by group, with intervals, in whatever language."""

import logging
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from infra.manifest import DatasetManifest, FileRecord, ShardRecord, StageManifest, TokenShard, stage_folder
from infra.schema import tokens_schema
from infra.store import Store
from infra.vocabulary import load_vocabulary
from model.data.documents import Documents
from model.evaluation.groups import MOST_HOSTS, host_of, members, rows_by_name, with_most_tokens
from model.evaluation.heldout import DocumentNats, HeldOut, choose
from model.evaluation.perplexity import HeldOutLikelihood, held_out_likelihood
from model.findings.records import SCORES
from model.settings.benchmarks import BenchmarkSettings
from tests.model.small_runs import real_documents

SETTINGS = BenchmarkSettings(bootstrap_draws=200)


def likelihood(nats, tokens, words, text_bytes, every_token=True, **groups) -> HeldOutLikelihood:
    members = {"all": range(len(nats)), **{name.replace("_", "="): rows for name, rows in groups.items()}}
    return HeldOutLikelihood(
        nats=np.array(nats, float),
        tokens=np.array(tokens),
        words=np.array(words),
        text_bytes=np.array(text_bytes),
        members={name: np.array(rows) for name, rows in members.items()},
        every_token=every_token,
    )


def test_figures_are_what_their_names_say() -> None:
    found = likelihood([20, 30, 60], [10, 10, 20], [5, 6, 14], [40, 50, 80], language_en=[0, 2], language_fr=[1])
    everything, english, french = found.groups(SETTINGS)
    assert (everything.group, everything.documents, everything.tokens) == ("all", 3, 40)
    assert (everything.words, everything.text_bytes) == (25, 170)
    expected = {
        "loss": 110 / 40,
        "perplexity": math.exp(110 / 40),
        "word_perplexity": math.exp(110 / 25),
        "byte_perplexity": math.exp(110 / 170),
        "bits_per_byte": 110 / 170 / math.log(2),
    }
    assert {name: each.value for name, each in everything.metrics.items()} == pytest.approx(expected)
    for each in everything.metrics.values():
        assert each.low is not None
        assert each.high is not None
        assert each.low < each.value < each.high
    assert (english.group, english.documents, english.words, english.text_bytes) == ("language=en", 2, 19, 120)
    assert english.metrics["loss"].value == pytest.approx(80 / 30)
    assert french.metrics["loss"].value == pytest.approx(3)
    assert french.metrics["loss"].high is None, "a single document says nothing of others"


def test_scores_give_the_figures_of_each_group() -> None:
    found = likelihood([20, 30, 60], [10, 10, 20], [5, 6, 14], [40, 50, 80], language_en=[0, 2])
    scores = found.scores()
    assert scores.schema == SCORES
    assert scores.num_rows == 5 * (3 + 2)
    for group in found.groups(SETTINGS):
        for metric, given in group.metrics.items():
            rows = scores.filter((pc.field("task") == f"heldout/{group.group}") & (pc.field("metric") == metric))
            ratio = sum(rows["value"].to_pylist()) / sum(rows["weight"].to_pylist())
            assert given.value == pytest.approx(math.exp(ratio) if "perplexity" in metric else ratio)
            assert rows["item"].to_pylist() == ([0, 1, 2] if group.group == "all" else [0, 2])


def test_text_without_spaces_or_words_has_no_word_perplexity() -> None:
    found = likelihood([900, 800, 300, 1], [200, 150, 90, 1], [1, 2, 90, 0], [600, 480, 400, 2], a=[0, 1], b=[3])
    everything, chinese, blank = found.groups(SETTINGS)
    assert everything.metrics["word_perplexity"].value == pytest.approx(math.exp(2001 / 93))
    assert everything.metrics["word_perplexity"].high is None, "there are draws of Chinese alone"
    for group in (chinese, blank):
        assert set(group.metrics) == {"loss", "perplexity", "byte_perplexity", "bits_per_byte"}
    for each in (*everything.metrics.values(), *chinese.metrics.values()):
        assert all(math.isfinite(value) for value in each.model_dump().values() if value is not None)


def test_what_is_masked_has_a_loss_but_no_likelihood() -> None:
    found = likelihood(
        [4.0, 0, 6], [2, 0, 2], [5, 2, 14], [40, 5, 80], every_token=False, source_a=[0, 2], source_b=[1]
    )
    everything, a = found.groups(SETTINGS)
    assert set(everything.metrics) == set(a.metrics) == {"loss", "perplexity"}
    assert (everything.documents, everything.metrics["loss"].value) == (3, 2.5)
    assert set(found.scores()["item"].to_pylist()) == {0, 2}


def write_ledger(store: Store, dataset: DatasetManifest, urls: list[str | None]) -> DatasetManifest:
    """A ledger in other order than the token shard, with a document that was dropped."""
    shard = dataset.split("heldout")[0]
    ids = store.read_table(shard.path)["doc_id"].to_pylist()
    table = pa.table({"url": ["http://dropped.example/", *urls[::-1]], "id": ["dropped", *ids[::-1]]})
    folder = stage_folder("ledger", "0123456789ab")
    path = f"{Path(shard.path).stem}.parquet"
    store.make_folder(folder)
    pq.write_table(table, store.local_path(f"{folder}/{path}"))
    empty = FileRecord(path=path, rows=0, bytes=0, sha256="")
    record = ShardRecord(index=0, source="", rows_in=0, kept=empty, dropped=empty)
    StageManifest(
        **{"stage": "ledger", "version": 1, "fingerprint": "0123456789ab", "settings": {}, "libraries": {}},
        **{"parents": {}, "shards": (record,), "digest": ""},
    ).save(store, f"{folder}/manifest.json")
    return dataset.model_copy(update={"stages": {"ledger": "0123456789ab"}})


def test_documents_are_told_apart_by_what_shards_and_ledger_know(store, dataset, place, caplog) -> None:
    texts = real_documents()[:6]
    vocabulary = load_vocabulary(store, dataset.tokenizer)
    schema = tokens_schema(400, dataset.tokenizer.sha256, 2)
    columns = [
        [str(n) for n in range(6)],
        [np.append(each, 2) for each in vocabulary.encode(texts)],
        [len(text.encode()) for text in texts],
        ["web", "books", "web", "web", "books", "web"],
        ["en", "de", None, "en", "en", "de"],
        [None] * 6,
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    written = store.write_table("groups/heldout/part-0.arrow", pa.Table.from_arrays(arrays, schema=schema))
    shard = TokenShard(
        **{"path": "groups/heldout/part-0.arrow", "split": "heldout", "documents": 6, "tokens": 0, "text_bytes": 0},
        **{"bytes": written.size, "sha256": written.sha256},
    )
    dataset = dataset.model_copy(update={"shards": (shard,)})
    held_out = choose(Documents(store, [shard]), None, 2)
    found = members(store, dataset, held_out, ("language", "source"))
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "all": [0, 1, 2, 3, 4, 5],
        "language=de": [1, 5],
        "language=en": [0, 3, 4],
        "language=und": [2],
        "source=books": [1, 4],
        "source=web": [0, 2, 3, 5],
    }
    with caplog.at_level(logging.WARNING):
        assert list(members(store, dataset, held_out, ("host",))) == ["all"]
    assert "has no ledger of part-0" in caplog.text
    urls = ["http://a.example/1", "https://B.example:8080/", None, "http://[broken", "http://a.example/2", "no address"]
    with_ledger = write_ledger(store, dataset, urls)
    found = members(store, with_ledger, held_out, ("host",))
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "all": [0, 1, 2, 3, 4, 5],
        "host=a.example": [0, 4],
        "host=b.example": [1],
    }
    nats = DocumentNats(held_out.documents.lengths.astype(np.float64), held_out.documents.lengths.astype(np.int64))
    measured = held_out_likelihood(store, with_ledger, held_out, nats, ("host",), place, every_token=True)
    assert measured.words.tolist() == [len(text.split()) for text in texts]
    assert [group.group for group in measured.groups(SETTINGS)] == ["all", "host=a.example", "host=b.example"]
    part = HeldOut(held_out.documents, 2, 2)
    assert {name: len(rows) for name, rows in members(store, dataset, part, ("source",)).items()} == {
        **{"all": 2, "source=books": 1, "source=web": 1},
    }


def test_hosts_with_most_tokens_are_kept() -> None:
    names = pa.chunked_array([[f"h{n}" for n in range(30)], ["h29", None]], pa.string())
    lengths = np.arange(32)
    kept = with_most_tokens(rows_by_name(names), lengths)
    assert len(kept) == MOST_HOSTS
    assert list(kept)[:2] == ["h29", "h28"]
    assert kept["h29"].tolist() == [29, 30]


@pytest.mark.parametrize(("url", "host"), [("https://User@WWW.A.example:1/x", "www.a.example"), ("x", None)])
def test_hosts_of_addresses(url, host) -> None:
    assert host_of(url) == host
