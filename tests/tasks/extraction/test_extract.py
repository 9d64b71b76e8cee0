"""Extract: the right text out of pages in any encoding and any state."""

import codecs
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from infra.cluster import Cluster
from infra.schema import DOCUMENTS, RESPONSES
from infra.store import Store
from tasks.extraction.extract import ExtractSelected, ExtractSettings, clean_text, extract
from tasks.stage import Split
from tests.tasks.records import page

RUSSIAN = "Привет, мир! Это проверка кодировки страницы, написанной по-русски."
CHINESE = "这是一个用来检查网页编码的句子，里面有很多汉字。"  # noqa: RUF001
JAPANESE = "日本語テキスト、これはページの文字コードの試験です。"


def run(*pages: bytes | tuple[bytes, str | None], content_type: str = "text/html", **settings: Any) -> Split:
    rows = []
    for number, each in enumerate(pages):
        payload, charset = each if isinstance(each, tuple) else (each, None)
        place = {"id": str(number), "source": "c", "file": "w", "offset": number}
        rows.append({**place, "payload": payload, "charset": charset, "content_type": content_type})
    return extract(pa.Table.from_pylist(rows, schema=RESPONSES), ExtractSettings(**settings))


def texts(split: Split) -> list[str]:
    return split.kept["text"].to_pylist()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (RUSSIAN, "windows-1251"),
        (CHINESE, "gb2312"),
        (JAPANESE, "shift_jis"),
        ("Grüße", "utf-8"),
        ("Łódź", "iso-8859-2"),
    ],
)
def test_the_declared_encoding_is_followed(text: str, encoding: str) -> None:
    body = page(text).decode()
    meta = body.replace("<head>", f'<head><meta charset="{encoding}">')
    assert texts(run((body.encode(encoding), encoding), (meta.encode(encoding), None))) == [text, text]
    assert texts(run((body.encode(encoding), f'"{encoding.upper()}"'))) == [text]


@pytest.mark.parametrize(
    ("text", "encoding"), [(RUSSIAN, "windows-1251"), (JAPANESE * 3, "shift_jis"), ("Grüße " * 9, "utf-8")]
)
def test_an_undeclared_encoding_is_detected(text: str, encoding: str) -> None:
    assert texts(run(page(text).decode().encode(encoding))) == [text.strip()]


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")],
)
def test_a_byte_order_mark_overrules_the_header(mark: bytes, encoding: str) -> None:
    assert texts(run((mark + page(RUSSIAN).decode().encode(encoding), "windows-1252"))) == [RUSSIAN]


def test_the_header_overrules_the_meta_element() -> None:
    body = page(RUSSIAN).decode().replace("<head>", '<head><meta charset="windows-1252">')
    assert texts(run((body.encode("windows-1251"), "windows-1251"))) == [RUSSIAN]


def test_mojibake_is_repaired_unless_switched_off() -> None:
    broken = page("The cafÃ© was nice, donâ€™t you think?")
    assert texts(run((broken, "utf-8"))) == ["The café was nice, don\u2019t you think?"]
    assert texts(run((broken, "utf-8"), fix_mojibake=False)) == ["The cafÃ© was nice, donâ€™t you think?"]


@pytest.mark.parametrize("text", ["plain &amp; simple &lt;b&gt; 'quoted' -- ...", "“Quoted” – naïve façade… ﬁ ½ ①"])  # noqa: RUF001
def test_sound_text_is_left_as_it_is(text: str) -> None:
    assert clean_text(text, True) == text


def test_control_characters_are_removed_and_lines_end_alike() -> None:
    assert clean_text("a\x00b\x08\r\nc\rd\te\ufeff\ufffe\x7f\n", True) == "ab\nc\nd\te"


def test_main_content_leaves_boilerplate_out_by_choice() -> None:
    body = b"<html><body><nav>Home Imprint</nav><main><p>The story.</p></main><footer>Contact</footer></body></html>"
    assert texts(run(body)) == ["The story."]
    assert texts(run(body, extractor="resiliparse")) == ["The story."]
    assert "Imprint" in texts(run(body, extractor="resiliparse", main_content=False))[0]


def test_alternative_texts_of_images_are_taken_by_choice() -> None:
    body = b"<html><body><main><p>A mill. <img src=x alt='Its wheel'></p></main></body></html>"
    assert "wheel" not in texts(run(body))[0]
    assert "Its wheel" in texts(run(body, alt_texts=True))[0]


def test_trafilatura_can_be_chosen() -> None:
    body = page("The mill stands at the river. It has stood there for two hundred years, and it grinds grain.\n\n" * 3)
    [text] = texts(run(body, extractor="trafilatura"))
    assert "two hundred years" in text


