"""Several sequences merged so that every beginning of the result holds them in given proportions.

The k-th element of a sequence with weight w is due at (k + 1/2) / w; the merged order is that of the dues, Webster's
method of apportionment. After n elements, each sequence's number differs from its share by less than half an element,
plus half the number of sequences times its share. Any place is found without walking through those before it.
"""

import math
from collections.abc import Sequence

import numpy as np

from model.data.documents import Integers

_BLOCK = 1 << 14


class Blend:
    """Merges sequences by weight; equal dues come in the order of the sequences."""

    def __init__(self, weights: Sequence[float]) -> None:
        total = math.fsum(weights)
        self.shares = tuple(weight / total for weight in weights)
        """Part of the result that each sequence makes up; together 1."""
        self._block = (-1, np.empty((2, 0), np.int64))

    def at(self, place: int) -> tuple[int, int]:
        """The sequence whose element is at a place, and which of its elements it is."""
        if len(self.shares) == 1:
            return 0, place
        number, within = divmod(place, _BLOCK)
        block = self._block
        if block[0] != number:
            block = self._block = (number, self._merged(number * _BLOCK))
        return int(block[1][0, within]), int(block[1][1, within])

    def _merged(self, first: int) -> Integers:
        """Sequence and element at places first, ..., first + _BLOCK - 1: [2, _BLOCK]."""
        margin = len(self.shares)
        begins = [self._due_from(sequence, first - margin) for sequence in range(len(self.shares))]
        ends = [self._due_from(sequence, first + _BLOCK + margin) for sequence in range(len(self.shares))]
        sequences = np.repeat(np.arange(margin), np.subtract(ends, begins))
        elements = np.concatenate([np.arange(*both) for both in zip(begins, ends, strict=True)])
        dues = (elements + 0.5) / np.array(self.shares)[sequences]
        order = np.lexsort((sequences, dues))[first - sum(begins) :][:_BLOCK]
        return np.stack([sequences[order], elements[order]])

    def _due_from(self, sequence: int, time: float) -> int:
        """The first element of a sequence that is due at a time or later."""
        share = self.shares[sequence]
        element = max(math.ceil(time * share - 0.5), 0)
        # Rounding may be off by one; the dues that `_merged` compares decide.
        while element > 0 and (element - 0.5) / share >= time:
            element -= 1
        while (element + 0.5) / share < time:
            element += 1
        return element
