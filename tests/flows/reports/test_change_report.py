"""Where a change report lies."""

from pathlib import Path

from flows.reports.change_report import write_change_report
from infra.change_report import ChangeReport, Counts, GroupChange
from infra.report import DatasetIdentity
from infra.store import Store


def test_the_page_lies_beside_the_manifest(tmp_path: Path) -> None:
    report = ChangeReport(
        dataset=DatasetIdentity(name="web", version="1", fingerprint="abc"),
        previous=None,
        total=GroupChange(name="", now=Counts(documents=2, added=1), before=None),
        quarantined=0,
    )
    store = Store(str(tmp_path))
    assert write_change_report(store, report) == "datasets/web/1/changes.html"
    assert not store.exists("datasets/web/1/changes.json"), "with it a version is finished, its alarms told"
    assert "First version" in (tmp_path / "datasets/web/1/changes.html").read_text()
