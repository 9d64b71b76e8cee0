"""A Prefect server for as long as a command runs, where the user has none.

Prefect would start one by itself, but without its pages, and one that outlives a killed command.
"""

import atexit
import logging
import os
import shlex
import socket
import subprocess
import sys
import time
import tomllib
from contextlib import suppress
from pathlib import Path

from infra.address import masked
from infra.child import child_command
from infra.errors import RunFailed
from infra.running_services import answers
from infra.store import Store

logger = logging.getLogger(__name__)
START_SECONDS = 180.0
STOP_SECONDS = 10.0
OWNER_ALONE = 0o077
"""Mask of the files that servers make: their databases hold people's passwords, if only as hashes."""


def ensure_prefect_server(home: Path) -> None:
    """Have PREFECT_API_URL point at a server: the user's own if there is one, or one with its files in `home`.

    Must be called before Prefect is imported: the server is stopped when Python exits, and exit handlers run in
    reverse order, so that Prefect delivers its last logs first. RunFailed if the server does not start.
    """
    if has_own_server():
        return
    make_home(home)
    port, reservation = _port()
    address = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_UI_URL": f"http://127.0.0.1:{port}",
    }
    with (home / "server.log").open("ab") as log:
        arguments = ["prefect.server.api.server:create_app", "--factory", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(
            child_command("uvicorn", [*arguments, "--log-level", "warning", "--timeout-graceful-shutdown", "3"]),
            env={**os.environ, **address, **server_variables(port)},
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=OWNER_ALONE,
        )
    atexit.register(_stop, process, reservation)
    os.environ.update(address)
    _wait(process, f"{address['PREFECT_API_URL']}/ready", home / "server.log")
    logger.info("Prefect: %s while this runs", address["PREFECT_UI_URL"])


def make_home(folder: Path) -> None:
    """Make Prefect's folder, for its owner alone: the key of all Secret blocks is in the database there.

    Prefect does so itself, but not where it finds the folder made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(PermissionError):  # another's, who decides
        folder.chmod(0o700)


def server_variables(port: int) -> dict[str, str]:
    """Variables of a Prefect server of ours.

    By its default, pages of any other site that a person opens could use its API, and so run code as this user.
    """
    own_pages = f"http://127.0.0.1:{port},http://localhost:{port}"
    return {"PREFECT_SERVER_API_PORT": str(port), "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": own_pages}


def has_own_server() -> bool:
    """Whether the user has told Prefect where its server is, by environment or in the profile that is active."""
    if any(name in os.environ for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME")):
        return True
    profiles = Path.home() / ".prefect" / "profiles.toml"
    try:
        settings = tomllib.loads(profiles.read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return False
    return "PREFECT_API_URL" in settings.get("profiles", {}).get(settings.get("active", ""), {})


def reach_prefect_server() -> bool:
    """Whether Prefect knows the address of a server; RunFailed if that server cannot be used. Imports Prefect."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import get_current_settings

    if (address := get_current_settings().api.url) is None:
        return False
    try:
        with get_client(sync_client=True) as client:
            client.raise_for_api_version_mismatch()
    except (RuntimeError, ValueError, PrefectHTTPStatusError) as error:
        raise RunFailed(
            masked(f"Prefect's server {address} cannot be used ({error.__cause__ or error})"),
            "it must answer, know us, and be of our major version",
            "Start it, or correct PREFECT_API_URL and PREFECT_API_AUTH_STRING",
        ) from error
    return True


def look_further(store: Store) -> dict[str, str]:
    """The commands that open both UIs, by name."""
    root, programs = store.local_path("").absolute(), Path(sys.executable).parent
    mlflow = [str(programs / "mlflow"), "server", "--host", "127.0.0.1", "--port", "5000", "--backend-store-uri"]
    return {
        "MLflow": shlex.join([*mlflow, f"sqlite:///{root / 'mlflow.db'}"]),
        "Prefect": f"PREFECT_HOME={shlex.quote(str(root / 'prefect'))} "
        + shlex.join([str(programs / "prefect"), "server", "start"]),
    }


def _port() -> tuple[int, socket.socket]:
    """Prefect's usual port, so that links stay good when its server is started later; any other if it is taken.

    The server binds its port seconds later. Until it ends, a name that only one process can hold keeps other commands
    of ours away from the port, which would else take the first server that answers there for their own.
    """
    for wanted in (4200, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reservation = socket.socket(socket.AF_UNIX)
            try:
                probe.bind(("127.0.0.1", wanted))
                port = int(probe.getsockname()[1])
                reservation.bind(f"\0gristmill-prefect-{port}")
            except OSError:
                reservation.close()
                continue
            return port, reservation
    raise RunFailed("no free port on 127.0.0.1", "Prefect's server needs one", "Stop a program that holds many")


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if answers(url):
            return
        time.sleep(0.2)
    raise RunFailed(
        f"Prefect's server did not start ({url})",
        f"it must answer within {START_SECONDS:.0f} seconds",
        f"Read {log}, or set PREFECT_API_URL to a server that runs",
    )


def _stop(process: subprocess.Popen[bytes], reservation: socket.socket) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    reservation.close()
