"""`gristmill up`: Prefect's server and worker, MLflow's server, Dask's scheduler and workers, on loopback.

Everything lies under the root: SQLite, artifacts, logs in `services/`. Every flow is registered as a deployment whose
form has the addresses filled in. What a run does is the same as without: these are the servers that a command starts
for itself otherwise.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import Field

from flows import progress
from flows.servers.automations import HeartbeatSettings
from flows.servers.init import logins
from flows.servers.server import OWNER_ALONE, make_home, server_variables
from infra.environment import Environment
from infra.errors import BadInput
from infra.running_services import RunningService, read_record, stop
from infra.services import Service, Services
from infra.settings import Settings, operational
from infra.store import Store

logger = logging.getLogger(__name__)
HOST = "127.0.0.1"
_MORE_STOP_SECONDS = 210.0
"""What servers may take to end, beside the flow runs."""


class StackSettings(Settings):
    """Where the services of `gristmill up` listen, always on loopback."""

    environment: Environment = operational(Environment())
    """Root of all files, and how many Dask workers."""
    prefect_port: int = Field(default=4200, ge=1, le=65535)
    """Port of Prefect's server and pages."""
    mlflow_port: int = Field(default=5000, ge=1, le=65535)
    """Port of MLflow's server and pages."""
    dask_port: int = Field(default=8786, ge=1, le=65535)
    """Port of Dask's scheduler."""
    dashboard_port: int = Field(default=8787, ge=1, le=65535)
    """Port of Dask's dashboard."""
    pool: str = "gristmill"
    """Prefect's work pool."""
    heartbeats: HeartbeatSettings = HeartbeatSettings()
    """When a flow run whose process has died is marked Crashed."""
    stop_seconds: float = operational(90.0, gt=0)
    """How long flow runs may take to end when all is stopped: their ranks write a checkpoint, for which they have
    `training.checkpoint.grace_seconds` (55), and 35 more for all else."""
    secrets: str | None = operational(None, min_length=1)
    """File of `gristmill init`, with which Prefect and MLflow ask for its logins, and Dask for certificates that only
    you can read; unset asks nobody: whoever else can log in to this machine can then run code as you."""

    @property
    def prefect_url(self) -> str:
        """Prefect's server."""
        return f"http://{HOST}:{self.prefect_port}"

    @property
    def mlflow_url(self) -> str:
        """MLflow's server."""
        return f"http://{HOST}:{self.mlflow_port}"

    @property
    def dask_address(self) -> str:
        """Dask's scheduler, over TLS where it asks who calls."""
        return f"{'tcp' if self.secrets is None else 'tls'}://{HOST}:{self.dask_port}"

    def used_by_flows(self, root: Path) -> Environment:
        """The environment that deployments are registered with."""
        update = {
            "root": str(root),
            "scheduler": self.dask_address,
            "mlflow_tracking_uri": self.mlflow_url,
        }
        return self.environment.model_copy(update=update)


class Addresses(Settings):
    """Where people find what runs."""

    prefect: str
    mlflow: str
    dask: str

    def text(self) -> str:
        """A line for each."""
        return f"Prefect  {self.prefect}\nMLflow   {self.mlflow}\nDask     {self.dask}"


class ServiceStatus(Settings):
    """A service as it is now."""

    name: str
    address: str
    pid: int
    since: str
    trouble: str
    """What is wrong; empty if nothing is."""
    restarts: int = 0
    """How often it ended by itself and was started again."""


class Status(Settings):
    """All services of a root."""

    root: str
    services: tuple[ServiceStatus, ...]

    def text(self) -> str:
        """A line for each service."""
        if not self.services:
            return f"Nothing runs for {self.root}; `gristmill up` starts it"
        return "\n".join(
            f"{each.name:<15} {each.trouble or 'runs':<10} {each.address:<28} since {each.since} (process {each.pid})"
            + (f", ended by itself and started again {each.restarts} times" if each.restarts else "")
            for each in self.services
        )


def services_folder(root: str) -> Path:
    """Where the services of a root have their logs; BadInput for a root of no folder."""
    store = Store(root)
    if not store.is_local:
        raise BadInput(
            f"root {root}",
            "`gristmill up` keeps its servers' databases and logs in a folder of this machine",
            "Name a folder; for a remote root use docker compose, or servers of your own (README.md)",
        )
    return store.local_path("services").absolute()


def settings_path(folder: Path) -> Path:
    """Where the settings of what runs are, in the folder of services."""
    return folder / "settings.json"


