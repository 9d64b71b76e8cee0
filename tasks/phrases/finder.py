"""Phrases found in texts, in bulk on Arrow buffers: what word lists and benchmark n-grams have in common.

A text is read as *words*: lower-case letters and digits, whatever else stands between them left out ("Don't!" is
`don t`, with any apostrophe), and one word for each character of a script that sets no spaces (Chinese, Japanese,
Thai, Khmer) and for each emoji. A phrase is some words in a row. While a text is read, the hash of the last n words
rolls along for every length n that the phrases have; a hash that is known leads to the phrase, whose letters are then
compared, so that equal hashes of different words match nothing. Time is linear in the text; memory is the text's own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.phrases.phrase_kernels import character_table, find_phrases, hash_phrases, make_filter, split_words

BITS_A_PHRASE = 16  # of the filter before the search; one look-up in 16 goes on to search in vain


class Buffer(NamedTuple):
    """Texts as UTF-8 in one buffer: text i is data[offsets[i]:offsets[i + 1]]."""

    data: np.ndarray
    offsets: np.ndarray


class Phrases(NamedTuple):
    """Phrases in order of their hashes; phrase i is data[starts[i]:ends[i]], words with one space between."""

    data: np.ndarray
    hashes: np.ndarray
    """uint64 (phrases,), ascending; equal ones may follow each other."""
    starts: np.ndarray
    ends: np.ndarray
    lengths: np.ndarray
    """int64: the numbers of words that phrases have, each once, ascending."""
    filter: np.ndarray
    """uint8: bit `hash >> shift` is set for each hash."""
    shift: int


class Hits(NamedTuple):
    """Where phrases stand, in order of the texts and places. All int64 (hits,) but for `words`."""

    text: np.ndarray
    phrase: np.ndarray
    """Row of the phrase."""
    word: np.ndarray
    """Number of its first word in the text."""
    start: np.ndarray
    end: np.ndarray
    """Where it stands in the text as given, in bytes of its UTF-8."""
    words: np.ndarray
    """int64 (texts,): words of each text that were read."""


class Words(NamedTuple):
    """Words of texts: word i is data[starts[i]:ends[i]]; those of text t are offsets[t] to offsets[t + 1]."""

    data: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    hashes: np.ndarray
    offsets: np.ndarray


def buffer(texts: pa.ChunkedArray | pa.Array | Sequence[str]) -> Buffer:
    """The bytes of texts, without copying an Arrow column of large strings that is in one piece; nulls are empty."""
    array: Any = texts
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if not isinstance(array, pa.Array):
        array = pa.array(array, pa.large_string())
    array = array.cast(pa.large_string())
    if array.null_count:
        array = array.fill_null("")
    if not len(array):
        return Buffer(_frozen(np.zeros(0, np.uint8)), _frozen(np.zeros(1, np.int64)))
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return Buffer(_frozen(np.frombuffer(data or b"", np.uint8)), _frozen(ends))


def words_of(texts: pa.ChunkedArray | pa.Array | Sequence[str]) -> Words:
    """All words of some texts at once; for phrases, not for documents: it takes several times their memory."""
    return Words(*split_words(*buffer(texts), character_table()))


def phrase_hashes(words: Words, firsts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """uint64: hashes of the phrases that begin at some words and have so many of them."""
    return hash_phrases(words.hashes, firsts.astype(np.int64), counts.astype(np.int64))


def phrases(data: np.ndarray, hashes: np.ndarray, starts: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> Phrases:
    """Phrases that are already in order, made ready for finding."""
    bits = max(10, int(BITS_A_PHRASE * max(len(hashes), 1) - 1).bit_length())
    shift = 64 - bits
    bitmap = make_filter(hashes, shift, bits)
    return Phrases(*map(_frozen, (data, hashes, starts, ends, lengths)), filter=_frozen(bitmap), shift=shift)


def find(texts: pa.ChunkedArray | pa.Array | Sequence[str], wanted: Phrases, most: int) -> Hits:
    """Every place where a phrase stands in a text; a text with `most` of them or more is read no further."""
    data, offsets = buffer(texts)
    found, words = find_phrases(data, offsets, character_table(), wanted, most)
    return Hits(found[0], found[1], found[2], found[3], found[4], words)


def _frozen(array: np.ndarray) -> np.ndarray:
    """A view that is read only, as mapped files are: one compiled loop serves all."""
    view = array.view()
    view.flags.writeable = False
    return view
