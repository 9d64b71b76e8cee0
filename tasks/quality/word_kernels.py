"""The loops over characters, chunks and tokens behind `tasks.quality.words`, compiled by numba.

Arrays of characters are code points (uint32). Texts stand one after the other with one newline between them, so that
a Python slice of the joined text and a slice of the array name the same characters.
"""

from typing import Any

import numpy as np
from numba import njit

SPACE, BREAK, OPENING, LETTER = 1, 2, 4, 8
"""Classes of characters: white space, the end of a line, a bullet or hyphen, a letter."""
TAIL_ALWAYS, TAIL_AFTER_LOWER = 1, 2
"""Marks that are cut off a word of letters: always, or after a-z."""
DIFFICULT, LETTERS, LETTERS_AND_TAIL = 0, 1, 2
"""Kinds of new chunks: one needs the rules, the others are a word of letters, with or without a mark behind it."""
BULLET_LINE, ELLIPSIS_LINE, SQUARE_LINE, CURLY_LINE = 1, 2, 4, 8
"""Flags of lines: begins with a bullet, ends in an ellipsis, holds a square bracket, holds a curly one."""
OTHER, TERMINAL, PUNCTUATION = 0, 1, 2
"""What a token does to sentences: begins one after a terminal mark, ends one, or neither."""
FRAGILE, HEAD, TAIL = 1, 2, 4
"""Flags of a chunk: special cases changed its tokens; one could begin at its end; one could end at its start."""
_M61 = np.uint64((1 << 61) - 1)
_BASE = np.uint64(1_000_003_000_017)


@njit(cache=True, nogil=True)
def _line_flags(codes: Any, begin: int, end: int, classes: Any) -> Any:
    """BULLET_LINE and its like of a line without white space around it."""
    flags = BULLET_LINE if classes[codes[begin]] & OPENING else 0
    for code in codes[begin:end]:
        if code == 91:
            flags |= SQUARE_LINE
        elif code == 123:
            flags |= CURLY_LINE
    three = end - begin >= 3 and codes[end - 1] == 46 and codes[end - 2] == 46 and codes[end - 3] == 46
    return flags | (ELLIPSIS_LINE if three or codes[end - 1] == 0x2026 else 0)


@njit(cache=True, nogil=True)
def scan(codes: Any, text_starts: Any, classes: Any, whole: bool) -> Any:
    """Lines and chunks of texts, where text i is codes[text_starts[i] : text_starts[i + 1] - 1].

    Lines end where `str.splitlines` ends them, or, if `whole`, with their text. An empty chunk stands for white space
    between two chunks that is not one space, or, if `whole`, for such white space at the end. Returns beginnings and
    ends of chunks; for each line where its chunks begin (and the end), its number of words, its stripped beginning
    and end, its longest word and its flags; and where the lines of each text begin (and the end).
    """
    texts = len(text_starts) - 1
    breaks = texts
    for code in codes:
        breaks += classes[code] & BREAK != 0
    begins, ends = np.empty(len(codes) + 1, np.int64), np.empty(len(codes) + 1, np.int64)
    line_chunks = np.zeros(breaks + 1, np.int64)
    line_begins, line_ends = np.empty(breaks, np.int64), np.empty(breaks, np.int64)
    words, longest = np.zeros(breaks, np.int64), np.zeros(breaks, np.int64)
    flags = np.zeros(breaks, np.uint8)
    text_lines = np.zeros(texts + 1, np.int64)
    chunk = line = 0
    for text in range(texts):
        at, stop = text_starts[text], text_starts[text + 1] - 1
        while at < stop or (whole and at == text_starts[text]):
            line_begins[line] = line_ends[line] = at
            inside = False
            gap = at
            while at < stop:
                kind = classes[codes[at]]
                if kind & BREAK and not whole:
                    break
                if kind & SPACE:
                    if inside:
                        inside, gap = False, at
                        ends[chunk] = at
                        longest[line] = max(longest[line], at - begins[chunk])
                        chunk += 1
                elif not inside:
                    inside = True
                    if words[line] == 0:
                        line_begins[line] = at
                    elif at - gap != 1 or codes[gap] != 32:
                        begins[chunk] = ends[chunk] = gap
                        chunk += 1
                    begins[chunk] = at
                    words[line] += 1
                at += 1
            if inside:
                ends[chunk] = at
                longest[line] = max(longest[line], at - begins[chunk])
                chunk += 1
            elif whole and words[line] and (at - gap != 1 or codes[gap] != 32):
                begins[chunk] = ends[chunk] = gap
                chunk += 1
            if words[line]:
                line_ends[line] = at if inside else gap
                flags[line] |= _line_flags(codes, line_begins[line], line_ends[line], classes)
            line += 1
            line_chunks[line] = chunk
            at += 2 if at + 1 < stop and codes[at] == 13 and codes[at + 1] == 10 else 1
        text_lines[text + 1] = line
    lines = (line_chunks[: line + 1], words[:line], line_begins[:line], line_ends[:line], longest[:line], flags[:line])
    return begins[:chunk].copy(), ends[:chunk].copy(), lines, text_lines


