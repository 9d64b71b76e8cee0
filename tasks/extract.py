"""Extract: the readable text of each page, decoded rightly and repaired where it was broken.

The default extractor is resiliparse's main-content mode (about 18 times as fast as trafilatura with FineWeb's
settings); trafilatura is there by choice. Encoding follows the HTML standard's order: byte order mark, HTTP header,
meta element, detection.
"""

import codecs
import re
from typing import Literal

import ftfy
import pyarrow as pa
import trafilatura
from ftfy.badness import is_bad
from pydantic import Field
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

from infra.schema import DOCUMENTS, PROVENANCE
from infra.settings import Settings
from tasks.stage import Split, Stage, conform, split_by_reason

EXTRACT = Stage("extract", 1, DOCUMENTS, libraries=("pyarrow", "resiliparse", "trafilatura", "ftfy"))
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_NESTING_TAG = re.compile(
    r"<(/?)(?:div|span|section|article|main|center|blockquote|table|ul|ol|dl|font|b|i|u|em|strong|small|big|sub|sup)\b",
    re.I,
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff\ufff0-\ufffb\ufffe\uffff]")


class ExtractSettings(Settings):
    """How text is taken out of pages."""

    extractor: Literal["resiliparse", "trafilatura"] = "resiliparse"
    """resiliparse is fast; trafilatura is slower and finds fewer boilerplate lines."""
    main_content: bool = True
    """Leave out navigation, headers, footers and sidebars (resiliparse)."""
    alt_texts: bool = False
    """Put the alternative texts of images into the text (resiliparse)."""
    fix_mojibake: bool = True
    """Repair text that was decoded wrongly somewhere on its way, with ftfy."""
    max_page_bytes: int | None = Field(default=20 << 20, ge=1)
    """Larger pages are dropped as page_too_large: parsers need many times a page's size."""
    max_nesting: int | None = Field(default=4000, ge=1)
    """Pages whose elements stand deeper in each other are dropped as nesting_too_deep: parsers take time that grows
    with the square of the depth, and 100,000 levels hold a worker for minutes."""
    max_characters: int | None = Field(default=2_000_000, ge=1)
    """Longer texts are dropped as text_too_long: they are dumps and logs."""


def extract(table: pa.Table, settings: ExtractSettings) -> Split:
    """RESPONSES to DOCUMENTS. Drops page_too_large, no_text, text_too_long, nesting_too_deep and extraction_failed."""
    texts: list[str | None] = []
    reasons: list[str | None] = []
    values: list[float | None] = []
    details: list[str | None] = []
    for row in table.select(["payload", "charset", "content_type"]).to_pylist():
        text, reason, value, detail = _extract_row(row["payload"], row["charset"], row["content_type"], settings)
        texts.append(text)
        reasons.append(reason)
        values.append(value)
        details.append(detail)
    columns = {field.name: table[field.name] for field in PROVENANCE} | {"text": pa.array(texts, pa.large_string())}
    kept, dropped = split_by_reason(conform(columns, table.num_rows, DOCUMENTS), EXTRACT.name, reasons, values, details)
    return Split(kept, dropped)


def _extract_row(
    payload: bytes, charset: str | None, content_type: str, settings: ExtractSettings
) -> tuple[str | None, str | None, float | None, str | None]:
    """Text, and the reason, value and detail if the page is to be dropped."""
    if settings.max_page_bytes is not None and len(payload) > settings.max_page_bytes:
        return None, "page_too_large", len(payload), None
    try:
        page = decode(payload, charset)
        if settings.max_nesting is not None and (depth := nesting(page, settings.max_nesting)) > settings.max_nesting:
            return None, "nesting_too_deep", depth, None
        text = page if content_type == "text/plain" else page_text(page, settings)
    except Exception as error:  # noqa: BLE001 - a page that breaks a parser must not break the shard; the row says why
        return None, "extraction_failed", None, f"{type(error).__name__}: {error}"
    text = clean_text(text, settings.fix_mojibake)
    if not text:
        return None, "no_text", len(payload), None
    if settings.max_characters is not None and len(text) > settings.max_characters:
        return text, "text_too_long", len(text), None
    return text, None, None, None


def decode(payload: bytes, charset: str | None) -> str:
    """Bytes of a page to text, by the encoding that a browser would choose. Never fails: bad bytes become U+FFFD."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if payload.startswith(mark):
            return payload[len(mark) :].decode(encoding, "replace")
    known = map_encoding_to_html5(charset.strip("\"' "), False) if charset else None
    known = known or detect_encoding(payload, from_html_meta=True) or "utf-8"
    # Without fallbacks: one bad byte must not turn a whole UTF-8 page into Windows-1252.
    return bytes_to_str(payload, known, errors="replace", fallback_encodings=())


def nesting(page: str, limit: int) -> int:
    """How deep elements that do not close by themselves stand in each other; 0 if there are too few tags to exceed it.

    Counts tags as text, so scripts and comments may add to it; real pages stay below a hundred.
    """
    if page.count("<") <= limit:
        return 0
    depth = deepest = 0
    for match in _NESTING_TAG.finditer(page):
        depth = max(0, depth - 1) if match[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


def page_text(page: str, settings: ExtractSettings) -> str:
    """The text of a page, by the chosen extractor."""
    if settings.extractor == "trafilatura":
        # FineWeb's settings: precision first, no comments.
        return trafilatura.extract(page, favor_precision=True, include_comments=False, deduplicate=False) or ""
    return extract_plain_text(page, main_content=settings.main_content, alt_texts=settings.alt_texts)


def clean_text(text: str, fix_mojibake: bool) -> str:
    """Repair mojibake where there is any, remove control characters, end lines alike.

    ftfy reads 2.5 MB/s; its own test for badness costs a tenth of that, and pure ASCII cannot be bad at all.
    """
    if fix_mojibake and not text.isascii() and is_bad(text):
        text = ftfy.fix_encoding(text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", text).strip()