@pytest.mark.parametrize(
    "body",
    [
        b"<p>found",
        b"<html><body><table><tr><td><p>found</table></b></i></div>",
        b'<<<>><p foo="<main>found',
        b"<p>found &#xD800; &#0; &#x110000; &bogus; &",
        b"<!DOCTYPE html" + b"<div>" * 2000 + b"found",
        b"\x00\x01\x02<p>found\x00</p>",
        b"<main><![CDATA[ x ]]>found<!-- open",
    ],
)
@pytest.mark.parametrize("extractor", ["article", "resiliparse", "trafilatura"])
def test_broken_pages_break_nothing(body: bytes, extractor: str) -> None:
    split = run(body, page("The next page. " * 30), extractor=extractor)
    assert split.kept.num_rows + split.dropped.num_rows == 2
    assert split.kept["id"].to_pylist()[-1] == "1"
    for text in texts(split):
        text.encode()


@pytest.mark.parametrize("body", [b"", b"  \n ", b"<html><body><script>x()</script></body></html>", b"\x00\x01"])
def test_a_page_without_text_is_dropped(body: bytes) -> None:
    [row] = run(body).dropped.to_pylist()
    assert (row["reason"], row["value"], row["text"]) == ("no_text", float(len(body)), None)


def test_large_pages_and_long_texts_are_dropped_with_their_size() -> None:
    body = page("words " * 100)
    [row] = run(body, max_page_bytes=len(body) - 1).dropped.to_pylist()
    assert (row["reason"], row["value"]) == ("page_too_large", float(len(body)))
    [row] = run(body, max_characters=598).dropped.to_pylist()
    assert (row["reason"], row["value"]) == ("text_too_long", 599.0)
    assert run(body, max_characters=599, max_page_bytes=len(body)).dropped.num_rows == 0
    assert run(body, max_characters=None, max_page_bytes=None).kept.num_rows == 1


def test_plain_text_is_taken_as_it_is() -> None:
    assert texts(run((b"<p>not a tag</p>", "utf-8"), content_type="text/plain")) == ["<p>not a tag</p>"]


def test_provenance_goes_on_and_languages_are_unknown() -> None:
    kept = run(page("x")).kept
    assert kept.schema == DOCUMENTS
    assert (kept["id"][0].as_py(), kept["file"][0].as_py(), kept["language"][0].as_py()) == ("0", "w", None)


@pytest.mark.parametrize("tag", ["div", "b"])
def test_hostile_nesting_is_dropped_before_a_parser_sees_it(tag: str) -> None:
    body = f"<{tag}>".encode() * 200_000 + b"deep"
    split = run(body)
    (row,) = split.dropped.to_pylist()
    assert (row["reason"], row["value"]) == ("nesting_too_deep", 200_000)


def test_many_elements_beside_each_other_are_no_nesting() -> None:
    body = b"<main>" + b"<div><p>A line of text.</p></div>" * 5_000 + b"</main>"
    assert run(body).kept.num_rows == 1


MANY_ATTRIBUTES = b"<div " + b" ".join(b"a%d=1" % number for number in range(100_000)) + b">x"
"""Parsers compare each attribute with all before it: this takes minutes."""


@pytest.mark.parametrize("extractor", ["article", "resiliparse", "trafilatura"])
def test_a_page_on_which_an_extractor_hangs_is_dropped_and_the_others_are_not(extractor: str) -> None:
    pages = [page("The page before. " * 30), MANY_ATTRIBUTES, page("The page after. " * 30)]
    split = run(*pages, extractor=extractor, max_cpu_seconds=0.5)
    (row,) = split.dropped.to_pylist()
    assert (row["id"], row["reason"], row["value"]) == ("1", "extraction_timeout", 0.5)
    assert row["detail"] == f"{len(MANY_ATTRIBUTES)} bytes: more than 0.5 processor seconds"
    assert split.kept["id"].to_pylist() == ["0", "2"]


def test_a_page_that_needs_too_much_memory_is_dropped() -> None:
    body = b"<p>x" * (1 << 18)
    split = run(page("The page before. " * 30), body, max_memory_bytes=64 << 20)
    (row,) = split.dropped.to_pylist()
    assert (row["id"], row["reason"], row["value"]) == ("1", "extraction_memory", 64 << 20)
    assert run(body, max_memory_bytes=None).kept.num_rows == 1


def test_the_limits_change_nothing_about_other_pages() -> None:
    pages = [page(f"The page of the number {number}. " * 20) for number in range(30)]
    assert run(*pages).kept == run(*pages, max_cpu_seconds=None, max_memory_bytes=None).kept


