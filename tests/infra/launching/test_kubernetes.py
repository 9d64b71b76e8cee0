"""The launcher of Kubernetes against a stand-in for a cluster: an HTTP server that knows one TrainJob at a time.

The stand-in answers as the API does (paths, codes, bodies) but runs nothing; no cluster has run this launcher.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from infra.errors import BadInput, DiskFull, RunFailed
from infra.launching import kubernetes
from infra.launching.kubernetes import KubernetesLauncher
from infra.launching.launch import JobSpec
from infra.launching.launcher_settings import KubernetesSettings
from infra.launching.train_job import train_job

JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs"
PODS = "/api/v1/namespaces/team/pods"
SETTINGS = KubernetesSettings(
    image="i",
    namespace="team",
    volume_claim="c",
    mount_path="/data",
    max_nodes=2,
    processes_per_node=1,
    gpus=False,
    poll_seconds=0.2,
)
SPEC = JobSpec(module="model.train", arguments=("/data/runs/a",), processes=2, grace_seconds=1, folder="/data/runs/a")


class Cluster(ThreadingHTTPServer):
    """What the cluster has, and how its TrainJob will end after some looks at it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.job: dict[str, Any] | None = None
        self.created: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.ending: str | None = "Complete"
        self.looks = 0
        self.installed = True
        self.unknown = ""
        self.lines = ["[rank0]:step 1", "[rank1]:step 1", "[rank0]:step 2", "not of a rank"]


class Handler(BaseHTTPRequestHandler):
    server: Cluster  # pyright: ignore[reportIncompatibleVariableOverride]

    def answer(self, code: int, body: Any) -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, code: int, message: str) -> None:
        self.answer(code, {"kind": "Status", "status": "Failure", "message": message, "code": code})

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == JOBS and self.server.installed:
            self.answer(200, {"items": []})
        elif address.path.startswith(JOBS):
            self.one_job()
        elif address.path == PODS:
            self.answer(200, {"items": self.pods(parse_qs(address.query)["labelSelector"][0])})
        elif address.path.endswith("/log"):
            self.answer(200, self.log(address.path.split("/")[-2], "sinceSeconds" in address.query))
        else:
            self.refuse(404, "the server could not find the requested resource")

    def one_job(self) -> None:
        job = self.server.job
        if job is None:
            self.refuse(404, "not found")
            return
        self.server.looks += 1
        if self.server.looks > 2 and self.server.ending:
            condition = {"type": self.server.ending, "status": "True", "message": "as it was told to"}
            job = {**job, "status": {"conditions": [condition]}}
        if self.server.deleted or ("deletionTimestamp" in job["metadata"] and self.server.looks > 1):
            self.server.job = None
        self.answer(200, job)

    def pods(self, labels: str) -> list[dict[str, Any]]:
        assert self.server.job is None or f"jobset-name={self.server.job['metadata']['name']}" in labels
        return [{"metadata": {"name": f"pod-{n}"}, "status": {"phase": "Running"}} for n in range(2)]

    def log(self, pod: str, recent: bool) -> str:
        """Each pod has its node's lines; a later reading overlaps the first one."""
        lines = self.server.lines if pod == "pod-0" else []
        stamped = [f"2026-11-23T00:00:0{n}.{5 if n else 25}Z {line}\n" for n, line in enumerate(lines)]
        return "".join(stamped[-2:] if recent else stamped)

    def do_POST(self) -> None:
        manifest = json.loads(self.rfile.read(int(self.headers["Content-Length"])), object_pairs_hook=self.known)
        if manifest["spec"]["trainer"]["image"] == "refused":
            self.refuse(422, "spec.trainer.image: Invalid value")
            return
        if self.server.job is not None:
            self.refuse(409, "already exists")
            return
        self.server.job = manifest
        self.server.created.append(manifest)
        self.server.looks = 0
        self.server.deleted.clear()
        self.answer(201, manifest)

    def known(self, fields: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in fields if name != self.server.unknown}

    def do_DELETE(self) -> None:
        assert "propagationPolicy=Foreground" in self.path
        self.server.deleted.append(urlsplit(self.path).path.rsplit("/", 1)[-1])
        self.answer(200, {"kind": "Status", "status": "Success"})

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with Cluster() as server:
        address = f"http://127.0.0.1:{server.server_port}"
        configuration = {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": address}}],
            "users": [{"name": "test", "user": {}}],
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(configuration))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_job_is_created_read_and_deleted(cluster: Cluster) -> None:
    lines: list[str] = []
    KubernetesLauncher(SETTINGS).run(SPEC, lines.append)
    (manifest,) = cluster.created
    assert manifest["spec"]["trainer"]["numNodes"] == 2
    assert lines == ["[rank 0] step 1", "[rank 1] step 1", "[rank 0] step 2"], "each line once, though readings overlap"
    assert cluster.deleted == [manifest["metadata"]["name"]]


