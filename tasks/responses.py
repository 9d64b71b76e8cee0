"""Batches of responses: what every reader makes, whatever it reads.

Every record ends in one of three places: kept; dropped with a reason; or quarantined with what was wrong with it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from infra.schema import DROPPED, QUARANTINE, RESPONSES
from tasks.opt_out import refusals_and_licenses
from tasks.stage import Split, conform, drop
from tasks.transport import SourceSettings
from tasks.warc import Broken

STAGE = "fetch"
HTML_TYPES = ("text/html", "application/xhtml+xml")
_SKIPPED = pa.schema([each for each in DROPPED if each.name != "stage"])


def document_id(place: str) -> str:
    """The id of the document at a place: 32 hexadecimal digits."""
    return hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class ResponseBatch:
    """Rows of the current batch: responses to keep, records to skip, places that are broken.

    A row holds the columns of PROVENANCE by name, but for `source`; `file` may be left out.
    """

    def __init__(self, settings: SourceSettings, source: str, file: str) -> None:
        self._settings, self._source, self._file = settings, source, file
        self._clear()

    def _clear(self) -> None:
        self._kept: list[dict[str, Any]] = []
        self._headers: list[Mapping[str, Sequence[str]]] = []
        self._skipped: list[dict[str, Any]] = []
        self._broken: list[dict[str, Any]] = []
        self._counters: dict[str, int] = {}
        self._bytes = 0
        self._incomplete = False

    @property
    def full(self) -> bool:
        """Whether the batch has reached its limit of documents or bytes."""
        rows = len(self._kept) + len(self._skipped)
        return rows >= self._settings.batch_documents or self._bytes >= self._settings.batch_bytes

    def keep(
        self,
        row: dict[str, Any],
        payload: bytes,
        content_type: str,
        charset: str | None,
        headers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Keep a response. Its headers, by lower-case name, are read for opt-outs and licences."""
        self._bytes += len(payload)
        self._kept.append(row | {"payload": payload, "content_type": content_type, "charset": charset})
        self._headers.append(headers or {})

    def skip(self, row: dict[str, Any], reason: str, value: float | None = None, detail: str | None = None) -> None:
        """Drop a response."""
        self._skipped.append(row | {"reason": reason, "value": value, "detail": detail})

    def quarantine(self, broken: Broken, file: str | None = None) -> None:
        """Report a place that cannot be read."""
        row = {"offset": broken.offset, "url": broken.url, "reason": broken.reason, "detail": broken.detail}
        self._broken.append(row | {"source": self._source, "file": file or self._file})

    def lose(self, reason: str, detail: str, passing: bool, file: str | None = None) -> None:
        """Quarantine the rest of the shard, or of a file of it; a passing cause leaves it to the next run."""
        row = {"offset": None, "url": None, "reason": reason, "detail": detail}
        self._broken.append(row | {"source": self._source, "file": file or self._file})
        self._counters["lost_shards"] = 1
        self._incomplete = self._incomplete or passing

    def take(self) -> Split:
        """The batch as tables; a new one begins."""
        skipped = self._table(self._skipped, _SKIPPED)
        split = Split(
            self._table(self._with_licenses(), RESPONSES),
            drop(skipped, STAGE, skipped["reason"], skipped["value"], skipped["detail"]),
            {"quarantined": self._table(self._broken, QUARANTINE)},
            self._counters,
            self._incomplete,
        )
        self._clear()
        return split

    def _with_licenses(self) -> list[dict[str, Any]]:
        """The kept rows with what pages say on their use; a licence that the row has already stays."""
        pages = [row for row in self._kept if row["content_type"] in HTML_TYPES]
        headers = [
            each for row, each in zip(self._kept, self._headers, strict=True) if row["content_type"] in HTML_TYPES
        ]
        payloads, urls = [row["payload"] for row in pages], [row["url"] for row in pages]
        moments: list[datetime | None] = [row["fetched_at"] for row in pages]
        found = refusals_and_licenses(headers, payloads, urls, moments, self._settings.opt_out_agents)
        for row, refusal, license_address in zip(pages, *found, strict=True):
            row["opt_out"], row["license"] = refusal, row.get("license") or license_address
        return self._kept

    def _table(self, rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
        defaults = {"source": self._source, "file": self._file}
        columns = {
            field.name: pa.array([row.get(field.name, defaults.get(field.name)) for row in rows], field.type)
            for field in schema
        }
        return conform(columns, len(rows), schema)
