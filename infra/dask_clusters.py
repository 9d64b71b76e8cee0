"""Dask clusters that last as long as a flow needs them: on this machine, in jobs of a batch system, or in pods.

Workers of a batch system find the scheduler, which is in this process, over TLS with certificates made for the one
cluster: whoever could talk to a scheduler or worker could have it run anything.
"""

import importlib
import importlib.util
import logging
import os
import shlex
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from distributed import Client, LocalCluster, Security

from infra.dask_jobs import JobScaling
from infra.dask_settings import JobQueueDask, KubernetesDask, LocalDask
from infra.environment import Environment
from infra.errors import BadInput, RunFailed
from infra.launching.kubernetes_api import connect
from infra.launching.ranks import names_a_secret
from infra.store import Store

logger = logging.getLogger(__name__)
WORKER_VARIABLES = {"MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
"""Without the first, glibc keeps freed memory of many small texts, and workers seem to leak."""

_SCHEDULER = ("1", "4Gi")
"""Cores and memory of a scheduler's pod: it does one thing at a time, and knows of four small tasks for each worker."""


@contextmanager
def open_dask(environment: Environment) -> Iterator[Client]:
    """A client of a new cluster as `environment.dask` describes it, with its first workers; it ends with the block.

    RunFailed where these do not come in time, BadInput where the cluster cannot be made.
    """
    settings = environment.dask
    if isinstance(settings, LocalDask):
        with _local(environment) as local, Client(local, set_as_default=False) as client:
            yield client
        return
    made = _job_queue(settings, environment) if isinstance(settings, JobQueueDask) else _kubernetes(settings)
    with made as cluster, Client(cluster, set_as_default=False) as client:
        if isinstance(settings, KubernetesDask):
            if settings.maximum > settings.minimum:
                cluster.adapt(minimum=settings.minimum, maximum=settings.maximum)
            else:
                cluster.scale(settings.minimum)
        _await(client, settings)
        yield client


def _local(environment: Environment) -> LocalCluster:
    return LocalCluster(
        n_workers=environment.workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=environment.worker_memory,
        silence_logs=logging.CRITICAL,
    )


def _await(client: Client, settings: JobQueueDask | KubernetesDask) -> None:
    wanted = settings.first_workers
    logger.info("waiting for %d Dask workers", wanted)
    try:
        client.wait_for_workers(wanted, timeout=settings.wait_seconds)
    except TimeoutError as error:
        there = len(client.scheduler_info(n_workers=-1)["workers"])
        raise RunFailed(
            f"{there} of {wanted} Dask workers came within {settings.wait_seconds:.0f} s",
            "environment.dask.minimum jobs or pods must be there before work begins",
            "Look at the queue and at the workers' lines, ask for fewer or smaller ones, or raise wait_seconds",
        ) from error


@contextmanager
def _job_queue(settings: JobQueueDask, environment: Environment) -> Iterator[Any]:
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise _missing("jobqueue", "dask-jobqueue", "slurm")
    library: Any = importlib.import_module("dask_jobqueue")

    kinds: dict[str, Any] = {
        "slurm": library.SLURMCluster,
        "pbs": library.PBSCluster,
        "lsf": library.LSFCluster,
        "sge": library.SGECluster,
    }
    command = str(kinds[settings.system].job_cls.submit_command).split()[0]
    if shutil.which(command) is None:
        raise BadInput(
            f"environment.dask.system = {settings.system} without {command}",
            "jobs of workers are handed in with the batch system's commands",
            "Run where these are on the PATH, such as a login node",
        )
    folder = _shared_folder(settings, environment)
    charged = (
        {} if settings.account is None else {"project" if settings.system == "lsf" else "account": settings.account}
    )
    remove_leftovers(folder)
    # A job that begins just then may write its mark while the folder is removed.
    with tempfile.TemporaryDirectory(dir=folder, prefix=_own_prefix(), ignore_cleanup_errors=True) as certificates:
        marks = Path(certificates) / "began"
        marks.mkdir()
        try:
            cluster = kinds[settings.system](
                queue=settings.queue,
                **charged,
                walltime=settings.time_limit,
                cores=settings.processes,
                processes=settings.processes,
                memory=f"{settings.memory_gib}GiB",
                python=settings.python,
                interface=settings.interface,
                security=Security(require_encryption=True, **make_certificates(Path(certificates))),
                protocol="tls://",
                log_directory=str(folder),
                job_name="gristmill-dask",
                job_extra_directives=list(settings.options),
                job_script_prologue=[
                    mark_of_job(settings, marks),
                    *(f"export {name}={value}" for name, value in WORKER_VARIABLES.items()),
                    *settings.setup,
                ],
                worker_extra_args=["--no-dashboard", *_lifetime(settings)],
                death_timeout=int(settings.wait_seconds),
                scheduler_options={
                    "dashboard_address": "127.0.0.1:0",
                    **({"host": settings.host} if settings.host else {}),
                },
                silence_logs=logging.CRITICAL,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise BadInput(
                f"environment.dask ({error})", f"{settings.system} must take jobs of workers", "Correct the settings"
            ) from error
        with cluster:
            cluster.adapt(
                Adaptive=JobScaling,
                processes=settings.processes,
                marks=marks,
                minimum=settings.minimum,
                maximum=max(settings.minimum, settings.maximum),
            )
            yield cluster


def _own_prefix() -> str:
    return f"certificates-{socket.gethostname()}-{os.getpid()}-"


def remove_leftovers(folder: Path) -> None:
    """Remove certificates of flows that were killed on this machine; what other machines left, they remove."""
    for each in folder.glob("certificates-*"):
        host, _, process = each.name.removeprefix("certificates-").rpartition("-")[0].rpartition("-")
        if host == socket.gethostname() and not psutil.pid_exists(int(process)):
            shutil.rmtree(each, ignore_errors=True)


def mark_of_job(settings: JobQueueDask, folder: Path) -> str:
    """A line of a job's script that says that it has begun: by a file named as dask-jobqueue calls the job."""
    variable = {"slurm": "SLURM_JOB_ID", "pbs": "PBS_JOBID", "lsf": "LSB_JOBID", "sge": "JOB_ID"}[settings.system]
    return f": > {shlex.quote(str(folder))}/${{{variable}%%.*}}"  # PBS puts its server's name behind the number


def _lifetime(settings: JobQueueDask) -> list[str]:
    seconds, stagger = settings.lifetime
    return ["--lifetime", f"{seconds}s", "--lifetime-stagger", f"{stagger}s"]


def make_certificates(folder: Path) -> dict[str, str]:
    """Files with a new certificate for each of scheduler, workers and clients, by their names in `Security`."""
    made = Security.temporary()
    files: dict[str, str] = {}
    for name in (
        "ca_file",
        *(f"{role}_{part}" for role in ("client", "scheduler", "worker") for part in ("cert", "key")),
    ):
        path = folder / f"{name}.pem"
        path.touch(mode=0o600)
        path.write_text(getattr(made, f"tls_{name}"))
        files[f"tls_{name}"] = str(path)
    return files


def _shared_folder(settings: JobQueueDask, environment: Environment) -> Path:
    store = Store(environment.root)
    if settings.folder is None and not store.is_local:
        raise BadInput(
            "environment.dask.folder is unset",
            "workers read their certificates from a folder that all nodes see, and the root is no folder",
            "Name such a folder",
        )
    folder = Path(settings.folder) if settings.folder else store.local_path("dask").absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _kubernetes(settings: KubernetesDask) -> Any:
    if importlib.util.find_spec("dask_kubernetes") is None:
        raise _missing("kubernetes", "dask-kubernetes", "kubernetes")
    connect()
    from dask_kubernetes.operator import KubeCluster

    try:
        return KubeCluster(
            custom_cluster_spec=dask_cluster(settings),
            namespace=settings.namespace,
            resource_timeout=int(settings.wait_seconds),
            quiet=True,
        )
    except Exception as error:  # its libraries raise many kinds
        raise BadInput(
            f"environment.dask ({type(error).__name__}: {error})",
            "a Kubernetes cluster with the Dask operator must answer",
            "Set KUBECONFIG, install the operator, and look at the pods of the namespace",
        ) from error


def dask_cluster(settings: KubernetesDask) -> dict[str, Any]:
    """The manifest of a DaskCluster; BadInput for variables that hold secrets."""
    from dask_kubernetes.operator import make_cluster_spec

    if secret := [name for name in settings.variables if names_a_secret(name)]:
        raise BadInput(
            f"environment.dask.variables {', '.join(secret)}",
            "everyone who may read DaskClusters reads the variables in their manifests",
            "Put the value into a secret of the cluster and name it in environment.dask.secrets",
        )
    plain = {**WORKER_VARIABLES, **settings.variables}
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in plain.items()]
    variables += [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": each.secret, "key": each.key}}}
        for name, each in settings.secrets.items()
    ]
    made: dict[str, Any] = make_cluster_spec(
        name=f"gristmill-{uuid4().hex[:10]}",
        image=settings.image,
        n_workers=settings.minimum,
        resources=_amounts("1", f"{settings.memory_gib}Gi"),
        env=variables,
        worker_command=f"dask worker --nthreads 1 --memory-limit={settings.memory_gib}GiB",
    )
    made["spec"]["scheduler"]["spec"]["containers"][0]["resources"] = _amounts(*_SCHEDULER)
    for part in ("worker", "scheduler"):
        _place(made["spec"][part]["spec"], settings)
    return made


def _amounts(cores: str, memory: str) -> dict[str, Any]:
    amounts = {"cpu": cores, "memory": memory}
    return {"limits": amounts, "requests": amounts}


def _place(pod: dict[str, Any], settings: KubernetesDask) -> None:
    """Where a pod may run, and the root folder in it."""
    pod["tolerations"] = [each.model_dump(exclude_none=True) for each in settings.tolerations]
    pod["nodeSelector"] = settings.node_selector
    if settings.volume_claim is not None:
        pod["volumes"] = [{"name": "root", "persistentVolumeClaim": {"claimName": settings.volume_claim}}]
        pod["containers"][0]["volumeMounts"] = [{"name": "root", "mountPath": settings.mount_path}]


def _missing(kind: str, package: str, extra: str) -> BadInput:
    return BadInput(
        f"environment.dask.kind = {kind}", f"it needs {package}", f"Install it: pip install 'gristmill[{extra}]'"
    )