def test_what_a_rank_reports_is_the_error_and_the_next_launch_replaces_the_job(cluster: Cluster) -> None:
    cluster.ending = "Failed"
    report = {"type": "DiskFull", "value": "checkpoint", "rule": "must fit", "remedy": "Free space"}
    cluster.lines.append(f"[rank1]:gristmill-failure {json.dumps(report)}")
    with pytest.raises(DiskFull):
        KubernetesLauncher(SETTINGS).run(SPEC, lambda line: None)
    assert not cluster.deleted, "its pods stay to be looked at"
    cluster.lines.pop()
    with pytest.raises(RunFailed, match="Failed: as it was told to"):
        KubernetesLauncher(SETTINGS).run(SPEC, lambda line: None)
    assert len(cluster.created) == 2


def test_cancelling_deletes_the_job(cluster: Cluster) -> None:
    cluster.ending = None

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KubernetesLauncher(SETTINGS).run(SPEC, interrupt)
    assert cluster.deleted
    assert cluster.job is None


def test_a_job_that_is_there_is_waited_for_unless_it_does_something_else(cluster: Cluster) -> None:
    cluster.job = train_job(SPEC, SETTINGS, SETTINGS.shape(2))  # of a flow that was killed
    launcher = KubernetesLauncher(SETTINGS)
    with pytest.raises(RunFailed, match="still works in /data/runs/a, with other settings"):
        launcher.run(SPEC.model_copy(update={"processes": 1}), lambda line: None)
    cluster.looks = 0
    lines: list[str] = []
    launcher.run(SPEC, lines.append)
    assert not cluster.created
    assert len(lines) == 3


def test_a_job_that_is_being_deleted_is_not_waited_for_but_followed(cluster: Cluster) -> None:
    cluster.job = train_job(SPEC, SETTINGS, SETTINGS.shape(2))
    cluster.job["metadata"]["deletionTimestamp"] = "2026-11-23T00:00:00Z"  # its flow was cancelled; its pods stop
    lines: list[str] = []
    KubernetesLauncher(SETTINGS).run(SPEC, lines.append)
    assert len(cluster.created) == 1
    assert len(lines) == 3


def test_a_job_that_stays_though_it_is_deleted_stops_the_launch(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "_DELETE_SECONDS", -1.0)
    cluster.job = train_job(SPEC, SETTINGS, SETTINGS.shape(2))
    cluster.job["metadata"]["deletionTimestamp"] = "2026-11-23T00:00:00Z"
    cluster.looks = -(10**6)
    with pytest.raises(RunFailed, match="is being deleted and is still there after 0 s"):
        KubernetesLauncher(SETTINGS).run(SPEC, lambda line: None)
    assert not cluster.created


def test_a_job_of_which_the_cluster_drops_a_part_is_removed(cluster: Cluster) -> None:
    cluster.unknown = "terminationGracePeriodSeconds"  # as release 2.2 does
    with pytest.raises(RunFailed, match="drops terminationGracePeriodSeconds from") as caught:
        KubernetesLauncher(SETTINGS).run(SPEC, lambda line: None)
    assert "Trainer 2.3" in caught.value.remedy
    assert cluster.job is None


def test_refusals_say_why(cluster: Cluster) -> None:
    with pytest.raises(BadInput, match=r"spec\.trainer\.image: Invalid value"):
        KubernetesLauncher(SETTINGS.model_copy(update={"image": "refused"})).run(SPEC)
    cluster.installed = False
    with pytest.raises(BadInput, match="Install Kubeflow Trainer"):
        KubernetesLauncher(SETTINGS).run(SPEC)
