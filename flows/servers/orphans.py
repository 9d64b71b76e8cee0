"""Flow runs that were under way when `gristmill up` was killed: nobody is left to say how they ended."""

from collections.abc import Mapping
from typing import Any

_UNDER_WAY: Mapping[str, Any] = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}


def end_orphans(pool: str) -> int:
    """Mark the runs of a work pool that are under way Crashed, or Cancelled where that was asked for; says how many.

    For a pool none of whose workers runs: their flow runs ended with them. Runs of other pools, and those of commands,
    are left alone.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
    from prefect.states import Cancelled, Crashed

    message = "`gristmill up` ended while it was under way. Run it again and it goes on."
    in_pool = WorkPoolFilter.model_validate({"name": {"any_": [pool]}})
    with get_client(sync_client=True) as client:
        state = FlowRunFilter.model_validate({"state": _UNDER_WAY})
        found = client.read_flow_runs(flow_run_filter=state, work_pool_filter=in_pool)
        ended = 0
        while found:
            for run in found:
                cancelled = run.state is not None and run.state.is_cancelling()
                client.set_flow_run_state(run.id, Cancelled() if cancelled else Crashed(message=message), force=True)
            ended += len(found)
            parts = {"parent_flow_run_id": {"any_": [run.id for run in found]}, "state": _UNDER_WAY}
            found = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(parts))
    return ended
