"""The page of a dataset: whole, safe, and the same for the same figures."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from infra.dataset_report import DatasetReport, percent, render_dataset_html, report_paths
from infra.store import Store

HARM = '</div><script>alert(1)</script>\x1b[31m\u202ered & "white"'
LIMIT: dict[str, Any] = {
    "reason": "too_few_words",
    "signal": "nonsymbol_words",
    "bound": "min",
    "value": 50,
    "setting": "corpus.filter.quality.gopher_quality.min_words",
    "source": "Rae et al. 2021",
}
EXAMPLE: dict[str, Any] = {
    **{"id": "0" * 32, "url": f"http://{HARM}", "language": "en", "value": 12.0, "threshold": 50.0},
    **{"detail": HARM, "text": HARM},
}
FIGURES: dict[str, Any] = {
    "dataset": {"name": "sample", "version": "1", "fingerprint": "9f3a1c22b710"},
    "documents": {"train": 90, "heldout": 10},
    "tokens": {"train": 90_000, "heldout": 9_000},
    "text_bytes": 400_000,
    "vocabulary": 4096,
    "ledger": ["stages/ledger/abc"],
    "funnel": [
        {"name": "fetch", "entered": 400, "kept": 390, "dropped": {"http_status": 7}, "quarantined": 3},
        {
            "name": "filter",
            "entered": 390,
            "kept": 100,
            "dropped": {f"reason_{n}": n for n in (200, *range(21, 9, -1))},
        },
        {"name": "mix", "entered": 100, "kept": 100, "copies": 50},
    ],
    "languages": [
        {
            **{"language": "en", "measured": 200, "kept": 100, "dropped": 90, "words": 9, "words_kept": 5, "tokens": 3},
            "refused": {"language_uncertain": 10},
        },
        *(
            {
                **{"language": f"l{n}", "measured": 10, "kept": 0, "dropped": 0, "words": 9, "words_kept": 0},
                **{"tokens": 0, "refused": {"language_unwanted": 10}},
            }
            for n in range(19)
        ),
    ],
    "histograms": [
        {
            "signal": "nonsymbol_words",
            "bins": [
                {"lower": 45.0, "upper": 54.0, "kept": 3, "dropped": 5},
                {"lower": 54.0, "upper": None, "kept": 97, "dropped": 0},
            ],
            "thresholds": [LIMIT],
        },
        {"signal": "lines", "bins": [{"lower": None, "upper": 0.0, "kept": 1, "dropped": 0}]},
    ],
    "histogram_languages": ["en"],
    "rules": [
        {"reason": "http_status", "stage": "fetch", "documents": 7, "dropped": [{**EXAMPLE, "text": None}]},
        {
            **{"reason": "too_few_words", "stage": "filter", "documents": 5, "thresholds": [LIMIT]},
            **{"dropped": [EXAMPLE], "kept": [{**EXAMPLE, "value": 51.0}]},
        },
        {"reason": "nothing_left", "stage": "filter", "documents": 0, "thresholds": [LIMIT], "kept": [EXAMPLE]},
    ],
    "words": [{"language": f"l{n}", "words": [["the", 12], [HARM, 3]]} for n in range(10)],
    "fertility": [
        {
            **{"group": "language", "name": "en", "documents": 100, "tokens": 99_000, "bytes_per_token": 4.04},
            "tokens_per_word": None,
        }
    ],
    "domains": [
        {"language": f"l{n}", "domains": [{"name": HARM, "kept": 4, "dropped": 2, "tokens": 8}], "others": 3}
        for n in range(10)
    ],
    "sources": [{"name": "CC", "kept": 100, "dropped": 300, "tokens": 9}],
    "dedup": {
        "kinds": {"exact_duplicate": 4},
        "clusters": 2,
        "cluster_sizes": {"size 2": 1, "size 3-4": 1},
        "largest": [{"survivor": "a", "url": HARM, "dataset": "old/1", "documents": 3}],
        "sources": [{"source": "CC", "documents": 100, "lost": 60, "alarm": True}],
        "max_source_loss": 0.5,
    },
    "personal": {"email": 9},
    "personal_documents": 7,
    "repeats": {"removed_units": 5},
    "contamination": [{"benchmark": "gsm8k", "items": 10, "indexed": 9, "hit": 1, "documents": 2}],
    "mixture": [
        {
            **{"source": "CC", "language": "en", "bucket": "", "documents_before": 100, "documents_after": 150},
            **{"bytes_before": 400, "bytes_after": 600},
        }
    ],
    "sample": [{"column": "language", "value": "en", "bytes": 4000}],
}
BARE: dict[str, Any] = {
    **FIGURES,
    **{"funnel": [], "languages": [], "histograms": [], "histogram_languages": [], "rules": [], "words": []},
    **{
        "fertility": [],
        "domains": [],
        "sources": [],
        "dedup": None,
        "personal": {},
        "repeats": None,
        "contamination": [],
        "mixture": [],
        "sample": [],
    },
}


class Page(HTMLParser):
    """Checks that tags nest and ids are single, and keeps words, links and what a browser would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        assert not [name for name in values if name.startswith("on")]
        self.seen.add(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" else []
        self.loads += [values[name] for name in ("src", "srcset", "data", "href") if name in values and tag != "a"]
        if tag not in {"meta", "link", "br", "line", "rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"rect", "line"}:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def report() -> DatasetReport:
    return DatasetReport.model_validate(FIGURES)


@pytest.mark.parametrize("figures", [FIGURES, BARE], ids=["full", "bare"])
def test_the_page_nests_links_to_itself_and_loads_nothing(figures: dict[str, Any]) -> None:
    html = render_dataset_html(DatasetReport.model_validate(figures))
    page = Page(html)
    assert page.loads == ["data:,"]
    assert not {"script", "iframe", "object", "embed", "img"} & page.seen
    assert "url(" not in html
    assert "@import" not in html
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)


def test_untrusted_text_stays_text(report: DatasetReport) -> None:
    html = render_dataset_html(report)
    assert "<script" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert '</div><script>alert(1)</script>\ufffd[31m\ufffdred & "white"' in Page(html).words


def test_equal_figures_give_equal_bytes(tmp_path: Path, report: DatasetReport) -> None:
    store = Store(str(tmp_path))
    report.save(store, "report.json")
    assert render_dataset_html(DatasetReport.load(store, "report.json")) == render_dataset_html(report)


def test_figures_are_said(report: DatasetReport) -> None:
    words = re.sub(r"\s+", " ", Page(render_dataset_html(report)).words)
    for expected in (
        "400 in, 390 kept (97.5%; 97.5% of all)",
        "quarantined",
        "and 50 further copies",
        "3 more reasons",
        "8 more languages",
        "nonsymbol_words at least 50",
        "It dropped none of the documents that were looked at.",
        "CC lost 60 of 100 documents (60.0%) as duplicates",
        "A loss above 50.0% is an alarm.",
        "old/1",
        "gsm8k",
        "stages/ledger/abc",
    ):
        assert expected in words, expected


def test_dropped_and_kept_stand_side_by_side(report: DatasetReport) -> None:
    html = render_dataset_html(report)
    rule = html[html.index('id="rule-2"') : html.index('id="rule-3"')]
    assert rule.index("<h4>Dropped</h4>") < rule.index("<b>12</b>") < rule.index("Nearly dropped") < rule.index("<b>51")
    assert html.count('class="example is-kept"') == 2


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        (0, 0, "\N{EN DASH}"),
        (0, 9, "0%"),
        (9, 9, "100%"),
        (1, 3000, "0.03%"),
        (1, 3, "33.3%"),
        (99_999, 100_000, "99.9%"),
    ],
)
def test_shares(part: int, whole: int, said: str) -> None:
    assert percent(part, whole) == said


def test_places_of_the_files() -> None:
    assert report_paths("datasets/a/1") == ("datasets/a/1/report.html", "datasets/a/1/report.json")
