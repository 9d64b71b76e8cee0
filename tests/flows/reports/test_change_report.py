"""Where a change report lies."""

from pathlib import Path

from flows.reports.change_report import write_change_report
from infra.change_report import ChangeReport, Counts, GroupChange
from infra.report import DatasetIdentity
from infra.store import Store


def test_page_and_figures_lie_beside_the_manifest(tmp_path: Path) -> None:
    report = ChangeReport(
        dataset=DatasetIdentity(name="web", version="1", fingerprint="abc"),
        previous=None,
        total=GroupChange(name="", now=Counts(documents=2, added=1), before=None),
        quarantined=0,
    )
    store = Store(str(tmp_path))
    assert write_change_report(store, report) == "datasets/web/1/changes.html"
    assert ChangeReport.load(store, "datasets/web/1/changes.json") == report
    assert "First version" in (tmp_path / "datasets/web/1/changes.html").read_text()
