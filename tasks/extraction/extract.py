"""Extract: the readable text of each page, decoded rightly and repaired where it was broken.

The default extractor finds the article in resiliparse's tree (`article.py`); resiliparse alone and trafilatura are
there by choice. Pages are parsed in a guarded child process (`guard.py`), so that a page on which a parser hangs or
explodes costs one row, with a reason, and the shard goes on. Plain text is decoded and not parsed at all.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

import ftfy
import numpy as np
import pyarrow as pa
import pyarrow.compute
from pydantic import Field
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html.exception import HTMLParserException

from infra.schema import DOCUMENTS, PROVENANCE
from infra.settings import Settings
from infra.store import Store
from tasks.extraction.article import ArticleSettings, article_text
from tasks.extraction.decode import decode
from tasks.extraction.guard import Failure, Guard, Limits
from tasks.extraction.mojibake import is_bad
from tasks.stage import Split, Stage, conform, split_by_reason

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them

EXTRACT = Stage("extract", 2, DOCUMENTS, libraries=("pyarrow", "resiliparse", "trafilatura", "ftfy"))
_NESTING_TAG = re.compile(
    r"<(/?)(?:div|span|section|article|main|center|blockquote|table|ul|ol|dl|font|b|i|u|em|strong|small|big|sub|sup)\b",
    re.I,
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff\ufff0-\ufffb\ufffe\uffff]")
_FAILURES = {"timeout": "extraction_timeout", "memory": "extraction_memory", "crash": "extraction_failed"}


class ExtractSettings(Settings):
    """How text is taken out of pages."""

    extractor: Literal["article", "resiliparse", "trafilatura"] = "article"
    """article finds the text of a page with fewest lines that do not belong to it; resiliparse alone takes two thirds
    of its time and leaves more of them; trafilatura is what FineWeb used, and takes seven times as long."""
    article: ArticleSettings = ArticleSettings()
    """What passes for text in a page (article)."""
    main_content: bool = True
    """Leave out navigation, headers, footers and sidebars (resiliparse)."""
    alt_texts: bool = False
    """Put the alternative texts of images into the text (article and resiliparse)."""
    trafilatura_fast: bool = False
    """Do without the second opinions of readability and jusText: 1.7 times as fast, a tenth less text (trafilatura)."""
    fix_mojibake: bool = True
    """Repair text that was decoded wrongly somewhere on its way, with ftfy."""
    max_page_bytes: int | None = Field(default=20 << 20, ge=1)
    """Larger pages are dropped as page_too_large: parsers need many times a page's size."""
    max_nesting: int | None = Field(default=4000, ge=1)
    """Pages whose elements stand deeper in each other are dropped as nesting_too_deep: parsers take time that grows
    with the square of the depth, and 100,000 levels hold a worker for minutes."""
    max_characters: int | None = Field(default=2_000_000, ge=1)
    """Longer texts are dropped as text_too_long: they are dumps and logs."""
    max_cpu_seconds: float | None = Field(default=30.0, gt=0)
    """A page that takes more processor time is dropped as extraction_timeout. Pages take milliseconds, so that the
    verdict is the same on any machine but for the rarest. Linux ends the parser, whatever it does."""
    max_memory_bytes: int | None = Field(default=2 << 30, ge=64 << 20)
    """A page for which a parser needs more memory is dropped as extraction_memory."""


class Extraction(NamedTuple):
    """What became of one page: a text, or the reason, value and detail of having none."""

    text: str | None
    reason: str | None = None
    value: float | None = None
    detail: str | None = None


class Page(NamedTuple):
    """What is needed of a response."""

    payload: bytes
    charset: str | None
    content_type: str | None


PageGuard = Guard[Page, Extraction]


@dataclass(frozen=True)
class ExtractSelected:
    """The shard function: `extract` of the pages of fetched shards that select kept, with one child for each shard."""

    pages: str
    """Folder of fetch, whose shards have the names of select's."""

    def __call__(self, store: Store, source: str, settings: ExtractSettings) -> Iterator[Split]:
        """Yield the split of each batch of pages; the source is a shard of select."""
        chosen = store.read_table(source, ["id"])["id"].combine_chunks()
        reader = store.open_table(f"{self.pages}/{PurePosixPath(source).name}")
        with open_guard(settings) as guard:
            for index in range(reader.num_record_batches):
                table = pa.Table.from_batches([reader.get_batch(index)])
                wanted = pc.is_in(table["id"], chosen)
                table = table if pc.all(wanted).as_py() else table.filter(wanted)
                if table.num_rows:
                    yield _extract(table, settings, guard)


