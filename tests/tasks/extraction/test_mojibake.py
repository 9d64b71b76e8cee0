"""Mojibake: ftfy's own verdict, and why looking around a few places alone cannot miss any."""

import gzip
import random
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ftfy.badness import BADNESS_RE, is_bad

from tasks.extraction import mojibake

parser: Any = import_module("re._parser")  # of the standard library, but not said to stay
opcodes: Any = import_module("re._constants")
DATA = Path(__file__).parents[4] / "shared/data"
SENTENCES = DATA / "langid/sentences"


def alternatives(pattern: Any) -> Iterator[list[Any]]:
    """The alternatives of a parsed expression, each a sequence of operations."""
    for operation, argument in pattern:
        if operation is opcodes.BRANCH:
            for each in argument[1]:
                yield from alternatives(each) if each[0][0] is opcodes.BRANCH else [list(each)]


def characters(operation: Any, argument: Any) -> set[int] | None:
    """The characters that one operation can match, or None where there are too many to say."""
    if operation is opcodes.LITERAL:
        return {argument}
    if operation is not opcodes.IN:
        return None
    found: set[int] = set()
    for kind, value in argument:
        if kind is opcodes.LITERAL:
            found.add(value)
        elif kind is opcodes.RANGE:
            found |= set(range(value[0], value[1] + 1))
        else:
            return None
    return found


def members(brackets: str) -> set[int]:
    """The characters that an expression in brackets matches."""
    ((operation, argument),) = parser.parse(brackets)
    found = characters(operation, argument)
    assert found
    return found


def test_every_alternative_of_ftfys_expression_needs_one_of_the_places() -> None:
    expression = parser.parse(BADNESS_RE.pattern, BADNESS_RE.flags)
    alone, first, second = (members(each) for each in (f"[{mojibake.ALONE}]", mojibake.FIRST, mojibake.SECOND))
    found = list(alternatives(expression))
    assert len(found) > 30
    assert expression.getwidth()[1] == mojibake.REACH + 1
    assert alone <= second
    for each in found:
        sets = [characters(*step) for step in each]
        pairs = pairwise(sets)
        needs_one = any(matched and matched <= alone for matched in sets)
        needs_two = any(one and two and one <= first and two <= second for one, two in pairs)
        assert needs_one or needs_two, each
        assert all(step[0] is not opcodes.ASSERT and step[0] is not opcodes.ASSERT_NOT for step in each)


def test_random_texts_of_the_characters_that_matter_are_judged_as_by_ftfy() -> None:
    draw = random.Random(1)
    every = [chr(each) for each in sorted(members(mojibake.FIRST))]
    letters = [*" abcXYZ.,\n1", *"字я語", "\u3000", "\N{GRINNING FACE}"]
    bad = 0
    for share in (0.02, 0.05, 0.1, 0.3):
        for _ in range(4000):
            size = draw.randrange(1, 40)
            text = "".join(draw.choice(every if draw.random() < share else letters) for _ in range(size))
            assert mojibake.is_bad(text) == is_bad(text), text
            bad += is_bad(text)
    assert 1000 < bad < 15_000


@pytest.mark.skipif(not SENTENCES.is_dir(), reason="no sentences at ../shared/data/langid")
def test_sentences_of_many_languages_and_their_wrong_decodings_are_judged_as_by_ftfy() -> None:
    bad = 0
    for path in sorted(SENTENCES.iterdir()):
        for text in sentences(path)[:40]:
            for encoding in ("latin-1", "windows-1252", "windows-1251", "macroman", "utf-8"):
                shown = text.encode().decode(encoding, "replace")
                assert mojibake.is_bad(shown) == is_bad(shown), shown
                bad += is_bad(shown)
    assert bad > 1000


def sentences(path: Path) -> list[str]:
    """Lines of a file of the set."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "replace").split("\n")


def test_a_long_text_of_nothing_but_places_takes_no_longer_than_a_glance() -> None:
    assert not mojibake.is_bad("ö" * 200_000)
    assert mojibake.is_bad("ö" * 200_000 + " Ã¶ ")
