"""Commands beside a `gristmill up` of the same root use its servers: two would write the same databases."""

import logging
import os
import time
from pathlib import Path

from flows.servers.init import logins
from flows.servers.server import has_own_server
from flows.servers.stack import StackSettings, prefect_client, services_folder, settings_path
from infra.environment import Environment
from infra.errors import RunFailed
from infra.running_services import StackRecord, read_record
from infra.store import Store

logger = logging.getLogger(__name__)
START_SECONDS = 180.0
_NEEDED = ("prefect-server", "mlflow-server")


def running_stack(store: Store) -> StackSettings | None:
    """With what the `gristmill up` of a root runs; None where none does.

    One that starts, or has a server that starts again, is waited for; RunFailed if that takes long.
    """
    folder, end = services_folder(store.root) if store.is_local else None, time.monotonic() + START_SECONDS
    while folder is not None and (record := read_record(folder)) is not None and record.process is not None:
        if _serves(record):
            return StackSettings.model_validate_json(settings_path(folder).read_text())
        if time.monotonic() > end:
            raise RunFailed(
                f"`gristmill up` of {store.root} runs (process {record.pid}), and its servers do not answer",
                "a command beside it uses its servers",
                "Ask `gristmill status`, or stop it with `gristmill down`",
            )
        time.sleep(0.5)
    return None


def _serves(record: StackRecord) -> bool:
    needed = [each for each in record.services if each.name in _NEEDED]
    return len(needed) == len(_NEEDED) and not any(each.trouble() for each in needed)


def beside(stack: StackSettings, environment: Environment, root: Path) -> Environment:
    """Have Prefect and MLflow find the servers of a stack, each where the user has not said where another one is."""
    known = {} if stack.secrets is None else logins(stack.secrets, root)
    if not has_own_server():
        os.environ.update(prefect_client(stack, root))
        logger.info("Prefect: %s, which `gristmill up` serves", stack.prefect_url)
        _tell(known, "PREFECT_API_AUTH_STRING")
    if environment.mlflow_tracking_uri is not None:
        return environment
    _tell(known, "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    return environment.model_copy(update={"mlflow_tracking_uri": stack.mlflow_url})


def _tell(known: dict[str, str], *names: str) -> None:
    for name in names:
        if name in known:
            os.environ.setdefault(name, known[name])
