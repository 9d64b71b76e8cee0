"""xxHash on parts of a byte array, compiled: xxh32 and xxh64 with seed 0, equal to the xxhash library's.

The library wants a Python object for each thing to hash; a corpus has thousands of millions of shingles. Algorithm:
https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md.
"""

from typing import Any

import numpy as np
from numba import njit

_u32, _u64 = np.uint32, np.uint64
_A1, _A2, _A3 = _u32(0x9E3779B1), _u32(0x85EBCA77), _u32(0xC2B2AE3D)
_A4, _A5 = _u32(0x27D4EB2F), _u32(0x165667B1)
_START32 = (_u32(0x24234428), _A2, _u32(0), _u32(0x61C8864F))
_B1, _B2, _B3 = _u64(0x9E3779B185EBCA87), _u64(0xC2B2AE3D27D4EB4F), _u64(0x165667B19E3779F9)
_B4, _B5 = _u64(0x85EBCA77C2B2AE63), _u64(0x27D4EB2F165667C5)
_START64 = (_u64(0x60EA27EEADC0B5D6), _B2, _u64(0), _u64(0x61C8864E7A143579))


@njit(cache=True, nogil=True)
def _rotate32(value: Any, bits: int) -> Any:
    return _u32((value << _u32(bits)) | (value >> _u32(32 - bits)))


@njit(cache=True, nogil=True)
def _rotate64(value: Any, bits: int) -> Any:
    return (value << _u64(bits)) | (value >> _u64(64 - bits))


@njit(cache=True, nogil=True)
def _load32(data: Any, at: int) -> Any:
    low = _u32(data[at]) | _u32(data[at + 1]) << _u32(8)
    return _u32(low | _u32(data[at + 2]) << _u32(16) | _u32(data[at + 3]) << _u32(24))


@njit(cache=True, nogil=True)
def _load64(data: Any, at: int) -> Any:
    low = _u64(data[at]) | _u64(data[at + 1]) << _u64(8) | _u64(data[at + 2]) << _u64(16)
    low |= _u64(data[at + 3]) << _u64(24) | _u64(data[at + 4]) << _u64(32) | _u64(data[at + 5]) << _u64(40)
    return low | _u64(data[at + 6]) << _u64(48) | _u64(data[at + 7]) << _u64(56)


@njit(cache=True, nogil=True)
def _round32(lane: Any, value: Any) -> Any:
    return _u32(_rotate32(_u32(lane + _u32(value * _A2)), 13) * _A1)


@njit(cache=True, nogil=True)
def _round64(lane: Any, value: Any) -> Any:
    return _rotate64(lane + value * _B2, 31) * _B1


@njit(cache=True, nogil=True)
def xxh32(data: Any, start: int, stop: int) -> Any:
    """The xxh32 of data[start:stop], a uint8 array."""
    at = start
    if stop - start >= 16:
        one, two, three, four = _START32
        while at <= stop - 16:
            one, two = _round32(one, _load32(data, at)), _round32(two, _load32(data, at + 4))
            three, four = _round32(three, _load32(data, at + 8)), _round32(four, _load32(data, at + 12))
            at += 16
        value = _u32(_rotate32(one, 1) + _rotate32(two, 7) + _rotate32(three, 12) + _rotate32(four, 18))
    else:
        value = _A5
    value = _u32(value + _u32(stop - start))
    while at + 4 <= stop:
        value = _u32(_rotate32(_u32(value + _u32(_load32(data, at) * _A3)), 17) * _A4)
        at += 4
    while at < stop:
        value = _u32(_rotate32(_u32(value + _u32(_u32(data[at]) * _A5)), 11) * _A1)
        at += 1
    value = _u32((value ^ (value >> _u32(15))) * _A2)
    value = _u32((value ^ (value >> _u32(13))) * _A3)
    return _u32(value ^ (value >> _u32(16)))


@njit(cache=True, nogil=True)
def xxh64(data: Any, start: int, stop: int) -> Any:
    """The xxh64 of data[start:stop], a uint8 array."""
    at = start
    if stop - start >= 32:
        one, two, three, four = _START64
        while at <= stop - 32:
            one, two = _round64(one, _load64(data, at)), _round64(two, _load64(data, at + 8))
            three, four = _round64(three, _load64(data, at + 16)), _round64(four, _load64(data, at + 24))
            at += 32
        value = _rotate64(one, 1) + _rotate64(two, 7) + _rotate64(three, 12) + _rotate64(four, 18)
        for lane in (one, two, three, four):
            value = (value ^ _round64(_u64(0), lane)) * _B1 + _B4
    else:
        value = _B5
    value += _u64(stop - start)
    while at + 8 <= stop:
        value = _rotate64(value ^ _round64(_u64(0), _load64(data, at)), 27) * _B1 + _B4
        at += 8
    if at + 4 <= stop:
        value = _rotate64(value ^ (_u64(_load32(data, at)) * _B1), 23) * _B2 + _B3
        at += 4
    while at < stop:
        value = _rotate64(value ^ (_u64(data[at]) * _B5), 11) * _B1
        at += 1
    value = (value ^ (value >> _u64(33))) * _B2
    value = (value ^ (value >> _u64(29))) * _B3
    return value ^ (value >> _u64(32))
