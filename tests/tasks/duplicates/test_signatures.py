"""What documents are deduplicated by: canonical URLs, ranks, refs and the two files of the signatures stage."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from infra.store import Store
from tasks.duplicates.signatures import (
    KEYS,
    SIGNED,
    TEXT_KEY,
    URL_KEY,
    SignatureSettings,
    canonical_url,
    part_number,
    ranks,
    ref_parts,
    ref_rows,
    ref_segments,
    refs_at,
    refs_of_part,
    segment_bits,
    sign,
    sign_batch,
)
from tests.tasks.documents import DATE, documents, prose, stage_of

SETTINGS = SignatureSettings()


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("http://example.org/a", "https://www.Example.ORG:443/a#part"),
        ("http://example.org", "http://example.org:80/"),
        ("http://example.org/a?x=1", "http://example.org/a?utm_source=y&x=1&fbclid=z"),
        ("http://user@example.org./a", "http://example.org/a"),
        (" http://example.org/a ", "http://example.org/a"),
    ],
)
def test_addresses_of_one_page(url: str, same: str) -> None:
    assert canonical_url(url) == canonical_url(same)


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("http://example.org/a", "http://example.org/A"),
        ("http://example.org/a", "http://example.org/a/"),
        ("http://example.org/a?x=1", "http://example.org/a?x=2"),
        ("http://example.org:8080/", "http://example.org/"),
        ("http://example.org/#!/one", "http://example.org/#!/two"),
        ("http://[broken", "http://[other"),
        ("file one", "file two"),
        ("http://example.org:99999/", "http://example.org/"),
        ("", "x"),
    ],
)
def test_addresses_of_two_pages(url: str, other: str) -> None:
    assert canonical_url(url) != canonical_url(other)


def order(rows: list[dict[str, object]], prefer: tuple[str, ...]) -> list[str]:
    table = documents([{"text": "", **row} for row in rows])
    words = np.array([row.get("words", 0) for row in rows], np.int64)
    high, low = ranks(table, words, prefer)
    return [str(rows[row]["id"]) for row in np.lexsort((low, high))]


def test_ranks_order_by_each_preference_and_then_by_id() -> None:
    scores = [None, float("nan"), -2.5, -0.0, 0.0, 1e-30, 0.3, 7.0]
    rows: list[dict[str, object]] = [{"id": f"{n:02x}", "quality": score} for n, score in enumerate(scores)]
    assert order(rows, ("quality",)) == ["07", "06", "05", "03", "04", "02", "00", "01"]
    rows = [{"id": "00", "words": 3}, {"id": "01", "words": 1 << 40}, {"id": "02", "words": 0}]
    assert order(rows, ("length",)) == ["01", "00", "02"]
    dates = [None, DATE, DATE + timedelta(seconds=1), DATE - timedelta(days=30_000)]
    rows = [{"id": f"{n:02x}", "fetched_at": date} for n, date in enumerate(dates)]
    assert order(rows, ("older",)) == ["03", "01", "02", "00"]
    assert order(rows, ("newer",)) == ["02", "01", "03", "00"]
    rows = [{"id": each, "quality": 1.0} for each in ("b" * 32, "a" * 31 + "b", "a" * 32)]
    assert order(rows, ()) == ["a" * 32, "a" * 31 + "b", "b" * 32]
    assert order(rows, ("quality", "length", "older"))[-1] == "b" * 32


def test_keys_of_a_document_are_its_bands_its_text_and_its_address() -> None:
    table = documents(
        [
            {"id": "a", "text": prose()[0], "url": "http://x/"},
            {"id": "b", "text": ".."},
            {"id": "c", "text": prose()[0]},
        ]
    )
    signed, keys = sign_batch(table, np.arange(3, dtype=np.uint64), SETTINGS)
    assert (signed.schema, keys.schema) == (SIGNED, KEYS)
    found: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for key, ref in zip(keys["key"].to_pylist(), keys["ref"].to_pylist(), strict=True):
        found[ref].append(key)
    assert [len(each) for each in found.values()] == [16, 1, 15]
    assert sorted(each & 3 for each in found[0]) == [0] * 14 + [TEXT_KEY, URL_KEY]
    assert set(found[2]) < set(found[0])
    assert found[1][0] & 3 == TEXT_KEY


def test_the_files_are_sorted_and_do_not_depend_on_batches(tmp_path: Path) -> None:
    store, results = Store(str(tmp_path)), []
    rows = [{"id": f"{n:032x}", "text": f"{text} {n}"} for n in range(40) for text in prose()[:50]]
    for size in (7, 1024, 5000):
        given = stage_of(store, [[], rows], size)
        splits = list(sign(store, given.kept_paths[1], SETTINGS))
        kept = pa.concat_tables([each.kept for each in splits])
        keys = pa.concat_tables([each.others["keys"] for each in splits if each.others])
        results.append((kept.combine_chunks(), keys.combine_chunks()))
    assert all(each == results[0] for each in results)
    kept, keys = results[0]
    low, high = refs_of_part(1)
    assert kept["ref"].to_pylist() == list(range(low, low + len(rows)))
    assert low + len(rows) < high
    assert keys["key"].to_pylist() == sorted(keys["key"].to_pylist())


def test_refs_say_where_a_document_stands() -> None:
    refs = refs_at(np.array([0, 7, (1 << 20) - 1]), np.array([5, 0, (1 << 31) - 1]))
    assert (ref_parts(refs).tolist(), ref_rows(refs).tolist()) == ([0, 7, (1 << 20) - 1], [5, 0, (1 << 31) - 1])
    assert ref_segments(refs).tolist() == [-1, -1, -1]
    old = refs | segment_bits(4095)
    assert ref_segments(old).tolist() == [4095] * 3
    assert ref_parts(old).tolist() == ref_parts(refs).tolist()
    assert part_number("stages/x/part-1/part-00012-of-00100.arrow") == 12
