"""Select: pages leave before anything is extracted if they refuse use or if their address is on a block list.

The order and meaning of the address rules are those of datatrove's URLFilter (0.10.1): registered domain, host, URL,
a banned word, several words that are suspicious together, a banned part of a word; the first that applies is the
reason. Unlike there, hosts are compared in lower case and IDNA, numeric addresses are hosts too, blank lines of a list
are no entries, URLs are compared without scheme, port, fragment and last slash (as UT1 writes them), and a document
without an address passes.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import pyarrow as pa
from pydantic import Field

from infra.address import Address
from infra.schema import RESPONSES
from infra.settings import Settings, operational
from infra.store import Store
from tasks.sources.url_lists import (
    ListPaths,
    UrlLists,
    compile_lists,
    contains,
    load_lists,
    normal_url,
    normal_word,
    registered_domain,
    url_host,
    url_words,
    ut1_files,
)
from tasks.stage import Split, Stage, split_by_reason

SELECTED = pa.schema([field for field in RESPONSES if field.name != "payload"])
"""What select keeps: responses without their pages, which stay where fetch has put them."""
SELECT = Stage("select", 2, SELECTED, libraries=("pyarrow", "tldextract", "xxhash"))
_FEW_SUBWORDS = 200


class SelectSettings(Settings):
    """Which pages are not taken at all."""

    honour_opt_outs: tuple[str, ...] = (
        *("noai", "noindex", "none", "tdm-reservation", "train-ai=n", "unavailable_after"),
    )
    """Directives of the column opt_out that drop a page. Left out by default: noimageai (of pictures alone),
    noarchive and nocache (on showing copies). An empty list honours none."""
    ut1_folder: Address | None = operational(None)
    """A copy of UT1's blacklists: a folder or fsspec URL with a folder for each category."""
    ut1_categories: tuple[str, ...] = operational(())
    """Categories of UT1 to block, such as adult and phishing."""
    host_lists: tuple[Address, ...] = operational(())
    """Files of registered domains and hosts: plain, hosts files or ad blockers' rules. A registered domain stands for
    all its hosts. Paths do not enter the fingerprint, what the lists say does."""
    url_lists: tuple[Address, ...] = operational(())
    """Files of URLs."""
    word_lists: tuple[Address, ...] = operational(())
    """Files of words, one of which in a URL is enough."""
    soft_word_lists: tuple[Address, ...] = operational(())
    """Files of words of which soft_word_threshold different ones are enough."""
    subword_lists: tuple[Address, ...] = operational(())
    """Files of character sequences that block anywhere in a URL, whatever stands between their characters."""
    soft_word_threshold: int = Field(default=2, ge=1)
    """Soft words that block a URL together (datatrove's default)."""
    block_subdomains: bool = False
    """Let every host on a list stand for the hosts below it, as squidGuard does; datatrove does so for registered
    domains alone."""
    ignore_case: bool = False
    """Find words in capitals too; datatrove does not."""
    digest: str = ""
    """What the lists say; filled in by `resolve_lists`."""
    compiled: str = operational("")
    """Folder of the compiled lists; filled in by `resolve_lists`."""


def resolve_lists(store: Store, settings: SelectSettings) -> SelectSettings:
    """The settings with their lists compiled into the store and identified by content. BadInput for unreadable ones."""
    hosts, urls = settings.host_lists, settings.url_lists
    if settings.ut1_folder is not None:
        more_hosts, more_urls = ut1_files(settings.ut1_folder, settings.ut1_categories)
        hosts, urls = (*hosts, *more_hosts), (*urls, *more_urls)
    paths = ListPaths(hosts, urls, settings.word_lists, settings.soft_word_lists, settings.subword_lists)
    if not paths:
        return settings
    folder, digest = compile_lists(store, paths)
    return settings.model_copy(update={"compiled": folder, "digest": digest})


def select_shard(store: Store, source: str, settings: SelectSettings) -> Iterator[Split]:
    """The shard function: `select` of each batch of a fetched shard, of which no page is read."""
    reader = store.open_table(source, SELECTED.names)
    for index in range(reader.num_record_batches):
        yield select(pa.Table.from_batches([reader.get_batch(index)]), settings)


