"""Services that run, as any process finds them: the record of who started what, whether it works, and its end."""

import http.client
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import psutil
from pydantic import Field

from infra.errors import BadInput, RunFailed
from infra.left_behind import end_all, left_behind
from infra.settings import Settings

_DOWN_SECONDS = 300.0
_OWN_END_SECONDS = 20.0
"""How long services have to end by themselves after the process that started them was killed."""


class Identity(TypedDict):
    """The fields of RunningProcess."""

    pid: int
    created: float
    boot_mark: str


class RunningProcess(Settings):
    """A process, told from a later one of the same number."""

    pid: int
    created: float
    """When it began, in seconds since 1970, by this machine's clock of then."""
    boot_mark: str = ""
    """When it began, in ticks since the machine's start, which no change of the clock moves; empty if not known."""

    @property
    def process(self) -> psutil.Process | None:
        """The process, if it still runs; one that has ended and is not reaped does not."""
        try:
            found = psutil.Process(self.pid)
            same = (
                boot_mark(self.pid) == self.boot_mark if self.boot_mark else abs(found.create_time() - self.created) < 1
            )
            return found if same and found.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


class RunningService(RunningProcess):
    """A service as it was started."""

    name: str
    address: str
    ready: str
    at_least: dict[str, int] = Field(default_factory=dict)
    """Numbers that the JSON at `ready` must reach."""
    log: str
    restarts: int = 0
    """How often it ended by itself and was started again."""

    @property
    def works(self) -> bool:
        """Whether it answers as it should; running is enough where it can be asked nothing."""
        return not self.ready or answers(self.ready, self.at_least)

    def trouble(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.process is None:
            return f"has ended; read {self.log}"
        return "" if self.works else f"does not answer{self.wanted} at {self.ready}; read {self.log}"

    @property
    def wanted(self) -> str:
        """What the answer must say, for messages."""
        return "".join(f" with at least {number} {name}" for name, number in self.at_least.items())


class StackRecord(RunningProcess):
    """All services that one process started."""

    services: tuple[RunningService, ...]

    @property
    def runs(self) -> bool:
        """Whether anything of it still runs."""
        return self.process is not None or any(each.process for each in self.services)

    def write(self, folder: Path) -> None:
        """Replace the record of a folder, whole or not at all."""
        temporary = folder / "services.json.tmp"
        temporary.write_text(self.model_dump_json(indent=1))
        temporary.replace(folder / "services.json")


def identity(pid: int) -> Identity:
    """What tells a process that runs from all others."""
    return {"pid": pid, "created": psutil.Process(pid).create_time(), "boot_mark": boot_mark(pid)}


def boot_mark(pid: int) -> str:
    """The machine's start and the ticks from it to the process'; empty where there is no /proc, or no such process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{boot} {fields[19]}"


def answers(url: str, at_least: Mapping[str, int] | None = None) -> bool:
    """Whether a server of our own answers well; one that asks who we are does.

    `at_least` has numbers that its JSON must reach.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy can reach our own loopback
    try:
        with direct.open(url, timeout=5) as answer:
            found = json.load(answer) if at_least else {}
            return all(found[name] >= number for name, number in (at_least or {}).items())
    except urllib.error.HTTPError as error:
        with error:
            return error.code == http.HTTPStatus.UNAUTHORIZED
    except (OSError, http.client.HTTPException, ValueError, LookupError):
        return False


def ask_loopback_directly() -> None:
    """Have the libraries of this process and of its children ask this machine itself, not a proxy that is set."""
    stated = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    known = [each.strip() for each in stated.split(",") if each.strip()]
    more = [each for each in ("127.0.0.1", "localhost") if each not in known]
    os.environ.update(dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join([*known, *more])))


def read_record(folder: Path) -> StackRecord | None:
    """What was started from a folder, whether it still runs or not."""
    path = folder / "services.json"
    return StackRecord.model_validate(json.loads(path.read_text())) if path.exists() else None


def stop(folder: Path, seconds: float = _DOWN_SECONDS) -> StackRecord:
    """Stop what another process started, and wait until nothing of it runs; BadInput if nothing does.

    The record of what was killed goes either way. RunFailed if the process that started them takes longer to stop.
    """
    record = read_record(folder)
    if record is None or not (record.runs or left_behind(folder)):
        (folder / "services.json").unlink(missing_ok=True)
        raise BadInput(f"no service of {folder} runs", "only what runs can be stopped", "Start it: `gristmill up`")
    if (starter := record.process) is not None:
        starter.send_signal(signal.SIGTERM)
        if not _has_ended(record, seconds):
            raise RunFailed(
                f"process {record.pid}, which runs the services of {folder}, has not ended",
                f"it must within {seconds:.0f} seconds after it was asked to",
                "Read what it says, and the logs beside the record; wait, or kill it",
            )
    for each in record.services:  # of a starter that was killed: they were told to end then
        if not _has_ended(each, _OWN_END_SECONDS) and (left := each.process) is not None:
            left.kill()
            _has_ended(each, _OWN_END_SECONDS)
    end_all(lambda: left_behind(folder), seconds)
    (folder / "services.json").unlink(missing_ok=True)
    return record


def _has_ended(running: RunningProcess, seconds: float) -> bool:
    """Wait for it: not as a parent does, because whoever that is may never reap it."""
    end = time.monotonic() + seconds
    while running.process is not None:
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
