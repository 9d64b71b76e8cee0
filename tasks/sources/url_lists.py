"""Block lists in the forms that users have, compiled to tables that every worker maps instead of loading.

Hosts and URLs become sorted 64-bit hashes (xxh3): 4.5 million domains take 36 MB once for each machine. A URL that is
not on such a list is taken for one with a probability of 3 in 10^13.

Forms: UT1's folders (a folder for each category with the files `domains` and `urls`); plain lists, one entry a line;
hosts files (0.0.0.0 example.com); entries as ad blockers write them (||example.com^, *.example.com). Comments and
blank lines are passed over; files may be compressed.
"""

import hashlib
import io
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, cast

import fsspec
import numpy as np
import xxhash
from tldextract import TLDExtract

from infra.errors import BadInput
from infra.manifest import fingerprint
from infra.store import Store
from tasks.sources.corpus_files import DamagedStreamError, decompressed, read_lines
from tasks.sources.transport import SourceMissingError, SourceUnavailableError, TransportSettings, open_source

_SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*+:)?//", re.I)
_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_PLAIN_HOST = re.compile(r"[a-z0-9-]++(?:\.[a-z0-9-]++)++")
_NOT_WORD = re.compile(r"[^a-zA-Z0-9]+")
_MAX_LINE_BYTES = 1 << 16


@dataclass(frozen=True)
class ListPaths:
    """Files of block lists by what their entries are."""

    hosts: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    soft_words: tuple[str, ...] = ()
    subwords: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.hosts, self.urls, self.words, self.soft_words, self.subwords))


@dataclass(frozen=True)
class UrlLists:
    """Compiled lists: sorted hashes of hosts and of URLs, and words."""

    hosts: np.ndarray
    urls: np.ndarray
    words: frozenset[str]
    soft_words: frozenset[str]
    subwords: frozenset[str]


def compile_lists(store: Store, paths: ListPaths) -> tuple[str, str]:
    """Compile lists into the store. Returns the folder's full path and the digest of what the lists say.

    BadInput for a list that cannot be read. Comments and the order of entries do not change the digest. Files that
    were compiled before are known by their bytes.
    """
    known = f"lists/files/{_files_digest(paths)}.json"
    if store.exists(known):
        digest = json.loads(store.read_bytes(known))
        if store.exists(f"lists/{digest}/words.json"):
            return f"{store.root.rstrip('/')}/lists/{digest}", digest
    digest = _compile(store, paths)
    store.write_bytes(known, json.dumps(digest).encode())
    return f"{store.root.rstrip('/')}/lists/{digest}", digest


def _files_digest(paths: ListPaths) -> str:
    """A hash of what the files hold, and as which kind of list each is given."""
    digest = hashlib.sha256()
    for kind, names in asdict(paths).items():
        for path in names:
            try:
                with open_source(path, TransportSettings()) as stream:
                    digest.update(f"{kind} {path.rsplit('.', 1)[-1]}\n".encode())
                    digest.update(hashlib.file_digest(cast("Any", stream), "sha256").digest())
            except (SourceMissingError, SourceUnavailableError, OSError) as error:
                raise BadInput(f"{path} ({error})", "a list must be readable to its end", "Correct its path") from error
    return digest.hexdigest()


def _compile(store: Store, paths: ListPaths) -> str:
    """Write the tables and words of lists under their digest."""
    hosts, urls = array("Q"), array("Q")
    for path in paths.hosts:
        for entry in list_entries(path):
            if _PLAIN_HOST.fullmatch(entry):  # nearly all entries are
                hosts.append(hashed(entry))
                continue
            address, host = normal_url(entry), url_host(entry)
            if address != host:
                urls.append(hashed(address))
            elif host:
                hosts.append(hashed(host))
    for path in paths.urls:
        urls.extend(hashed(normal_url(entry)) for entry in list_entries(path))
    tables = {"hosts": _sorted(hosts), "urls": _sorted(urls)}
    words = {name: _words(getattr(paths, name)) for name in ("words", "soft_words", "subwords")}
    sizes = {name: len(table) for name, table in tables.items()}
    contents = {name: xxhash.xxh3_128_hexdigest(table.tobytes()) for name, table in tables.items()}
    digest = fingerprint(contents=contents, sizes=sizes, words=words)
    folder = f"lists/{digest}"
    if not store.exists(f"{folder}/words.json"):
        store.make_folder(folder)
        for name, table in tables.items():
            packed = io.BytesIO()
            np.save(packed, table)
            store.write_bytes(f"{folder}/{name}.npy", packed.getvalue())
        store.write_bytes(f"{folder}/words.json", json.dumps(words, sort_keys=True).encode())
    return digest


def _sorted(hashes: array) -> np.ndarray:
    return np.unique(np.frombuffer(hashes, np.uint64)) if hashes else np.empty(0, np.uint64)


def _words(paths: Sequence[str]) -> list[str]:
    found = {normal_word(entry) for path in paths for entry in list_entries(path, hosts=False)}
    return sorted(found - {""})


