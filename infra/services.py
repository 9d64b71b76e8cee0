"""Programs that serve others, started together and stopped together: a team's servers on one machine.

Each is a child in a process group of its own, with a log file; it dies with the process that started it. What runs is
written down in one file, so that another process can ask for it and stop it (`infra.running_services`). One that ends
by itself is started again, after a pause that doubles, a few times in a row.
"""

import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from infra.child import child_command
from infra.errors import RunFailed
from infra.left_behind import end_all, inherited, left_behind
from infra.lock import only_one
from infra.running_services import RunningService, StackRecord, identity, read_record
from infra.store import Store

logger = logging.getLogger(__name__)
START_SECONDS = 180.0
STOP_SECONDS = 20.0
LEFT_SECONDS = 100.0
"""What was left behind has ended by then: `infra.child` sees to it."""
RESTARTS = 5
"""How often in a row a service is started again."""
FIRST_PAUSE_SECONDS = 1.0
"""Before the first of them; it doubles from one to the next."""
STEADY_SECONDS = 600.0
"""A service that has run for so long is taken for sound: the next end is the first in a row."""


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
    ports: Sequence[int] = ()
    """Where it listens on loopback: what answers there before it is started is not the service."""
    environment: Mapping[str, str] = field(default_factory=dict)
    umask: int = -1
    """Of the files that it makes; by default that of this process."""
    stop_seconds: float = STOP_SECONDS
    """How long it, and then what goes on without it, may take to end after SIGTERM before it is killed."""
    children_go_on: bool = False
    """Whether what it has started goes on when it ends by itself; else that ends before it is started again. When it is
    stopped they are told to end themselves, which they would not be if it was asked to stop: Prefect's worker kills."""
    at_least: Mapping[str, int] = field(default_factory=dict)
    """Numbers that the JSON at `ready` must reach."""


@dataclass
class _Kept:
    """A service, its process, and how it has fared."""

    service: Service
    process: subprocess.Popen[bytes]
    running: RunningService
    since: float = field(default_factory=time.monotonic)
    """When it was started, by a clock that nobody sets."""
    in_a_row: int = 0
    """How often it was started again since it last ran steadily."""
    due: float | None = None
    """When it is to be started again, after it has ended."""


