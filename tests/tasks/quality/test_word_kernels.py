"""The compiled loops: lines as `str.splitlines` has them, chunks as `str.split` does, hashes as plain arithmetic."""

import random
from itertools import pairwise

import numpy as np
import pytest

from tasks.quality.word_kernels import (
    BULLET_LINE,
    CURLY_LINE,
    ELLIPSIS_LINE,
    SQUARE_LINE,
    describe,
    scan,
)
from tasks.quality.word_tables import character_classes, code_points

MODULUS, BASE = 1 << 64, 0x9E3779B97F4A7C15
PIECES = (
    *(
        "a",
        "bc",
        "\u4e2d",
        "\U0001f600",
        ".",
        "...",
        "\u2026",
        "-",
        "\u2022",
        "[",
        "{",
        "\n",
        "\r",
        "\r\n",
        "\x0b",
        "\x0c",
    ),
    *("\x1c", "\x1f", "\x85", "\u2028", "\xa0", "\t", "\u3000"),
)


def scanned(texts: list[str], whole: bool = False) -> list[list[tuple[str, list[str], int]]]:
    """For each text its lines: stripped, chunks ("" for white space), flags."""
    text = "\n".join([*texts, ""])
    starts = np.cumsum([0, *(len(each) + 1 for each in texts)])
    begins, ends, lines, text_lines = scan(code_points(text), starts, character_classes(), whole)
    line_chunks, words, line_begins, line_ends, longest, flags = lines
    chunks = [text[begin:end] for begin, end in zip(begins, ends, strict=True)]
    found = []
    for line in range(len(words)):
        own = chunks[line_chunks[line] : line_chunks[line + 1]]
        assert words[line] == len([chunk for chunk in own if chunk])
        assert longest[line] == max(map(len, own), default=0)
        found.append((text[line_begins[line] : line_ends[line]], own, int(flags[line])))
    return [found[first:last] for first, last in pairwise(text_lines)]


def test_lines_and_words_are_those_of_python() -> None:
    rng = random.Random(3)
    texts = ["".join(rng.choices([*PIECES, " ", "\n"], k=rng.randint(0, 30))) for _ in range(2000)]
    for text, lines in zip(texts, scanned(texts), strict=True):
        assert [line for line, _, _ in lines] == [line.strip() for line in text.splitlines()]
        assert [[chunk for chunk in chunks if chunk] for _, chunks, _ in lines] == [
            line.split() for line in text.splitlines()
        ]


def test_lines_have_flags_for_bullets_ellipses_and_brackets() -> None:
    lines = ["- a", "\u2022 a...", " -a \u2026 ", "a.. ", "...", "a[1]", "{a"]
    found = [flags for _, _, flags in scanned(["\n".join(lines)])[0]]
    assert found == [
        *(BULLET_LINE, BULLET_LINE | ELLIPSIS_LINE, BULLET_LINE | ELLIPSIS_LINE),
        *(0, ELLIPSIS_LINE, SQUARE_LINE, CURLY_LINE),
    ]


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("a b", ["a", "b"]),
        ("a  b", ["a", "", "b"]),
        ("a\xa0b", ["a", "", "b"]),
        (" a b ", ["a", "b"]),
        ("a\xa0", ["a", ""]),
        ("a  ", ["a", ""]),
        ("", []),
        ("  ", []),
    ],
)
def test_white_space_other_than_a_space_is_a_chunk_of_its_own(text: str, chunks: list[str]) -> None:
    assert [own for _, own, _ in scanned([text], whole=True)[0]] == [chunks]


def test_the_hash_of_joined_tokens_follows_from_theirs() -> None:
    texts = ["ab", "\u00e9\U0001f600", "abab", "", "c"]
    _, hashes, powers = describe(code_points("".join(texts)), np.cumsum([0, *map(len, texts)]), character_classes())
    for text, hashed, power in zip(texts, hashes.tolist(), powers.tolist(), strict=True):
        expected = 0
        for character in text:
            expected = (expected * BASE + ord(character) + 1) % MODULUS
        assert (hashed, power) == (expected, pow(BASE, len(text), MODULUS))
    first, second = 0, 1
    _, both, _ = describe(code_points(texts[first] + texts[second]), np.array([0, 4]), character_classes())
    assert int(both[0]) == (int(hashes[first]) * int(powers[second]) + int(hashes[second])) % MODULUS
