"""A refresh without Prefect: which crawls are new, what of them fits, and the versions that are made of it, in order.

Everything that decides a version is decided anew after a kill, from the versions that are there and the journal, and
comes out the same: so the same command goes on where it was stopped, and ends with the same bytes.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from flows.config import DatasetSettings
from flows.refreshes.budget import Amount, Rate, choose
from flows.refreshes.history import (
    RefreshJournal,
    RefreshRecord,
    Taken,
    is_done,
    journal_path,
    last_crawl,
    new_version,
    next_shard,
    record_path,
    taken,
)
from flows.refreshes.settings import RefreshSettings
from flows.sample import SAMPLE, resolve_source, sample_source
from infra.change_report import ChangeReport, change_report_paths
from infra.errors import BadInput
from infra.manifest import (
    DatasetManifest,
    StageManifest,
    dataset_folder,
    dataset_versions,
    fingerprint,
    load_dataset,
    version_key,
)
from infra.settings import Settings
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.dataset import NothingLeft
from tasks.pipeline import manifest_path
from tasks.sources.crawls import Crawl, between, find_crawl, list_crawls
from tasks.sources.fetch import FETCH, shard_paths
from tasks.sources.transport import SourceMissingError, SourceSettings, SourceUnavailableError, join_url, source_size
from tasks.tokens.tokenizer import TokenizerSettings

logger = logging.getLogger(__name__)


class Refreshed(Settings):
    """A dataset version that a refresh has made."""

    version: str
    crawl: str
    first_shard: int
    shards: int
    end: int
    """Shards of the crawl that are wanted, by their place in the listing."""
    documents: int = 0
    """Documents that were read."""
    added: int = 0
    known: int = 0
    """Documents that an earlier version has."""
    tokens: int = 0
    """Of both splits; 0 if too little was left for a version, so that there is none."""
    estimated_tokens: int | None = None
    alarms: tuple[str, ...] = ()
    """What has drifted beyond its bound."""
    report: str | None = None
    """The change report's page, relative to the root."""

    def text(self) -> str:
        """The same for people."""
        where = f"shards {self.first_shard} to {self.first_shard + self.shards - 1} of {self.end} of {self.crawl}"
        if not self.tokens:
            return f"{self.version}  {where}: too little is new for a version"
        return (
            f"{self.version}  {where}: {self.documents:,} documents, {self.added:,} added, {self.known:,} known, "
            f"{self.tokens:,} tokens" + "".join(f"\n  ALARM {each}" for each in self.alarms)
        )