def status(root: str) -> Status:
    """What runs, where, since when, and what is wrong."""
    record = read_record(services_folder(root))
    found = tuple(map(_status, record.services)) if record is not None else ()
    return Status(root=str(Store(root).local_path("").absolute()), services=found)


def _status(running: RunningService) -> ServiceStatus:
    since = datetime.fromtimestamp(running.created, UTC).isoformat(timespec="seconds")
    return ServiceStatus(
        name=running.name,
        address=running.address,
        pid=running.pid,
        since=since,
        trouble=running.trouble(),
        restarts=running.restarts,
    )


def down(root: str) -> Status:
    """Stop the services of a root, after the flow runs and their checkpoints; BadInput if none runs."""
    folder = services_folder(root)
    file = settings_path(folder)
    settings = StackSettings.model_validate_json(file.read_text()) if file.exists() else StackSettings()
    stop(folder, settings.stop_seconds + _MORE_STOP_SECONDS)
    return status(root)


def up(settings: StackSettings, say: Callable[[Addresses], None]) -> None:
    """Start everything, say where it is, and stop it all on Ctrl-C, SIGTERM or `gristmill down`.

    A service that ends by itself is started again; RunFailed if one does not start, or ends too often in a row.
    """
    _refuse_other_servers(settings.environment)
    folder = services_folder(settings.environment.root)
    root = folder.parent
    os.environ.update(_prefect_environment(settings, root))
    if settings.secrets is not None:
        settings = settings.model_copy(update={"secrets": str(Path(settings.secrets).absolute())})
        os.environ.update(logins(str(settings.secrets), root))
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    with Services(folder) as services:
        settings_path(folder).write_text(settings.model_dump_json(indent=1))
        _close_to_others(root)
        if settings.secrets is not None:
            os.environ.update(_dask_certificates(folder / "dask-certificates"))
        _upgrade_mlflow(root)
        for service in _servers(settings, root):
            if asked.is_set():
                return
            began = time.monotonic()
            services.start(service)
            logger.info("%s: runs after %.0f s", service.name, time.monotonic() - began)
        _register(settings, root)
        services.start(_worker(settings))
        dask = f"http://{HOST}:{settings.dashboard_port}/status"
        say(Addresses(prefect=settings.prefect_url, mlflow=settings.mlflow_url, dask=dask))
        while not asked.wait(1):
            services.look_after()


def _close_to_others(root: Path) -> None:
    """Have databases, which the servers show to whom they know, be files of their owner alone."""
    make_home(root / "prefect")
    for name in ("mlflow.db", "mlflow_users.db"):
        with suppress(FileNotFoundError, PermissionError):  # its server makes it, or it is another's
            (root / name).chmod(0o600)


def _refuse_other_servers(environment: Environment) -> None:
    """BadInput for settings that say where servers are which are started here."""
    for name in ("scheduler", "mlflow_tracking_uri", "dask"):
        if getattr(environment, name) != getattr(Environment(), name):
            raise BadInput(
                f"environment.{name}={getattr(environment, name)}",
                "`gristmill up` starts Dask and MLflow of its own on this machine",
                "Leave it out; with servers of your own use `gristmill register` and a worker of Prefect",
            )


def _upgrade_mlflow(root: Path) -> None:
    """Bring MLflow's tables up to the installed version, if another one was here last: its server would refuse them.

    Prefect's server does so by itself.
    """
    used, installed = root / "services" / "mlflow-version", version("mlflow")
    external = os.environ.get("MLFLOW_BACKEND_STORE_URI")
    there = external is not None or (root / "mlflow.db").exists()
    if there and (not used.exists() or used.read_text() != installed):
        from infra.mlflow_database import migrate

        migrate(external or f"sqlite:///{root / 'mlflow.db'}")
    used.write_text(installed)


def prefect_client(settings: StackSettings, root: Path) -> dict[str, str]:
    """Variables with which Prefect finds the server; set before it is imported."""
    return {
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_API_URL": f"{settings.prefect_url}/api",
        "PREFECT_UI_URL": settings.prefect_url,
    }


def _prefect_environment(settings: StackSettings, root: Path) -> dict[str, str]:
    """What the server, the worker and we ourselves know of Prefect; set before it is imported."""
    return {
        **prefect_client(settings, root),
        **server_variables(settings.prefect_port),
        # In files below PREFECT_HOME: leases in memory would be gone with a server that is started again, and with the
        # lease Prefect ends the run of a deployment whose runs are limited.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(progress.PACKAGES),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # our own terminal has our own log
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
    }