class Services:
    """Starts services one after the other; leaving the block stops them, the last one first."""

    def __init__(self, folder: Path) -> None:
        """`folder` takes logs and the record."""
        self._folder = folder
        self._kept: list[_Kept] = []
        self._held = ExitStack()

    def __enter__(self) -> "Services":
        """RunFailed if services of the folder run already."""
        self._folder.mkdir(parents=True, exist_ok=True)
        record = read_record(self._folder)
        if record is not None and record.process is not None:
            raise RunFailed(
                f"services of {self._folder} run already (process {record.pid})",
                "one set of services runs at a time",
                "Stop them with `gristmill down`",
            )
        self._held.enter_context(only_one(Store(str(self._folder)), "up.lock", f"`gristmill up` in {self._folder}"))
        if left := left_behind(self._folder):
            logger.warning("%d programs of an earlier `gristmill up` still run: they are to end first", len(left))
            end_all(lambda: left_behind(self._folder), LEFT_SECONDS)
        self._write()
        return self

    def __exit__(self, *_: object) -> None:
        with self._held:
            for each in reversed(self._kept):
                logger.info("%s: stopping", each.service.name)
                self._stop(each)
            (self._folder / "services.json").unlink(missing_ok=True)

    def _stop(self, kept: _Kept) -> None:
        service, sessions = kept.service, [each.process.pid for each in self._kept]
        if service.children_go_on and (left := left_behind(self._folder, sessions)):
            logger.info(
                "%s: %d programs of its runs end, for at most %.0f s", service.name, len(left), service.stop_seconds
            )
            kept.process.kill()
            end_all(lambda: left_behind(self._folder, sessions), service.stop_seconds)
        stop_group(kept.process, service.stop_seconds)

    def start(self, service: Service, seconds: float = START_SECONDS) -> RunningService:
        """Start one and wait until it answers; RunFailed with the end of its log if it does not in time.

        RunFailed too if another program has one of its ports.
        """
        for port in service.ports:
            _require_free(port, service.name)
        (self._folder / f"{service.name}.log").unlink(missing_ok=True)
        kept = _Kept(service, *self._spawn(service))
        self._kept.append(kept)
        self._write()
        _wait(kept, seconds)
        return kept.running

    def _spawn(self, service: Service, restarts: int = 0) -> tuple[subprocess.Popen[bytes], RunningService]:
        log = self._folder / f"{service.name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                child_command(service.module, service.arguments),
                env={**os.environ, **service.environment, **inherited(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=service.umask,
            )
        return process, RunningService(
            **identity(process.pid),
            name=service.name,
            address=service.address,
            ready=service.ready,
            at_least=dict(service.at_least),
            log=str(log),
            restarts=restarts,
        )

    def _write(self) -> None:
        services = tuple(each.running for each in self._kept)
        StackRecord(**identity(os.getpid()), services=services).write(self._folder)

    def look_after(self) -> None:
        """Start again what has ended by itself; to be called about every second.

        It returns at once: a service comes back after a pause, and answers when it is ready. RunFailed for one that
        has ended too often in a row.
        """
        for each in self._kept:
            if each.due is not None:
                self._start_again(each)
            elif (code := each.process.poll()) is not None:
                _note_end(each, code)

    def _start_again(self, kept: _Kept) -> None:
        assert kept.due is not None, "it has ended"
        if time.monotonic() >= kept.due:
            if not kept.service.children_go_on:  # they may hold its port
                stop_group(kept.process)
            kept.process, kept.running = self._spawn(kept.service, kept.running.restarts + 1)
            kept.since, kept.due = time.monotonic(), None
            self._write()
            logger.warning("%s: started again (%d of %d in a row)", kept.service.name, kept.in_a_row, RESTARTS)


def _note_end(kept: _Kept, code: int) -> None:
    """Decide when a service that has ended is started again; RunFailed if it is not."""
    if time.monotonic() - kept.since > STEADY_SECONDS:
        kept.in_a_row = 0
    if kept.in_a_row == RESTARTS:
        raise RunFailed(
            f"{kept.service.name} ended by itself {RESTARTS + 1} times in a row",
            "all services must run",
            f"Read {kept.running.log}",
        )
    pause = FIRST_PAUSE_SECONDS * 2**kept.in_a_row
    kept.in_a_row += 1
    kept.due = time.monotonic() + pause
    logger.warning(
        "%s: ended by itself (code %d), starts again in %.0f s; see %s",
        kept.service.name,
        code,
        pause,
        kept.running.log,
    )


def _wait(kept: _Kept, seconds: float) -> None:
    running, end = kept.running, time.monotonic() + seconds
    while time.monotonic() < end and kept.process.poll() is None:
        if running.works and _listens_itself(kept):
            return
        time.sleep(0.2)
    lines = Path(running.log).read_text(errors="replace").splitlines()[-5:]
    raise RunFailed(
        f"{running.name} did not start: {' | '.join(lines) or 'it said nothing'}",
        f"it must answer{running.wanted} at {running.ready} within {seconds:.0f} seconds",
        f"Read {running.log}; another program may hold its port",
    )


def _require_free(port: int, name: str) -> None:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return
    holder = _listener(port)
    who = "another program" if holder is None else f"process {holder.pid} ({holder.name()})"
    raise RunFailed(
        f"{name}: {who} listens on port {port} already",
        "a service has its ports to itself",
        "Stop that program, or choose another port with --set; --help names them",
    )


def _listens_itself(kept: _Kept) -> bool:
    """Whether it still runs, and nobody else is known to have been quicker to take its ports."""
    holders = [holder for port in kept.service.ports if (holder := _listener(port)) is not None]
    with suppress(ProcessLookupError):
        return kept.process.poll() is None and all(os.getsid(each.pid) == kept.process.pid for each in holders)
    return False


def _listener(port: int) -> psutil.Process | None:
    """Who listens on a port of this machine; None where nobody does, or we may not know who."""
    with suppress(psutil.Error):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and tuple(each.laddr)[1:] == (port,) and each.pid is not None:
                return psutil.Process(each.pid)
    return None


def stop_group(process: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> None:
    """Ask a process to end, or, if it has ended already, what it left of its group; then kill what is left."""
    end = time.monotonic() + seconds
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    elif _signal_group(process.pid, signal.SIGTERM):
        while _signal_group(process.pid, 0) and time.monotonic() < end:
            time.sleep(0.1)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: int) -> bool:
    """Send a signal, or with 0 none, to all processes of a group; False if there is none."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
