"""A Slurm cluster of two nodes on this machine, from Debian's packages.

The commands are on the PATH, or the packages were extracted into the folder that SLURM_PREFIX names:

    apt-get download slurmctld slurmd slurm-client slurm-wlm-basic-plugins libhwloc15 libjson-c5 liblua5.1-0 \
        libyaml-0-2 libnuma1 libhttp-parser2.9 libmunge2 libpmix2 libltdl7
    for package in *.deb; do dpkg -x $package $SLURM_PREFIX; done
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.flows.conftest import free_port

NODES = ("n1", "n2")


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[None]:
    """Start the daemons and put their commands into this process's environment; skips where there is no Slurm."""
    prefix = os.environ.get("SLURM_PREFIX", "")
    programs = [f"{prefix}/usr/{name}" for name in ("bin", "sbin")]
    path = os.pathsep.join([*(programs if prefix else ()), os.environ["PATH"], "/usr/sbin"])
    found = {name: shutil.which(f"{name}-wlm", path=path) for name in ("slurmctld", "slurmd", "slurmstepd")}
    if missing := [name for name, program in found.items() if program is None]:
        pytest.skip(f"Slurm is absent: no {', '.join(missing)} on the PATH or in SLURM_PREFIX")
    libraries = f"{prefix}/usr/lib/x86_64-linux-gnu"
    configuration = folder / "slurm.conf"
    configuration.write_text(_configuration(folder, f"{libraries}/slurm-wlm"))
    changed = {"PATH": path, "SLURM_CONF": str(configuration)}
    if prefix:
        changed["LD_LIBRARY_PATH"] = f"{libraries}:{libraries}/slurm-wlm"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changed.items():
            patch.setenv(name, value)
        daemons = [_start(folder, "slurmctld", [str(found["slurmctld"]), "-D", "-c"])]
        daemons += [
            _start(folder, node, [str(found["slurmd"]), "-D", "-c", "-N", node, "-d", str(found["slurmstepd"])])
            for node in NODES
        ]
        try:
            _wait_for_nodes(folder)
            yield
        finally:
            subprocess.run(["scancel", f"--user={getpass.getuser()}"], check=False, timeout=60)
            _wait_for_no_jobs()
            for daemon in reversed(daemons):
                daemon.send_signal(signal.SIGTERM)
                daemon.wait(30)


def _configuration(folder: Path, plugins: str) -> str:
    host = socket.gethostname()
    (folder / "state").mkdir()
    lines = [
        "ClusterName=small",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={free_port()}",
        "SlurmUser=root",
        "SlurmdUser=root",
        "AuthType=auth/none",  # on loopback, without munge
        "CredType=cred/none",
        "AuthInfo=cred_expire=5",  # a job that is queued again waits for so long
        f"PluginDir={plugins}",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "MpiDefault=none",
        "ReturnToService=2",
        "SchedulerParameters=sched_interval=2,bf_interval=2",
        "SlurmdParameters=config_overrides",  # two nodes have more cores than this machine
        "KillWait=5",
        "MailProg=/bin/true",
    ]
    for node in NODES:
        (folder / f"spool-{node}").mkdir()
        lines.append(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=4 RealMemory=4000"
        )
    return "\n".join([*lines, f"PartitionName=main Nodes={','.join(NODES)} Default=YES State=UP", ""])


def _start(folder: Path, name: str, command: list[str]) -> "subprocess.Popen[bytes]":
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _wait_for_nodes(folder: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        asked = subprocess.run(["sinfo", "-h", "-N", "-o", "%t"], capture_output=True, text=True, check=False)
        if asked.stdout.split() == ["idle"] * len(NODES):
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
    pytest.fail(f"Slurm did not start:\n{logs}")


def _wait_for_no_jobs() -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=False).stdout.strip():
            return
        time.sleep(0.5)
