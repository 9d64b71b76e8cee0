"""Plans of compare, promote and retain, as people ask for them."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from flows.cli import main
from infra.store import Store
from tests.flows.evaluated_runs import trained
from tests.model.findings.contenders import DATASET


def plan(root: Path, *given: str) -> Result:
    return CliRunner().invoke(main, ["plan", *given, "--root", str(root)])


def test_what_would_be_said_is_said_before(tmp_path: Path):
    store = Store(str(tmp_path))
    DATASET.save(store, f"{DATASET.folder}/manifest.json")
    for name, share in (("first", 0.5), ("worse", 0.3)):
        trained(store, name, share)
    there = sorted(tmp_path.rglob("*"))

    promotion = plan(tmp_path, "promote", "worse", "--set", "promotion.max_bits_per_byte=1")
    assert promotion.exit_code == 0
    assert "at step 30 would be refused with no champion yet: held-out bits per byte" in promotion.output
    comparison = json.loads(plan(tmp_path, "compare", "first", "worse", "--json").output)
    assert comparison["notes"][0].startswith("first at step 30, worse at step 30: ")
    assert comparison["seconds"] > 0
    assert "0 stages older than 30 days" in plan(tmp_path, "retain").output
    assert sorted(tmp_path.rglob("*")) == there, "nothing is written"


def test_what_would_be_refused_is(tmp_path: Path):
    refused = plan(tmp_path, "compare", "one", "two")
    assert refused.exit_code == 1
    assert "REFUSED: run one" in refused.output
    assert plan(tmp_path, "promote").exit_code == 2
    assert plan(tmp_path, "retain", "one").exit_code == 2
