"""Promotion, refusal and rollback with a real registry, and what is written of them."""

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from flows.promotion import Promotion, champion_of, evaluated, foreseen, promote_run, take_back
from infra.cost import CostSettings
from infra.environment import Environment
from infra.errors import BadInput
from infra.store import Store
from infra.tracking import TrackedRun, default_tracking_uri
from model.findings.contender import Contender
from model.findings.verdict import PromotionSettings, Verdict
from model.run import LaunchRecord, RunRecord, evaluation_path, load_launch
from tests.flows.evaluated_runs import trained
from tests.model.findings.contenders import DATASET, ITEMS


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(root=str(tmp_path_factory.mktemp("root")), mlflow_experiment="tests")


@pytest.fixture(scope="module")
def store(environment: Environment) -> Store:
    store = Store(environment.root)
    DATASET.save(store, f"{DATASET.folder}/manifest.json")
    return store


def promote(store: Store, environment: Environment, run: str, **settings: object) -> Promotion:
    return promote_run(store, run, PromotionSettings.model_validate(settings), environment)


def tracked(store: Store, run: RunRecord) -> TrackedRun:
    found = load_launch(store, run).tracked
    assert found is not None
    return found


def versions(environment: Environment, model: str) -> dict[str, int]:
    return {alias: each.version for alias, each in champion_of(environment, model).versions.items()}


def test_from_first_champion_to_rollback(store, environment) -> None:
    assert "has no version with an alias" in champion_of(environment, "whole").text()
    first = trained(store, "first", 0.5)
    found = promote(store, environment, "first", model="whole")
    assert found.verdict.promoted
    assert versions(environment, "whole") == {"champion": 1}
    assert "Champion version 1 of whole: first/" in found.text()
    assert promote(store, environment, "first", model="whole") == found, "twice is once"

    worse = trained(store, "worse", 0.3)
    foreseen_of_worse = foreseen(store, "worse", PromotionSettings(model="whole"), environment)
    assert versions(environment, "whole") == {"champion": 1}, "to foresee changes nothing"
    refused = promote(store, environment, "worse", model="whole")
    assert not refused.verdict.promoted
    assert refused.verdict == foreseen_of_worse.model_copy(update={"candidate_version": 2})
    assert (refused.verdict.champion, refused.verdict.champion_version) == (
        f"{first.folder.removeprefix('runs/')} at step 30",
        1,
    )
    assert versions(environment, "whole") == {"champion": 1, "candidate": 2}

    better = trained(store, "better", 0.6, bits_per_byte=1.9)
    assert promote(store, environment, "better", model="whole").verdict.promoted
    assert versions(environment, "whole") == {"champion": 3, "previous": 1}

    told(store, worse, refused.verdict)
    back = take_back(environment, "whole", "it only writes commas")
    assert {alias: each.version for alias, each in back.versions.items()} == {"champion": 1}
    with pytest.raises(BadInput, match="no champion before"):
        take_back(environment, "whole", "again")
    assert "was taken back" in foreseen(store, "better", PromotionSettings(model="whole"), environment).text()
    returning = promote(store, environment, "better", model="whole")
    assert not returning.verdict.promoted
    assert "was taken back" in returning.text()
    assert promote(store, environment, "better", model="whole", readmit=True).verdict.promoted
    assert promote(store, environment, better.folder, model="whole").verdict.promoted, "it is the champion"


def test_asking_makes_no_database(tmp_path) -> None:
    assert champion_of(Environment(root=str(tmp_path / "absent")), "any").versions == {}
    assert not (tmp_path / "absent").exists()


