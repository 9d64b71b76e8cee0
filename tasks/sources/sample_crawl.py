"""A small crawl of real pages, for the first run on a machine that has no crawl.

The pages stand inside pinned source distributions of Python projects: documentation that their authors built, and
news and blog pages in several languages that extraction libraries keep for their tests. pip downloads the archives,
so whatever index, mirror or proxy it is configured for is used; nothing is unpacked to disk and no downloaded code
runs. The pages are then written as Common Crawl publishes its crawls:

    collinfo.json
    crawl-data/CRAWL/warc.paths.gz
    crawl-data/CRAWL/segments/SEGMENT/warc/NAME-00000.warc.gz    one gzip member for each record
    sample.json                                                  written last: its existence means done

Addresses are made up under the reserved domain `.test`; the bodies are untouched. The same sources give the same
bytes (for one zlib).
"""

import hashlib
import logging
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from pydantic import Field

from infra.errors import BadInput, RunFailed
from infra.manifest import FileRecord, Manifest, fingerprint
from infra.settings import Settings, operational
from infra.store import Store
from tasks.sources.crawl_writer import Capture, write_crawl

log = logging.getLogger(__name__)

VERSION = 1
"""Raised when the same sources would give other bytes."""
MANIFEST = "sample.json"
MAX_PAGE_BYTES = 16 << 20
"""Larger members of an archive are passed over, before they are read."""
PAGES = {".html": "text/html", ".htm": "text/html", ".xhtml": "application/xhtml+xml"}
OTHERS = {".css": "text/css", ".js": "application/javascript", ".png": "image/png", ".txt": "text/plain"}

_BUILD_BACKENDS = ("setuptools/build_meta.py", "flit_core/buildapi.py", "hatchling/build.py")
_STAND_IN = """\
from pathlib import Path


class Backend:
    def prepare_metadata_for_build_wheel(self, folder, config_settings=None):
        made = Path(folder, "{module}-{version}.dist-info")
        made.mkdir()
        made.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        return made.name


__legacy__ = Backend()
prepare_metadata_for_build_wheel = __legacy__.prepare_metadata_for_build_wheel
"""


class Source(Settings):
    """One pinned source distribution."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = Field(pattern=r"^[A-Za-z0-9.+!]+$")
    file: str
    """Name of the archive: .tar.gz, .tar.bz2 or .zip."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def host(self) -> str:
        """Made-up host of its pages, under a domain that no resolver answers for."""
        return f"{re.sub(r'[^a-z0-9]+', '-', self.name.lower())}.test"


_PINNED = """
SQLAlchemy 2.0.40 sqlalchemy-2.0.40.tar.gz d827099289c64589418ebbcaead0145cd19f4e3e8a93919a0100247af245fa00
pyglet 1.1.4 pyglet-1.1.4.tar.gz 63a7936dffe4fc0475617a4d804a4b63ab13949cb30afd3c62ab98d8384f7ff3
SQLObject 3.1.0 SQLObject-3.1.0.tar.gz 11cd1d683df7b0c7752a856fbe9e52b5869bc07d6c0349a23ca7a4a50e299ae5
epydoc 3.0.1 epydoc-3.0.1.zip 9e83f1eba2f35b8dbd0b4b25e90e5057170960a256e4eabb53c1931552fd1ade
Genshi 0.7 Genshi-0.7.zip 7ccc17486722f60058566edf060fc8c6af0ac1559624d9f2c003825d7a14e78d
ipython 0.10.2 ipython-0.10.2.zip 6262dbc2753e6f6e95ca23bd321725161ea493ba994b242814c6a2dd59c6445f
Twisted 13.2.0 Twisted-13.2.0.tar.bz2 095175638c019ac7c0604f4c291724a16ff1acd062e181b01293bf4dcbc62cf3
trafilatura 1.0.0 trafilatura-1.0.0.tar.gz 10222e9475363091d38d4aa92349974a23363e8a98692b5f902d60bba3e53383
htmldate 1.4.0 htmldate-1.4.0.tar.gz a382ca6bf0bda800089f96c469bb3d04b05bb8aea58cea37474229278c13e933
lxml 5.3.0 lxml-5.3.0.tar.gz 4e109ca30d1edec1ac60cdbe341905dc3b8f55b16855e03a54aaf59e51ec8c6f
Mako 1.3.8 mako-1.3.8.tar.gz 577b97e414580d3e088d47c2dbbe9594aa7a5146ed2875d4dfa9075af2dd3cc8
docutils 0.21.2 docutils-0.21.2.tar.gz 3a6b18732edf182daa3cd12775bbb338cf5691468f91eeeb109deff6ebfa986f
alembic 1.14.0 alembic-1.14.0.tar.gz b00892b53b3642d0b8dbedba234dbf1924b69be83a9a769d5a624b01094e304b
Pygments 1.6 Pygments-1.6.tar.gz 799ed4caf77516e54440806d8d9cd82a7607dfdf4e4fb643815171a4b5c921c0
dogpile.cache 1.3.3 dogpile.cache-1.3.3.tar.gz f84b8ed0b0fb297d151055447fa8dcaf7bae566d4dbdefecdcc1f37662ab588b
"""

