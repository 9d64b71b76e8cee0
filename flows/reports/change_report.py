"""The change report of a dataset version beside its manifest, and in Prefect: page, tables, alarms.

datasets/NAME/VERSION/changes.html    for people
                      changes.json    ChangeReport, which the refresh writes when all of this has been told
"""

import logging

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from infra.change_report import ChangeReport, change_report_paths, render_change_html
from infra.store import Store

logger = logging.getLogger(__name__)


def write_change_report(store: Store, report: ChangeReport) -> str:
    """Write the page into the dataset's folder; its path."""
    page, _ = change_report_paths(report.folder)
    store.write_bytes(page, render_change_html(report).encode())
    return page


def publish_change_report(store: Store, report: ChangeReport) -> str:
    """Write the report, show it in Prefect and log every alarm; the page's path."""
    page = write_change_report(store, report)
    place = store.local_path(page).absolute().as_uri() if store.is_local else store.full_path(page)
    text = f"{report.markdown()}\nHistograms of each signal, before and now: [changes.html]({place})"
    create_markdown_artifact(text, key="dataset-changes", description="What this version brought, and what has drifted")
    rows = [{"what": each.name, "value": each.value, "bound": each.bound, "found": each.text} for each in report.alarms]
    create_table_artifact(rows, key="dataset-drift-alarms", description="What moved beyond its bound; empty is good")
    for alarm in report.alarms:
        logger.warning("%s/%s: %s", report.dataset.name, report.dataset.version, alarm.text)
    return page
