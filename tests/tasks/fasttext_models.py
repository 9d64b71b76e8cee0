"""fastText files for tests: small random models, written field by field."""

import struct

import numpy as np

LABELS = ("__label__hq", "__label__cc", "__label__other")
WORDS = ("the", "mill", "river", "water", "grain", "miller", "</s>", "of", "über")


def random_model(dimension: int = 5, word_ngrams: int = 3, buckets: int = 1000, seed: int = 1, loss: int = 3) -> bytes:
    """A supervised model without subwords, with random matrices."""
    random = np.random.default_rng(seed)
    rows = len(WORDS) + buckets
    parts = [
        struct.pack("<2i12id", 793712314, 12, dimension, 5, 5, 1, 5, word_ngrams, loss, 3, buckets, 0, 0, 100, 1e-4),
        struct.pack("<3i2q", len(WORDS) + len(LABELS), len(WORDS), len(LABELS), 100, -1),
        *(word.encode() + b"\0" + struct.pack("<qb", 5, 0) for word in WORDS),
        *(label.encode() + b"\0" + struct.pack("<qb", 5, 1) for label in LABELS),
        struct.pack("<?2q", False, rows, dimension),
        random.normal(size=(rows, dimension)).astype("<f4").tobytes(),
        struct.pack("<?2q", False, len(LABELS), dimension),
        random.normal(size=(len(LABELS), dimension)).astype("<f4").tobytes(),
    ]
    return b"".join(parts)