def _dask_certificates(folder: Path) -> dict[str, str]:
    """Variables with which scheduler, workers and flows know one another, by certificates made for this start."""
    from infra.dask_clusters import make_certificates

    folder.mkdir(mode=0o700, exist_ok=True)
    found = {
        "CA_FILE" if name == "tls_ca_file" else name.removeprefix("tls_").upper().replace("_", "__"): path
        for name, path in make_certificates(folder).items()
    }
    return {f"DASK_DISTRIBUTED__COMM__TLS__{name}": path for name, path in found.items()}


def _servers(settings: StackSettings, root: Path) -> list[Service]:
    port = ["--host", HOST, "--port"]
    scheduler = settings.dask_address
    workers = settings.environment.workers or os.cpu_count() or 1
    memory = settings.environment.worker_memory
    return [
        Service(
            "prefect-server",
            "uvicorn",
            [
                *("prefect.server.api.server:create_app", "--factory", *port, str(settings.prefect_port)),
                *("--log-level", "warning", "--timeout-graceful-shutdown", "3"),
            ],
            settings.prefect_url,
            f"{settings.prefect_url}/api/ready",
            [settings.prefect_port],
            umask=OWNER_ALONE,
        ),
        Service(
            "mlflow-server",
            "mlflow",
            [
                *("server", *port, str(settings.mlflow_port), "--workers", "1"),
                *_backend_store(root),
                *("--artifacts-destination", str(root / "mlflow-artifacts")),
                # As paths: what only the server knows where to put, no command could add to when the server is gone.
                *("--default-artifact-root", (root / "mlflow-artifacts").as_uri()),
                *(() if settings.secrets is None else ("--app-name", "basic-auth")),
            ],
            settings.mlflow_url,
            f"{settings.mlflow_url}/api/2.0/mlflow/experiments/get?experiment_id=0",
            [settings.mlflow_port],
            {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            OWNER_ALONE,
        ),
        Service(
            "dask-scheduler",
            "distributed.cli.dask_scheduler",
            [
                *(*port, str(settings.dask_port), "--protocol", scheduler.partition(":")[0]),
                *("--dashboard-address", f"{HOST}:{settings.dashboard_port}"),
            ],
            f"http://{HOST}:{settings.dashboard_port}/status",
            f"http://{HOST}:{settings.dashboard_port}/health",
            [settings.dask_port, settings.dashboard_port],
        ),
        Service(
            "dask-workers",
            "distributed.cli.dask_worker",
            [
                *(scheduler, "--host", HOST, "--nworkers", str(workers), "--nthreads", "1", "--memory-limit", memory),
                *("--dashboard-address", f"{HOST}:0", "--local-directory", str(root / "dask")),
            ],
            ready=f"http://{HOST}:{settings.dashboard_port}/json/counts.json",
            at_least={"workers": workers},
            environment={"MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
        ),
    ]


def _backend_store(root: Path) -> list[str]:
    """SQLite under the root, or what MLflow's own variable says; a password in an argument could be read by anybody."""
    if "MLFLOW_BACKEND_STORE_URI" in os.environ:
        return []
    return ["--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}"]


def _worker(settings: StackSettings) -> Service:
    with socket.create_server((HOST, 0)) as any_port:
        port = any_port.getsockname()[1]
    return Service(
        "prefect-worker",
        "prefect",
        ["worker", "start", "--pool", settings.pool, "--with-healthcheck"],
        ready=f"http://{HOST}:{port}/health",  # which asks whether it has polled lately
        ports=[port],
        environment={
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
            "PREFECT_WORKER_WEBSERVER_HOST": HOST,
            "PREFECT_WORKER_WEBSERVER_PORT": str(port),
        },
        stop_seconds=settings.stop_seconds,
        children_go_on=True,
    )


def _register(settings: StackSettings, root: Path) -> None:
    from flows.servers.orphans import end_orphans
    from flows.servers.registration import register

    began = time.monotonic()
    names = register(settings.used_by_flows(root), settings.pool, settings.heartbeats)
    logger.info("%d deployments: registered in %.0f s", len(names), time.monotonic() - began)
    # A database of SQLite is this machine's alone, and its worker is not started yet.
    alone = "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in os.environ
    if alone and (ended := end_orphans(settings.pool)):
        logger.warning("%d flow runs were under way when the servers ended: marked Crashed", ended)
