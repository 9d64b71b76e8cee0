"""The loops over characters, chunks and tokens behind `tasks.quality.words`, compiled by numba.

Arrays of characters are code points (uint32). Texts stand one after the other with one newline between them, so that
a Python slice of the joined text and a slice of the array name the same characters.
"""

from typing import Any

import numpy as np
from numba import njit

SPACE, BREAK, OPENING, LETTER, SYMBOL, MARK, ENDING = 1, 2, 4, 8, 16, 32, 64
"""Classes of characters: white space, the end of a line, a bullet or hyphen, a letter, part of a symbol, punctuation
(by its category), a mark that ends a sentence."""
BULLET_LINE, ELLIPSIS_LINE, SQUARE_LINE, CURLY_LINE = 1, 2, 4, 8
"""Flags of lines: begins with a bullet, ends in an ellipsis, holds a square bracket, holds a curly one."""
OTHER, TERMINAL, PUNCTUATION = 0, 1, 2
"""What a token does to sentences: begins one after a terminal mark, ends one, or neither."""
WORD, ALPHABETIC = 4, 8
"""Flags of tokens, besides what they do to sentences: not all of it is a symbol; it holds a letter."""
FRAGILE, HEAD, TAIL, CHANGED = 1, 2, 4, 8
"""Flags of a chunk or token: special cases changed its tokens; one could begin at its end; one could end at its start;
as a token, a special case takes its place."""
_BASE = np.uint64(0x9E3779B97F4A7C15)


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
def hash_characters(codes: Any, begin: int, end: int) -> Any:
    """A hash of 31 bits for tables of strings."""
    hashed = np.uint64(0)
    for position in range(begin, end):
        hashed = (hashed ^ np.uint64(codes[position])) * np.uint64(0x9E3779B97F4A7C15)
        hashed ^= hashed >> np.uint64(32)
    return np.int64(hashed & np.uint64(0x7FFFFFFF))


@njit(cache=True, nogil=True)
def find(codes: Any, begin: int, size: int, hashed: int, slots: Any, bounds: Any, pool: Any) -> Any:
    """The slot that holds a string, or the empty one where it belongs (see `look_up`).

    Arrays are given one by one, here and elsewhere: a tuple of them costs a count of references for each at each call.
    """
    slot = hashed & (len(slots) - 1)
    while slots[slot]:
        if slots[slot] >> 32 == hashed:
            first = bounds[slots[slot] & 0xFFFFFFFF]
            if bounds[(slots[slot] & 0xFFFFFFFF) + 1] - first == size:
                offset = 0
                while offset < size and pool[first + offset] == codes[begin + offset]:
                    offset += 1
                if offset == size:
                    break
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@njit(cache=True, nogil=True)
def look_up(
    codes: Any, begins: Any, ends: Any, slots: Any, bounds: Any, pool: Any, known: int, ids: Any, fresh: Any, start: int
) -> Any:
    """Ids of strings; 0 for empty ones. New ones are added to the table, until its slots are half full.

    The table: `slots` (a power of two of them) hold a string's hash and, in the lower half, its id, or 0; the id's
    characters are pool[bounds[id] : bounds[id + 1]], and there is room for all strings given. Fills in `ids` from
    string `start` on and, by id, `fresh`, the index of the string that is new. Returns how many ids are known, and
    which string comes next.
    """
    hashes = np.empty(len(begins), np.int64)  # in a loop of their own, so that memory is waited for less
    for index in range(start, len(begins)):
        hashes[index] = hash_characters(codes, begins[index], ends[index])
    for index in range(start, len(begins)):
        begin, size = begins[index], ends[index] - begins[index]
        if size == 0:
            ids[index] = 0
            continue
        slot = find(codes, begin, size, hashes[index], slots, bounds, pool)
        if slots[slot] == 0:
            if 2 * known > len(slots):
                return known, index
            slots[slot] = hashes[index] << 32 | known
            for offset in range(size):
                pool[bounds[known] + offset] = codes[begin + offset]
            bounds[known + 1] = bounds[known] + size
            fresh[known] = index
            known += 1
        ids[index] = slots[slot] & 0xFFFFFFFF
    return known, len(begins)


@njit(cache=True, nogil=True)
def fill_slots(slots: Any, filled: Any) -> None:
    """Enter into empty slots what others hold."""
    for entry in filled:
        if entry:
            slot = (entry >> 32) & (len(slots) - 1)
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
def describe(pool: Any, bounds: Any, classes: Any) -> Any:
    """For the tokens pool[bounds[i] : bounds[i + 1]]: flags, hash, and the hash's base to the length's power.

    Flags are what it does to sentences, WORD and ALPHABETIC. The hash is polynomial modulo 2^64: that of two tokens
    joined is hash(a) * power(b) + hash(b).
    """
    flags = np.zeros(len(bounds) - 1, np.uint8)
    hashes = np.zeros(len(flags), np.uint64)
    powers = np.ones(len(flags), np.uint64)
    for index in range(len(flags)):
        some, every = np.uint8(0), np.uint8(255)
        for code in pool[bounds[index] : bounds[index + 1]]:
            some |= classes[code]
            every &= classes[code]
            hashes[index] = hashes[index] * _BASE + np.uint64(code) + np.uint64(1)
            powers[index] *= _BASE
        size = bounds[index + 1] - bounds[index]
        if size == 1 and every & ENDING:
            flags[index] = TERMINAL
        elif size and every & MARK:
            flags[index] = PUNCTUATION
        if size and not every & SYMBOL:
            flags[index] |= WORD
        if some & LETTER:
            flags[index] |= ALPHABETIC
    return flags, hashes, powers
