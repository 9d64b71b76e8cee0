"""Expressions written out as a choice of short sequences of character classes, as far as they are one.

spaCy's expressions for prefixes, suffixes and infixes nearly all are: classes in a row, and classes that have to stand
before or behind them. What is written otherwise (a few patterns of Greek, Indonesian and Italian, and what French,
Hungarian and Turkish hold together) is known by a set of characters without which it cannot match.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

LAST = 0x10FFFF
_EVERY = ((0, LAST),)
_MOST = 4096  # ways of matching that are written out
Ranges = tuple[tuple[int, int], ...]
"""A set of characters: its code points as ranges, first and last, in order and apart."""


class Condition(NamedTuple):
    """What stands so many characters behind the beginning of a match, or what does not."""

    offset: int
    characters: Ranges
    absent: bool = False


@dataclass(frozen=True)
class Rule:
    """One way in which an expression matches."""

    body: tuple[Ranges, ...] = ()
    """The classes of the characters matched."""
    more: bool = False
    """Whether the last of them may repeat."""
    around: tuple[Condition, ...] = ()
    """What has to stand, or not to stand, in it or around it."""
    begins: bool = False
    """Whether the match is at the beginning of the string."""
    ends: bool = False
    """Whether it is at its end."""
    opaque: Ranges | None = None
    """If it is none of these: characters of which every match holds one."""


def rules_of(search: Any) -> list[Rule]:
    """All ways in which an expression matches, in the order in which they are tried; it is given by one of its methods.

    None matches nothing.
    """
    if search is None:
        return []
    expression: re.Pattern[str] = search.__self__
    if expression.flags & ~re.UNICODE:
        return [Rule(opaque=needed_by_expression(search))]
    return _ways(parser.parse(expression.pattern))


def needed_by_expression(search: Any) -> Ranges:
    """Characters of which every match of an expression holds one, none of them letters if it ignores case."""
    expression: re.Pattern[str] = search.__self__
    needed = _needed(parser.parse(expression.pattern)) or _EVERY
    return _EVERY if expression.flags & re.IGNORECASE and holds_letters(needed) else needed


def needed_by_rule(rule: Rule) -> Ranges:
    """Characters of which every match of a rule holds one."""
    sets = [rule.opaque] if rule.opaque is not None else list(rule.body)
    return min(sets, key=_rarity, default=_EVERY)


def _ways(tree: Any) -> list[Rule]:
    """All ways in which a sequence matches, in the order in which they are tried."""
    ways = [Rule()]
    for kind, value in tree:
        steps = _steps(kind, value)
        if len(ways) * len(steps) > _MOST:
            return [Rule(opaque=_needed(tree) or _EVERY)]
        ways = [_then(way, step) for way, step in product(ways, steps)]
    return ways


def _steps(kind: Any, value: Any) -> list[Rule]:
    """The ways in which one node matches."""
    if (characters := _characters(kind, value)) is not None:
        return [Rule(body=(characters,))]
    if kind is kinds.BRANCH:
        return [way for each in value[1] for way in _ways(each)]
    if kind is kinds.SUBPATTERN and not (value[1] or value[2]):
        return _ways(value[3])
    if kind is kinds.AT and value in (kinds.AT_BEGINNING, kinds.AT_END):
        return [Rule(begins=value is kinds.AT_BEGINNING, ends=value is kinds.AT_END)]
    if kind in (kinds.ASSERT, kinds.ASSERT_NOT):
        return _assertions(value[0], _ways(value[1]), kind is kinds.ASSERT_NOT)
    if kind is kinds.MAX_REPEAT:
        return _repeats(*value)
    return [Rule(opaque=_needed([(kind, value)]) or _EVERY)]


def _repeats(least: int, most: Any, tree: Any) -> list[Rule]:
    ways = _ways(tree)
    if least == 0 and most == 1:
        return [*ways, Rule()]
    single = len(ways) == 1 and len(ways[0].body) == 1 and ways[0] == Rule(body=ways[0].body)
    if single and least >= 1 and most in (least, kinds.MAXREPEAT):
        return [Rule(body=ways[0].body * least, more=most is kinds.MAXREPEAT)]
    return [Rule(opaque=(_needed(tree) if least else None) or _EVERY)]


def _assertions(direction: int, ways: list[Rule], absent: bool) -> list[Rule]:
    """What has to stand, or not to stand, before (-1) or behind (1) a place."""
    if any(way != Rule(body=way.body, begins=way.begins and direction < 0) or not way.body for way in ways):
        return [Rule(opaque=_EVERY)]
    if absent and (len(ways) > 1 or len(ways[0].body) > 1 or ways[0].begins):
        return [Rule(opaque=_EVERY)]
    steps = []
    for way in ways:
        first = 0 if direction > 0 else -len(way.body)
        around = [Condition(first + at, each, absent) for at, each in enumerate(way.body)]
        nothing = [Condition(first - 1, _EVERY, absent=True)] * way.begins
        steps.append(Rule(around=(*nothing, *around)))
    return steps


def _then(way: Rule, step: Rule) -> Rule:
    """One way of matching and another behind it."""
    beyond = way.ends and (step.body or step.opaque is not None)
    late = step.begins and (way.body or way.opaque is not None)
    if way.opaque is not None or step.opaque is not None or way.more or beyond or late:
        known = [needed_by_rule(each) for each in (way, step) if each.opaque is not None or each.body]
        unless = way.more and step == Rule(ends=True)
        if not unless:
            return Rule(opaque=min(known, key=_rarity, default=_EVERY), begins=way.begins, ends=step.ends)
    at = len(way.body)
    return replace(
        way,
        body=way.body + step.body,
        more=way.more or step.more,
        around=way.around + tuple(each._replace(offset=each.offset + at) for each in step.around),
        begins=way.begins or step.begins,
        ends=way.ends or step.ends,
    )


def _needed(tree: Any) -> Ranges | None:
    """The fewest characters found of which every match of a sequence holds one."""
    found = [needed for kind, value in tree if (needed := _needed_by_node(kind, value)) is not None]
    return min(found, key=_rarity, default=None)


def _needed_by_node(kind: Any, value: Any) -> Ranges | None:
    if (characters := _characters(kind, value)) is not None:
        return characters
    if kind is kinds.BRANCH:
        every = [_needed(each) for each in value[1]]
        return None if None in every else union(each for each in every if each is not None)
    if kind is kinds.SUBPATTERN:
        return _needed(value[3])
    repeated = kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT) and value[0] > 0
    return _needed(value[2]) if repeated else None


def _characters(kind: Any, value: Any) -> Ranges | None:
    """The characters of a node that matches one; white space, which no chunk holds, may be missing."""
    if kind is kinds.LITERAL:
        return ((value, value),)
    if kind is kinds.ANY:
        return _EVERY
    if kind is kinds.NOT_LITERAL:
        return complement(((value, value),))
    return _class(tuple(value)) if kind is kinds.IN else None


@lru_cache(maxsize=256)
def _class(items: tuple[Any, ...]) -> Ranges | None:
    found: list[tuple[int, int]] = []
    for kind, value in items:
        if kind is kinds.LITERAL:
            found.append((value, value))
        elif kind is kinds.RANGE:
            found.append(value)
        elif kind is kinds.CATEGORY and value is kinds.CATEGORY_DIGIT:
            found.extend(_digits())
        elif kind is kinds.CATEGORY and value is not kinds.CATEGORY_SPACE:
            return None
    ranges = union([found])
    return complement(ranges) if items[0][0] is kinds.NEGATE else ranges


@lru_cache(maxsize=1)
def _digits() -> Ranges:
    r"""What \\d matches."""
    return union([[(code, code) for code in range(0x20000) if chr(code).isdecimal()]])


@lru_cache(maxsize=1)
def white_space() -> Ranges:
    """No chunk holds it, but lines that are given to spaCy whole."""
    return union([[(code, code) for code in range(0x3001) if chr(code).isspace()]])


@lru_cache(maxsize=1)
def alphabet() -> Ranges:
    """SpaCy's letters."""
    from spacy.lang.char_classes import ALPHA

    return _class(tuple(parser.parse(f"[{ALPHA}]")[0][1])) or ()


def union(sets: Iterable[Iterable[tuple[int, int]]]) -> Ranges:
    """All characters of some sets, whose ranges need not be in order."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(each for ranges in sets for each in ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def complement(ranges: Ranges) -> Ranges:
    """All other characters."""
    edges = [0, *(edge for first, last in ranges for edge in (first, last + 1)), LAST + 1]
    return tuple((first, last - 1) for first, last in zip(edges[::2], edges[1::2], strict=True) if first < last)


def _rarity(ranges: Ranges) -> tuple[bool, int]:
    """Sets without letters are rarest, then small ones."""
    return holds_letters(ranges), sum(last - first + 1 for first, last in ranges)


@lru_cache(maxsize=1024)
def holds_letters(ranges: Ranges) -> bool:
    """Whether one of the characters is a letter."""
    return any(chr(code).isalpha() for first, last in ranges for code in range(first, last + 1))
