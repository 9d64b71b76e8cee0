"""What a dataset has taken of each crawl, by the records that refreshes leave beside its manifests.

    datasets/NAME/VERSION/refresh.json    RefreshRecord, written before the version is made
    refreshes/NAME.json                   RefreshJournal of a refresh that is under way, or was killed

A record counts once its dataset's manifest is there, so that a killed refresh takes the same again. A version that was
made by hand has no record: what it took of its crawl is all that was wanted of it. It took nothing if it was made anew
(dataset.rebuild, other filters) of pages that another version had read.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from infra.manifest import (
    DatasetManifest,
    Manifest,
    dataset_folder,
    dataset_versions,
    load_dataset,
    newest_version,
    version_key,
)
from infra.store import Store
from tasks.sources.crawls import Crawl, find_crawl
from tasks.sources.fetch import FETCH


class RefreshRecord(Manifest):
    """What one dataset version takes of a crawl."""

    crawl: str
    first_shard: int
    """Place in the crawl's listing."""
    shards: int
    end: int
    """Place in the listing where what is wanted of the crawl ends: it is done when a version reaches it."""
    bytes: int | None = None
    """Of these shards on the server; null where no budget asked for it."""
    estimated_tokens: int | None = None
    """Null where no budget asked for it."""
    previous: str | None = None
    """The version before, whose tokenizer is taken and which the change report compares."""
    empty: bool = False
    """Too little of it was left for a version, so that there is none; what was left is not trained on."""

    @property
    def next_shard(self) -> int:
        """Place in the listing where the next version goes on."""
        return self.first_shard + self.shards

    @property
    def completes(self) -> bool:
        """Whether the crawl is done with it."""
        return self.next_shard >= self.end


class RefreshJournal(Manifest):
    """The versions of one refresh, so that it keeps to its budget when it is killed and goes on."""

    asked: str
    """Fingerprint of what was asked for: another journal does not count."""
    versions: tuple[str, ...] = ()
    """In the order of their making; the last may not be finished."""


@dataclass(frozen=True)
class Taken:
    """What a version has of a crawl."""

    version: str
    crawl: str
    record: RefreshRecord | None
    """None of a version made by hand."""

    @property
    def published(self) -> bool:
        """Whether there is such a version."""
        return self.record is None or not self.record.empty


def record_path(name: str, version: str) -> str:
    """Path of a version's RefreshRecord, relative to the root."""
    return f"{dataset_folder(name, version)}/refresh.json"


def journal_path(name: str) -> str:
    """Path of a dataset's RefreshJournal, relative to the root."""
    return f"refreshes/{name}.json"


def taken(store: Store, name: str) -> list[Taken]:
    """What each version of a dataset has of a crawl, oldest version first; those without a crawl are left out."""
    recorded = [part for version in store.names(f"datasets/{name}") if (part := _recorded(store, name, version))]
    return sorted([*recorded, *_by_hand(store, name, recorded)], key=lambda each: version_key(each.version))


def _recorded(store: Store, name: str, version: str) -> Taken | None:
    """What a version has by its record; None without one, and where it was not finished."""
    if not store.exists(record_path(name, version)):
        return None
    record = RefreshRecord.load(store, record_path(name, version))
    done = record.empty or store.exists(f"{dataset_folder(name, version)}/manifest.json")
    return Taken(version, record.crawl, record) if done else None


def _by_hand(store: Store, name: str, recorded: Sequence[Taken]) -> Iterator[Taken]:
    """What versions without a record have, but for those that were made of another's pages."""
    names, versions = {each.version for each in recorded}, dataset_versions(store, name)
    by_hand = [load_dataset(store, name, version) for version in versions if version not in names]
    others = [load_dataset(store, name, version) for version in versions if by_hand and version in names]
    read = {each.stages.get(FETCH.name) for each in others}
    for dataset in by_hand:
        pages, crawl = dataset.stages.get(FETCH.name), _crawl_of(dataset)
        if crawl is not None and (pages is None or pages not in read):
            yield Taken(dataset.version, crawl, None)
            read.add(pages)


def _crawl_of(dataset: DatasetManifest) -> str | None:
    return dataset.settings.get("source", {}).get("crawl")


def is_done(parts: Sequence[Taken], crawl: str, end: int | None = None) -> bool:
    """Whether all that is wanted of a crawl is in some version: all that was wanted then, or all up to `end`."""
    found = [each.record for each in parts if each.crawl == crawl]
    return any(each is None or each.completes or (end is not None and each.next_shard >= end) for each in found)


def next_shard(parts: Sequence[Taken], crawl: str, first: int) -> int:
    """Place in a crawl's listing up to which versions have taken its shards; `first` if none has."""
    return max((each.record.next_shard for each in parts if each.crawl == crawl and each.record), default=first)


def last_crawl(parts: Sequence[Taken], crawls: Sequence[Crawl]) -> Crawl | None:
    """The newest crawl that a dataset has something of; BadInput where it cannot be told when one was made."""
    return max((find_crawl(crawls, each.crawl) for each in parts), default=None)


def new_version(parts: Sequence[Taken], names: Sequence[str], crawl: str, *, newest: bool) -> str:
    """What the next version of a crawl is called: 2026.42 after CC-MAIN-2026-42, then 2026.42-2 for more of it.

    The newest version must be so by name too: behind 2026.11.22, made by hand in week 47, 2026.11.22-2026.05 follows.
    `names` are those of all versions, oldest first.
    """
    numbers = re.search(r"[0-9].*", crawl)
    base = numbers[0].replace("-", ".") if numbers else crawl
    count = 1 + sum(each.crawl == crawl and each.record is not None for each in parts)
    while True:
        version = base if count == 1 else f"{base}-{count}"
        if newest:
            version = newest_version(version, names)
        if version not in names:
            return version
        count += 1
