"""Manifests of TrainJobs, against the models that Kubeflow publishes of its schema."""

from typing import Any

import pytest

from infra.errors import BadInput
from infra.launching.launch import JobSpec
from infra.launching.launcher_settings import KubernetesSettings, NodeShape, SecretKey, Toleration
from infra.launching.train_job import lost_fields, train_job

SPEC = JobSpec(
    module="model.train",
    arguments=("/data/runs/a/b",),
    processes=16,
    environment={"TQDM_DISABLE": "1"},
    grace_seconds=60,
    folder="/data/runs/a/b",
)
SETTINGS = KubernetesSettings(
    image="registry.example/gristmill:1",
    volume_claim="gristmill",
    mount_path="/data",
    max_nodes=2,
    cpus_per_process=4,
    memory_gib=100,
    secrets={"MLFLOW_TRACKING_PASSWORD": SecretKey(secret="mlflow", key="password")},
    tolerations=(Toleration(key="nvidia.com/gpu", effect="NoSchedule"),),
    node_selector={"gpu": "h200"},
    service_account="trainer",
)


def manifest(spec: JobSpec = SPEC, settings: KubernetesSettings = SETTINGS) -> dict[str, Any]:
    return train_job(spec, settings, settings.shape(spec.processes))


def without_nothing(value: Any) -> Any:
    """As JSON, less what is unset."""
    if isinstance(value, dict):
        return {key: without_nothing(each) for key, each in value.items() if each is not None}
    return [without_nothing(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "settings",
    [SETTINGS, KubernetesSettings(image="i", volume_claim="c", mount_path="/data", max_nodes=2, gpus=False)],
)
def test_the_schema_knows_every_field(settings: KubernetesSettings) -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="Kubeflow's models of the schema are absent")
    wanted = manifest(settings=settings)
    read = models.TrainerV1alpha1TrainJob.from_dict(wanted)
    assert read is not None
    # Fields that the schema does not know would not come back.
    assert without_nothing(read.to_dict()) == wanted


def test_what_is_asked_for_is_in_the_manifest() -> None:
    made = manifest()
    trainer = made["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 8)
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "32", "memory": "100Gi", "nvidia.com/gpu": "8"}
    assert trainer["args"][-3:] == ["-m", "model.train", "/data/runs/a/b"]
    assert {"name": "TQDM_DISABLE", "value": "1"} in trainer["env"]
    password = next(each for each in trainer["env"] if each["name"] == "MLFLOW_TRACKING_PASSWORD")
    assert password == {
        "name": "MLFLOW_TRACKING_PASSWORD",
        "valueFrom": {"secretKeyRef": {"name": "mlflow", "key": "password"}},
    }
    (job,) = made["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > SPEC.grace_seconds
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_a_job_keeps_its_name_and_other_folders_have_others() -> None:
    name = manifest()["metadata"]["name"]
    assert manifest(SPEC.model_copy(update={"processes": 8}))["metadata"]["name"] == name
    other = manifest(SPEC.model_copy(update={"folder": "/data/runs/a/c"}))["metadata"]["name"]
    assert other != name
    assert len(name) < 40, "names of pods are made of it, of 63 letters at most"


def test_secrets_have_no_place_in_a_manifest() -> None:
    with pytest.raises(BadInput, match="S3_SECRET_ACCESS_KEY"):
        manifest(settings=SETTINGS.model_copy(update={"variables": {"S3_SECRET_ACCESS_KEY": "abc"}}))


def test_a_folder_outside_the_volume_is_refused() -> None:
    with pytest.raises(BadInput, match="mount_path = /data"):
        train_job(
            SPEC.model_copy(update={"folder": "/elsewhere/runs"}), SETTINGS, NodeShape(nodes=2, processes_per_node=8)
        )


def test_what_a_cluster_did_not_keep_is_seen() -> None:
    made = manifest()
    kept = {**made, "status": {}, "spec": {**made["spec"], "suspend": False}}
    assert lost_fields(made, kept) == [], "what the cluster adds is no loss"
    kept["spec"].pop("runtimePatches")
    assert lost_fields(made, kept) == ["runtimePatches"]
    assert lost_fields([{"a": 1, "b": {"c": 2}}], [{"b": {}}]) == ["a", "c"]
