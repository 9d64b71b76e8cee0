"""Batches of responses: what every reader makes, whatever it reads.

Every record ends in one of three places: kept; dropped with a reason; or quarantined with what was wrong with it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from infra.schema import DROPPED, QUARANTINE, RESPONSES
from tasks.sources.opt_out import refusals_and_licenses
from tasks.sources.transport import SourceSettings
from tasks.sources.warc import Broken
from tasks.stage import Split, conform, drop, replace_columns

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
        rows = len(self._kept) + len(self._skipped) + len(self._broken)
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
            self._kept_table(),
            drop(skipped, STAGE, skipped["reason"], skipped["value"], skipped["detail"]),
            {"quarantined": self._table(self._broken, QUARANTINE)},
            self._counters,
            self._incomplete,
        )
        self._clear()
        return split

    def _kept_table(self) -> pa.Table:
        """The kept rows with what pages say on their use; a licence that a row has already stays."""
        table = self._table(self._kept, RESPONSES)
        chosen = [row for row, each in enumerate(self._kept) if each["content_type"] in HTML_TYPES]
        if not chosen:
            return table
        payloads = table["payload"].chunk(0)
        refusals, licenses = refusals_and_licenses(
            [self._headers[row] for row in chosen],
            [self._kept[row]["payload"] for row in chosen],
            payloads if len(chosen) == len(payloads) else payloads.take(pa.array(chosen, pa.int64())),
            [self._kept[row]["url"] for row in chosen],
            [self._kept[row]["fetched_at"] for row in chosen],
            self._settings.opt_out_agents,
        )
        opt_out, license_address = table["opt_out"].to_pylist(), table["license"].to_pylist()
        for row, refusal, address in zip(chosen, refusals, licenses, strict=True):
            opt_out[row], license_address[row] = refusal, license_address[row] or address
        return replace_columns(table, {"opt_out": opt_out, "license": license_address})

    def _table(self, rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
        defaults = {"source": self._source, "file": self._file}
        columns = {
            field.name: pa.array([row.get(field.name, defaults.get(field.name)) for row in rows], field.type)
            for field in schema
        }
        return conform(columns, len(rows), schema)
