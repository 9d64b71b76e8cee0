"""What is asked of Slurm for a job of ranks: options of sbatch."""

from typing import Any

from infra.launching.job_record import job_name
from infra.launching.launch import JobSpec
from infra.launching.launcher_settings import NodeShape, SlurmSettings

_CORES_BESIDE_A_GPU = 4
"""For a rank, its loader's thread and what tells MLflow."""


def sbatch_options(spec: JobSpec, settings: SlurmSettings, shape: NodeShape) -> dict[str, Any]:
    """As submitit names them. Variables go to the job from this process, never into its script."""
    each = settings.cpus_per_process or (_CORES_BESIDE_A_GPU if settings.gpus else None)
    cores = each * shape.processes_per_node if each else None
    given = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "mem": f"{settings.memory_gib}G" if settings.memory_gib else None,
        "gpus_per_node": shape.processes_per_node if settings.gpus else None,
        "cpus_per_task": cores,
        "exclusive": settings.exclusive or None,
        "setup": list(settings.setup) or None,
    }
    return {
        "job_name": job_name(spec),
        "time": settings.minutes,
        "nodes": shape.nodes,
        "ntasks_per_node": 1,
        "signal_delay_s": settings.warning_seconds,
        "stderr_to_stdout": True,
        # Ranks of other nodes wait long for one that is gone, so the job ends, and is queued again, as a whole.
        # Since Slurm 22.05 a step does not take over the job's cores for each task by itself.
        "srun_args": ["--kill-on-bad-exit=1", *([f"--cpus-per-task={cores}"] if cores else [])],
        "additional_parameters": {"requeue" if settings.requeues else "no-requeue": True, **settings.options},
        **{name: value for name, value in given.items() if value is not None},
    }
