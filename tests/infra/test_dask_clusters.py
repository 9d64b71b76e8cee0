"""Clusters of Dask that are made for a flow: what would be handed in, and what is refused."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from infra.cluster import open_cluster
from infra.dask_clusters import dask_cluster, mark_of_job, remove_leftovers
from infra.dask_settings import JobQueueDask, KubernetesDask
from infra.environment import Environment
from infra.errors import BadInput
from infra.launching.launcher_settings import SecretKey

PODS = KubernetesDask(
    image="registry.example/gristmill:1",
    memory_gib=16,
    minimum=2,
    volume_claim="gristmill",
    secrets={"AWS_SECRET_ACCESS_KEY": SecretKey(secret="s3", key="key")},
)


def test_a_cluster_in_pods() -> None:
    made = dask_cluster(PODS)["spec"]
    assert made["worker"]["replicas"] == 2
    for part in ("worker", "scheduler"):
        pod = made[part]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == PODS.image, "tasks are read by the scheduler too, so both need the project"
        assert container["volumeMounts"] == [{"name": "root", "mountPath": "/data"}]
        secret = next(each for each in container["env"] if each["name"] == "AWS_SECRET_ACCESS_KEY")
        assert secret["valueFrom"] == {"secretKeyRef": {"name": "s3", "key": "key"}}
    (worker,) = made["worker"]["spec"]["containers"]
    assert worker["args"][:5] == ["dask", "worker", "--nthreads", "1", "--memory-limit=16GiB"]
    assert worker["resources"]["limits"] == {"cpu": "1", "memory": "16Gi"}
    (scheduler,) = made["scheduler"]["spec"]["containers"]
    assert scheduler["resources"]["limits"] == {"cpu": "1", "memory": "4Gi"}, "not those of a worker"


def test_each_pod_is_one_worker() -> None:
    """The operator scales to as many pods as there are to be workers, and removes the deployments of their names."""
    worker = dask_cluster(PODS)["spec"]["worker"]["spec"]["containers"][0]
    assert worker["args"][worker["args"].index("--name") + 1] == "$(DASK_WORKER_NAME)"
    assert "--nworkers" not in worker["args"], "with more than one, none would have the name of its deployment"
    assert PODS.model_copy(update={"maximum": 5}).most_workers == 5


def test_secrets_have_no_place_in_a_manifest() -> None:
    with pytest.raises(BadInput, match="AWS_SECRET_ACCESS_KEY"):
        dask_cluster(PODS.model_copy(update={"variables": {"AWS_SECRET_ACCESS_KEY": "abc"}}))


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where jobs could be handed in."""
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def test_workers_of_a_batch_system_need_its_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match="slurm without sbatch"), open_cluster(Environment(dask=JobQueueDask())):
        pytest.fail("it must not open")


@pytest.mark.usefixtures("commands")
def test_workers_of_a_batch_system_need_a_folder_that_nodes_see() -> None:
    with (
        pytest.raises(BadInput, match=r"environment\.dask\.folder is unset"),
        open_cluster(Environment(root="memory://elsewhere", dask=JobQueueDask())),
    ):
        pytest.fail("it must not open")


def test_a_cluster_that_is_not_there_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(BadInput, match="no way to a Kubernetes cluster"), open_cluster(Environment(dask=PODS)):
        pytest.fail("it must not open")


@pytest.mark.parametrize(
    ("system", "variable", "number"), [("slurm", "SLURM_JOB_ID", "7"), ("pbs", "PBS_JOBID", "7.server.example")]
)
def test_a_job_of_workers_says_that_it_has_begun(tmp_path: Path, system: str, variable: str, number: str) -> None:
    folder = tmp_path / "of all jobs"
    folder.mkdir()
    line = mark_of_job(JobQueueDask.model_validate({"system": system}), folder)
    subprocess.run(["bash", "-c", line], env={variable: number}, check=True)
    assert [mark.name for mark in folder.iterdir()] == ["7"]


def test_certificates_of_flows_that_were_killed_are_removed(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    here = socket.gethostname()
    names = [f"certificates-{here}-{os.getpid()}-abc", f"certificates-elsewhere-{ended.pid}-abc", "certificates-abc"]
    for name in [*names, f"certificates-{here}-{ended.pid}-a_c"]:
        (tmp_path / name / "began").mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(names)
