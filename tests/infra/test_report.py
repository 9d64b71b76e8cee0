"""The report: the keys of its JSON, its sums, and a page that is safe and complete without a network."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from infra.report import CorpusReport, CurveRow, Report, render_html, render_text, short
from infra.store import Store

CORPUS: dict[str, Any] = {
    "dataset": {"name": "sample", "version": "2026.11.22", "fingerprint": "9f3a1c22b710"},
    "stages": [
        {"name": "fetch", "in": 110, "kept": 100, "dropped": {"not_html": 7}, "seconds": 2.5},
        {
            "name": "quality",
            "in": 100,
            "kept": 60,
            "dropped": {f"reason_{i}": i for i in (10, 9, 8, 6, 4, 3)},
            "seconds": 0,
        },
    ],
    "records": {"read": 110, "documents": 100, "quarantined": 3, "skipped": {"not_html": 7}},
    "tokens": 1_843_220,
}
TRAINED: dict[str, Any] = {
    "parameters": 12_345_678,
    "layout": {"tp": 1, "pp": 2, "dp": 4},
    "loss": {"first": 9.02, "last": 3.61},
    "bits_per_byte": {"trained": 1.412, "untrained": 3.377, "unigram": 2.204},
    "samples": [{"prompt": "The <b>mill</b>", "text": '</pre><script>alert(1)</script>\x1b[31m\u202ered & "white"'}],
    "mlflow_run_id": "4f1c0b5e",
    "prefect_flow_run_id": None,
}
LINKS = {"MLflow": "mlflow ui --backend-store-uri sqlite:///data/mlflow.db", "Prefect": "http://127.0.0.1:4200"}
VOID = {"meta", "link", "br", "line", "polygon", "polyline", "circle"}


@pytest.fixture
def report() -> Report:
    return Report.model_validate(CORPUS | TRAINED)


def curve(steps: int) -> list[CurveRow]:
    return [
        CurveRow(
            step=step,
            loss=3.6 + 6 / step,
            learning_rate=1e-3 / step,
            gradient_norm=1 + math.sin(step),
            tokens_per_second=13_000 + step,
            tokens=8192 * step,
        )
        for step in range(1, steps + 1)
    ]


class Page(HTMLParser):
    """Checks that tags nest, and keeps elements, text, table cells and everything that a browser would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.loads: list[str] = []
        self.pictures: list[str | None] = []
        self.cells: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on")]
        self.loads += [
            str(values[name]) for name in ("src", "srcset", "data", "poster", "xlink:href") if name in values
        ]
        if tag != "a" and "href" in values:
            self.loads.append(str(values["href"]))
        if values.get("role") == "img":
            self.pictures.append(values.get("aria-label"))
        if tag in {"td", "th"}:
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.open and self.open[-1] in {"td", "th"}:
            self.cells[-1] += data


def test_json_has_exactly_the_promised_keys(tmp_path: Path, report: Report) -> None:
    store = Store(str(tmp_path))
    report.save(store, "report.json")
    assert json.loads(store.read_bytes("report.json")) == CORPUS | TRAINED
    assert Report.load(store, "report.json") == report


def test_json_of_a_corpus_has_nothing_of_a_model() -> None:
    assert json.loads(CorpusReport.model_validate(CORPUS).model_dump_json()) == CORPUS


@pytest.mark.parametrize(
    ("stage", "kept", "problem"),
    [
        (0, 104, "104 kept and 7 dropped leave -1 unaccounted for"),
        (0, 99, "leave 4 unaccounted for; 3 may be quarantined"),
        (1, 59, "leave 1 unaccounted for; 0 may be quarantined"),
    ],
)
def test_documents_that_disappear_are_refused(stage: int, kept: int, problem: str) -> None:
    stages = [dict(each) for each in CORPUS["stages"]]
    stages[stage]["kept"] = kept
    with pytest.raises(ValidationError, match=problem):
        CorpusReport.model_validate(CORPUS | {"stages": stages})


@pytest.mark.parametrize("steps", [0, 1, 2, 300, 5000])
def test_page_loads_nothing_and_describes_every_picture(report: Report, steps: int) -> None:
    html = render_html(report, curve(steps), LINKS)
    page = Page(html)
    assert page.loads == ["data:,"]
    assert "url(" not in html
    assert "@import" not in html
    assert not {"script", "iframe", "object", "embed", "img"} & set(page.seen)
    assert len(page.pictures) == len(report.stages) + (3 if steps else 0)
    assert all(page.pictures)


def test_page_has_the_numbers_as_text(report: Report) -> None:
    page = Page(render_html(report, curve(300), LINKS))
    for expected in ("1.412", "2.204", "3.377", "12.35M", "58% cheaper", *LINKS.values()):
        assert expected in page.words
    for reason, count in CORPUS["stages"][1]["dropped"].items():
        assert page.cells[page.cells.index(reason) + 1] == str(count)
    assert {"3.6200", "9.6000"} <= set(page.cells)


def test_untrusted_text_stays_text(report: Report) -> None:
    html = render_html(report, curve(3), {"<i>title</i>": "javascript:alert(1)"})
    assert "<script" not in html
    assert "<b>mill</b>" not in html
    assert "<i>title" not in html
    assert 'href="javascript' not in html
    assert '</pre><script>alert(1)</script>\ufffd[31m\ufffdred & "white"' in Page(html).words


def test_terminal_gets_no_control_characters(report: Report) -> None:
    text = render_text(report)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "Bits per byte: 1.412 trained, 2.204 unigram, 3.377 untrained" in text
    assert "reason_10 10, reason_9 9, reason_8 8" in text


def test_equal_reports_give_equal_bytes(report: Report) -> None:
    again = Report.model_validate_json(report.model_dump_json())
    assert render_html(report, curve(300), LINKS) == render_html(again, curve(300), LINKS)


def test_corpus_alone_has_a_page_and_a_summary() -> None:
    report = CorpusReport.model_validate(CORPUS)
    page = Page(render_html(report, [], {}))
    assert "1.843M" in page.words
    assert "Training" not in page.words
    assert "1,843,220 tokens" in render_text(report)
    assert "Model" not in render_text(report)


def test_steps_that_are_not_finite_are_left_out_of_the_drawing(report: Report) -> None:
    rows = curve(5)
    rows[2]["loss"], rows[3]["gradient_norm"] = math.nan, math.inf
    html = render_html(report, rows, {})
    Page(html)
    assert "nan," not in html
    assert "inf," not in html


@pytest.mark.parametrize(
    ("trained", "said"),
    [(1.0, "learned to use context"), (2.5, "needs to train longer"), (4.0, "did not help")],
)
def test_the_verdict_is_honest(report: Report, trained: float, said: str) -> None:
    assert report.bits_per_byte is not None
    bits = report.bits_per_byte.model_copy(update={"trained": trained})
    assert said in bits.verdict


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0003, "0.0003"),
        (8192, "8192"),
        (13_210, "13.21k"),
        (12_345_678, "12.35M"),
        (2e9, "2G"),
        (math.nan, "not finite"),
    ],
)
def test_short_numbers(value: float, said: str) -> None:
    assert short(value) == said
