"""What a run was made with: software and machine, as tags by which runs are found and told apart.

None of it enters a fingerprint: what decides bytes does so by itself (see infra.manifest). A machine is told by what it
is made of, not by its name.
"""

import hashlib
import os
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions
from importlib.metadata import version as library_version
from pathlib import Path

import psutil

COMMIT_VARIABLE = "GRISTMILL_COMMIT"
"""Names the commit where the code is installed without its repository, as in an image."""
_LIBRARIES = ("gristmill", "torch", "megatron-core", "prefect", "dask", "mlflow")
_CHECKOUT = Path(__file__).parents[1]


@cache
def software_tags() -> dict[str, str]:
    """Commit, lock and versions. `mlflow.source.git.commit` is where MLflow's own pages look for the commit."""
    tags = {"software.python": platform.python_version(), "software.lock": _lock_digest()}
    for name in _LIBRARIES:
        try:
            tags[f"software.{name}"] = library_version(name)
        except PackageNotFoundError:
            continue
    if commit := _git("rev-parse", "HEAD") or os.environ.get(COMMIT_VARIABLE, ""):
        tags |= {"git.commit": commit, "mlflow.source.git.commit": commit}
        tags["git.dirty"] = "true" if _git("status", "--porcelain", "--untracked-files=no") else "false"
    return tags


def _git(*arguments: str) -> str:
    """What git says of the checkout that this code lies in; nothing where it is installed without one."""
    if not (_CHECKOUT / ".git").exists():
        return ""
    command = ["git", "-c", "safe.directory=*", "-C", str(_CHECKOUT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _lock_digest() -> str:
    """SHA-256 of requirements.lock, or of the names and versions of what is installed where there is none."""
    lock = _CHECKOUT / "requirements.lock"
    if lock.is_file():
        return hashlib.sha256(lock.read_bytes()).hexdigest()
    installed = sorted({f"{each.name}=={each.version}" for each in distributions()})
    return hashlib.sha256("\n".join(installed).encode()).hexdigest()


@cache
def hardware_tags() -> dict[str, str]:
    """Processor, cores, memory in GiB and GPUs of this machine."""
    tags = {
        "hardware.cpu": _processor(),
        "hardware.cores": str(usable_cores()),
        "hardware.memory_gib": f"{psutil.virtual_memory().total / 2**30:.0f}",
    }
    if gpus := driver_says("name"):
        tags["hardware.gpus"] = ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus))
    return tags


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def driver_says(field: str) -> list[str]:
    """A field of each of NVIDIA's GPUs, such as name, without its unit; none where the driver is not installed."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
