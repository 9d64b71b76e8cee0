"""spaCy's expressions for prefixes, suffixes and infixes as tables, by which `affix_kernels` cuts chunks.

Chunks that hold a character of an expression that cannot be written out (see `affix_expressions`) are left to spaCy.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.quality.affix_expressions import (
    LAST,
    Ranges,
    Rule,
    alphabet,
    complement,
    holds_letters,
    needed_by_expression,
    needed_by_rule,
    rules_of,
    union,
    white_space,
)
from tasks.quality.affix_kernels import ADDRESS, INFIX, PREFIX, SUFFIX, UNCLEAR


@dataclass(frozen=True)
class AffixRules:
    """The rules of a language. Characters that no rule tells apart are one *atom*."""

    atoms: np.ndarray
    """The atom of each code point, uint16; code points beyond have the last one's."""
    flags: np.ndarray
    """UNCLEAR and its like of each atom, uint8."""
    members: np.ndarray
    """Whether an atom is in a set: bool, (sets, atoms)."""
    places: np.ndarray
    """For prefixes, suffixes and infixes, where an atom's rules begin in `order`, and the end: int32, (3, atoms + 1).
    A prefix or infix is found by the atom that it begins with, a suffix by the one that it ends with."""
    order: np.ndarray
    """Rules of each atom, in the order in which they are tried: int32."""
    rules: np.ndarray
    """Of each rule, characters of its body, whether the last may repeat, and where its conditions begin (in one row
    more, where they end): int32, (rules + 1, 3)."""
    conditions: np.ndarray
    """Offset, set, and whether it has to be absent: int32, (conditions, 3). Those on the body come first."""

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """For the kernels."""
        return self.atoms, self.flags, self.members, self.places, self.order, self.rules, self.conditions


def affix_rules(tokenizer: Any) -> AffixRules:
    """The rules of a spaCy tokeniser."""
    by_kind = [
        _usable(rules_of(tokenizer.prefix_search), _is_prefix),
        _usable([rule for rule in rules_of(tokenizer.suffix_search) if not _is_nothing(rule)], _is_suffix),
        _usable(rules_of(tokenizer.infix_finditer), _is_infix),
    ]
    every = [rule for rules in by_kind for rule in rules]
    unclear = union([white_space(), *(rule.opaque for rule in every if rule.opaque is not None)])
    if tokenizer.token_match is not None:
        needed = needed_by_expression(tokenizer.token_match)  # a word of letters is whole, whatever it says
        unclear = union([unclear, complement(alphabet()) if holds_letters(needed) else needed])
    addresses = () if tokenizer.url_match is None else needed_by_expression(tokenizer.url_match)
    sets = _Sets([unclear, addresses, *_sets_of(every)])
    places, order = _by_atom(by_kind, sets)
    flags = UNCLEAR * sets.holds(unclear) + ADDRESS * sets.holds(addresses)
    for flag, counts in zip((PREFIX, SUFFIX, INFIX), np.diff(places), strict=True):
        flags += flag * (counts > 0)
    rules, conditions = _conditions(every, sets)
    return AffixRules(sets.atoms, flags.astype(np.uint8), sets.members, places, order, rules, conditions)


def _usable(rules: Sequence[Rule], usable: Callable[[Rule], bool]) -> list[Rule]:
    """The rules, opaque where they are of no use."""
    return [rule if rule.opaque is None and usable(rule) else Rule(opaque=needed_by_rule(rule)) for rule in rules]


def _is_prefix(rule: Rule) -> bool:
    return bool(rule.body) and rule.begins and not rule.ends


def _is_suffix(rule: Rule) -> bool:
    alike = len(set(rule.body)) == 1 and not rule.around
    return bool(rule.body) and rule.ends and not rule.begins and (alike or not rule.more)


def _is_nothing(rule: Rule) -> bool:
    """Whether it is a suffix of no characters, which spaCy takes for none."""
    return rule.ends and not rule.body and rule.opaque is None


def _is_infix(rule: Rule) -> bool:
    """An empty match is found by the character behind it."""
    found = rule.body or any(each.offset == 0 and not each.absent for each in rule.around)
    return bool(found) and not (rule.begins or rule.ends)


def _sets_of(rules: Iterable[Rule]) -> Iterator[Ranges]:
    for rule in rules:
        yield from rule.body
        yield from (each.characters for each in rule.around)


class _Sets:
    """Sets of characters by number, and the atoms that they are made of."""

    def __init__(self, sets: Iterable[Ranges]) -> None:
        self.numbers: dict[Ranges, int] = {}
        for ranges in sets:
            self.numbers.setdefault(ranges, len(self.numbers))
        edges = np.unique([0, *(edge for each in self.numbers for first, last in each for edge in (first, last + 1))])
        edges = edges[edges <= LAST]
        inside = np.zeros((len(self.numbers), len(edges)), bool)
        for number, ranges in enumerate(self.numbers):
            for first, last in ranges:
                inside[number, np.searchsorted(edges, first) : np.searchsorted(edges, last + 1)] = True
        known: dict[bytes, int] = {}
        atoms = [known.setdefault(each.tobytes(), len(known)) for each in inside.T]
        self.members = np.ascontiguousarray(inside[:, [atoms.index(atom) for atom in range(len(known))]])
        """Whether an atom is in a set: bool, (sets, atoms)."""
        self.atoms = np.repeat(atoms, np.diff(edges, append=edges[-1] + 1)).astype(np.uint16)
        """The atom of each code point; those beyond have the last one's."""

    def holds(self, ranges: Ranges) -> np.ndarray:
        """Whether a set holds an atom, by atom."""
        return self.members[self.numbers[ranges]]


def _by_atom(by_kind: Sequence[Sequence[Rule]], sets: _Sets) -> tuple[np.ndarray, np.ndarray]:
    """`places` and `order` of AffixRules."""
    chosen: list[np.ndarray] = []
    number = 0
    for rules, end in zip(by_kind, (0, -1, 0), strict=True):
        found = np.zeros((len(rules), sets.members.shape[1]), bool)
        for index, rule in enumerate(rules):
            if rule.opaque is None:
                ahead = (each.characters for each in rule.around if each.offset == 0)
                found[index] = sets.holds(rule.body[end] if rule.body else next(ahead))
        chosen += [np.flatnonzero(each) + number for each in found.T]
        number += len(rules)
    ends = np.cumsum([0, *map(len, chosen)]).astype(np.int32)
    starts = np.arange(3)[:, None] * sets.members.shape[1] + np.arange(sets.members.shape[1] + 1)
    return ends[starts], np.concatenate([*chosen, np.zeros(0, np.int64)]).astype(np.int32)


def _conditions(every: Sequence[Rule], sets: _Sets) -> tuple[np.ndarray, np.ndarray]:
    """`rules` and `conditions` of AffixRules."""
    rules: list[tuple[int, int, int]] = []
    conditions: list[tuple[int, int, int]] = []
    for rule in every:
        rules.append((len(rule.body), int(rule.more), len(conditions)))
        conditions += [(at, sets.numbers[each], 0) for at, each in enumerate(rule.body)]
        conditions += [(each.offset, sets.numbers[each.characters], int(each.absent)) for each in rule.around]
    rules.append((0, 0, len(conditions)))
    return np.array(rules, np.int32), np.array(conditions, np.int32).reshape(-1, 3)
