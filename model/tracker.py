"""The process that tells MLflow of a training while it runs: `python -m model.tracker RUN_DIR`.

Ranks write files and never wait for a server; this process, a child of the rank that reports, reads the run's folder
(see model.delivery) and this machine's load. On further machines of a job a child of their first rank samples the load
alone. It outlives a rank that is killed for as long as it takes to deliver what that one wrote, and then marks the
MLflow run as killed, unless whoever launched it has said already how it ended.
"""

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from infra.run_description import set_tags
from infra.settings import Settings
from infra.software import hardware_tags
from infra.store import Store
from infra.system_metrics import SystemMetrics
from infra.tracking import Tolerant, TrackedRun, client_of, is_open
from model.delivery import CostMeter, Delivery, deliver_samples, delivering_alone
from model.run import LaunchRecord, RunRecord, load_launch, open_run_folder

if TYPE_CHECKING:
    from model.parallel import Place

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 5.0
_MOST_SECONDS = 60.0
_SHARE = 0.1
"""Most of the time that deliveries may take."""
_FINISHED = b"finished"
_PATIENCE_SECONDS = 300.0
_PATIENCE_AFTER_STOP_SECONDS = 15.0
"""A rank that was asked to stop has little time; the process beside it then goes on alone."""
_LAST_SECONDS = 120.0
"""From the rank's end to that of the process beside it, whatever it is waiting for."""


class Post(Settings):
    """What a tracker is there for."""

    node: int | None = None
    """Number of its machine, where a job has several."""
    reports: bool = True
    """Whether it delivers the run, or this machine's load alone."""
    gpus: int = 0
    """Of all ranks."""
    cores: int = 1
    """Threads of all ranks; none of ranks with GPUs, whose cores are a part of what an hour of a GPU costs."""
    rank: int = 0
    """Process id of the rank that it is beside."""
    started: float = 0.0
    """When that began, in seconds since 1970; it may be gone before anyone asks."""


def post_of(place: "Place", *, threads: int) -> Post | None:
    """What a tracker beside this rank is there for; None beside most ranks. Every rank calls this."""
    node, devices = int(os.environ.get("GROUP_RANK", "0")), place.processes
    ranks = place.gather_everywhere((node, place.is_reporter))
    nodes, reporting = {each for each, _ in ranks}, [each for each, reports in ranks if reports]
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if not place.is_reporter and not (first and node not in reporting):
        return None
    return Post(
        node=node if len(nodes) > 1 else None,
        reports=place.is_reporter,
        gpus=devices if place.device.type == "cuda" else 0,
        cores=0 if place.device.type == "cuda" else devices * threads,
    )


class Tracker:
    """Runs the process beside a rank, if the run is tracked at all; closed when the rank's work is done."""

    def __init__(self, store: Store, run: RunRecord, post: Post) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.finished = False
        """Set when training is complete: then all of it is delivered before the rank ends."""
        if load_launch(store, run).tracked is not None:
            folder = str(store.local_path(run.folder).absolute())
            own = {"rank": os.getpid(), "started": psutil.Process().create_time()}
            post = post.model_copy(update=own)
            command = [sys.executable, "-m", "model.tracker", folder, post.model_dump_json()]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is None or self.process.stdin is None:
            return
        with suppress(BrokenPipeError):
            self.process.stdin.write(_FINISHED if self.finished else b"")
            self.process.stdin.close()
        try:
            self.process.wait(_PATIENCE_SECONDS if self.finished else _PATIENCE_AFTER_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("MLflow has not taken all of the run yet; it is delivered as far as that takes two minutes")


def main(run_dir: str, settings: str) -> None:
    """Deliver until the rank ends."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the rank is asked to stop, and tells when it has
    os.nice(5)
    store, run, _ = open_run_folder(Path(run_dir))
    launch, post = load_launch(store, run), Post.model_validate_json(settings)
    if launch.tracked is None:
        return
    if not post.reports:
        _Watch(launch, launch.tracked, post).run()
        return
    with delivering_alone(store, run):
        _Reporting(store, run, launch, launch.tracked, post).run()


class _Watch:
    """Deliveries as long as the rank lives, and one after its end: of this machine's load alone."""

    def __init__(self, launch: LaunchRecord, tracked: TrackedRun, post: Post) -> None:
        self.tracked, self._parent = tracked, post.rank
        seconds = launch.system_metrics_seconds
        self._system = None if seconds is None else SystemMetrics(seconds, post.node)

    def run(self) -> None:
        """Until the rank's end, and then once more."""
        said, wait = None, 0.0
        while (said := self._listen(wait)) is None:
            started = time.monotonic()
            with Tolerant("what is new of the run, kept for later,"):
                self.deliver()
            wait = min(max(_EVERY_SECONDS, (time.monotonic() - started) / _SHARE), _MOST_SECONDS)
        limit = threading.Timer(_LAST_SECONDS, os._exit, (1,))
        limit.daemon = True
        limit.start()
        if self._system:
            self._system.close()
        with Tolerant("the rest of the run; the next launch delivers it"):
            self.finish(said)

    def _listen(self, seconds: float) -> bytes | None:
        """What the rank said at its end; None while it lives."""
        end = time.monotonic() + seconds
        while True:
            ready, _, _ = select.select([sys.stdin.buffer], [], [], min(max(end - time.monotonic(), 0), 1.0))
            if ready:
                return sys.stdin.buffer.read()
            if os.getppid() != self._parent:
                return b""
            if time.monotonic() >= end:
                return None

    def deliver(self) -> None:
        """Send what is new."""
        if self._system:
            deliver_samples(self._system, self.tracked)

    def finish(self, said: bytes) -> None:
        """Send the rest, when the rank has said how it ended."""
        self.deliver()


class _Reporting(_Watch):
    """The same, and of all that is in the run's folder."""

    def __init__(self, store: Store, run: RunRecord, launch: LaunchRecord, tracked: TrackedRun, post: Post) -> None:
        super().__init__(launch, tracked, post)
        self._cost = CostMeter(store, run, launch, started=post.started, gpus=post.gpus, cores=post.cores)
        self._delivery = Delivery(store, run, tracked, self._cost)
        self._greeted = False

    def deliver(self) -> None:
        """Send what is new."""
        self._cost.save()
        if not self._greeted:
            client = client_of(self.tracked)
            client.update_run(self.tracked.run_id, status="RUNNING")  # a scheduler may have started the ranks again
            self._greet(client)
        self._delivery.deliver()
        super().deliver()

    def _greet(self, client: Any) -> None:
        set_tags(client, self.tracked.run_id, hardware_tags())
        self._greeted = True

    def finish(self, said: bytes) -> None:
        """Send the rest; a rank that has not said that training is complete has left it unfinished."""
        self._cost.save(now=True)
        client = client_of(self.tracked)
        if not self._greeted:
            self._greet(client)
        self._delivery.finish()
        super().deliver()
        if said != _FINISHED and is_open(self.tracked):
            client.set_terminated(self.tracked.run_id, "KILLED")


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING)
    main(*sys.argv[1:])
