import json
from pathlib import Path

from click.testing import CliRunner

from flows.cli import main
from infra.cluster import Cluster
from infra.store import Store
from tasks.duplicates.dedup import DedupSettings, dedup
from tasks.duplicates.dedup_index import add_segment
from tasks.stage import StageRunner
from tests.tasks.documents import prose, stage_of


def call(root: Path, *arguments: str):
    return CliRunner().invoke(main, ["index", *arguments, "--root", str(root)])


def test_an_index_is_shown_and_entries_are_retired(tmp_path: Path, cluster: Cluster) -> None:
    runner = StageRunner(Store(str(tmp_path)), cluster)
    rows = [{"id": f"d{n}", "url": f"http://a.example/{n}", "text": text} for n, text in enumerate(prose()[:3])]
    made = dedup(runner, stage_of(runner.store, [rows]), DedupSettings())
    add_segment(runner, "web", "corpus", "v1", made.signed, made.unique)
    assert "corpus/v1  3 documents, 0 retired" in call(tmp_path, "web").output
    shown = json.loads(call(tmp_path, "web", "--retire-url", "http://a.example/1", "--json").output)
    assert shown["datasets"] == [{"dataset": "corpus/v1", "documents": 3, "retired": 1}]
    assert "3 retired" in call(tmp_path, "web", "--retire-dataset", "corpus/v1").output
    refused = call(tmp_path, "web", "--retire-id", "absent")
    assert (refused.exit_code, "has no absent" in refused.stderr) == (2, True)
    assert call(tmp_path, "other").exit_code == 2
