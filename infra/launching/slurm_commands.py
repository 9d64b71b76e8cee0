"""What is asked of Slurm, by its commands."""

import importlib.util
import shutil
import subprocess

from infra.errors import BadInput, RunFailed

LIVING = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "RESIZING"}
UNKNOWN = "UNKNOWN"
"""Of a job while Slurm does not answer."""
LIVING |= {"SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT", "REQUEUE_FED", UNKNOWN}
"""States of a job that has not ended."""
GONE = "GONE"
"""A number that Slurm no longer knows: it forgets ended jobs after MinJobAge, often five minutes."""

_ANSWER_SECONDS = 120.0


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
    """Run a command of Slurm, whatever its exit code; that of one that does not answer is 124."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {_ANSWER_SECONDS:.0f} s")


def state(job: str) -> str:
    """The job's state in Slurm's words; UNKNOWN while Slurm does not answer."""
    return state_and_reason(job)[0]


def state_and_reason(job: str) -> tuple[str, str]:
    """The same, and why a job waits, such as JobHeldUser; empty for one that does not."""
    asked = ask(["squeue", "--noheader", "--array", f"--jobs={job}", "--states=all", "--format=%T %r"])
    if asked.returncode:
        return (GONE if "Invalid job id" in asked.stderr else UNKNOWN), ""
    found, _, reason = asked.stdout.partition("\n")[0].strip().partition(" ")
    return found or GONE, "" if reason == "None" else reason


def jobs_named(name: str) -> list[str]:
    """Numbers of this user's jobs of a name that have not ended; of an array, ARRAY_PLACE each.

    RunFailed where Slurm does not say: a second job is not to be handed in because of that.
    """
    states = "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED"
    asked = ask(["squeue", "--me", "--noheader", "--array", "--format=%i", states, f"--name={name}"])
    if asked.returncode:
        raise RunFailed(
            f"squeue ended with code {asked.returncode} ({asked.stderr.strip()})",
            "whether a job works for the folder must be known before one is handed in",
            "Run the same command again when squeue answers",
        )
    return asked.stdout.split()