SOURCES = tuple(
    Source(name=name, version=version, file=file, sha256=sha256)
    for name, version, file, sha256 in map(str.split, _PINNED.strip().splitlines())
)
"""Documentation in English, save trafilatura and htmldate: web pages of many sites, German and English before all."""


class SampleCrawlSettings(Settings):
    """What the sample is made of."""

    crawl: str = Field(default="CC-SAMPLE-2025-01", pattern=r"^[A-Z0-9][A-Za-z0-9._-]*$")
    """Name of the crawl, as its folder and collinfo.json spell it."""
    shards: int = Field(default=8, ge=1, le=1000)
    """WARC files; every project is spread over all of them."""
    sources: tuple[Source, ...] = Field(default=SOURCES, min_length=1)
    """Source distributions whose pages are taken."""
    others_per_source: int = Field(default=1, ge=0, le=100)
    """Style sheets, scripts, pictures and text files taken of each source, for fetch to skip."""
    parallel_downloads: int = operational(4, ge=1, le=32)
    """pip processes at once."""
    download_timeout: float = operational(300.0, gt=0)
    """Seconds after which one source is given up."""


class SourceRecord(Settings):
    """What one source gave."""

    name: str
    version: str
    sha256: str
    archive_bytes: int
    pages: int
    """HTML pages."""
    others: int
    """Records of other types."""
    bytes: int
    """Of all bodies."""


class SampleCrawl(Manifest):
    """A finished sample; paths are relative to its folder."""

    crawl: str
    fingerprint: str
    sources: tuple[SourceRecord, ...]
    skipped: dict[str, str]
    """Sources that could not be had, with pip's last word; empty when the sample is whole."""
    pages: int
    others: int
    bytes: int
    """Of all bodies, uncompressed."""
    shards: tuple[FileRecord, ...]


def build_sample_crawl(folder: Path, settings: SampleCrawlSettings) -> SampleCrawl:
    """Make the sample in `folder`, or return at once if the same sample stands there.

    Sources that cannot be had are skipped with a warning. RunFailed if none can be had or if an archive is not the
    pinned one; BadInput if this Python has no pip. Holds all bodies in memory, about 120 MB for the default sources.
    """
    store = Store(str(folder))
    made_of = fingerprint(version=VERSION, settings=settings.identity())
    if store.exists(MANIFEST):
        done = SampleCrawl.load(store, MANIFEST)
        if done.fingerprint == made_of:
            return done
    with tempfile.TemporaryDirectory(prefix="sample-crawl-") as scratch:
        archives, skipped = _download_all(settings, Path(scratch))
        captures = {source: _captures(path, source, settings) for source, path in archives.items()}
        records = tuple(_record(source, archives[source], captures[source]) for source in archives)
    store.remove(MANIFEST)
    store.remove(f"crawl-data/{settings.crawl}")
    sample = SampleCrawl(
        crawl=settings.crawl,
        fingerprint=made_of,
        sources=records,
        skipped=skipped,
        pages=sum(record.pages for record in records),
        others=sum(record.others for record in records),
        bytes=sum(record.bytes for record in records),
        shards=write_crawl(
            store, settings.crawl, settings.shards, [each for taken in captures.values() for each in taken]
        ),
    )
    sample.save(store, MANIFEST)
    return sample


def _record(source: Source, archive: Path, captures: list[Capture]) -> SourceRecord:
    pages = sum(capture.content_type in PAGES.values() for capture in captures)
    return SourceRecord(
        name=source.name,
        version=source.version,
        sha256=source.sha256,
        archive_bytes=archive.stat().st_size,
        pages=pages,
        others=len(captures) - pages,
        bytes=sum(len(capture.body) for capture in captures),
    )


# Downloading


