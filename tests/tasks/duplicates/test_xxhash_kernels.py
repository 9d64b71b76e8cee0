"""The compiled hashes are the library's, for all lengths and places."""

import numpy as np
import xxhash

from tasks.duplicates.xxhash_kernels import xxh32, xxh64


def test_hashes_equal_the_library() -> None:
    data = np.random.default_rng(5).integers(0, 256, 400, dtype=np.uint8)
    for start in range(4):
        for stop in range(start, 200):
            part = data[start:stop].tobytes()
            assert xxh32(data, start, stop) == xxhash.xxh32_intdigest(part)
            assert xxh64(data, start, stop) == xxhash.xxh64_intdigest(part)
