"""Responses out of the records of an archive: what HTTP adds to a payload is taken off, and what is no page dropped."""

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from fastwarc.warc import WarcRecordType

from tasks.sources.http_message import BodyTooLargeError, decoded_body, parse_message
from tasks.sources.responses import HTML_TYPES, ResponseBatch, document_id
from tasks.sources.transport import SourceSettings
from tasks.sources.warc import Broken, Record, read_records, sha1_digest
from tasks.stage import Split

# Possessive and atomic, so that no page of comments or blanks makes the search go back over them.
HTML_OPENING = re.compile(
    rb"(?>\s++|<\?xml[^>]*>|(?><!--.*?-->))*+<(!doctype html|html|head|body|title)\b", re.I | re.S
)


def read_archive(
    stream: BinaryIO, batch: ResponseBatch, settings: SourceSettings, archive: str, place: str
) -> Iterator[Split]:
    """Read an archive, WARC or WET, into batches; what is left in the batch at the end is for the caller to take.

    `place` names the archive in the ids of its documents.
    """
    kind = WarcRecordType.response if archive == "warc" else WarcRecordType.conversion
    responses = 0
    for record in read_records(stream, settings.max_record_bytes, settings.verify_digests, int(kind)):
        if isinstance(record, Broken):
            batch.quarantine(record)
        else:
            responses += 1
            row = _provenance(record, place)
            if archive == "wet":
                batch.keep(row, record.block, "text/plain", "utf-8")
            else:
                _add_response(batch, record, row, settings.max_record_bytes)
        if batch.full:
            yield batch.take()
        if settings.max_records is not None and responses >= settings.max_records:
            return


def _add_response(batch: ResponseBatch, record: Record, row: dict[str, Any], max_bytes: int) -> None:
    message = parse_message(record.block)
    if message is None:
        detail = "the record holds no HTTP response that can be read"
        return batch.quarantine(Broken(record.offset, "invalid_http", detail, row["url"]))
    content_type = message.content_type or record.header("WARC-Identified-Payload-Type") or ""
    if message.status != 200:
        return batch.skip(row, "http_status", message.status, content_type)
    if content_type and content_type.lower() not in HTML_TYPES:
        return batch.skip(row, "not_html", detail=content_type)
    try:
        payload = decoded_body(message, max_bytes)
    except BodyTooLargeError:  # a small body that its Content-Encoding blows up
        detail = f"its body decodes to more than {max_bytes:,} bytes"
        return batch.quarantine(Broken(record.offset, "record_too_large", detail, row["url"]))
    content_type = content_type.lower() or sniff(payload)
    if not content_type:
        return batch.skip(row, "not_html", detail="")
    return batch.keep(row, payload, content_type, message.charset, message.headers)


def sniff(payload: bytes) -> str:
    """The type of a body that came without one: text/html if it opens as HTML does (WHATWG MIME sniffing)."""
    return "text/html" if HTML_OPENING.match(payload) else ""


def _provenance(record: Record, place: str) -> dict[str, Any]:
    place = f"{place}:{record.offset}" + (f":{record.position}" if record.position else "")
    return {
        "id": document_id(place),
        "url": record.header("WARC-Target-URI"),
        "offset": record.offset,
        "record_digest": record.header("WARC-Payload-Digest") or sha1_digest(record.block),
        "fetched_at": record.warc.record_date,
    }
