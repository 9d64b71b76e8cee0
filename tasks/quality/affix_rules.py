"""spaCy's expressions for prefixes, suffixes and infixes as tables, so that `affix_kernels` can cut chunks by them.

Nearly all of the expressions are a choice of short sequences of character classes, with classes that have to stand
before or behind them. Such a choice is written out here as a list of rules in the order of the expression. What is
written otherwise (a few patterns of Greek, Indonesian and Italian, and what French, Hungarian and Turkish hold
together) becomes a set of characters without which it cannot match: chunks that hold one of them are left to spaCy.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

import numpy as np

from tasks.quality.affix_kernels import ADDRESS, INFIX, PREFIX, SUFFIX, UNCLEAR

_LAST = 0x10FFFF
_EVERY = ((0, _LAST),)
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
    begins: bool = False
    """Whether the match is at the beginning of the string."""
    ends: bool = False
    """Whether it is at its end."""
    opaque: Ranges | None = None
    """If it is none of these: characters of which every match holds one."""


@dataclass
class RuleTable:
    """Rules as arrays: by each atom, the rules that it may begin (suffixes: end), in order, and their conditions."""

    firsts: np.ndarray
    """Where the rules of each atom begin in `rules`, and the end: int32, atoms + 1."""
    rules: np.ndarray
    """Index of the rule, int32."""
    sizes: np.ndarray
    """Characters of each rule's body, and whether the last may repeat: int32, (rules, 2)."""
    starts: np.ndarray
    """Where the conditions of each rule begin, and the end: int32, rules + 1."""
    conditions: np.ndarray
    """Offset, set, and whether it has to be absent: int32, (conditions, 3)."""

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """For the kernels."""
        return self.firsts, self.rules, self.sizes, self.starts, self.conditions


@dataclass
class AffixRules:
    """The rules of a language. Characters that no rule tells apart are one *atom*."""

    atoms: np.ndarray
    """The atom of each code point, uint16; code points beyond have the last one's."""
    flags: np.ndarray
    """UNCLEAR and its like of each atom, uint8."""
    members: np.ndarray
    """Whether an atom is in a set: bool, (sets, atoms)."""
    prefixes: RuleTable
    suffixes: RuleTable
    infixes: RuleTable

    @property
    def arrays(self) -> tuple[Any, ...]:
        """For the kernels."""
        tables = self.prefixes.arrays, self.suffixes.arrays, self.infixes.arrays
        return self.atoms, self.flags, self.members, *tables


def affix_rules(tokenizer: Any) -> AffixRules:
    """The rules of a spaCy tokeniser."""
    prefixes = _rules(tokenizer.prefix_search, lambda rule: rule.body and rule.begins and not rule.ends)
    suffixes = _rules(tokenizer.suffix_search, _is_suffix)
    infixes = _rules(tokenizer.infix_finditer, _is_infix)
    every = [*prefixes, *suffixes, *infixes]
    unclear = _union([_white_space(), *(rule.opaque for rule in every if rule.opaque is not None)])
    if tokenizer.token_match is not None:
        needed = _needed_for(tokenizer.token_match.__self__)  # a word of letters is whole, whatever it says
        unclear = _union([unclear, _complement(_alphabet()) if _holds_letters(needed) else needed])
    addresses = () if tokenizer.url_match is None else _needed_for(tokenizer.url_match.__self__)
    sets = _Sets([unclear, addresses], every)
    tables = [sets.table(prefixes, 0), sets.table(suffixes, -1), sets.table(infixes, 0)]
    flags = UNCLEAR * sets.holds(unclear) + ADDRESS * sets.holds(addresses)
    for flag, table in zip((PREFIX, SUFFIX, INFIX), tables, strict=True):
        flags += flag * (np.diff(table.firsts) > 0)
    return AffixRules(sets.atoms, flags.astype(np.uint8), sets.members, *tables)


def _rules(search: Any, usable: Any) -> list[Rule]:
    """The rules of a compiled expression, given by one of its methods; those of no use become opaque."""
    expression = None if search is None else search.__self__
    if expression is None:
        return []
    if expression.flags & ~re.UNICODE:
        return [Rule(opaque=_needed_for(expression))]
    found = [rule for rule in _ways(parser.parse(expression.pattern)) if not _is_nothing(rule)]
    return [rule if rule.opaque is None and usable(rule) else Rule(opaque=_needed_by(rule)) for rule in found]


def _is_nothing(rule: Rule) -> bool:
    """Whether it is a suffix of no characters, which spaCy takes for none."""
    return rule.ends and not rule.body and rule.opaque is None


def _needed_for(expression: re.Pattern[str]) -> Ranges:
    """Characters of which every match of an expression holds one, none of them letters if it ignores case."""
    needed = _needed(parser.parse(expression.pattern)) or _EVERY
    return _EVERY if expression.flags & re.IGNORECASE and _holds_letters(needed) else needed


def _is_infix(rule: Rule) -> bool:
    """An empty match is found by the character behind it."""
    found = rule.body or any(each.offset == 0 and not each.absent for each in rule.around)
    return bool(found) and not (rule.begins or rule.ends)


