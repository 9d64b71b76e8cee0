"""How one pass over the documents becomes samples of equal length.

A sample is made of *pieces*: runs of tokens of one document each. Its pieces hold the tokens that are predicted. Each
is predicted from the one before it in its document, a document's first from an end-of-document token, so that no token
is predicted twice or never, and a document begins in training as it does in generation.
"""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from model.data.documents import Integers


class Pieces(NamedTuple):
    """Pieces in the order in which a sample has them: arrays of equal length."""

    documents: Integers
    starts: Integers
    """The first token of each, counted in its document."""
    counts: Integers
    """Tokens of each, at least one."""


class Epoch(Protocol):
    """One pass over the documents."""

    samples: int

    def pieces(self, sample: int) -> Pieces:
        """Pieces of a sample, together at most as many tokens as a sample has."""
        ...


class CutEpoch:
    """Documents one after another in a given order, cut every `length` tokens."""

    def __init__(self, lengths: Integers, order: Integers, length: int, *, keep_rest: bool = False) -> None:
        self._order, self._length = order, length
        self._ends: Integers = np.cumsum(lengths[order], dtype=np.int64)
        self._total = int(self._ends[-1]) if len(order) else 0
        self.samples = -(-self._total // length) if keep_rest else self._total // length
        """The rest, shorter than a sample, is dropped unless it is to be kept."""

    def pieces(self, sample: int) -> Pieces:
        """Pieces of a sample; only that of a rest is shorter than the others."""
        first, end = sample * self._length, min((sample + 1) * self._length, self._total)
        begin = int(np.searchsorted(self._ends, first, side="right"))
        last = int(np.searchsorted(self._ends, end, side="left"))
        ends = self._ends[begin : last + 1]
        begins = np.empty_like(ends)
        begins[0] = self._ends[begin - 1] if begin else 0
        begins[1:] = ends[:-1]
        inside = np.maximum(begins, first)
        counts = np.minimum(ends, end) - inside
        kept = counts > 0  # documents without tokens
        return Pieces(self._order[begin : last + 1][kept], (inside - begins)[kept], counts[kept])


@dataclass(frozen=True)
class _Bins:
    """Samples that are filled alike, with numbers from `first` on."""

    first: int
    uses: tuple[tuple[int, int, int], ...]
    """(length, pieces of that length in each sample, number of the first among the pieces of that length)."""


class BestFit:
    """Which lengths share a sample: a plan that is the same for every order of the documents.

    Documents are cut into pieces of `length` tokens and a shorter rest. Rests are taken from the longest to the
    shortest; each goes to the fullest sample in which there is room, else to a new one (arXiv:2404.10830). Since only
    lengths matter, samples with equal room are filled together, and the work grows with `length`, not with the text.
    """

    def __init__(self, lengths: Integers, length: int) -> None:
        self.length = length
        self.whole = int((lengths // length).sum())
        """Samples that one piece fills."""
        self.of_length: Integers = np.bincount(lengths % length, minlength=length)
        """Number of rests of each length."""
        self.of_length[0] = 0
        self._rooms: list[int] = []
        self._open: dict[int, list[tuple[int, tuple[tuple[int, int, int], ...]]]] = {}
        for rest in range(length - 1, 0, -1):
            self._place(rest, int(self.of_length[rest]))
        self.bins: list[_Bins] = []
        self.samples = self.whole
        for groups in self._open.values():
            for count, uses in groups:
                self.bins.append(_Bins(self.samples, uses))
                self.samples += count
        self.padding_share = 1 - int(lengths.sum()) / max(self.samples * length, 1)
        """Part of the positions that holds no token."""

    def _place(self, rest: int, count: int) -> None:
        """Find room for `count` pieces of `rest` tokens."""
        done = 0
        while done < count:
            nearest = bisect_left(self._rooms, rest)
            if nearest < len(self._rooms):
                room = self._rooms[nearest]
                bins, uses = self._take(room)
            else:
                room, bins, uses = self.length, -(-(count - done) // (self.length // rest)), ()
            each = min(room // rest, count - done)
            filled = min(bins, (count - done) // each)
            self._put(room - each * rest, filled, (*uses, (rest, each, done)))
            self._put(room, bins - filled, tuple((size, per, first + filled * per) for size, per, first in uses))
            done += filled * each

    def _take(self, room: int) -> tuple[int, tuple[tuple[int, int, int], ...]]:
        groups = self._open[room]
        group = groups.pop()
        if not groups:
            del self._open[room]
            self._rooms.remove(room)
        return group

    def _put(self, room: int, count: int, uses: tuple[tuple[int, int, int], ...]) -> None:
        if count == 0:
            return
        if room not in self._open:
            self._open[room] = []
            insort(self._rooms, room)
        self._open[room].append((count, uses))


class BestFitEpoch:
    """The plan carried out with the documents in a given order."""

    def __init__(self, plan: BestFit, lengths: Integers, order: Integers) -> None:
        self._plan, self.samples = plan, plan.samples
        wholes, rests = lengths[order] // plan.length, lengths[order] % plan.length
        self._whole_documents = np.repeat(order, wholes)
        self._whole_numbers = np.arange(plan.whole) - np.repeat(np.cumsum(wholes) - wholes, wholes)
        self._by_length: Integers = np.argsort(rests, kind="stable")[int((rests == 0).sum()) :]
        """Places in the order of documents with a rest, the shortest rests first."""
        self._first_of_length: Integers = np.cumsum(plan.of_length) - plan.of_length
        self._order, self._starts = order, wholes * plan.length
        self._bins_begin = [each.first for each in plan.bins]

    def pieces(self, sample: int) -> Pieces:
        """Pieces of a sample: one that fills it, or rests in the order of their documents."""
        if sample < self._plan.whole:
            start = self._whole_numbers[sample] * self._plan.length
            return Pieces(*(np.array([x]) for x in (self._whole_documents[sample], start, self._plan.length)))
        bins = self._plan.bins[bisect_right(self._bins_begin, sample) - 1]
        number = sample - bins.first
        places: list[Integers] = []
        counts: list[Integers] = []
        for length, each, first in bins.uses:
            begin = int(self._first_of_length[length]) + first + number * each
            places.append(self._by_length[begin : begin + each])
            counts.append(np.full(each, length, np.int64))
        found, sizes = np.concatenate(places), np.concatenate(counts)
        turn = np.argsort(found)
        return Pieces(self._order[found[turn]], self._starts[found[turn]], sizes[turn])
