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
def _fits(rule: int, at: int, lo: int, hi: int, atoms: Any, members: Any, starts: Any, conditions: Any) -> Any:
    """Whether a rule matches at a place, if it sees no more than what is from `lo` to `hi`."""
    for index in range(starts[rule], starts[rule + 1]):
        place = at + conditions[index, 0]
        inside = lo <= place < hi and members[conditions[index, 1], atoms[place]]
        if inside == (conditions[index, 2] != 0):
            return False
    return True


@njit(cache=True, nogil=True)
def _matched(at: int, lo: int, hi: int, atoms: Any, members: Any, rules: Any, least: int) -> Any:
    """Characters that the first rule matches at a place, at least so many; -1 if none does."""
    firsts, order, sizes, starts, conditions = rules
    atom = atoms[at]
    for index in range(firsts[atom], firsts[atom + 1]):
        rule = order[index]
        size = sizes[rule, 0]
        if size >= least and _fits(rule, at, lo, hi, atoms, members, starts, conditions):
            if sizes[rule, 1]:
                repeated = conditions[starts[rule] + size - 1, 1]
                while at + size < hi and members[repeated, atoms[at + size]]:
                    size += 1
            return size
    return -1


@njit(cache=True, nogil=True)
def _suffix(lo: int, hi: int, atoms: Any, members: Any, rules: Any) -> Any:
    """Characters of the longest suffix, 0 if there is none."""
    firsts, order, sizes, starts, conditions = rules
    atom, longest = atoms[hi - 1], 0
    for index in range(firsts[atom], firsts[atom + 1]):
        rule = order[index]
        size = sizes[rule, 0]
        if size <= hi - lo and _fits(rule, hi - size, lo, hi, atoms, members, starts, conditions):
            if sizes[rule, 1]:
                repeated = conditions[starts[rule], 1]
                while hi - size > lo and members[repeated, atoms[hi - size - 1]]:
                    size += 1
            longest = max(longest, size)
    return longest


@njit(cache=True, nogil=True)
def _is_special(codes: Any, begin: int, end: int, special: Any) -> Any:
    """Whether characters are a special case, or none are."""
    table, rules, longest = special
    if end - begin > longest or begin == end:
        return False
    entry = table[0][find(codes, begin, end - begin, hash_characters(codes, begin, end), table)]
    return 0 < entry < rules


@njit(cache=True, nogil=True)
def _strip(codes: Any, begin: int, size: int, atoms: Any, rules: Any, special: Any, out: Any, tail: Any) -> Any:
    """Take off prefixes, whose ends go to `out`, and suffixes, whose beginnings go to `tail`.

    Returns what remains, from where to where, and how many of both; -1 prefixes if the chunk is spaCy's.
    """
    flags, members, prefixes, suffixes = rules[1], rules[2], rules[3], rules[4]
    lo, hi, before, behind = 0, size, 0, 0
    while lo < hi:
        prefix = suffix = 0
        if flags[atoms[lo]] & PREFIX:
            prefix = max(_matched(lo, lo, hi, atoms, members, prefixes, 1), 0)
        if flags[atoms[hi - 1]] & SUFFIX and lo + prefix < hi:
            suffix = _suffix(lo + prefix, hi, atoms, members, suffixes)
        if prefix == suffix == 0:
            break
        if (prefix and _is_special(codes, begin + lo + prefix, begin + hi, special)) or (
            suffix and _is_special(codes, begin + lo, begin + hi - suffix, special)
        ):
            return lo, hi, -1, 0
        lo, hi = lo + prefix, hi - suffix
        if _is_special(codes, begin + lo, begin + hi, special):
            return lo, hi, -1, 0
        if prefix:
            out[before] = lo
            before += 1
        if suffix:
            tail[behind] = hi
            behind += 1
    return lo, hi, before, behind


@njit(cache=True, nogil=True)
def _split(lo: int, hi: int, atoms: Any, rules: Any, out: Any, size: int) -> Any:
    """Cut what remains at its infixes; the ends of the parts go to `out` from `size` on, whose new size is returned.

    -1 if it is cut and could be an address, which is whole. No infix begins what remains.
    """
    flags, members, infixes = rules[1], rules[2], rules[5]
    first, start, at = size, lo, lo + 1
    if lo < hi and flags[atoms[lo]] & INFIX:
        at = lo + max(_matched(lo, lo, hi, atoms, members, infixes, 0), 1)
    while at < hi:
        if not flags[atoms[at]] & INFIX:
            at += 1
            continue
        matched = _matched(at, lo, hi, atoms, members, infixes, 0)
        if matched >= 0 and start < at:
            out[size] = start = at
            size += 1
        if matched == 0:  # the next match has to be of more, but can be at the same place
            matched = _matched(at, lo, hi, atoms, members, infixes, 1)
        if matched > 0:
            out[size] = start = at + matched
            size += 1
        at += max(matched, 1)
    if size > first:
        for atom in atoms[lo:hi]:
            if flags[atom] & ADDRESS:
                return -1
    if start < hi:
        out[size] = hi
        size += 1
    return size


@njit(cache=True, nogil=True)
def cut(codes: Any, begins: Any, ends: Any, rules: Any, special: Any) -> Any:
    """Tokens of chunks by the rules of a language: their beginnings, their ends, and how many each chunk has.

    A chunk with none is left to spaCy. `rules` are `AffixRules.arrays`; `special` are the table of chunks, the first
    of its ids that is no special case, and the length of the longest special case. No chunk is a special case.
    """
    kinds, flags = rules[0], rules[1]
    total, longest = 0, 0
    for index in range(len(begins)):
        total += ends[index] - begins[index]
        longest = max(longest, ends[index] - begins[index])
    token_begins, token_ends = np.empty(total, np.int64), np.empty(total, np.int64)
    counts = np.zeros(len(begins), np.int64)
    atoms, out, tail = np.empty(longest, np.uint16), np.empty(longest, np.int64), np.empty(longest, np.int64)
    known = 0
    for index in range(len(begins)):
        begin, size = begins[index], ends[index] - begins[index]
        some = 0
        for place in range(size):
            atom = kinds[min(np.int64(codes[begin + place]), len(kinds) - 1)]
            atoms[place] = atom
            some |= flags[atom]
        if some & UNCLEAR:
            continue
        lo, hi, count, behind = 0, size, 0, 0
        if some & (PREFIX | SUFFIX):
            lo, hi, count, behind = _strip(codes, begin, size, atoms, rules, special, out, tail)
            if count < 0:
                continue
        if some & INFIX:
            count = _split(lo, hi, atoms, rules, out, count)
            if count < 0:
                continue
        elif lo < hi:
            out[count] = hi
            count += 1
        for place in range(behind - 1, -1, -1):
            out[count] = tail[place - 1] if place else size
            count += 1
        start = begin
        for place in range(count):
            token_begins[known], token_ends[known] = start, begin + out[place]
            start = begin + out[place]
            known += 1
        counts[index] = count
    return token_begins[:known].copy(), token_ends[:known].copy(), counts