def _download_all(settings: SampleCrawlSettings, scratch: Path) -> tuple[dict[Source, Path], dict[str, str]]:
    """Archives by source, in the order of the settings, and the reasons for those that could not be had."""
    # Asked of the installed packages, because looking for the module makes setuptools warn.
    if not any(True for _ in distributions(name="pip")):
        raise BadInput(
            f"{sys.executable} has no pip",
            "the sample's pages are downloaded by pip, so that its configured index is used",
            "Install pip into this environment, for instance with `uv pip install pip`",
        )
    with ThreadPoolExecutor(settings.parallel_downloads) as pool:
        fetch = partial(_download, scratch=scratch, timeout=settings.download_timeout)
        found = dict(zip(settings.sources, pool.map(fetch, settings.sources), strict=True))
    archives = {source: result for source, result in found.items() if isinstance(result, Path)}
    skipped = {f"{s.name}=={s.version}": reason for s, reason in found.items() if isinstance(reason, str)}
    for source, reason in skipped.items():
        log.warning("Sample crawl goes without %s: %s. Remove %s to try again.", source, reason, MANIFEST)
    if not archives:
        raise RunFailed(
            f"none of {len(found)} sources could be downloaded (the last: {list(skipped.values())[-1]})",
            "the sample needs at least one source distribution",
            "Check that `pip download` works here (network, proxy, index), or use a mirror of a crawl that you have",
        )
    return archives, skipped


def _download(source: Source, scratch: Path, timeout: float) -> Path | str:
    """The archive of one source, or why it could not be had; RunFailed if it is not the pinned one."""
    folder = scratch / f"{source.name}-{source.version}"
    requirement = _prepare(source, folder)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--no-binary", ":all:"]
    command += ["--no-build-isolation", "--use-pep517", "--dest", str(folder), "--requirement", str(requirement)]
    paths = [str(folder / "backends"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:g} seconds"
    archive = folder / source.file
    if "DO NOT MATCH THE HASHES" in done.stderr or (archive.exists() and _sha256(archive) != source.sha256):
        raise RunFailed(
            f"the index served another {source.file} than the one pinned",
            f"its sha256 must be {source.sha256}",
            "Point pip at an index that you trust, or leave this source out of the sample's `sources`",
        )
    if done.returncode or not archive.exists():
        errors = [line for line in done.stderr.splitlines() if line.startswith(("ERROR", "error"))]
        return (errors or done.stderr.splitlines() or [f"pip gave no {source.file}"])[-1]
    return archive


def _prepare(source: Source, folder: Path) -> Path:
    """Write the requirement, and stand-ins for the build backends, and return the requirement's path.

    pip asks an archive's build backend for its name and version even when it only downloads. The stand-ins answer
    in the backend's place: no code of the archive runs, nothing has to be installed, and a second is saved on each.
    """
    stand_in = _STAND_IN.format(name=source.name, version=source.version, module=re.sub(r"[-_.]+", "_", source.name))
    for backend in _BUILD_BACKENDS:
        path = folder / "backends" / backend
        path.parent.mkdir(parents=True)
        path.with_name("__init__.py").touch()
        path.write_text(stand_in)
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{source.name}=={source.version} --hash=sha256:{source.sha256}\n")
    return requirement


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Reading archives


def _captures(archive: Path, source: Source, settings: SampleCrawlSettings) -> list[Capture]:
    """Pages of an archive and a few other files, in the order of their paths."""
    members = _members(archive)
    pages = sorted(path for path in members if _suffix(path) in PAGES)
    others = sorted(path for path in members if _suffix(path) in OTHERS)[: settings.others_per_source]
    bodies = dict(_read(archive, {members[path]: path for path in [*pages, *others]}))
    types = PAGES | OTHERS
    return [
        Capture(f"https://{source.host}/{quote(path)}", types[_suffix(path)], bodies[path])
        for path in sorted([*pages, *others])
    ]


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _members(archive: Path) -> dict[str, str]:
    """Regular, non-empty files of usable size and safe name: path below the top folder to name in the archive."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            sizes = {each.filename: each.file_size for each in opened.infolist() if not each.is_dir()}
    else:
        with tarfile.open(archive) as opened:
            sizes = {each.name: each.size for each in opened if each.isfile()}
    paths = {name: PurePosixPath(name) for name, size in sizes.items() if 0 < size <= MAX_PAGE_BYTES}
    return {
        "/".join(path.parts[1:]): name
        for name, path in paths.items()
        if len(path.parts) > 1 and not path.is_absolute() and ".." not in path.parts and "\\" not in name
    }


def _read(archive: Path, wanted: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Bodies of the wanted members, read in memory in one pass."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            yield from ((path, opened.read(name)) for name, path in wanted.items())
        return
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.name in wanted and (file := opened.extractfile(member)):
                yield wanted[member.name], file.read()
