"""Files of users' corpora, line by line and row by row."""

import io
from datetime import UTC, date, datetime
from typing import Any

import pytest

from tasks.sources.corpus_files import Item, decompressed, read_file, read_lines, read_moment, value_at
from tasks.sources.warc import Broken


def lines(data: bytes, limit: int = 100) -> list[tuple[int, bytes | None]]:
    return list(read_lines(decompressed(io.BytesIO(data), "x"), limit))


def test_lines_have_the_offsets_at_which_they_begin() -> None:
    assert lines(b"") == []
    assert lines(b"\n") == [(0, b"")]
    assert lines(b"ab\n\nc") == [(0, b"ab"), (3, b""), (4, b"c")]


def test_long_lines_are_passed_over_wherever_blocks_end() -> None:
    long = b"x" * 1_000_000
    assert lines(b"a\n" + long + b"\nb\n" + long) == [(0, b"a"), (2, None), (1_000_003, b"b"), (1_000_005, None)]
    data = b"\n".join(b"%d" % n * 40 for n in range(60_000))
    found = lines(data, 1000)
    assert b"\n".join(line or b"" for _, line in found) == data
    assert all(data[offset : offset + len(line or b"")] == line for offset, line in found)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2024-05-06", datetime(2024, 5, 6, tzinfo=UTC)),
        ("2024-05-06T07:08:09Z", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        ("Mon, 06 May 2024 07:08:09 GMT", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        (1714979289, datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        (1714979289000, datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        (date(2024, 5, 6), datetime(2024, 5, 6, tzinfo=UTC)),
        (datetime(2024, 5, 6), datetime(2024, 5, 6, tzinfo=UTC)),
        *((value, None) for value in ("", "soon", True, None, [], float("nan"), float("inf"), 10**40, "9999999-01-01")),
    ],
)
def test_moments(value: Any, moment: datetime | None) -> None:
    assert read_moment(value) == moment


def test_values_of_nested_columns() -> None:
    row = {"a": {"b": {"c": 1}}, "x.y": 2}
    assert [value_at(row, name) for name in ("a.b.c", "x.y", "a.z", "a.b.c.d", "q")] == [1, 2, None, None, None]


def test_a_file_that_is_too_large_is_not_read_on() -> None:
    assert list(read_file(io.BytesIO(b"abc"), "a.txt", 10)) == [Item(0, b"abc")]
    [broken] = read_file(io.BytesIO(b"x" * 1_000_000), "a.txt", 10)
    assert isinstance(broken, Broken)
    assert broken.reason == "record_too_large"