def told(store: Store, run: RunRecord, verdict: Verdict) -> None:
    """Why it was refused stands in the run's folder, in its MLflow run and on the version."""
    assert Verdict.load(store, f"{run.folder}/promotion/step-00000030.json") == verdict
    where = tracked(store, run)
    client = MlflowClient(where.tracking_uri)
    page = Path(client.download_artifacts(where.run_id, "promotion/step-00000030.md")).read_text()
    version = client.get_model_version("whole", "2")
    assert page == verdict.markdown() == version.description
    assert version.run_id == where.run_id
    tags = version.tags
    assert tags["verdict"] == "refused against " + str(verdict.champion) + ": piqa acc"
    assert (tags["step"], tags["dataset.fingerprint"]) == ("30", "0123456789ab")
    assert tags["checkpoint.path"] == store.full_path(f"{run.folder}/checkpoints/step-00000030")
    metrics = client.get_run(where.run_id).data.metrics
    assert metrics["benchmarks/piqa acc"] == pytest.approx(0.3)


def test_a_champion_whose_folder_is_gone_is_still_compared_with(store, environment) -> None:
    run = trained(store, "gone", 0.5, contaminated=7)
    assert evaluated(store, run).contaminated.to_pydict() == {"task": ["piqa", "piqa"], "item": [0, 2]}
    promote(store, environment, "gone", model="gone")
    store.remove(run.folder)
    trained(store, "next", 0.3)
    verdict = promote(store, environment, "next", model="gone").verdict
    assert [each.name for each in verdict.conditions if not each.passed] == ["piqa acc"]
    assert verdict.conditions[-1].items == ITEMS - 2, "the registry knows which items were contaminated"


def test_the_newest_evaluation_is_judged_or_the_step_that_is_named(store, environment) -> None:
    run = trained(store, "steps", 0.5)
    trained(store, "steps", 0.6, step=60)
    assert evaluated(store, run).record.step == 60
    assert evaluated(store, run, 30).record.step == 30
    with pytest.raises(BadInput, match=r"no evaluation of step 45: .*there are those of steps \[30, 60\]"):
        promote(store, environment, "steps", step=45)
    store.remove(f"{run.folder}/checkpoints/step-00000060")
    with pytest.raises(BadInput, match="no checkpoint any more"):
        promote(store, environment, "steps")


def test_a_run_that_was_not_tracked_is_given_a_run(store, environment) -> None:
    run = trained(store, "untracked", 0.5)
    lost = tracked(store, run).model_copy(update={"run_id": "0" * 32})
    LaunchRecord(tracked=lost).save(store, f"{run.folder}/launch.json")
    promote(store, environment, "untracked", model="untracked")
    found = champion_of(environment, "untracked").versions["champion"]
    assert found.run_id == tracked(store, run).run_id != lost.run_id


def test_a_run_that_was_recorded_by_another_address_is_the_same(store, environment) -> None:
    run = trained(store, "moved", 0.5)
    before = tracked(store, run).model_copy(update={"tracking_uri": "http://127.0.0.1:9"})
    launch = LaunchRecord(tracked=before, flow_run_id="1", prices=CostSettings(gpu_hour=2.5))
    launch.save(store, f"{run.folder}/launch.json")
    found = promote(store, environment, "moved", model="moved").champion
    assert found is not None
    assert found.run_id == before.run_id
    known = load_launch(store, run)
    assert known.tracked == before.model_copy(update={"tracking_uri": default_tracking_uri(store)})
    assert (known.flow_run_id, known.prices) == ("1", launch.prices)


def test_evaluations_without_scores_can_be_first_but_not_next(store, environment) -> None:
    def old(name: str) -> Contender:
        run = trained(store, name, 0.5)
        folder = evaluation_path(run, 30).removesuffix(".json")
        record = json.loads(store.read_bytes(f"{folder}.json")) | {"tasks": [], "groups": []}
        store.write_bytes(f"{folder}.json", json.dumps(record).encode())
        store.remove(folder)
        return evaluated(store, run)

    assert old("old").scores.num_rows == 0
    assert promote(store, environment, "old", model="old").verdict.promoted
    old("older")
    text = promote(store, environment, "older", model="old").text()
    assert "the same documents were not measured one by one by both; evaluate again" in text
