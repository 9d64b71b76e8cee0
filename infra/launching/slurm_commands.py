"""What is asked of Slurm, by its commands."""

import importlib.util
import shutil
import subprocess

from infra.errors import BadInput

LIVING = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "RESIZING"}
LIVING |= {"SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT", "REQUEUE_FED", "UNKNOWN"}
"""States of a job that has not ended."""
GONE = "GONE"
"""A number that Slurm no longer knows: it forgets ended jobs after MinJobAge, often five minutes."""


def require_slurm() -> None:
    """BadInput where submitit or a command is missing."""
    if importlib.util.find_spec("submitit") is None:
        raise BadInput(
            "environment.launcher.kind = slurm", "it needs submitit", "Install it: pip install 'gristmill[slurm]'"
        )
    if missing := [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]:
        raise BadInput(
            f"environment.launcher.kind = slurm without {', '.join(missing)}",
            "jobs are handed in with Slurm's commands",
            "Run where Slurm's commands are on the PATH, such as a login node",
        )


def ask(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command of Slurm, whatever its exit code."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def state(job: str) -> str:
    """The job's state in Slurm's words; UNKNOWN while Slurm does not answer."""
    try:
        asked = ask(["squeue", "--noheader", "--array", f"--jobs={job}", "--states=all", "--format=%T"])
    except subprocess.TimeoutExpired:
        return "UNKNOWN"
    if asked.returncode == 0:
        return (asked.stdout.split() or [GONE])[0]
    return GONE if "Invalid job id" in asked.stderr else "UNKNOWN"


def jobs_named(name: str) -> list[str]:
    """Numbers of this user's jobs of a name that have not ended; of an array, ARRAY_PLACE each."""
    asked = ["squeue", "--me", "--noheader", "--array", "--format=%i", "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED"]
    return ask([*asked, f"--name={name}"]).stdout.split()
