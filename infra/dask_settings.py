"""Where Dask workers run: the section `environment.dask`. It changes no result."""

import math
from typing import Annotated, Literal

from pydantic import Field

from infra.launching.launcher_settings import SecretKey, Toleration
from infra.settings import Settings, operational

_MOST_BEFORE_THE_END = 1200.0
"""Seconds: no worker needs to leave its job earlier than that."""


class LocalDask(Settings):
    """The machine that the flow runs on: environment.workers processes."""

    kind: Literal["local"] = operational("local")
    """Workers are children of the process that runs the flow."""

    @property
    def most_workers(self) -> int:
        """One: all that there will be are there from the beginning, and are counted then."""
        return 1

    @property
    def wait_seconds(self) -> float:
        """Without end: a worker that dies is started again by its parent."""
        return math.inf


class _ScaledDask(Settings):
    """What clusters have in common: workers that come, later, and go."""

    minimum: int = operational(1, ge=1, le=10_000)
    """Jobs or pods that are awaited before work begins, and kept until its end."""
    maximum: int = operational(1, ge=1, le=10_000)
    """Jobs or pods at most; more than the minimum are asked for while there is much to do."""
    wait_seconds: float = operational(1800.0, gt=0)
    """How long the first ones are awaited, and later any at all where none is left; then the flow stops."""


class JobQueueDask(_ScaledDask):
    """A cluster with a queue of jobs, whose nodes see the root folder and this Python under the same paths."""

    kind: Literal["jobqueue"] = operational("jobqueue")
    """Workers are jobs of a batch system, which are handed in and cancelled by the flow."""
    processes: int = operational(8, ge=1, le=1024)
    """Worker processes, of one core each, in each job."""
    memory_gib: int = operational(32, ge=1)
    """Memory of each job, shared among its processes."""
    system: Literal["slurm", "pbs", "lsf", "sge"] = operational("slurm")
    """The batch system."""
    queue: str | None = operational(None, min_length=1)
    """Partition or queue; unset takes the cluster's default."""
    account: str | None = operational(None, min_length=1)
    """Account that is charged."""
    walltime: str = operational("08:00:00", pattern=r"^\d+(:\d\d){1,2}$")
    """Time limit of each job, in hours, minutes and seconds (LSF: hours and minutes), much longer than a shard takes.

    Shortly before it is over, the job's workers hand their shards to others and leave, and another job is handed in.
    """
    options: tuple[str, ...] = operational(())
    """Further options of the batch system, with their dashes, such as "--constraint=cpu"."""
    setup: tuple[str, ...] = operational(())
    """Lines of shell before a worker starts, such as "module load python"."""
    python: str | None = operational(None, min_length=1)
    """Command that starts Python on a node; unset takes this very one."""
    interface: str | None = operational(None, min_length=1)
    """Network interface that nodes and this machine share, such as ib0; unset takes the usual one."""
    host: str | None = operational(None, min_length=1)
    """Address of this machine that nodes reach; unset asks the interface."""
    folder: str | None = operational(None, pattern=r"^/")
    """Folder that nodes see, for the certificates and lines of workers; unset means dask/ under a local root."""

    @property
    def first_workers(self) -> int:
        """Worker processes that are awaited before work begins."""
        return self.processes * self.minimum

    @property
    def most_workers(self) -> int:
        """Worker processes that there may be."""
        return self.processes * max(self.minimum, self.maximum)

    @property
    def time_limit(self) -> str:
        """The walltime as the batch system takes it: LSF knows no seconds."""
        return ":".join(self.walltime.split(":")[:2]) if self.system == "lsf" else self.walltime

    @property
    def lifetime(self) -> tuple[float, float]:
        """Seconds after which a worker leaves by itself, and by how many these differ: jobs are not to end all at once.

        A job that is cut off instead would count as a failure of the shards that it was at work on.
        """
        parts = [int(part) for part in self.walltime.split(":")]
        units = (3600, 60) if self.system == "lsf" else (3600, 60, 1)[-len(parts) :]
        seconds = sum(part * unit for part, unit in zip(parts, units, strict=False))
        before = min(seconds / 10, _MOST_BEFORE_THE_END)
        return seconds - before, before / 2


class KubernetesDask(_ScaledDask):
    """A Kubernetes cluster with the Dask operator (kubernetes.dask.org/v1).

    Each pod holds one worker process of one core, as the operator counts pods and workers as the same.
    """

    kind: Literal["kubernetes"] = operational("kubernetes")
    """Workers and their scheduler are pods, which the flow creates and removes."""
    memory_gib: int = operational(4, ge=1)
    """Memory of each worker's pod."""
    image: str = operational(..., min_length=1)
    """Image of the project, by digest or by a tag that never moves."""
    namespace: str = operational("default", pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Namespace of the pods."""
    volume_claim: str | None = operational(None, min_length=1)
    """PersistentVolumeClaim, ReadWriteMany, that holds the root folder; unset where the root is an object store."""
    mount_path: str = operational("/data", pattern=r"^/")
    """Where the claim is mounted, in the pods as where the flow runs."""
    secrets: dict[str, SecretKey] = operational({})
    """Environment variables of the workers whose values are in secrets of the cluster, such as those of S3."""
    variables: dict[str, str] = operational({})
    """Further environment variables; they stand in the manifest, so they are no place for secrets."""
    tolerations: tuple[Toleration, ...] = operational(())
    """Taints of nodes that the pods put up with."""
    node_selector: dict[str, str] = operational({})
    """Labels that nodes must have."""

    @property
    def first_workers(self) -> int:
        """Workers that are awaited before work begins."""
        return self.minimum

    @property
    def most_workers(self) -> int:
        """Workers that there may be."""
        return max(self.minimum, self.maximum)


DaskSettings = Annotated[LocalDask | JobQueueDask | KubernetesDask, Field(discriminator="kind")]
