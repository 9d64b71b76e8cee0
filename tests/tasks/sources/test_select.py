"""Pages leave for what they say and for where they stand, in datatrove's order; lists come in the forms that exist."""

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infra.errors import BadInput
from infra.schema import RESPONSES
from infra.store import Store
from tasks.sources.select import SelectSettings, resolve_lists, select
from tasks.stage import conform
from tests.conftest import REPOSITORY

PEER = REPOSITORY / ".venv-bench/bin/python"
PEER_REASONS = {
    "domain": "blocked_domain",
    "subdomain": "blocked_host",
    "url": "blocked_url",
    "hard_blacklisted": "blocked_word",
    "soft_blacklisted": "blocked_words",
    "blacklisted_subword": "blocked_subword",
}


def pages(urls: list[str | None], opt_outs: list[str | None] | None = None) -> pa.Table:
    rows = len(urls)
    columns = {
        "id": pa.array([str(n) for n in range(rows)]),
        "url": pa.array(urls, pa.large_string()),
        "source": pa.array(["test"] * rows),
        "file": pa.array(["f"] * rows, pa.large_string()),
        "offset": pa.array(range(rows), pa.int64()),
        "opt_out": pa.array(opt_outs or [None] * rows, pa.string()),
        "payload": pa.array([b""] * rows, pa.large_binary()),
    }
    return conform(columns, rows, RESPONSES)


class Lists:
    """Block lists written to files, one for each kind."""

    def __init__(self, folder: Path, **entries: str) -> None:
        self.folder = folder
        self.paths: dict[str, Any] = {}
        for name, text in entries.items():
            (folder / f"{name}.txt").write_text(text)
            self.paths[f"{name}_lists"] = (str(folder / f"{name}.txt"),)

    def reasons(self, urls: list[str | None], **settings: Any) -> list[tuple[str, str] | None]:
        resolved = resolve_lists(Store(str(self.folder / "root")), SelectSettings(**self.paths, **settings))
        split = select(pages(urls), resolved)
        found = {row["id"]: (row["reason"], row["detail"]) for row in split.dropped.to_pylist()}
        assert split.kept.num_rows + split.dropped.num_rows == len(urls)
        return [found.get(str(n)) for n in range(len(urls))]


def test_opt_outs_drop_a_page_unless_they_are_not_honoured() -> None:
    table = pages([None] * 4, [None, "noai,noimageai", "noarchive", "noindex"])
    split = select(table, SelectSettings())
    assert split.kept["id"].to_pylist() == ["0", "2"]
    assert [(row["reason"], row["detail"]) for row in split.dropped.to_pylist()] == [
        ("opted_out", "noai"),
        ("opted_out", "noindex"),
    ]
    assert select(table, SelectSettings(honour_opt_outs=())).kept.num_rows == 4
    assert select(table, SelectSettings(honour_opt_outs=("noarchive",))).kept["id"].to_pylist() == ["0", "1", "3"]


def test_rules_apply_in_order_and_name_what_decided(tmp_path: Path) -> None:
    lists = Lists(
        tmp_path,
        host="bad.example\nsub.host.co.uk\n",
        url="https://page.example/a/b?c=1\n",
        word="casino",
        soft_word="bonus\nspin",
        subword="free-porn",
    )
    assert lists.reasons(
        [
            "http://www.bad.example/casino",
            "http://sub.host.co.uk/",
            "http://other.host.co.uk/",
            "http://page.example/a/b?c=1",
            "http://x.example/casino-bonus-spin",
            "http://x.example/bonus/spin",
            "http://x.example/bonus",
            "http://x.example/Free/P-orn",
            None,
        ]
    ) == [
        ("blocked_domain", "bad.example"),
        ("blocked_host", "sub.host.co.uk"),
        None,
        ("blocked_url", "page.example/a/b?c=1"),
        ("blocked_word", "casino"),
        ("blocked_words", "bonus spin"),
        None,
        ("blocked_subword", "freeporn"),
        None,
    ]


def test_hosts_are_found_however_they_are_written(tmp_path: Path) -> None:
    lists = Lists(tmp_path, host="bad.example\nbücher.example\n10.1.2.3\n")
    found = lists.reasons(
        [
            "HTTP://user:pass@WWW.BAD.Example.:8080/x",
            "//bad.example",
            "https://xn--bcher-kva.example/",
            "https://BÜCHER.example/",
            "http://10.1.2.3/",
            "http://bad.example.org/",
            "http://notbad.example/",
            "",
            "http://[::1/",
            "http://",
            "mailto:x@bad",
        ]
    )
    assert [reason is not None for reason in found] == [True] * 5 + [False] * 6
    assert found[4] == ("blocked_host", "10.1.2.3")


def test_lists_in_the_forms_that_there_are(tmp_path: Path) -> None:
    hosts = (
        "\ufeff# a hosts file\r\n127.0.0.1 localhost\n0.0.0.0 one.example two.example # both\n\n! rule\n"
        "||three.example^\n*.four.example\nfive.example/only/here\n"
    )
    lists = Lists(tmp_path, host=hosts)
    urls = [f"http://{name}.example/" for name in ("one", "two", "three", "four", "five")]
    assert [each is not None for each in lists.reasons([*urls, "http://five.example/only/here/"])] == [
        *[True] * 4,
        False,
        True,
    ]