def extract(table: pa.Table, settings: ExtractSettings) -> Split:
    """RESPONSES to DOCUMENTS.

    Drops page_too_large, no_text, text_too_long, nesting_too_deep, extraction_timeout, extraction_memory and
    extraction_failed.
    """
    with open_guard(settings) as guard:
        return _extract(table, settings, guard)


def open_guard(settings: ExtractSettings) -> PageGuard:
    """The extraction of single pages under the settings' limits."""
    if settings.extractor == "trafilatura":
        _trafilatura()  # loaded once here, and not in each child
    return Guard(partial(extract_page, settings=settings), Limits(settings.max_cpu_seconds, settings.max_memory_bytes))


def _extract(table: pa.Table, settings: ExtractSettings, guard: PageGuard) -> Split:
    pages = table.select(list(Page._fields)).to_pylist()
    results = [guarded_page(Page(**page), settings, guard) for page in pages]
    columns = {field.name: table[field.name] for field in PROVENANCE}
    columns |= {"text": pa.array([each.text for each in results], pa.large_string())}
    kept, dropped = split_by_reason(
        conform(columns, table.num_rows, DOCUMENTS),
        EXTRACT.name,
        [each.reason for each in results],
        [each.value for each in results],
        [each.detail for each in results],
    )
    return Split(kept, dropped)


def guarded_page(page: Page, settings: ExtractSettings, guard: PageGuard) -> Extraction:
    """The text of a page, or why it has none. Markup is parsed by the guard's child; plain text needs no parser."""
    if _is_plain(page) or _is_too_large(page, settings):
        return extract_page(page, settings)
    result = guard(page)
    if isinstance(result, Failure):
        detail = f"{len(page.payload)} bytes: {result.detail}"
        return Extraction(None, _FAILURES[result.reason], result.value, detail)
    return Extraction(*result)


def _is_plain(page: Page) -> bool:
    return page.content_type == "text/plain"


def _is_too_large(page: Page, settings: ExtractSettings) -> bool:
    return settings.max_page_bytes is not None and len(page.payload) > settings.max_page_bytes


def extract_page(page: Page, settings: ExtractSettings) -> Extraction:
    """The text of one page, or why it has none. MemoryError if there is not enough for it."""
    size = len(page.payload)
    if _is_too_large(page, settings):
        return Extraction(None, "page_too_large", size)
    try:
        text = decode(page.payload, page.charset)
        if not _is_plain(page):
            limit = settings.max_nesting
            if limit is not None and _tags(page.payload) > limit and (depth := nesting(text)) > limit:
                return Extraction(None, "nesting_too_deep", depth)
            text = page_text(text, settings)
    except MemoryError:
        raise
    except HTMLParserException as error:  # any bytes are HTML: it fails only if it cannot allocate
        raise MemoryError from error
    except Exception as error:  # noqa: BLE001 - a page that breaks a parser must not break the shard; the row says why
        return Extraction(None, "extraction_failed", None, f"{type(error).__name__}: {error}")
    too_long = settings.max_characters is not None and len(text) > settings.max_characters
    text = clean_text(text, settings.fix_mojibake and not too_long)
    if not text:
        return Extraction(None, "no_text", size)
    if settings.max_characters is not None and len(text) > settings.max_characters:
        return Extraction(text, "text_too_long", len(text))
    return Extraction(text)


def _tags(payload: bytes) -> int:
    """Tags at most in a page: in every encoding of the web, < takes this byte."""
    return int(np.count_nonzero(np.frombuffer(payload, np.uint8) == ord("<")))


def nesting(page: str) -> int:
    """How deep elements that do not close by themselves stand in each other.

    Counts tags as text, so scripts and comments may add to it; real pages stay below a hundred.
    """
    depth = deepest = 0
    for match in _NESTING_TAG.finditer(page):
        depth = max(0, depth - 1) if match[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


def page_text(page: str, settings: ExtractSettings) -> str:
    """The text of a page, by the chosen extractor."""
    if settings.extractor == "trafilatura":
        return _trafilatura()(page, settings.trafilatura_fast)
    if settings.extractor == "article":
        return article_text(page, settings.article, settings.alt_texts)
    return extract_plain_text(page, main_content=settings.main_content, alt_texts=settings.alt_texts)


def _trafilatura() -> Callable[[str, bool], str]:
    from tasks.extraction.trafilatura_text import trafilatura_text

    return trafilatura_text


def clean_text(text: str, fix_mojibake: bool) -> str:
    """Repair mojibake where there is any, remove control characters, end lines alike and without blanks.

    ftfy reads 2.5 MB/s, so it is asked only about texts that are bad. Rules that judge a line by its last character
    must not find a blank there, as resiliparse leaves them.
    """
    if fix_mojibake and is_bad(text):
        text = ftfy.fix_encoding(text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "\n".join(map(str.rstrip, _CONTROL.sub("", text).split("\n"))).strip()