def test_extraction_is_guarded_in_dask_workers(cluster: Cluster) -> None:
    split = cluster.run(lambda pages: run(*pages, max_cpu_seconds=0.5), [MANY_ATTRIBUTES, page("Text. " * 30)], "test")
    assert (split.dropped["reason"].to_pylist(), split.kept["id"].to_pylist()) == (["extraction_timeout"], ["1"])


def test_the_shard_function_extracts_what_was_selected_of_each_batch(tmp_path: Path) -> None:
    rows = [
        {"id": str(n), "source": "c", "file": "w", "offset": n, "payload": page(f"Number {n}."), "charset": "utf-8"}
        for n in range(8)
    ]
    table = pa.Table.from_pylist(rows, schema=RESPONSES)
    store = Store(str(tmp_path))
    for folder in ("fetch", "select"):
        store.make_folder(folder)
    with pa.ipc.new_file(tmp_path / "fetch/part.arrow", RESPONSES) as writer:
        writer.write_table(table, max_chunksize=2)
    chosen = table.take([0, 1, 5, 6, 7])
    store.write_table("select/part.arrow", chosen.drop_columns(["payload"]))
    splits = list(ExtractSelected("fetch")(store, "select/part.arrow", ExtractSettings()))
    assert [split.kept.num_rows for split in splits] == [2, 1, 2]
    assert pa.concat_tables([split.kept for split in splits]) == extract(chosen, ExtractSettings()).kept


@pytest.mark.parametrize(
    "body",
    [
        b"<p>" + b"word " * (3 << 20),
        b"\0" * (15 << 20),
        b"<pre>" + b" \n" * (5 << 20),
        b"&" * (8 << 20),
        b"<" * (4 << 20),
        bytes(range(256)) * (1 << 14),
        b"<a href=x>" * (1 << 18),
        b"<table><tr><td>" * 2000,
    ],
    ids=["line", "nuls", "blank lines", "ampersands", "brackets", "all bytes", "links", "tables"],
)
def test_large_hostile_pages_take_seconds_and_are_judged(body: bytes) -> None:
    split = run(body, page("The next page. " * 30), max_cpu_seconds=60)
    assert "extraction_timeout" not in split.dropped["reason"].to_pylist()
    assert split.kept["id"].to_pylist()[-1] == "1"
    for text in texts(split):
        text.encode()


def test_a_page_like_a_decompression_bomb_reaches_no_parser() -> None:
    (row,) = run(b"<p>bomb " * (13 << 20)).dropped.to_pylist()
    assert (row["reason"], row["value"]) == ("page_too_large", 8 * (13 << 20))
    (row,) = run(b"x" * (64 << 20), content_type="text/plain").dropped.to_pylist()
    assert (row["reason"], row["value"]) == ("page_too_large", 64 << 20)


def test_lines_end_without_blanks_so_that_rules_see_their_last_character() -> None:
    body = b"<main><h2> A title  </h2><p>A sentence.  </p><div>a line, <br> another. </div></main>"
    for extractor in ("article", "resiliparse"):
        (text,) = texts(run(body, extractor=extractor))
        assert [line.strip() for line in text.split("\n")] == [line.lstrip() for line in text.split("\n")]
    assert clean_text("a  \n\tb\t\r\nc\xa0\n", True) == "a\n\tb\nc"


def test_trafilatura_repeats_a_segment_no_more_often_than_it_may_and_forgets_it_with_the_page() -> None:
    segment = (
        "A paragraph that is repeated in the same words, again and again, as boilerplate lines of a page are. " * 2
    )
    other = "<p>And one sentence that stands here once, so that something of the page is left in any case.</p>"
    body = f"<html><body><article>{other}{f'<p>{segment}</p>' * 6}</article></body></html>".encode()
    first, second = texts(run(body, body, extractor="trafilatura"))
    assert first == second
    assert 0 < first.count(segment.strip()) < 6


def test_archives_of_the_wild_are_extracted(shared_data: Path) -> None:
    pages: list[tuple[bytes, str | None]] = []
    for path in sorted((shared_data / "warc-bytes").glob("*.warc.gz")):
        with path.open("rb") as archive, suppress(Exception):  # some of them are broken on purpose
            records = ArchiveIterator(archive, record_types=WarcRecordType.response)
            pages.extend((record.reader.read(), record.http_charset) for record in records)
    assert len(pages) > 20
    for extractor in ("article", "resiliparse", "trafilatura"):
        split = run(*pages, extractor=extractor)
        assert split.kept.num_rows + split.dropped.num_rows == len(pages)
        assert not {"extraction_failed", "extraction_timeout"} & set(split.dropped["reason"].to_pylist())