@njit(cache=True, nogil=True)
def _slot(hashed: Any, slots: Any) -> Any:
    return np.int64((hashed ^ (hashed >> np.uint64(29))) & np.uint64(len(slots) - 1))


@njit(cache=True, nogil=True)
def _find(codes: Any, begin: int, size: int, hashed: Any, slots: Any, hashes: Any, bounds: Any, pool: Any) -> Any:
    """The slot that holds a chunk, or the empty one where it belongs."""
    slot = _slot(hashed, slots)
    while slots[slot]:
        entry = slots[slot]
        if hashes[entry] == hashed and bounds[entry + 1] - bounds[entry] == size:
            same = True
            for offset in range(size):
                if pool[bounds[entry] + offset] != codes[begin + offset]:
                    same = False
                    break
            if same:
                break
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@njit(cache=True, nogil=True)
def look_up(codes: Any, begins: Any, ends: Any, classes: Any, tails: Any, rules: int, table: Any, known: int) -> Any:
    """Ids of chunks; 0 for empty ones. New ones are added to the table, which has to have room for all.

    The table: `slots` (a power of two of them) hold ids or 0; by id, `hashes`, and the characters
    pool[bounds[id] : bounds[id + 1]]. Ids below `rules` are special cases; `tails` says of ASCII characters which are
    cut off a word, and nothing is plain if it is empty. Returns ids and, for each new id in turn, the index of its
    chunk and its kind.
    """
    slots, hashes, bounds, pool = table
    ids = np.zeros(len(begins), np.int32)
    fresh = np.empty(len(begins), np.int64)
    kinds = np.zeros(len(begins), np.uint8)
    first = known
    for index in range(len(begins)):
        begin, size = begins[index], ends[index] - begins[index]
        if size == 0:
            continue
        hashed = before = np.uint64(0)
        letters = 0
        for position in range(begin, begin + size):
            before = hashed
            hashed = (hashed ^ np.uint64(codes[position])) * np.uint64(0x9E3779B97F4A7C15)
            hashed ^= hashed >> np.uint64(32)
            letters += classes[codes[position]] & LETTER != 0
        slot = _find(codes, begin, size, hashed, slots, hashes, bounds, pool)
        if slots[slot] == 0:
            last = codes[begin + size - 1]
            if letters == size and len(tails):
                kinds[known - first] = LETTERS
            elif letters == size - 1 and size > 1 and last < len(tails) and tails[last]:
                word = slots[_find(codes, begin, size - 1, before, slots, hashes, bounds, pool)]
                lower = 97 <= codes[begin + size - 2] <= 122
                if (word == 0 or word >= rules) and (lower or tails[last] == TAIL_ALWAYS):
                    kinds[known - first] = LETTERS_AND_TAIL
            slots[slot] = known
            hashes[known] = hashed
            pool[bounds[known] : bounds[known] + size] = codes[begin : begin + size]
            bounds[known + 1] = bounds[known] + size
            fresh[known - first] = index
            known += 1
        ids[index] = slots[slot]
    return ids, fresh[: known - first].copy(), kinds[: known - first].copy()