def _is_suffix(rule: Rule) -> bool:
    alike = len(set(rule.body)) == 1 and not rule.around
    return bool(rule.body) and rule.ends and not rule.begins and (alike or not rule.more)


def _needed_by(rule: Rule) -> Ranges:
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
        known = [_needed_by(each) for each in (way, step) if each.opaque is not None or each.body]
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
        return None if None in every else _union(each for each in every if each is not None)
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
        return _complement(((value, value),))
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
    ranges = _union([found])
    return _complement(ranges) if items[0][0] is kinds.NEGATE else ranges


@lru_cache(maxsize=1)
def _digits() -> Ranges:
    r"""What \\d matches."""
    return _union([[(code, code) for code in range(0x20000) if chr(code).isdecimal()]])


@lru_cache(maxsize=1)
def _white_space() -> Ranges:
    """No chunk holds it, but lines that are given to spaCy whole."""
    return _union([[(code, code) for code in range(0x3001) if chr(code).isspace()]])


@lru_cache(maxsize=1)
def _alphabet() -> Ranges:
    """SpaCy's letters."""
    from spacy.lang.char_classes import ALPHA

    return _class(tuple(parser.parse(f"[{ALPHA}]")[0][1])) or ()


def _union(sets: Iterable[Iterable[tuple[int, int]]]) -> Ranges:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(each for ranges in sets for each in ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def _complement(ranges: Ranges) -> Ranges:
    edges = [0, *(edge for first, last in ranges for edge in (first, last + 1)), _LAST + 1]
    return tuple((first, last - 1) for first, last in zip(edges[::2], edges[1::2], strict=True) if first < last)


def _rarity(ranges: Ranges) -> tuple[bool, int]:
    """Sets without letters are rarest, then small ones."""
    return _holds_letters(ranges), sum(last - first + 1 for first, last in ranges)


@lru_cache(maxsize=1024)
def _holds_letters(ranges: Ranges) -> bool:
    return any(chr(code).isalpha() for first, last in ranges for code in range(first, last + 1))


class _Sets:
    """The sets of characters in some rules by number, and the atoms that they are made of."""

    def __init__(self, others: Sequence[Ranges], rules: Sequence[Rule]) -> None:
        self.numbers: dict[Ranges, int] = {}
        for ranges in (*others, *_sets_of(rules)):
            self.numbers.setdefault(ranges, len(self.numbers))
        edges = np.unique([0, *(edge for each in self.numbers for first, last in each for edge in (first, last + 1))])
        edges = edges[edges <= _LAST]
        inside = np.zeros((len(self.numbers), len(edges)), bool)
        for number, ranges in enumerate(self.numbers):
            for first, last in ranges:
                inside[number, np.searchsorted(edges, first) : np.searchsorted(edges, last + 1)] = True
        kinds_of_range: dict[bytes, int] = {}
        atoms = [kinds_of_range.setdefault(each.tobytes(), len(kinds_of_range)) for each in inside.T]
        self.members = inside[:, [atoms.index(atom) for atom in range(len(kinds_of_range))]]
        self.atoms = np.repeat(atoms, np.diff(edges, append=edges[-1] + 1)).astype(np.uint16)

    def holds(self, ranges: Ranges) -> np.ndarray:
        """Whether a set holds an atom, by atom."""
        return self.members[self.numbers[ranges]]

    def table(self, rules: Sequence[Rule], end: int) -> RuleTable:
        """Rules that can be written out, found by their first (0) or last (-1) character."""
        usable = [rule for rule in rules if rule.opaque is None]
        by_atom = [np.flatnonzero(row) for row in self._keys(usable, end).T]
        conditions = [self._conditions(rule) for rule in usable]
        return RuleTable(
            firsts=np.cumsum([0, *map(len, by_atom)]).astype(np.int32),
            rules=np.concatenate([*by_atom, np.zeros(0, np.int64)]).astype(np.int32),
            sizes=np.array([(len(rule.body), rule.more) for rule in usable], np.int32).reshape(-1, 2),
            starts=np.cumsum([0, *map(len, conditions)]).astype(np.int32),
            conditions=np.array([each for some in conditions for each in some], np.int32).reshape(-1, 3),
        )

    def _keys(self, rules: Sequence[Rule], end: int) -> np.ndarray:
        """Whether an atom can be where a rule is looked up, (rules, atoms)."""
        sets = [
            rule.body[end] if rule.body else next(each.characters for each in rule.around if each.offset == 0)
            for rule in rules
        ]
        return self.members[np.array([self.numbers[each] for each in sets], np.int64)]

    def _conditions(self, rule: Rule) -> list[tuple[int, int, bool]]:
        body = [(at, self.numbers[each], False) for at, each in enumerate(rule.body)]
        return body + [(each.offset, self.numbers[each.characters], each.absent) for each in rule.around]


def _sets_of(rules: Sequence[Rule]) -> Iterator[Ranges]:
    for rule in rules:
        yield from rule.body
        yield from (each.characters for each in rule.around)
