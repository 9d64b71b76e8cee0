"""Samples that are left out of a run, as when a batch spoils the loss.

The order of a run is a sequence of *places*. Without skips the sample that is consumed as number n is at place n. Skips
are ranges of places `(first, end)`, sorted and apart from one another, that nobody takes: later samples move up. Since
skipped places come after those that were consumed before, a list of skips changes nothing of the past.
"""

Skips = tuple[tuple[int, int], ...]


def place_of(sample: int, skips: Skips) -> int:
    """The place of the sample that is consumed as number `sample`."""
    place = sample
    for first, end in skips:
        if place < first:
            break
        place += end - first
    return place


def skip(skips: Skips, first: int, end: int) -> Skips:
    """The skips that leave out samples first, ..., end - 1 too, as they are counted under the skips so far."""
    if first >= end:
        return skips
    return _joined(sorted([*skips, (place_of(first, skips), place_of(end - 1, skips) + 1)]))


def _joined(ranges: list[tuple[int, int]]) -> Skips:
    """Sorted ranges with those joined that overlap or touch."""
    joined = ranges[:1]
    for first, end in ranges[1:]:
        if first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((first, end))
    return tuple(joined)
