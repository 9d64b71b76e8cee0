"""Mojibake: whether a text was decoded wrongly on its way, by ftfy's rules, where they can apply at all.

ftfy's test for badness is one regular expression of forty alternatives, all tried at every character, which takes a
tenth of a microsecond. Each of them needs one of a few rare characters, or two neighbours that are both beyond ASCII
and of which the second is no plain Greek or Cyrillic letter. Such places are found 30 times as fast, and ftfy's
expression is asked around them alone, as far as its longest match reaches.
"""

import re
from collections.abc import Iterator

from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES

REACH = 6
"""Characters before or behind one of its own that a match of ftfy's expression can hold."""
ALONE = MOJIBAKE_CATEGORIES["c1"] + "ŒœÂÃÎÐЂ"
"""Characters, as in a regular expression's brackets, that can be bad beside ASCII."""
_LETTERS = ("upper_common", "lower_common")
_SECONDS = "".join(value for name, value in MOJIBAKE_CATEGORIES.items() if name not in (*_LETTERS, "common"))
SECOND = f"[{_SECONDS}{ALONE}\xb4]"
"""The second of two neighbours that can be bad together."""
FIRST = f"[{''.join(MOJIBAKE_CATEGORIES.values())}]"
"""The first of them."""
_PLACES = re.compile(f"{SECOND}(?:(?<=[{ALONE}])|(?<={FIRST}{SECOND}))")


def is_bad(text: str) -> bool:
    """Whether a text looks as if it held mojibake: what ftfy.badness.is_bad says, sooner."""
    return not text.isascii() and any(BADNESS_RE.search(text, begin, end) for begin, end in _surroundings(text))


def _surroundings(text: str) -> Iterator[tuple[int, int]]:
    """Parts of a text, apart from each other, that hold every match there is."""
    begin = end = 0
    for match in _PLACES.finditer(text):
        if (place := match.start()) - REACH > end:
            yield begin, end
            begin = place - REACH
        end = place + REACH + 1
    yield begin, end