@lru_cache(maxsize=4)
def load_lists(folder: str) -> UrlLists:
    """Compiled lists, mapped where the store is a folder of this machine. Once for each process."""
    store = Store(folder)

    def table(name: str) -> np.ndarray:
        if store.is_local:
            return np.load(store.local_path(name), mmap_mode="r")
        return np.load(io.BytesIO(store.read_bytes(name)))

    words = json.loads(store.read_bytes("words.json"))
    names = ("words", "soft_words", "subwords")
    return UrlLists(table("hosts.npy"), table("urls.npy"), *(frozenset(words[name]) for name in names))


def ut1_files(folder: str, categories: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths of the domain lists and URL lists of UT1 categories; BadInput names the categories that there are."""
    fs, base = cast("tuple[Any, str]", fsspec.core.url_to_fs(folder))
    hosts: list[str] = []
    urls: list[str] = []
    for category in categories:
        found = {name: _existing(fs, f"{base.rstrip('/')}/{category}/{name}") for name in ("domains", "urls")}
        if not any(found.values()):
            try:
                known = sorted(str(each).rstrip("/").rpartition("/")[2] for each in fs.ls(base, detail=False))
            except OSError:
                known = []
            raise BadInput(
                f"UT1 category {category}",
                f"{folder} must hold a folder of that name with a file domains or urls",
                f"There are: {', '.join(known) or 'none'}",
            )
        hosts += [path for path in (found["domains"],) if path]
        urls += [path for path in (found["urls"],) if path]
    return tuple(hosts), tuple(urls)


def _existing(fs: Any, path: str) -> str | None:
    return next((fs.unstrip_protocol(each) for each in (path, f"{path}.gz") if fs.isfile(each)), None)


def list_entries(path: str, hosts: bool = True) -> Iterator[str]:
    """Entries of a list; of a hosts file and of ad blockers' rules the host alone."""
    try:
        with open_source(path, TransportSettings()) as stream:
            for _, line in read_lines(decompressed(stream, path), _MAX_LINE_BYTES):
                text = (line or b"").decode("utf-8", "replace").removeprefix("\ufeff").strip()
                if text and text[0] not in "#!;[":
                    yield from _entries_of(text) if hosts else (text,)
    except (SourceMissingError, SourceUnavailableError, DamagedStreamError, OSError) as error:
        raise BadInput(f"{path} ({error})", "a list must be readable to its end", "Correct its path") from error


def _entries_of(line: str) -> Iterable[str]:
    if _PLAIN_HOST.fullmatch(line):
        return (line,)
    first, *rest = re.split(r"\s+#", line, maxsplit=1)[0].split()
    if rest and (_IPV4.fullmatch(first) or ":" in first):
        return (name for name in rest if "." in name and not _IPV4.fullmatch(name))
    return (first.removeprefix("||").partition("^")[0].removeprefix("*.").lstrip("."),)


def hashed(text: str) -> int:
    """The 64-bit hash of a host or URL."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "replace"))


def contains(table: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    """Which keys are in a compiled table."""
    if not len(table):
        return np.zeros(len(keys), bool)
    hashes = np.fromiter((hashed(key) for key in keys), np.uint64, len(keys))
    places = np.minimum(np.searchsorted(table, hashes), len(table) - 1)
    return table[places] == hashes


def url_host(url: str) -> str:
    """The host of a URL (or of an entry without scheme) in one spelling: lower case, IDNA, no port; empty if none."""
    authority = re.split(r"[/?#\\]", _SCHEME.sub("", url.strip(), count=1), maxsplit=1)[0].rpartition("@")[2]
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    host = re.sub("[\u3002\uff0e\uff61]", ".", authority.partition(":")[0]).strip(".").lower()
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host


def normal_url(url: str) -> str:
    """One spelling for URLs that lists and pages write differently: no scheme, port, fragment or last slash."""
    rest = _SCHEME.sub("", url.strip(), count=1).partition("#")[0]
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    return (url_host(authority) + rest[len(authority) :]).rstrip("/")


def normal_word(word: str) -> str:
    """A word as it is looked for: letters and digits alone, in lower case."""
    return _NOT_WORD.sub("", word).lower()


def url_words(url: str) -> set[str]:
    """The runs of letters and digits of a URL."""
    return set(_NOT_WORD.split(url))


@lru_cache(maxsize=1)
def _extractor() -> TLDExtract:
    # The list of public suffixes that came with the library: no network, no cache on disk.
    return TLDExtract(cache_dir=None, suffix_list_urls=(), fallback_to_snapshot=True)


def registered_domain(host: str) -> str:
    """The part of a host that somebody registered, such as example.co.uk; empty if there is none.

    A top-level domain that the list of public suffixes does not know counts as one, as the list's algorithm says.
    """
    found = _extractor()(host)
    if found.top_domain_under_public_suffix or found.suffix or _IPV4.fullmatch(host) or ":" in host:
        return found.top_domain_under_public_suffix.lower()
    return ".".join(host.split(".")[-2:]) if "." in host else ""
