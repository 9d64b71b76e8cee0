"""What a running stage tells: log lines for its reader, calls for an observer, and which of its shards failed.

An observer is called in the thread that runs the stage, once for each shard: it must return at once and never raise.
"""

import logging
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from infra.errors import RunFailed
from infra.manifest import ShardRecord, StageManifest, Telemetry

logger = logging.getLogger(__name__)
PROGRESS_SECONDS = 2.0
NAMED_FAILURES = 10
"""Failed shards that an error message names; the log names all of them."""
REASON_CHARACTERS = 200
"""Of an exception's message: enough for its point, too little for a document that it may quote."""


class MadeShard(NamedTuple):
    """What a worker hands back of a shard that it committed."""

    record: ShardRecord
    peak_bytes: int
    """Largest resident set that the worker's process has had."""
    counts: Mapping[str, int]
    """True of this run only, such as refused requests."""
    seconds: float
    """Wall time of making it."""


@dataclass(frozen=True)
class FailedShard:
    """A shard that could not be made, in this run."""

    source: str
    """What it was to be made from: a WARC path, or a file of the parent stage."""
    reason: str
    """The exception's type and the start of its message, on one line."""

    def __str__(self) -> str:
        return f"{self.source} ({self.reason})"


class StageObserver:
    """Who watches stages; this one sees nothing. A stage is started when the one before has ended."""

    def stage_started(self, stage: str, folder: str, shards: int, reused: Sequence[ShardRecord]) -> None:
        """Begin a stage of so many shards, some of which an earlier run made; its folder is relative to the root."""

    def shard_done(self, made: MadeShard) -> None:
        """Note a shard that was made in this run."""

    def shard_failed(self, failed: FailedShard) -> None:
        """Note a shard that was given up."""

    def stage_finished(self, manifest: StageManifest, telemetry: Telemetry | None) -> None:
        """Note that a stage is done. Without telemetry it was found done, and it was never started."""

    def stage_failed(self, reason: str) -> None:
        """Note that the stage that was started ended without being done."""


class ShardLog:
    """The shards of one run of a stage, as they are made or given up."""

    def __init__(
        self, stage: str, shards: int, reused: Mapping[int, ShardRecord], observer: StageObserver, max_failed: int
    ) -> None:
        """`reused` are records of shards that an earlier run made, by index; `max_failed` ends the stage early."""
        self.records = dict(reused)
        self._stage, self._shards, self._reused = stage, shards, len(reused)
        self._observer, self._max_failed = observer, max_failed
        self._failed: list[FailedShard] = []
        self._peak, self._documents, self._counts = 0, 0, Counter[str]()
        self._started = self._reported = time.monotonic()

    def done(self, made: MadeShard) -> None:
        """Note a shard that was made."""
        self.records[made.record.index] = made.record
        self._counts.update(made.counts)
        self._peak, self._documents = max(self._peak, made.peak_bytes), self._documents + made.record.rows_in
        self._observer.shard_done(made)
        if (now := time.monotonic()) - self._reported > PROGRESS_SECONDS:
            self._reported, rate = now, self._documents / (now - self._started)
            logger.info("%s: %d/%d shards, %.0f documents/s", self._stage, len(self.records), self._shards, rate)

    def failed(self, source: str, error: RunFailed) -> None:
        """Note a shard that was given up; RunFailed if as many have been as may be."""
        shard = FailedShard(source, failure_reason(error))
        self._failed.append(shard)
        logger.error("%s: shard failed: %s%s", self._stage, shard, _place(error))
        self._observer.shard_failed(shard)
        if len(self._failed) >= self._max_failed < self._shards:
            raise self._failure("no further shard was tried (environment.max_failed_shards)")

    def check(self) -> None:
        """RunFailed if a shard has failed; the others are made by now."""
        if self._failed:
            raise self._failure("all other shards are done and kept")

    def _failure(self, others: str) -> RunFailed:
        named = "; ".join(map(str, self._failed[:NAMED_FAILURES]))
        more = len(self._failed) - NAMED_FAILURES
        return RunFailed(
            f"{self._stage}: {len(self._failed)} of {self._shards} shards failed: {named}"
            + (f"; and {more} more" if more > 0 else ""),
            f"every shard must be made; {others}",
            "Mend the cause and run the same again, with Retry in Prefect's pages: only what is missing is made",
        )

    def telemetry(self, workers: int) -> Telemetry:
        """How this run went, on so many workers."""
        return Telemetry(
            seconds=round(time.monotonic() - self._started, 3),
            shards_reused=self._reused,
            workers=workers,
            peak_worker_bytes=self._peak,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            counts=dict(sorted(self._counts.items())),
        )


def failure_reason(error: RunFailed) -> str:
    """Why a shard failed, on one short line: what its function raised, not what the cluster made of it."""
    cause = error.__cause__
    text = " ".join((error.value if cause is None else f"{type(cause).__name__}: {cause}").split())
    return text if len(text) <= REASON_CHARACTERS else f"{text[:REASON_CHARACTERS]}…"


def _place(error: RunFailed) -> str:
    """Where a shard's function raised: the innermost places, without their source or the message."""
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)[:-4:-1]
    return "".join(f"; {Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames)


def log_summary(manifest: StageManifest, telemetry: Telemetry, worth_telling: Mapping[str, str]) -> None:
    """Say what a stage did; of its counts, those that are worth telling, in their words."""
    logger.info(
        "%s: %d/%d shards, %s in, %s kept, %s dropped, %.1f s, %.0f documents/s",
        manifest.stage,
        len(manifest.shards),
        len(manifest.shards),
        f"{manifest.rows_in:,}",
        f"{manifest.kept:,}",
        f"{sum(manifest.total('reasons').values()):,}",
        telemetry.seconds,
        manifest.rows_in / max(telemetry.seconds, 1e-3),
    )
    told = [
        f"{telemetry.counts[name]:,} {words}" for name, words in worth_telling.items() if telemetry.counts.get(name)
    ]
    if told:
        logger.info("%s: %s", manifest.stage, ", ".join(told))