@dataclass(frozen=True)
class Refreshing:
    """What a refresh works with."""

    store: Store
    refresh: RefreshSettings
    build: Callable[[CorpusSettings, DatasetSettings], DatasetManifest]
    """Makes and publishes a dataset, and adds it to its index."""
    report: Callable[[DatasetManifest, DatasetManifest | None, str], ChangeReport]
    """Compares a version with the one before, given its crawl, and tells everyone what it found; perhaps twice."""
    index: Callable[[str, DatasetManifest], None]
    """Adds a dataset to an index, if it is not there."""

    @property
    def name(self) -> str:
        """Of the dataset."""
        return self.refresh.dataset

    def run(self) -> list[Refreshed]:
        """Make what is new into versions; the versions of this refresh, of an earlier attempt at it too.

        Until `end` is called, another run goes on with the same budget.
        """
        source = self.refresh.corpus.source
        if source.crawl != SourceSettings().crawl and source.base_url != SAMPLE:
            logger.warning("refresh.corpus.source.crawl=%s does not count: see first_crawl and backfill", source.crawl)
        journal = self._open_journal()
        for crawl in self.pending():
            record = self._next(crawl, self._spent(journal))
            if record is None:
                logger.info("refresh: the budget is spent; %s is left to the next refresh", crawl.name)
                break
            if record.shards:
                journal = self._take(record, journal)
        return [self._made(version) for version in journal.versions]

    def end(self) -> None:
        """Let the next run have a budget of its own."""
        self.store.remove(journal_path(self.name))

    def upcoming(self) -> list[CorpusSettings]:
        """What a refresh would build now, each version's settings; nothing is built or written.

        What versions before would add to the index and spend of a budget of tokens is estimated.
        """
        found, spent = [], self._spent(self._own(self._known_journal()))
        for crawl in self.pending():
            record = self._next(crawl, spent)
            if record is None:
                break
            if record.shards:
                found.append(self._corpus("", record))
                spent += Amount(record.shards, record.bytes or 0, record.estimated_tokens or 0)
        return found

    def pending(self) -> list[Crawl]:
        """The crawls to take, oldest first; BadInput if the list of crawls cannot be used."""
        source = self.source()
        crawls = list_crawls(source, self.refresh.collinfo)
        parts = taken(self.store, self.name)
        last = last_crawl(parts, crawls)
        if (backfill := self.refresh.backfill) is not None:
            wanted = between(crawls, backfill.first, backfill.last)
        elif last is not None:
            wanted = [each for each in crawls if each >= last]
        elif self.refresh.first_crawl is not None:
            first = find_crawl(crawls, self.refresh.first_crawl)
            wanted = [each for each in crawls if each >= first]
        else:
            wanted = crawls[-self.refresh.first_crawls :]
        end = None if source.shards is None else source.first_shard + source.shards
        return [each for each in wanted if not is_done(parts, each.name, end)]

    def source(self) -> SourceSettings:
        """Where crawls are read."""
        source = self.refresh.corpus.source
        if source.base_url == SAMPLE:
            source = source.model_copy(update={"crawl": sample_source().crawl})
        return resolve_source(source, self.store)

    def _known_journal(self) -> RefreshJournal:
        """The journal of an earlier attempt, this refresh's or another's, or a new one."""
        path = journal_path(self.name)
        if self.store.exists(path):
            return RefreshJournal.load(self.store, path)
        return RefreshJournal(asked=fingerprint(refresh=self.refresh.identity()))

    def _open_journal(self) -> RefreshJournal:
        """The journal of an earlier attempt at this refresh, whose last version is finished first; or a new one."""
        asked, journal = fingerprint(refresh=self.refresh.identity()), self._known_journal()
        if journal.versions and self._is_half_finished(version := journal.versions[-1]):
            logger.info("refresh: %s/%s was published by a run that was stopped; it is finished", self.name, version)
            record = RefreshRecord.load(self.store, record_path(self.name, version))
            if journal.asked == asked:
                self._make(version, record)
            else:
                self._complete(load_dataset(self.store, self.name, version), record)
        return self._own(journal)

    def _own(self, journal: RefreshJournal) -> RefreshJournal:
        """What of a journal counts for this refresh: nothing of another's, and no version that was not finished."""
        asked = fingerprint(refresh=self.refresh.identity())
        if journal.asked != asked:
            return RefreshJournal(asked=asked)
        known = {each.version for each in taken(self.store, self.name)}
        return journal.model_copy(update={"versions": tuple(each for each in journal.versions if each in known)})

    def _is_half_finished(self, version: str) -> bool:
        _, figures = change_report_paths(dataset_folder(self.name, version))
        return version in dataset_versions(self.store, self.name) and not self.store.exists(figures)

    def _next(self, crawl: Crawl, spent: Amount) -> RefreshRecord | None:
        """What to take of a crawl next, where so much of the budget is spent.

        A record without shards means that nothing is wanted any more, None that nothing fits.
        """
        source = self.source().model_copy(update={"crawl": crawl.name})
        listed, parts = shard_paths(source, self.store), taken(self.store, self.name)
        first = next_shard(parts, crawl.name, source.first_shard)
        left, end = listed[max(first - source.first_shard, 0) :], source.first_shard + len(listed)
        budget = self.refresh.budget
        rate = None if budget.tokens is None else self._rate(parts)
        chosen = choose(left, budget, spent, lambda path: _size(path, source), rate)
        if left and not chosen.shards:
            return None
        sized = budget.bytes is not None or budget.tokens is not None
        if budget.tokens is not None:
            logger.info("refresh: about %s tokens are to come of %s", f"{chosen.tokens:,.0f}", crawl.name)
        return RefreshRecord(
            crawl=crawl.name,
            first_shard=first,
            shards=chosen.shards,
            end=end,
            bytes=chosen.bytes if sized else None,
            estimated_tokens=round(chosen.tokens) if budget.tokens is not None else None,
        )

    def _spent(self, journal: RefreshJournal) -> Amount:
        spent = Amount()
        for version in journal.versions:
            record = RefreshRecord.load(self.store, record_path(self.name, version))
            tokens = 0 if record.empty else _tokens(load_dataset(self.store, self.name, version))
            spent += Amount(record.shards, record.bytes or 0, tokens)
        return spent

    def _rate(self, parts: list[Taken]) -> Rate | None:
        """What the newest version gave."""
        part = next((each for each in reversed(parts) if each.published), None)
        if part is None:
            return None
        dataset = load_dataset(self.store, self.name, part.version)
        if part.record is not None:
            return Rate(_tokens(dataset), part.record.shards, part.record.bytes)
        try:
            fetched = StageManifest.load(self.store, manifest_path(dataset, FETCH.name))
        except FileNotFoundError as error:
            raise BadInput(
                f"refresh.budget.tokens, and the stages of {self.name}/{part.version} are gone ({error})",
                "tokens are estimated by what the version before gave",
                "Give refresh.budget.shards or .bytes",
            ) from error
        return Rate(_tokens(dataset), len(fetched.shards), None)

    def _take(self, record: RefreshRecord, journal: RefreshJournal) -> RefreshJournal:
        """Make a version of what is to be taken, which the journal knows of first."""
        names = dataset_versions(self.store, self.name)
        backfill = self.refresh.backfill is not None
        version = new_version(taken(self.store, self.name), names, record.crawl, newest=not backfill)
        before = [each for each in names if version_key(each) < version_key(version)]
        record = record.model_copy(update={"previous": before[-1] if before else None})
        journal = journal.model_copy(update={"versions": (*journal.versions, version)})
        journal.save(self.store, journal_path(self.name))
        self.store.make_folder(dataset_folder(self.name, version))
        record.save(self.store, record_path(self.name, version))
        for each in names:
            self.index(self._index_name, load_dataset(self.store, self.name, each))
        try:
            self._make(version, record)
        except NothingLeft as error:
            if not names:
                raise
            logger.warning("refresh: too little of %s is new for a version: %s", record.crawl, error.value)
            record.model_copy(update={"empty": True}).save(self.store, record_path(self.name, version))
        return journal

    @property
    def _index_name(self) -> str:
        return self.refresh.corpus.dedup.index or self.name

    def _make(self, version: str, record: RefreshRecord) -> None:
        """Build, index and compare a version; what is done already is not done again."""
        corpus = self._corpus(version, record)
        tokens = corpus.tokenizer.path or "a vocabulary of its own"
        what = (self.name, version, record.shards, record.crawl, tokens)
        logger.info("refresh: %s/%s takes %d shards of %s, in the tokens of %s", *what)
        self._complete(self.build(corpus, DatasetSettings(name=self.name, version=version)), record)

    def _complete(self, dataset: DatasetManifest, record: RefreshRecord) -> None:
        self.index(self._index_name, dataset)
        previous = None if record.previous is None else load_dataset(self.store, self.name, record.previous)
        changes = self.report(dataset, previous, record.crawl)
        changes.save(self.store, change_report_paths(dataset.folder)[1])  # last: with it the version is finished

    def _corpus(self, version: str, record: RefreshRecord) -> CorpusSettings:
        """The settings of a version: a part of one crawl, the dataset's index, the tokenizer that is there."""
        corpus = self.refresh.corpus
        part = {"crawl": record.crawl, "first_shard": record.first_shard, "shards": record.shards}
        others = [each for each in dataset_versions(self.store, self.name) if each != version]
        return corpus.model_copy(
            update={
                "source": self.source().model_copy(update=part),
                "dedup": corpus.dedup.model_copy(update={"index": self._index_name}),
                "tokenizer": self._tokenizer(others[-1]) if others else corpus.tokenizer,
            }
        )

    def _tokenizer(self, version: str) -> TokenizerSettings:
        """That of another version: a model can go on only from text in its own tokens."""
        dataset = load_dataset(self.store, self.name, version)
        settings = TokenizerSettings.model_validate(dataset.settings["tokenizer"])
        return settings.model_copy(update={"path": dataset.tokenizer.path})

    def _made(self, version: str) -> Refreshed:
        record = RefreshRecord.load(self.store, record_path(self.name, version))
        common = record.model_dump(include={"crawl", "first_shard", "shards", "end", "estimated_tokens"})
        if record.empty:
            return Refreshed(version=version, **common)
        page, figures = change_report_paths(dataset_folder(self.name, version))
        changes = ChangeReport.load(self.store, figures)
        now = changes.total.now
        return Refreshed(
            version=version,
            documents=now.documents,
            added=now.added,
            known=now.known,
            tokens=_tokens(load_dataset(self.store, self.name, version)),
            alarms=tuple(each.text for each in changes.alarms),
            report=page,
            **common,
        )


def _tokens(dataset: DatasetManifest) -> int:
    return dataset.tokens("train") + dataset.tokens("heldout")


def _size(path: str, source: SourceSettings) -> int | None:
    """Bytes of a shard; 0 of one that is not there, None where nobody says."""
    try:
        return source_size(join_url(source.base_url, path), source.transport)
    except SourceMissingError:
        return 0
    except (SourceUnavailableError, ValueError) as error:
        raise BadInput(str(error), "sizes of shards must be readable", "Run the same again later") from error


def upcoming(store: Store, refresh: RefreshSettings) -> list[CorpusSettings]:
    """What a refresh would build now; see `Refreshing.upcoming`."""

    def none(*_: Any) -> NoReturn:
        raise AssertionError("nothing is made to see what is to come")

    return Refreshing(store, refresh, build=none, report=none, index=none).upcoming()
