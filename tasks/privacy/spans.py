"""Words that all finders of personal data share.

A *detector* finds the spans of one kind in a text. Its *gate* is a regular expression of RE2 that every text with a
find matches: Arrow tries it over a whole column at about a millisecond per megabyte, so that Python reads only the
few texts that may hold something. A *label* is what people write beside a value to say what it is; where a shape and
its checksum leave much to chance (one in ten for a single check digit), a label must stand by.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

Span = tuple[int, int]
"""Begin and end of a find, in characters of the text."""


@dataclass(frozen=True)
class Detector:
    """How one kind of personal data is found."""

    kind: str
    """What is found; its tag is the same in capitals."""
    gate: str
    """RE2 expression that every text with a find matches."""
    find: Callable[[str], list[Span]]
    """Spans in a text, in order, that do not overlap."""


def labelled(label: re.Pattern[str], text: str, start: int, reach: int = 40) -> bool:
    """Whether a label stands among the characters before a value."""
    return label.search(text, max(0, start - reach), start) is not None


def in_order(spans: list[Span]) -> list[Span]:
    """Spans sorted; of those that overlap the first, and of those that begin together the longest."""
    chosen: list[Span] = []
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not chosen or span[0] >= chosen[-1][1]:
            chosen.append(span)
    return chosen


def compact(text: str) -> str:
    """Letters and digits of a value alone, in capitals."""
    return "".join(filter(str.isalnum, text)).upper()
