"""The loop by which spaCy cuts a chunk, over the tables of `affix_rules`, compiled by numba.

As `spacy.tokenizer.Tokenizer` does it: a prefix and a suffix are taken off as long as there is one; what remains is
cut at its infixes, unless it is an address. Where a special case comes into it, the chunk is left to spaCy.
"""

from typing import Any

import numpy as np
from numba import njit

from tasks.quality.word_kernels import find, hash_characters

UNCLEAR, ADDRESS, PREFIX, SUFFIX, INFIX = 1, 2, 4, 8, 16
"""Flags of atoms: a chunk that holds it is left to spaCy; an address holds one; a prefix or infix may begin with it,
or a suffix end with it."""


@njit(cache=True, nogil=True)
def _fits(rule: int, at: int, lo: int, hi: int, atoms: Any, members: Any, rules: Any, conditions: Any) -> Any:
    """Whether a rule matches at a place, if it sees no more than what is from `lo` to `hi`."""
    for index in range(rules[rule, 2], rules[rule + 1, 2]):
        place = at + conditions[index, 0]
        inside = lo <= place < hi and members[conditions[index, 1], atoms[place]]
        if inside == (conditions[index, 2] != 0):
            return False
    return True


@njit(cache=True, nogil=True)
def _matched(
    at: int,
    lo: int,
    hi: int,
    least: int,
    kind: int,
    atoms: Any,
    members: Any,
    places: Any,
    order: Any,
    rules: Any,
    conditions: Any,
) -> Any:
    """Characters that the first rule matches at a place, at least so many; -1 if none does."""
    for index in range(places[kind, atoms[at]], places[kind, atoms[at] + 1]):
        rule = order[index]
        size = rules[rule, 0]
        if size >= least and _fits(rule, at, lo, hi, atoms, members, rules, conditions):
            if rules[rule, 1]:
                repeated = conditions[rules[rule, 2] + size - 1, 1]
                while at + size < hi and members[repeated, atoms[at + size]]:
                    size += 1
            return size
    return -1


@njit(cache=True, nogil=True)
def _suffix(lo: int, hi: int, atoms: Any, members: Any, places: Any, order: Any, rules: Any, conditions: Any) -> Any:
    """Characters of the longest suffix, 0 if there is none."""
    longest = 0
    for index in range(places[1, atoms[hi - 1]], places[1, atoms[hi - 1] + 1]):
        rule = order[index]
        size = rules[rule, 0]
        if size <= hi - lo and _fits(rule, hi - size, lo, hi, atoms, members, rules, conditions):
            if rules[rule, 1]:
                repeated = conditions[rules[rule, 2], 1]
                while hi - size > lo and members[repeated, atoms[hi - size - 1]]:
                    size += 1
            longest = max(longest, size)
    return longest


@njit(cache=True, nogil=True)
def _strip(
    starts: Any, flags: Any, atoms: Any, members: Any, places: Any, order: Any, rules: Any, conditions: Any, edges: Any
) -> Any:
    """Take prefixes and suffixes off chunks. What is left of each is from where to where: int64, (chunks, 2)."""
    left = np.empty((len(starts) - 1, 2), np.int64)
    for index in range(len(left)):
        lo, hi = starts[index], starts[index + 1]
        while lo < hi:
            prefix = suffix = 0
            if flags[atoms[lo]] & PREFIX:
                prefix = max(_matched(lo, lo, hi, 1, 0, atoms, members, places, order, rules, conditions), 0)
            if flags[atoms[hi - 1]] & SUFFIX and lo + prefix < hi:
                suffix = _suffix(lo + prefix, hi, atoms, members, places, order, rules, conditions)
            if prefix == suffix == 0:
                break
            lo, hi = lo + prefix, hi - suffix
            edges[lo] = edges[hi] = True
        left[index, 0], left[index, 1] = lo, hi
    return left


