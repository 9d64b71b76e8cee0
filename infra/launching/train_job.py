"""The manifest of a Kubeflow TrainJob (trainer.kubeflow.org/v1alpha1 as of release 2.3) for a job of ranks.

The trainer starts one pod on each node and tells torchrun by PET_* variables how many there are and where they meet.
What differs from the cluster's runtime is one patch, under a manager's name of our own.
"""

import shlex
from pathlib import PurePosixPath
from typing import Any

from infra.errors import BadInput
from infra.launching.job_record import job_name, work_of
from infra.launching.launch import JobSpec, agent_arguments, agent_environment
from infra.launching.launcher_settings import KubernetesSettings, NodeShape
from infra.launching.ranks import names_a_secret

API_GROUP, API_VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
MANAGER = "gristmill.dev/launcher"
WORK = "gristmill.dev/work"
"""Annotation that holds `work_of` the job."""
NODE = "node"
"""What the torch runtime calls its replicated job, and the container in its pods."""
_STOP_SECONDS = 15
"""Added to the ranks' grace period, for the agent that waits for them."""


def train_job(spec: JobSpec, settings: KubernetesSettings, shape: NodeShape) -> dict[str, Any]:
    """The manifest; BadInput for a folder outside the volume and for variables that hold secrets."""
    if not PurePosixPath(spec.folder).is_relative_to(settings.mount_path):
        raise BadInput(
            f"environment.root (the job's folder is {spec.folder})",
            f"pods see only what is under environment.launcher.mount_path = {settings.mount_path}",
            "Mount the volume where the flow runs under the same path, and choose a root in it",
        )
    return {
        "apiVersion": f"{API_GROUP}/{API_VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": job_name(spec),
            "namespace": settings.namespace,
            "labels": {"app.kubernetes.io/part-of": "gristmill"},
            "annotations": {WORK: work_of(spec), "gristmill.dev/folder": spec.folder},
        },
        "spec": {
            "runtimeRef": {"apiGroup": API_GROUP, "kind": "ClusterTrainingRuntime", "name": settings.runtime},
            "trainer": _trainer(spec, settings, shape),
            "runtimePatches": [{"manager": MANAGER, "trainingRuntimeSpec": _patch(spec, settings)}],
        },
    }


def lost_fields(asked: Any, kept: Any) -> list[str]:
    """Fields of a manifest that the cluster did not keep: it drops those that its release does not know, silently."""
    if isinstance(asked, dict) and isinstance(kept, dict):
        lost = [name for name in asked if name not in kept]
        return lost + [each for name in asked if name in kept for each in lost_fields(asked[name], kept[name])]
    if isinstance(asked, list) and isinstance(kept, list):
        return [each for one, other in zip(asked, kept, strict=False) for each in lost_fields(one, other)]
    return []


def _trainer(spec: JobSpec, settings: KubernetesSettings, shape: NodeShape) -> dict[str, Any]:
    amounts = {
        "cpu": str(settings.cpus_per_process * shape.processes_per_node) if settings.cpus_per_process else None,
        "memory": f"{settings.memory_gib}Gi" if settings.memory_gib else None,
        settings.gpu_resource: str(shape.processes_per_node) if settings.gpus else None,
    }
    resources = {name: amount for name, amount in amounts.items() if amount}
    return {
        "image": settings.image,
        "command": ["python", "-m", "torch.distributed.run"],
        "args": agent_arguments(spec, ()),
        "numNodes": shape.nodes,
        "numProcPerNode": shape.processes_per_node,
        "env": _variables(spec, settings),
        **({"resourcesPerNode": {"limits": resources, "requests": resources}} if resources else {}),
    }


def _variables(spec: JobSpec, settings: KubernetesSettings) -> list[dict[str, Any]]:
    plain = {**agent_environment(spec), **settings.variables}
    if secret := [name for name in plain if names_a_secret(name)]:
        raise BadInput(
            f"variables {shlex.join(secret)}",
            "everyone who may read TrainJobs reads the variables in their manifests",
            "Put the value into a secret of the cluster and name it in environment.launcher.secrets",
        )
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": each.secret, "key": each.key}}}
            for name, each in settings.secrets.items()
        ),
    ]


def _patch(spec: JobSpec, settings: KubernetesSettings) -> dict[str, Any]:
    """What the pods need beside the trainer: the root folder, shared memory, time to stop, and where they may run."""
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": spec.grace_seconds + _STOP_SECONDS,
        "volumes": [
            {"name": "root", "persistentVolumeClaim": {"claimName": settings.volume_claim}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{settings.shared_memory_gib}Gi"}},
        ],
        "containers": [
            {
                "name": NODE,
                "volumeMounts": [
                    {"name": "root", "mountPath": settings.mount_path},
                    {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - not a temporary file
                ],
            }
        ],
    }
    if settings.tolerations:
        pod["tolerations"] = [each.model_dump(exclude_none=True) for each in settings.tolerations]
    if settings.node_selector:
        pod["nodeSelector"] = settings.node_selector
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    job = {"name": NODE, "template": {"spec": {"template": {"spec": pod}}}}
    return {"template": {"spec": {"replicatedJobs": [job]}}}
