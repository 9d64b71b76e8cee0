"""The sample crawl, made from archives that pip finds in a folder, so that no index is needed."""

import gzip
import hashlib
import io
import json
import logging
import tarfile
import zipfile
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from infra.errors import RunFailed
from tasks.sources.sample_crawl import SampleCrawl, SampleCrawlSettings, Source, _members, build_sample_crawl

PROSE = "<html><head><title>{}</title></head><body><p>Grain goes in at the top, flour comes out.</p></body></html>"
FILES = {
    "docs/index.html": PROSE.format("Index").encode(),
    "docs/a b/größe.html": PROSE.format("Größe").encode(),
    "docs/guide.HTM": PROSE.format("Guide").encode(),
    "docs/empty.html": b"",
    "docs/style.css": b"p { margin: 0 }\n",
    "docs/zebra.css": b"p { margin: 1em }\n",
    "mill.py": b"raise SystemExit('never run')\n",
}
CODE = b"raise SystemExit('the code of an archive must not run')\n"
BACKEND = b'[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'


def source(path: Path, name: str) -> Source:
    return Source(name=name, version="1.0", file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def tar_archive(folder: Path, name: str) -> Source:
    path = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for member, body in {**FILES, "setup.py": CODE, "pyproject.toml": BACKEND}.items():
            info = tarfile.TarInfo(f"{name}-1.0/{member}")
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
        link = tarfile.TarInfo(f"{name}-1.0/docs/link.html")
        link.type, link.linkname = tarfile.SYMTYPE, "index.html"
        archive.addfile(link)
    return source(path, name)


def zip_archive(folder: Path, name: str) -> Source:
    path = folder / f"{name}-1.0.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-1.0/setup.py", CODE)
        for number in range(5):
            archive.writestr(f"{name}-1.0/pages/{number}.html", PROSE.format(number))
    return source(path, name)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which pip finds archives, and the only place it looks in."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def settings(index: Path) -> SampleCrawlSettings:
    sources = (tar_archive(index, "mill"), zip_archive(index, "grist.stone"))
    return SampleCrawlSettings(sources=sources, shards=3)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def responses(folder: Path, sample: SampleCrawl) -> dict[str, tuple[str | None, bytes]]:
    found = {}
    for shard in sample.shards:
        with open(folder / shard.path, "rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=False):
                assert record.verify_block_digest()
                record.parse_http()
                assert record.verify_payload_digest()
                assert record.http_headers is not None
                assert record.http_headers.status_code == 200
                assert record.http_content_type is not None
                url = record.headers["WARC-Target-URI"]
                found[url] = (record.http_content_type, record.reader.read())
    return found


def test_every_page_and_one_other_file_is_captured_unchanged(tmp_path: Path, settings: SampleCrawlSettings) -> None:
    sample = build_sample_crawl(tmp_path / "sample", settings)
    found = responses(tmp_path / "sample", sample)
    assert found == {
        "https://mill.test/docs/index.html": ("text/html", FILES["docs/index.html"]),
        "https://mill.test/docs/a%20b/gr%C3%B6%C3%9Fe.html": ("text/html", FILES["docs/a b/größe.html"]),
        "https://mill.test/docs/guide.HTM": ("text/html", FILES["docs/guide.HTM"]),
        "https://mill.test/docs/style.css": ("text/css", FILES["docs/style.css"]),
    } | {
        f"https://grist-stone.test/pages/{number}.html": ("text/html", PROSE.format(number).encode())
        for number in range(5)
    }
    assert (sample.pages, sample.others, sample.skipped) == (8, 1, {})
    assert sample.bytes == sum(len(body) for _, body in found.values())


def test_layout_is_that_of_common_crawl(tmp_path: Path, settings: SampleCrawlSettings) -> None:
    sample = build_sample_crawl(tmp_path, settings)
    paths = gzip.decompress((tmp_path / "crawl-data/CC-SAMPLE-2025-01/warc.paths.gz").read_bytes()).decode().split()
    assert paths == [shard.path for shard in sample.shards]
    assert all(path.startswith("crawl-data/CC-SAMPLE-2025-01/segments/") for path in paths)
    assert [shard.rows for shard in sample.shards] == [3, 3, 3]
    assert json.loads((tmp_path / "collinfo.json").read_text())[0]["id"] == "CC-SAMPLE-2025-01"
    first = gzip.decompress((tmp_path / paths[0]).read_bytes())
    assert first.startswith(b"WARC/1.0\r\nWARC-Type: warcinfo\r\n")


def test_each_record_is_a_gzip_member_that_can_be_read_alone(tmp_path: Path, settings: SampleCrawlSettings) -> None:
    sample = build_sample_crawl(tmp_path, settings)
    data = (tmp_path / sample.shards[0].path).read_bytes()
    offsets = [record.stream_pos for record in ArchiveIterator(io.BytesIO(data))]
    assert len(offsets) == 1 + sample.shards[0].rows
    for offset in offsets:
        assert next(iter(ArchiveIterator(io.BytesIO(data[offset:])))).record_id


def test_bytes_are_the_same_wherever_it_is_made(tmp_path: Path, settings: SampleCrawlSettings) -> None:
    build_sample_crawl(tmp_path / "one", settings)
    build_sample_crawl(tmp_path / "two", settings)
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_second_call_needs_no_source(tmp_path: Path, index: Path, settings: SampleCrawlSettings) -> None:
    first = build_sample_crawl(tmp_path / "sample", settings)
    for archive in index.iterdir():
        archive.unlink()
    assert build_sample_crawl(tmp_path / "sample", settings) == first


def test_other_settings_replace_the_sample(tmp_path: Path, settings: SampleCrawlSettings) -> None:
    build_sample_crawl(tmp_path / "sample", settings)
    fewer = build_sample_crawl(tmp_path / "sample", settings.model_copy(update={"shards": 2}))
    assert len(list((tmp_path / "sample").rglob("*.warc.gz"))) == len(fewer.shards) == 2


def test_a_source_that_cannot_be_had_is_skipped_and_named(
    tmp_path: Path, index: Path, settings: SampleCrawlSettings, caplog: pytest.LogCaptureFixture
) -> None:
    (index / "mill-1.0.tar.gz").unlink()
    with caplog.at_level(logging.WARNING, "tasks"):
        sample = build_sample_crawl(tmp_path / "sample", settings)
    assert list(sample.skipped) == ["mill==1.0"]
    assert "No matching distribution" in sample.skipped["mill==1.0"]
    assert "without mill==1.0" in caplog.text
    assert [record.name for record in sample.sources] == ["grist.stone"]


def test_no_source_at_all_is_an_error(tmp_path: Path, index: Path, settings: SampleCrawlSettings) -> None:
    for archive in index.iterdir():
        archive.unlink()
    with pytest.raises(RunFailed, match="none of 2 sources"):
        build_sample_crawl(tmp_path / "sample", settings)
    assert not (tmp_path / "sample").exists()


def test_another_archive_under_the_same_name_is_refused(
    tmp_path: Path, index: Path, settings: SampleCrawlSettings
) -> None:
    with zipfile.ZipFile(index / "grist.stone-1.0.zip", "a") as archive:
        archive.writestr("grist.stone-1.0/pages/planted.html", "<p>planted</p>")
    with pytest.raises(RunFailed, match="its sha256 must be"):
        build_sample_crawl(tmp_path / "sample", settings)
    assert not (tmp_path / "sample").exists()


def test_unsafe_names_and_links_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "evil-1.0.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../up.html", "evil-1.0/../../up.html", "/absolute.html", "evil-1.0/a\\b.html", "bare.html"):
            archive.writestr(name, "<p>no</p>")
        archive.writestr("evil-1.0/safe.html", "<p>yes</p>")
    assert _members(path) == {"safe.html": "evil-1.0/safe.html"}
