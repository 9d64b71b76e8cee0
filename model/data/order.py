"""The order of training: which tokens make up which sample.

The order of training is a function of the seed and the dataset alone. In each epoch the documents are shuffled and
concatenated, the stream is cut every `sequence_length` tokens with one token of overlap (the last label of a sample is
the first input of the next), the rest at the end is dropped, and the samples are shuffled. The state is one integer,
the number of samples consumed; it means the same under every layout.

Megatron-Core's GPTDataset is not used: its order changes with the length of the run, it needs index files that must be
invalidated by hand, and it copies every token array through its own file format.
"""

import numpy as np

from infra.errors import BadInput
from model.data.documents import Documents, Integers, Stream


class TrainingOrder:
    """Samples in training order; see the module docstring."""

    def __init__(self, documents: Documents, sequence_length: int, seed: int) -> None:
        self._documents, self._length, self._seed = documents, sequence_length, seed
        self.samples_per_epoch = (int(documents.lengths.sum()) - 1) // sequence_length
        if self.samples_per_epoch < 1:
            raise BadInput(
                f"the training split has {int(documents.lengths.sum())} tokens",
                f"one sample takes sequence_length + 1 = {sequence_length + 1} tokens",
                "Lower model.sequence_length, or build a larger dataset",
            )
        self._epoch = -1
        self._stream = Stream(documents, np.empty(0, np.int64))
        self._samples = np.empty(0, np.int64)

    def sample(self, index: int) -> Integers:
        """The sequence_length + 1 tokens of sample `index`, counted from the start of training."""
        epoch, within = divmod(index, self.samples_per_epoch)
        if epoch != self._epoch:
            self._shuffle(epoch)
        return self._stream.read(int(self._samples[within]) * self._length, self._length + 1)

    def _shuffle(self, epoch: int) -> None:
        # The legacy generator, because NumPy promises that its numbers never change.
        random = np.random.RandomState([self._seed, epoch])
        self._stream = Stream(self._documents, random.permutation(len(self._documents)).astype(np.int64))
        self._samples = random.permutation(self.samples_per_epoch)
        self._epoch = epoch
