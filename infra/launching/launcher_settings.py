"""Where jobs of ranks run: the section `environment.launcher`. Which launcher is chosen changes no result."""

from typing import Annotated, Literal

from pydantic import Field

from infra.errors import BadInput
from infra.settings import Settings, operational


class NodeShape(Settings):
    """How a job's ranks are spread over machines."""

    nodes: int
    processes_per_node: int


class _NodeSettings(Settings):
    """What launchers of clusters have in common."""

    processes_per_node: int = operational(8, ge=1, le=1024)
    """Ranks of a full node: the GPUs that it has."""
    gpus: bool = operational(True)
    """Whether each rank gets a GPU; false asks for none."""
    max_nodes: int = operational(1, ge=1)
    """Most nodes that one job may take."""

    def shape(self, processes: int) -> NodeShape:
        """Nodes for a number of ranks: part of one node, or full nodes; BadInput names the nearest that works."""
        full = self.processes_per_node
        most = self.max_nodes * full
        nodes = max(1, processes // full)
        if processes > most or (processes > full and processes % full):
            below = min(nodes * full, most)
            above = [below + full] if below + full <= most and processes < most else []
            raise BadInput(
                f"parallel.processes = {processes} with environment.launcher.processes_per_node = {full} "
                f"and max_nodes = {self.max_nodes}",
                "a job takes a part of one node, or full nodes, one process for each GPU",
                f"Set parallel.processes to {' or '.join(map(str, [below, *above]))}, or change the launcher",
            )
        return NodeShape(nodes=nodes, processes_per_node=min(processes, full))


class LocalSettings(Settings):
    """The machine that the flow runs on."""

    kind: Literal["local"] = operational("local")
    """Ranks are children of the process that runs the flow."""

    def shape(self, processes: int) -> NodeShape:
        """One node, however many ranks."""
        return NodeShape(nodes=1, processes_per_node=processes)


class SlurmSettings(_NodeSettings):
    """A Slurm cluster whose nodes see the root folder and this Python under the same paths."""

    kind: Literal["slurm"] = operational("slurm")
    """Ranks run in a job of Slurm, which outlives the flow."""
    partition: str | None = operational(None, min_length=1)
    """Partition; unset takes the cluster's default."""
    account: str | None = operational(None, min_length=1)
    """Account that is charged."""
    qos: str | None = operational(None, min_length=1)
    """Quality of service."""
    constraint: str | None = operational(None, min_length=1)
    """Features that nodes must have, such as h100."""
    minutes: int = operational(24 * 60, ge=1)
    """Time limit of the job; after it, it is queued again (see requeues)."""
    requeues: int = operational(100, ge=0)
    """How often a job that reached its time limit is queued again; it goes on from its checkpoint. Jobs that make room
    for others, or whose node failed, are queued again without counting."""
    warning_seconds: int = operational(180, ge=30, le=65535)
    """How long before its time limit the job is told to write a checkpoint."""
    cpus_per_process: int | None = operational(None, ge=1)
    """Processor cores for each rank; unset takes 4 beside a GPU, and the cluster's default without GPUs."""
    memory_gib: int | None = operational(None, ge=1)
    """Memory of each node; unset takes the cluster's default."""
    exclusive: bool = operational(False)
    """Whether nodes are shared with no other job."""
    array_parallelism: int = operational(8, ge=1)
    """How many of the trainings that are handed in as one job array, such as an ablation's, may run at once."""
    options: dict[str, str | int | bool] = operational({})
    """Further options of sbatch without their dashes, such as {"mail-type": "FAIL", "reservation": "may"}; they stand
    in the job's script, so they are no place for secrets."""
    setup: tuple[str, ...] = operational(())
    """Lines of shell before the job's command, such as "module load cuda"."""
    python: str | None = operational(None, min_length=1)
    """Command that starts Python on a node, such as "apptainer exec image.sif python"; unset takes this very one."""
    poll_seconds: float = operational(5.0, ge=0.2, le=300)
    """Time between two looks at the queue and at the job's lines."""


class SecretKey(Settings):
    """A value in a secret of the cluster."""

    secret: str = operational(..., pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    """Name of the secret."""
    key: str = operational(..., pattern=r"^[-._a-zA-Z0-9]+$")
    """Key in it."""


class Toleration(Settings):
    """A taint of nodes that a job puts up with."""

    key: str = operational(..., min_length=1)
    """The taint's key, such as nvidia.com/gpu."""
    operator: Literal["Exists", "Equal"] = operational("Exists")
    """Whether any value will do, or only this one."""
    value: str | None = operational(None)
    """The taint's value, with Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = operational(None)
    """The taint's effect; unset means all."""


class KubernetesSettings(_NodeSettings):
    """A Kubernetes cluster with Kubeflow Trainer (trainer.kubeflow.org/v1alpha1, release 2.3 or later)."""

    kind: Literal["kubernetes"] = operational("kubernetes")
    """Ranks run in the pods of a TrainJob, which outlives the flow."""
    image: str = operational(..., min_length=1)
    """Image of the project, by digest or by a tag that never moves."""
    namespace: str = operational("default", pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Namespace of the job."""
    runtime: str = operational("torch-distributed", min_length=1)
    """ClusterTrainingRuntime that the job refers to."""
    volume_claim: str = operational(..., min_length=1)
    """PersistentVolumeClaim, ReadWriteMany, that holds the root folder."""
    mount_path: str = operational(..., pattern=r"^/")
    """Where the claim is mounted, in the pods as where the flow runs."""
    gpu_resource: str = operational("nvidia.com/gpu", min_length=1)
    """Name of a GPU among the cluster's resources."""
    cpus_per_process: int | None = operational(None, ge=1)
    """Processor cores for each rank; unset asks for none in particular."""
    memory_gib: int | None = operational(None, ge=1)
    """Memory of each node; unset asks for none in particular."""
    shared_memory_gib: int = operational(16, ge=1)
    """Size of /dev/shm in a pod, over which NCCL talks."""
    variables: dict[str, str] = operational({})
    """Environment variables of the ranks; they stand in the manifest, so they are no place for secrets."""
    secrets: dict[str, SecretKey] = operational({})
    """Environment variables of the ranks whose values are in secrets of the cluster."""
    tolerations: tuple[Toleration, ...] = operational(())
    """Taints of nodes that the job puts up with."""
    node_selector: dict[str, str] = operational({})
    """Labels that nodes must have."""
    service_account: str | None = operational(None, min_length=1)
    """Service account of the pods; unset takes the namespace's default."""
    poll_seconds: float = operational(5.0, ge=0.2, le=300)
    """Time between two looks at the job."""


LauncherSettings = Annotated[LocalSettings | SlurmSettings | KubernetesSettings, Field(discriminator="kind")]