@njit(cache=True, nogil=True)
def _split(
    left: Any, flags: Any, atoms: Any, members: Any, places: Any, order: Any, rules: Any, conditions: Any, edges: Any
) -> Any:
    """Cut what is left at its infixes, of which none begins it. Returns which chunks were cut, but may be addresses."""
    unclear = np.zeros(len(left), np.bool_)
    for index in range(len(left)):
        lo, hi = left[index]
        at, some, parts = lo, 0, False
        while at < hi:
            flag = flags[atoms[at]]
            some |= flag
            matched = -1
            if flag & INFIX:
                matched = _matched(at, lo, hi, 0, 2, atoms, members, places, order, rules, conditions)
            if matched >= 0 and at > lo:
                edges[at] = edges[at + matched] = parts = True
                if matched == 0:  # the next match has to be of more, but can be at the same place
                    matched = _matched(at, lo, hi, 1, 2, atoms, members, places, order, rules, conditions)
                    edges[at + max(matched, 0)] = True
            for passed in range(at + 1, at + matched):
                some |= flags[atoms[passed]]
            at += max(matched, 1)
        unclear[index] = parts and some & ADDRESS
    return unclear


@njit(cache=True, nogil=True)
def _meet_special(
    codes: Any,
    begins: Any,
    starts: Any,
    left: Any,
    edges: Any,
    longest: int,
    slots: Any,
    bounds: Any,
    pool: Any,
) -> Any:
    """Which chunks without some of their prefixes and suffixes are in a table of special cases.

    spaCy looks at some of these only, so yes may be wrong. `longest` bounds the strings, and the time.
    """
    found = np.zeros(len(left), np.bool_)
    for index in range(len(left)):
        start, stop = starts[index], starts[index + 1]
        for lo in range(left[index, 0], start - 1, -1):
            if lo > start and not edges[lo]:
                continue
            for hi in range(max(left[index, 1], lo + 1), min(stop, lo + longest) + 1):
                if (hi < stop and not edges[hi]) or (lo == start and hi == stop):
                    continue
                at = begins[index] - start
                hashed = hash_characters(codes, at + lo, at + hi)
                found[index] |= slots[find(codes, at + lo, hi - lo, hashed, slots, bounds, pool)] != 0
    return found


@njit(cache=True, nogil=True)
def _atoms(codes: Any, begins: Any, starts: Any, kinds: Any) -> Any:
    """The atoms of all characters of chunks, one chunk after the other: uint16."""
    atoms = np.empty(starts[-1], np.uint16)
    for index in range(len(begins)):
        for at in range(starts[index], starts[index + 1]):
            atoms[at] = kinds[min(np.int64(codes[begins[index] - starts[index] + at]), len(kinds) - 1)]
    return atoms


@njit(cache=True, nogil=True)
def _tokens(begins: Any, starts: Any, edges: Any, unclear: Any) -> Any:
    """Beginnings and ends of the tokens of clear chunks, and how many each chunk has."""
    token_begins, token_ends = np.empty(starts[-1], np.int64), np.empty(starts[-1], np.int64)
    counts = np.zeros(len(begins), np.int64)
    known = 0
    for index in range(len(begins)):
        before = known
        if not unclear[index]:
            begin, shift = begins[index], begins[index] - starts[index]
            for at in range(starts[index] + 1, starts[index + 1] + 1):
                if edges[at] or at == starts[index + 1]:
                    token_begins[known], token_ends[known] = begin, shift + at
                    begin = shift + at
                    known += 1
        counts[index] = known - before
    return token_begins[:known].copy(), token_ends[:known].copy(), counts


@njit(cache=True, nogil=True)
def cut(codes: Any, begins: Any, ends: Any, affixes: Any, special: Any, longest: int) -> Any:
    """Tokens of chunks by the rules of a language: their beginnings, their ends, and how many each chunk has.

    A chunk with none is left to spaCy. `affixes` are `AffixRules.arrays`; `special` is the table of special cases,
    which have so many characters at most. No chunk is a special case.
    """
    kinds, flags, members, places, order, rules, conditions = affixes
    slots, bounds, pool = special
    starts = np.zeros(len(begins) + 1, np.int64)
    starts[1:] = np.cumsum(ends - begins)
    atoms = _atoms(codes, begins, starts, kinds)
    edges = np.zeros(starts[-1] + 1, np.bool_)
    left = _strip(starts, flags, atoms, members, places, order, rules, conditions, edges)
    unclear = _meet_special(codes, begins, starts, left, edges, longest, slots, bounds, pool)
    unclear |= _split(left, flags, atoms, members, places, order, rules, conditions, edges)
    for index in range(len(begins)):
        for at in range(starts[index], starts[index + 1]):
            unclear[index] |= flags[atoms[at]] & UNCLEAR != 0
    return _tokens(begins, starts, edges, unclear)
