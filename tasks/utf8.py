"""Code points out of UTF-8 and back, for compiled loops over Arrow buffers."""

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def code_point(data: np.ndarray, position: Any, stop: Any) -> tuple[Any, Any]:
    """Code point and length of the UTF-8 sequence that starts at a position."""
    first = np.int64(data[position])
    if first < 0x80 or position + 1 >= stop:
        return first, 1
    if first < 0xE0 or position + 2 >= stop:
        return ((first & 0x1F) << 6) | (np.int64(data[position + 1]) & 0x3F), 2
    middle = ((np.int64(data[position + 1]) & 0x3F) << 6) | (np.int64(data[position + 2]) & 0x3F)
    if first < 0xF0 or position + 3 >= stop:
        return ((first & 0x0F) << 12) | middle, 3
    return ((first & 0x07) << 18) | (middle << 6) | (np.int64(data[position + 3]) & 0x3F), 4


@njit(cache=True, nogil=True)
def write_code_point(out: np.ndarray, size: Any, point: Any) -> Any:
    """Write a code point as UTF-8; returns the new size."""
    if point < 0x80:
        out[size] = point
        return size + 1
    if point < 0x800:
        out[size] = 0xC0 | (point >> 6)
        out[size + 1] = 0x80 | (point & 0x3F)
        return size + 2
    if point < 0x10000:
        out[size] = 0xE0 | (point >> 12)
        out[size + 1] = 0x80 | ((point >> 6) & 0x3F)
        out[size + 2] = 0x80 | (point & 0x3F)
        return size + 3
    out[size] = 0xF0 | (point >> 18)
    out[size + 1] = 0x80 | ((point >> 12) & 0x3F)
    out[size + 2] = 0x80 | ((point >> 6) & 0x3F)
    out[size + 3] = 0x80 | (point & 0x3F)
    return size + 4