def select(table: pa.Table, settings: SelectSettings) -> Split:
    """SELECTED to SELECTED. Drops opted_out and blocked_{domain,host,url,word,words,subword}.

    The detail is what decided: a directive, an entry of a list.
    """
    verdicts = [_opted_out(value, settings) for value in cast("list[str | None]", table["opt_out"].to_pylist())]
    if settings.compiled:
        lists = load_lists(settings.compiled)
        urls = cast("list[str | None]", table["url"].to_pylist())
        chosen = [row for row, verdict in enumerate(verdicts) if verdict is None and urls[row]]
        found = blocked([urls[row] or "" for row in chosen], lists, settings)
        for row, verdict in zip(chosen, found, strict=True):
            verdicts[row] = verdict
    reasons = [None if verdict is None else verdict[0] for verdict in verdicts]
    values = [None if verdict is None else verdict[2] for verdict in verdicts]
    details = [None if verdict is None else verdict[1] for verdict in verdicts]
    return Split(*split_by_reason(table, SELECT.name, reasons, values, details))


Verdict = tuple[str, str, float | None]
"""Reason, detail and value."""


def _opted_out(opt_out: str | None, settings: SelectSettings) -> Verdict | None:
    directives = sorted(set(opt_out.split(",")) & set(settings.honour_opt_outs)) if opt_out else []
    return ("opted_out", ",".join(directives), None) if directives else None


def blocked(urls: Sequence[str], lists: UrlLists, settings: SelectSettings) -> list[Verdict | None]:
    """For each URL why it is blocked, or None."""
    verdicts: list[Verdict | None] = [None] * len(urls)
    if len(lists.hosts):
        hosts = [url_host(url) for url in urls]
        domains = [registered_domain(host) for host in hosts]
        in_domains, in_hosts = contains(lists.hosts, domains), contains(lists.hosts, hosts)
        for row, host in enumerate(hosts):
            if domains[row] and in_domains[row]:
                verdicts[row] = "blocked_domain", domains[row], None
            elif host and in_hosts[row]:
                verdicts[row] = "blocked_host", host, None
            elif settings.block_subdomains and (parent := _blocked_parent(host, domains[row], lists)):
                verdicts[row] = "blocked_host", parent, None
    addresses = [normal_url(url) for url in urls] if len(lists.urls) else []
    in_urls = contains(lists.urls, addresses)
    for row, url in enumerate(urls):
        if verdicts[row] is None:
            verdicts[row] = (
                ("blocked_url", addresses[row], None)
                if addresses and in_urls[row]
                else _blocked_word(url, lists, settings)
            )
    return verdicts


def _blocked_parent(host: str, domain: str, lists: UrlLists) -> str | None:
    """The listed host above a host and below its registered domain."""
    if not domain:
        return None
    labels = host.removesuffix(domain).rstrip(".").split(".")
    parents = [".".join([*labels[start:], domain]) for start in range(1, len(labels))]
    return next((parent for parent, found in zip(parents, contains(lists.hosts, parents), strict=True) if found), None)


def _blocked_word(url: str, lists: UrlLists, settings: SelectSettings) -> Verdict | None:
    if lists.words or lists.soft_words:
        words = url_words(url.lower() if settings.ignore_case else url)
        if hard := words & lists.words:
            return "blocked_word", min(hard), None
        soft = words & lists.soft_words
        if len(soft) >= settings.soft_word_threshold:
            return "blocked_words", " ".join(sorted(soft)), len(soft)
    if lists.subwords and (subword := _first_subword(normal_word(url), lists.subwords)) is not None:
        return "blocked_subword", subword, None
    return None


def _first_subword(text: str, subwords: frozenset[str]) -> str | None:
    """The smallest of the banned sequences that a text holds."""
    if len(subwords) <= _FEW_SUBWORDS:
        found = {word for word in subwords if word in text}
    else:  # look every part of the text up: that takes the same time for a list of any length
        lengths = {len(word) for word in subwords}
        parts = {text[at : at + length] for length in lengths for at in range(len(text) - length + 1)}
        found = parts & subwords
    return min(found, default=None)
