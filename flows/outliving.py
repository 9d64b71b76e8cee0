"""A flow run that has outlived the worker which started it: it has to see by itself when it is to end.

Only that worker would act when the run is cancelled, and only the `gristmill up` of both ends what workers left behind.
"""

import logging
import os
import signal
import threading
import time
from pathlib import Path
from uuid import UUID

from infra.left_behind import VARIABLE
from infra.running_services import read_record

logger = logging.getLogger(__name__)
INTERVAL_SECONDS = 5.0


def end_when_asked() -> None:
    """Watch in a thread until this process, that of a flow run, is to end; then end it in order."""
    run = UUID(os.environ["PREFECT__FLOW_RUN_ID"])
    while True:
        time.sleep(INTERVAL_SECONDS)
        if _is_cancelled(run):
            if _was_told_before():
                return
            logger.warning("cancelled, and the worker that would tell has ended")
            break
        if _servers_have_ended():
            logger.warning("`gristmill up` has ended, and the worker before: ending too")
            break
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGTERM)


def _is_cancelled(run: UUID) -> bool:
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run).state
    except Exception:  # noqa: BLE001 - a server that is away is asked again
        return False
    return state is not None and state.is_cancelling()


def _was_told_before() -> bool:
    """Whether the worker had told; have Prefect's engine report the cancellation itself, which a SIGTERM means now."""
    from prefect._internal import control_listener

    os.environ["PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS"] = "true"  # else that is left to the worker
    if control_listener.get_intent() is not None:
        return True
    control_listener._set_intent("cancel")  # pyright: ignore[reportPrivateUsage] - whoever would ask has ended
    return False


def _servers_have_ended() -> bool:
    """Whether we belong to a `gristmill up` that is gone."""
    folder = os.environ.get(VARIABLE)
    if folder is None:
        return False
    record = read_record(Path(folder))
    return record is None or record.process is None