def test_a_listed_host_stands_for_those_below_it_only_where_asked(tmp_path: Path) -> None:
    lists = Lists(tmp_path, host="blog.site.example\n")
    urls: list[str | None] = ["http://a.b.blog.site.example/", "http://site.example/"]
    assert lists.reasons(urls) == [None, None]
    assert lists.reasons(urls, block_subdomains=True) == [("blocked_host", "blog.site.example"), None]


def test_words_in_capitals_are_found_only_where_asked(tmp_path: Path) -> None:
    lists = Lists(tmp_path, word="casino")
    assert lists.reasons(["http://x.example/Casino"]) == [None]
    assert lists.reasons(["http://x.example/Casino"], ignore_case=True) == [("blocked_word", "casino")]


def test_many_subwords_give_the_verdicts_of_few(tmp_path: Path) -> None:
    urls: list[str | None] = ["http://x.example/ab-sub7word-c", "http://x.example/none"]
    few = Lists(tmp_path, subword="sub7word").reasons(urls)
    assert few == Lists(tmp_path, subword="\n".join(f"sub{n}word" for n in range(500))).reasons(urls)
    assert few == [("blocked_subword", "sub7word"), None]


def ut1(folder: Path) -> Path:
    for category, name, text in [
        ("adult", "domains", "bad.example\n192.0.2.7\n"),
        ("adult", "urls", "good.example/bad/\n"),
        ("shopping", "domains", "shop.example\n"),
    ]:
        (folder / category).mkdir(parents=True, exist_ok=True)
        (folder / category / name).write_text(text)
    packed = folder / "adult/urls"
    (folder / "adult/urls.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    return folder


def test_ut1_folders_by_category(tmp_path: Path) -> None:
    settings = SelectSettings(ut1_folder=str(ut1(tmp_path / "ut1")), ut1_categories=("adult",))
    resolved = resolve_lists(Store(str(tmp_path / "root")), settings)
    urls = ["http://a.bad.example/", "http://192.0.2.7/", "https://good.example/bad", "http://shop.example/"]
    split = select(pages([*urls]), resolved)
    assert split.dropped["reason"].to_pylist() == ["blocked_domain", "blocked_host", "blocked_url"]
    with pytest.raises(BadInput, match=r"UT1 category gambling.*There are: adult, shopping"):
        resolve_lists(Store(str(tmp_path)), settings.model_copy(update={"ut1_categories": ("gambling",)}))


def test_the_fingerprint_follows_what_lists_say_not_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = Lists(tmp_path / "a", host="one.example\ntwo.example\n").paths
    second = Lists(tmp_path / "b", host="# comment\ntwo.example\none.example\none.example\n").paths
    third = Lists(tmp_path, host="one.example\n").paths
    store = Store(str(tmp_path / "root"))
    one, two, three = (resolve_lists(store, SelectSettings(**each)) for each in (first, second, third))
    assert one.identity() == two.identity() != three.identity()
    assert resolve_lists(store, SelectSettings()) == SelectSettings()


@pytest.mark.parametrize("name", ["missing.txt", "damaged.txt.gz"])
def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "damaged.txt.gz").write_bytes(gzip.compress(b"a.example\n" * 100)[:-9])
    with pytest.raises(BadInput, match="a list must be readable to its end"):
        resolve_lists(Store(str(tmp_path)), SelectSettings(host_lists=(str(tmp_path / name),)))


def mirror_urls(shared_data: Path) -> list[str]:
    found: list[str] = []
    for path in sorted((shared_data / "commoncrawl").glob("manifest-*.jsonl.gz")):
        found += [json.loads(line)["url"] for line in gzip.decompress(path.read_bytes()).splitlines()]
    return sorted(set(found))


def is_unknown_to_datatrove(url: str) -> bool:
    """Hosts of which datatrove compares nothing: numbers, unknown top-level domains, names that begin with a point."""
    host = url.split("/")[2].partition(":")[0]
    return host.startswith(".") or host.endswith(".test") or host.replace(".", "").isdigit()


def test_verdicts_are_datatroves_on_every_url_of_the_mirror(tmp_path: Path, shared_data: Path) -> None:
    """Lists are made of the URLs themselves, so that every rule applies to some of them."""
    if not PEER.exists():
        pytest.skip(f"datatrove is absent: no {PEER}")
    urls = mirror_urls(shared_data)
    hosts = sorted({url.split("/")[2] for url in urls})
    entries = {
        "extra_domains": [host.removeprefix("www.") for host in hosts[::9]] + hosts[4::9],
        "extra_urls": urls[::31],
        "banned_words": ["news", "buy"],
        "soft_banned_words": ["the", "how", "2019", "blog", "index"],
        "banned_subwords": ["recip", "shop", "artic-le"],
    }
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"lists": entries, "urls": urls}))
    command = [str(PEER), str(Path(__file__).parents[2] / "oracle/datatrove_urls.py"), str(given)]
    peer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    names = ("host", "url", "word", "soft_word", "subword")
    texts = {name: "\n".join(each) for name, each in zip(names, entries.values(), strict=True)}
    ours = [None if each is None else each[0] for each in Lists(tmp_path, **texts).reasons([*urls])]
    expected = [None if reason is None else PEER_REASONS[reason] for reason in peer]
    assert set(expected) == {None, *PEER_REASONS.values()}
    differences = [(url, a, b) for url, a, b in zip(urls, ours, expected, strict=True) if a != b]
    assert [each for each in differences if not is_unknown_to_datatrove(each[0])] == []
    assert {reason for _, reason, _ in differences} <= {"blocked_host", "blocked_domain"}