@njit(cache=True, nogil=True)
def fill_slots(slots: Any, hashes: Any, known: int) -> None:
    """Enter all known ids into empty slots."""
    for entry in range(1, known):
        slot = _slot(hashes[entry], slots)
        while slots[slot]:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = entry


@njit(cache=True, nogil=True)
def linked_lines(ids: Any, line_chunks: Any, flags: Any) -> Any:
    """Whether a line has two neighbouring chunks that special cases may join, one of them changed by such a case."""
    linked = np.zeros(len(line_chunks) - 1, np.bool_)
    for line in range(len(linked)):
        before = np.uint8(0)
        for index in range(line_chunks[line], line_chunks[line + 1]):
            now = flags[ids[index]]
            if before & HEAD and now & TAIL and (before | now) & FRAGILE:
                linked[line] = True
            before = now
    return linked


@njit(cache=True, nogil=True)
def gather(ids: Any, line_chunks: Any, starts: Any, chunk_tokens: Any, roles: Any, is_word: Any) -> Any:
    """Tokens of all lines but white space, where each line's begin (and the end), its sentences and its words."""
    total = 0
    for index in ids:
        total += starts[index + 1] - starts[index]
    tokens = np.empty(total, np.int32)
    lines = len(line_chunks) - 1
    begins = np.zeros(lines + 1, np.int64)
    sentences = np.ones(lines, np.int64)
    words = np.zeros(lines, np.int64)
    size = 0
    for line in range(lines):
        ended = False
        for index in ids[line_chunks[line] : line_chunks[line + 1]]:
            for token in chunk_tokens[starts[index] : starts[index + 1]]:
                role = roles[token]
                if role == TERMINAL:
                    ended = True
                elif role == OTHER and ended:
                    sentences[line] += 1
                    ended = False
                if token:
                    tokens[size] = token
                    size += 1
                    words[line] += is_word[token]
        begins[line + 1] = size
    return tokens[:size].copy(), begins, sentences, words


@njit(cache=True, nogil=True)
def multiply(a: Any, b: Any) -> Any:
    """The product of two uint64 below 2^61-1, modulo 2^61-1."""
    half, low31, low30 = np.uint64(31), np.uint64((1 << 31) - 1), np.uint64((1 << 30) - 1)
    upper_a, lower_a, upper_b, lower_b = a >> half, a & low31, b >> half, b & low31
    middle = lower_a * upper_b + upper_a * lower_b
    total = ((upper_a * upper_b) << np.uint64(1)) + (middle >> np.uint64(30)) + ((middle & low30) << half)
    total += lower_a * lower_b
    total = (total & _M61) + (total >> np.uint64(61))
    return total - _M61 if total >= _M61 else total


@njit(cache=True, nogil=True)
def add(a: Any, b: Any) -> Any:
    """The sum of two uint64 below 2^61-1, modulo 2^61-1."""
    total = a + b
    return total - _M61 if total >= _M61 else total


@njit(cache=True, nogil=True)
def hash_tokens(codes: Any, lengths: Any) -> Any:
    """For tokens that stand one after the other: hash of the characters, and the hash's base to the length's power.

    The hash is polynomial modulo 2^61-1: that of two tokens joined is hash(a) * power(b) + hash(b).
    """
    hashes = np.zeros(len(lengths), np.uint64)
    powers = np.ones(len(lengths), np.uint64)
    at = 0
    for index in range(len(lengths)):
        for position in range(at, at + lengths[index]):
            hashes[index] = add(multiply(hashes[index], _BASE), np.uint64(codes[position]) + np.uint64(1))
            powers[index] = multiply(powers[index], _BASE)
        at += lengths[index]
    return hashes, powers
