"""Hosts and URLs in one spelling; lists compiled to what they say."""

from pathlib import Path

import numpy as np
import pytest

from infra.store import Store
from tasks.sources.url_lists import (
    ListPaths,
    compile_lists,
    contains,
    load_lists,
    normal_url,
    registered_domain,
    url_host,
)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://A.Example.COM:80/x", "a.example.com"),
        ("https://user:p@ss@a.example.com./", "a.example.com"),
        ("//a.example.com?x=//b.example", "a.example.com"),
        ("a.example.com", "a.example.com"),
        ("http://[2001:DB8::1]:8080/", "2001:db8::1"),
        ("http://münchen.example/", "xn--mnchen-3ya.example"),
        ("http://a。example。com/", "a.example.com"),
        ("http://\\evil.example", ""),
        ("http://" + "ü" * 70 + ".example/", "ü" * 70 + ".example"),
        ("http:///x", ""),
        ("", ""),
    ],
)
def test_a_host_has_one_spelling(url: str, host: str) -> None:
    assert url_host(url) == host


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("a.b.example.co.uk", "example.co.uk"),
        ("example.com", "example.com"),
        ("co.uk", ""),
        ("com", ""),
        ("a.b.unknown-top", "b.unknown-top"),
        ("192.0.2.1", ""),
        ("2001:db8::1", ""),
        ("www.bücher.de".encode("idna").decode(), "xn--bcher-kva.de"),
        ("", ""),
    ],
)
def test_registered_domains_without_a_network(host: str, domain: str) -> None:
    assert registered_domain(host) == domain


def test_urls_are_compared_without_what_does_not_matter() -> None:
    same = ["http://a.example/b/", "HTTPS://A.example:443/b#c", "a.example/b"]
    assert {normal_url(url) for url in same} == {"a.example/b"}
    assert normal_url("a.example?q=/b/") == "a.example?q=/b"
    assert normal_url("a.example/B") != normal_url("a.example/b")


def test_lists_are_compiled_once_and_mapped(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("b.example\na.example\n")
    (tmp_path / "words").write_text("Ca-Sino\n---\n#x\n")
    store = Store(str(tmp_path / "root"))
    paths = ListPaths(hosts=(str(tmp_path / "hosts"),), words=(str(tmp_path / "words"),))
    folder, digest = compile_lists(store, paths)
    assert compile_lists(store, paths) == (folder, digest)
    lists = load_lists(folder)
    assert isinstance(lists.hosts, np.memmap)
    assert contains(lists.hosts, ["a.example", "c.example", ""]).tolist() == [True, False, False]
    assert contains(lists.urls, ["a.example"]).tolist() == [False]
    assert lists.words == {"casino"}


def test_files_that_were_compiled_are_known_by_their_bytes(tmp_path: Path) -> None:
    store, hosts = Store(str(tmp_path / "store")), tmp_path / "hosts.txt"
    hosts.write_text("bad.example\n")
    first = compile_lists(store, ListPaths(hosts=(str(hosts),)))
    assert compile_lists(store, ListPaths(hosts=(str(hosts),))) == first
    assert compile_lists(store, ListPaths(words=(str(hosts),))) != first
    hosts.write_text("# the same, said otherwise\nbad.example\n")
    assert compile_lists(store, ListPaths(hosts=(str(hosts),))) == first
    hosts.write_text("worse.example\n")
    assert compile_lists(store, ListPaths(hosts=(str(hosts),))) != first
    (tmp_path / "store/lists" / first[1] / "words.json").unlink()
    hosts.write_text("bad.example\n")
    assert compile_lists(store, ListPaths(hosts=(str(hosts),))) == first
    assert store.exists(f"lists/{first[1]}/words.json")
