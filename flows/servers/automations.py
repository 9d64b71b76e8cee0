"""Automations of Prefect that ship with the deployments: a flow run whose process has died does not stay Running.

Every flow run sends a heartbeat. If neither the next one nor an end comes for some time, Prefect's server marks the
run Crashed. What it had finished is kept, so that the same run, started again, goes on. A run that lives on through a
longer outage of the server is marked too, and is Completed when it ends.
"""

from datetime import timedelta
from typing import Any

from pydantic import Field

from infra.settings import Settings

NAME = "Flow runs without heartbeats have crashed"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


class HeartbeatSettings(Settings):
    """When a flow run is taken for dead."""

    seconds: int = Field(default=60, ge=30)
    """Time between two heartbeats of a flow run; Prefect sends none more often than every 30 seconds."""
    missed: int = Field(default=5, ge=3)
    """How many heartbeats in a row must be missing."""

    @property
    def environment(self) -> dict[str, str]:
        """Variables of whatever starts flow runs."""
        return {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(self.seconds)}


def register_automations(client: Any, heartbeats: HeartbeatSettings) -> None:
    """Have a Prefect server watch heartbeats; what is there by the same name is brought up to date."""
    wanted = heartbeat_automation(heartbeats)
    known = client.read_automations_by_name(NAME)
    if known:
        client.update_automation(known[0].id, wanted.model_copy(update={"enabled": known[0].enabled}))
    else:
        client.create_automation(wanted)


def heartbeat_automation(heartbeats: HeartbeatSettings) -> Any:
    """The automation; see https://docs.prefect.io/v3/advanced/detect-zombie-flows."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    heartbeat, patience = "prefect.flow-run.heartbeat", heartbeats.missed * heartbeats.seconds
    return AutomationCore(
        name=NAME,
        description="A process that was killed cannot say so itself.",
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *(f"prefect.flow-run.{end}" for end in _ENDS)},
            match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=patience),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                message=f"No heartbeat for {patience} seconds: its process has died. Run it again and it goes on.",
                force=False,
            )
        ],
    )
