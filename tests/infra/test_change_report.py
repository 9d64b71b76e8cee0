"""The change report as page, Markdown and text."""

import re

from infra.change_report import (
    Alarm,
    ChangeReport,
    Counts,
    DriftBin,
    GroupChange,
    ReasonChange,
    SignalDrift,
    Summary,
    bars,
    render_change_html,
)
from infra.report import DatasetIdentity

HOSTILE = "</td><script>alert(1)</script>\u202e|x"
SUMMARY = Summary(documents=900, missing=0.0, mean=12.5, quantiles=(1, 5, 10, 20, 50))
DRIFT = SignalDrift(
    signal="words",
    population="kept",
    level="alarm",
    psi=0.7,
    bound=0.25,
    ks=0.3,
    before=SUMMARY,
    now=SUMMARY,
    bins=(
        DriftBin(lower=None, upper=8.0, before=0.5, now=0.125),
        DriftBin(lower=8.0, upper=None, before=0.5, now=0.75),
        DriftBin(lower=None, upper=None, missing=True, before=0.0, now=0.125),
    ),
)
GROUP = GroupChange(
    name=HOSTILE, now=Counts(documents=10, added=4, known=3, tokens=1200), before=Counts(documents=5, added=5)
)


def report() -> ChangeReport:
    return ChangeReport(
        dataset=DatasetIdentity(name="web", version="2", fingerprint="abc"),
        previous=DatasetIdentity(name="web", version="1", fingerprint="def"),
        total=GROUP,
        quarantined=2,
        languages=(GROUP,),
        hosts=(GROUP,),
        known_from={"web/1": 3},
        reasons=(ReasonChange(reason="filter/x", documents=3, share=0.3, documents_before=0, share_before=0.0),),
        signals=(DRIFT,),
        alarms=(Alarm(name="words", value=0.7, bound=0.25, found="words has drifted", look_at="its bars"),),
        notes=("a note",),
    )


def test_the_page_is_escaped_and_needs_nothing_else() -> None:
    page = render_change_html(report())
    assert "<script" not in page
    assert "\u202e" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "words has drifted (bound 0.25): look at its bars" in page
    assert page.count("<rect") == 2 * len(DRIFT.bins)
    assert render_change_html(report()) == page


def test_bars_are_as_high_as_their_shares() -> None:
    drawn = bars(DRIFT)
    assert [(each.before_height, each.now_height) for each in drawn] == [(66.67, 16.67), (66.67, 100), (0, 16.67)]
    assert [each.title for each in drawn] == [
        "below 8: 50.0% before, 12.5% now",
        "from 8: 50.0% before, 75.0% now",
        "no value: 0% before, 12.5% now",
    ]


def test_text_and_markdown_say_the_same() -> None:
    for text in (report().text(), report().markdown()):
        assert "4 documents added with 1,200 tokens, 3 dropped as known, 3 dropped otherwise" in text
        assert "Alarm: words has drifted" in text
        assert "\u202e" not in text
    assert "\\|x" in report().markdown()


def test_a_first_version_has_no_column_of_an_earlier_one() -> None:
    alone = GroupChange(name="en", now=Counts(documents=10, added=4, tokens=1200), before=None)
    update = {"previous": None, "total": alone, "languages": (alone,), "hosts": (), "signals": (), "alarms": ()}
    first = report().model_copy(update=update | {"reasons": ()})
    page = render_change_html(first)
    assert "First version" in page
    assert "before" not in page[page.index("<body>") :]
    assert "first version" in first.text()


def test_it_is_read_back_as_it_was() -> None:
    assert ChangeReport.model_validate_json(report().model_dump_json()) == report()
