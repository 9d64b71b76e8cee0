"""Programs that serve others, started together and stopped together: a team's servers on one machine.

Each is a child in a process group of its own, with a log file; it dies with the process that started it. What runs is
written down in one file, so that another process can ask for it and stop it.
"""

import json
import logging
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from infra.child import child_command
from infra.errors import BadInput, RunFailed
from infra.settings import Settings

logger = logging.getLogger(__name__)
START_SECONDS = 180.0
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Service:
    """A program to run."""

    name: str
    module: str
    """Python module that is the program."""
    arguments: Sequence[str]
    address: str = ""
    """Where people find it; none for programs that only work for others."""
    ready: str = ""
    """A URL that answers when the service does its work; none where running is all that can be asked."""
    environment: Mapping[str, str] = field(default_factory=dict)


class RunningService(Settings):
    """A service as it was started."""

    name: str
    pid: int
    created: float
    """When its process began, by which it is told from a later one of the same number."""
    address: str
    ready: str
    log: str

    @property
    def process(self) -> psutil.Process | None:
        """Its process, if it still runs."""
        return find_process(self.pid, self.created)

    def trouble(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.process is None:
            return f"has ended; read {self.log}"
        return "" if not self.ready or answers(self.ready) else f"does not answer at {self.ready}; read {self.log}"


class StackRecord(Settings):
    """All services that one process started."""

    pid: int
    created: float
    services: tuple[RunningService, ...]

    @property
    def process(self) -> psutil.Process | None:
        """The process that started them, if it still runs."""
        return find_process(self.pid, self.created)


class Services:
    """Starts services one after the other; leaving the block stops them, the last one first."""

    def __init__(self, folder: Path) -> None:
        """`folder` takes logs and the record; RunFailed if services of it run already."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        record = read_record(folder)
        if record is not None and record.process is not None:
            raise RunFailed(
                f"services of {folder} run already (process {record.pid})",
                "one set of services runs at a time",
                "Stop them with `gristmill down`",
            )
        self._running: list[tuple[RunningService, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *_: object) -> None:
        for running, process in reversed(self._running):
            logger.info("%s: stopping", running.name)
            stop_group(process)
        (self._folder / "services.json").unlink(missing_ok=True)

    def start(self, service: Service, seconds: float = START_SECONDS) -> RunningService:
        """Start one and wait until it answers; RunFailed with the end of its log if it does not in time."""
        log = self._folder / f"{service.name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                child_command(service.module, service.arguments),
                env={**os.environ, **service.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        created = psutil.Process(process.pid).create_time()
        running = RunningService(
            name=service.name,
            pid=process.pid,
            created=created,
            address=service.address,
            ready=service.ready,
            log=str(log),
        )
        self._running.append((running, process))
        self._write()
        self._wait(running, process, seconds)
        return running

    def _write(self) -> None:
        own = psutil.Process()
        services = tuple(running for running, _ in self._running)
        record = StackRecord(pid=own.pid, created=own.create_time(), services=services)
        temporary = self._folder / "services.json.tmp"
        temporary.write_text(record.model_dump_json(indent=1))
        temporary.replace(self._folder / "services.json")

    def _wait(self, running: RunningService, process: subprocess.Popen[bytes], seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and process.poll() is None:
            if not running.ready or answers(running.ready):
                return
            time.sleep(0.2)
        lines = Path(running.log).read_text(errors="replace").splitlines()[-5:]
        raise RunFailed(
            f"{running.name} did not start: {' | '.join(lines) or 'it said nothing'}",
            f"it must answer at {running.ready} within {seconds:.0f} seconds",
            f"Read {running.log}; another program may hold its port",
        )

    def ended(self) -> RunningService | None:
        """A service that has ended by itself."""
        return next((running for running, process in self._running if process.poll() is not None), None)


def answers(url: str) -> bool:
    """Whether a server of our own answers well."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own loopback address
            return True
    except OSError:
        return False


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, then end its whole group."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_record(folder: Path) -> StackRecord | None:
    """What was started from a folder, whether it still runs or not."""
    path = folder / "services.json"
    return StackRecord.model_validate(json.loads(path.read_text())) if path.exists() else None


def stop(folder: Path) -> StackRecord:
    """Stop what another process started, and wait until nothing of it runs; BadInput if nothing does."""
    record = read_record(folder)
    if record is None or (record.process is None and not any(each.process for each in record.services)):
        raise BadInput(f"no service of {folder} runs", "only what runs can be stopped", "Start it: `gristmill up`")
    starter = record.process
    if starter is not None:
        starter.send_signal(signal.SIGTERM)
        starter.wait(STOP_SECONDS * (len(record.services) + 1))
    for each in record.services:  # of a starter that was killed, whose children ended with it
        if (left := each.process) is not None:
            left.kill()
            left.wait(STOP_SECONDS)
    (folder / "services.json").unlink(missing_ok=True)
    return record


def find_process(pid: int, created: float) -> psutil.Process | None:
    """A process by its number and the time when it began."""
    try:
        found = psutil.Process(pid)
        same = abs(found.create_time() - created) < 1 and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return found if same else None
