"""Fetch: archive files of a crawl, and local collections, become Arrow batches with nothing unaccounted for.

Every response record of a shard ends in one of three places: kept; dropped as `http_status` (not 200) or `not_html`;
or quarantined with what was wrong with it. A shard that cannot be read to its end is quarantined from the byte where
it broke, marked incomplete if the cause may pass, and tried again by the next run.
"""

import gzip
import logging
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from infra.errors import BadInput, GristmillError, RunFailed
from infra.manifest import StageManifest, fingerprint
from infra.schema import QUARANTINE, RESPONSES
from infra.settings import Settings, operational
from infra.store import Store
from tasks.sources.archive import read_archive
from tasks.sources.collection_reader import read_collection
from tasks.sources.collections import CollectionSettings, collection_of, list_collections
from tasks.sources.crawls import list_crawls
from tasks.sources.responses import STAGE, ResponseBatch
from tasks.sources.transport import (
    WORTH_TELLING,
    SourceMissingError,
    SourceSettings,
    SourceUnavailableError,
    join_url,
    read_source,
    reading,
)
from tasks.stage import Split, Stage, StageRunner

logger = logging.getLogger(__name__)

FETCH = Stage(STAGE, 2, RESPONSES, {"quarantined": QUARANTINE}, ("pyarrow", "fastwarc"), worth_telling=WORTH_TELLING)


class ReadSettings(Settings):
    """What a worker needs to read a shard of a crawl or of a collection."""

    source: SourceSettings
    """The crawl, and the limits of batches and records for collections too."""
    collections: tuple[CollectionSettings, ...] = ()
    """Collections of the user's own."""
    listing: str = operational("")
    """Table of the collections' files in the store."""


def fetch(runner: StageRunner, source: SourceSettings, collections: Sequence[CollectionSettings] = ()) -> StageManifest:
    """Read the selected shards of a crawl, then the files of the collections, as one stage.

    BadInput if the crawl or a file does not exist or nothing is selected; RunFailed if too many shards cannot be read.
    """
    paths = [] if source.crawl is None else shard_paths(source, runner.store)
    parents = {"paths": fingerprint(paths=paths)}
    settings: Settings = source
    if collections or not paths:
        listing = list_collections(runner.store, collections, source)
        paths = [*paths, *listing.shards]
        parents["files"] = listing.digest
        settings = ReadSettings(source=source, collections=tuple(collections), listing=listing.path)
    if not paths:
        raise BadInput(
            "source.crawl=null and no collections", "there must be something to read", "Name a crawl or a collection"
        )
    manifest = runner.run(FETCH, fetch_shard, paths, settings, parents)
    _check_losses(runner, manifest, source.max_lost_shards)
    return manifest


def _check_losses(runner: StageRunner, manifest: StageManifest, allowed: float) -> None:
    lost = [shard.source for shard in manifest.shards if shard.counters.get("lost_shards")]
    if len(lost) > allowed * len(manifest.shards):
        raise RunFailed(
            f"{len(lost)} of {len(manifest.shards)} shards could not be read, {lost[0]} among them",
            f"source.max_lost_shards allows a share of {allowed}",
            f"Look into {runner.store.full_path(manifest.folder)}/quarantined, then run the same command again",
        )
    if lost:
        logger.warning("fetch: %d shards were lost and quarantined, such as %s", len(lost), lost[0])


def shard_paths(settings: SourceSettings, store: Store | None = None) -> list[str]:
    """The archive paths that the settings select, in the listing's order.

    With a store, the listing is kept there, and taken from there when it cannot be read: a finished dataset can then
    be made again, with other thresholds say, where its crawl is out of reach.
    """
    lines = _crawl_listing(settings, store)
    end = None if settings.shards is None else settings.first_shard + settings.shards
    chosen = lines[settings.first_shard : end]
    if not chosen:
        raise BadInput(
            f"source.first_shard={settings.first_shard}",
            f"{settings.crawl} has {len(lines)} shards",
            f"Choose a first_shard below {len(lines)}",
        )
    return chosen


def _crawl_listing(settings: SourceSettings, store: Store | None) -> list[str]:
    listing = join_url(settings.base_url, f"crawl-data/{settings.crawl}/{settings.archive}.paths.gz")
    stored = f"listings/{settings.crawl}.{settings.archive}.paths.gz"
    try:
        text = gzip.decompress(read_source(listing, settings.transport)).decode()
    except (SourceMissingError, SourceUnavailableError) as error:
        if store is not None and store.exists(stored):
            logger.warning("%s; the listing of an earlier run is used", error)
            return gzip.decompress(store.read_bytes(stored)).decode().split()
        raise _no_listing(settings, listing, error) from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadInput(f"{listing} ({error})", "a listing is gzipped text", "Check source.base_url") from error
    if store is not None:
        packed = gzip.compress(text.encode(), mtime=0)
        if not store.exists(stored) or store.read_bytes(stored) != packed:
            store.make_folder("listings")
            store.write_bytes(stored, packed)
    return text.split()


def _no_listing(settings: SourceSettings, listing: str, error: Exception) -> BadInput | RunFailed:
    if isinstance(error, SourceUnavailableError):
        return RunFailed(str(error), "the listing must be readable", "Run the same command again later")
    return BadInput(
        f"source.crawl={settings.crawl} ({error})",
        f"a crawl must have a listing at {listing}",
        f"Known there: {_known_crawls(settings)}",
    )


def _known_crawls(settings: SourceSettings) -> str:
    """Crawl names for an error message; the list is a courtesy, so its absence is no error of its own."""
    try:
        return ", ".join(each.name for each in reversed(list_crawls(settings)[-10:]))
    except GristmillError:
        return "no collinfo.json there to say"


def fetch_shard(store: Store, path: str, settings: SourceSettings | ReadSettings) -> Iterator[Split]:
    """Read one archive file of a crawl, or one shard of a collection, into batches of responses."""
    source = settings.source if isinstance(settings, ReadSettings) else settings
    if isinstance(settings, ReadSettings) and (found := collection_of(path, settings.collections)) is not None:
        yield from read_collection(store, settings.listing, path, found, source)
        return
    batch, counts = ResponseBatch(source, source.crawl or "", path), Counter[str]()
    try:
        with reading(join_url(source.base_url, path), source.transport, counts) as stream:
            yield from read_archive(stream, batch, source, source.archive, path)
    except (SourceMissingError, ValueError) as error:
        batch.lose("shard_missing", str(error), passing=False)
    except SourceUnavailableError as error:
        batch.lose("shard_unavailable", str(error), passing=True)
    yield replace(batch.take(), telemetry=counts)
