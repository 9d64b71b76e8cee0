"""Plans of the flows that train and measure nothing: made without writing anything; their time is what that took."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from flows.comparison import compared
from flows.plans import Planned
from flows.plans.flow_plan import FlowPlan, concluded
from flows.plans.whole_plan import without_budget
from flows.promotion import foreseen
from infra.cost import Cost
from infra.environment import Environment
from infra.errors import BadInput
from infra.store import Store
from model.findings.comparing import ComparisonSettings
from model.findings.verdict import PromotionSettings
from tasks.retention import RetentionSettings, retain_texts


def plan_comparison(runs: Sequence[str], comparison: ComparisonSettings, environment: Environment) -> FlowPlan:
    """Plan a comparison: which steps and how many figures it would put beside each other."""

    def rehearse() -> list[str]:
        found = compared(Store(environment.root), runs, comparison)
        steps = ", ".join(f"{each.label} at step {each.step}" for each in found.runs)
        return [f"{steps}: {sum(len(table.rows) for table in found.tables)} rows in {len(found.tables)} tables"]

    return _rehearsed("compare", environment, rehearse)


def plan_promotion(run: str, promotion: PromotionSettings, environment: Environment) -> FlowPlan:
    """Plan a promotion: what its verdict would be now."""

    def rehearse() -> list[str]:
        verdict = foreseen(Store(environment.root), run, promotion, environment)
        return [f"{verdict.candidate} would be {verdict.reason}"]

    return _rehearsed("promote", environment, rehearse)


def plan_retention(retention: RetentionSettings, environment: Environment) -> FlowPlan:
    """Plan a retention: what would be deleted."""
    chosen = retention.model_copy(update={"dry_run": True})
    now = datetime.now(UTC)
    return _rehearsed(
        "retain", environment, lambda: retain_texts(Store(environment.root), chosen, now).text().splitlines()
    )


def _rehearsed(flow: Planned, environment: Environment, rehearse: Callable[[], list[str]]) -> FlowPlan:
    began = time.monotonic()
    notes: list[str] = []
    refused: tuple[str, ...] = ()
    try:
        notes = rehearse()
    except BadInput as error:
        refused = (f"{error.value}: {error.rule}. {error.remedy}",)
    seconds = time.monotonic() - began
    cost = Cost(core_hours=seconds / 3600)
    made = FlowPlan(flow=flow, cost=cost, seconds=seconds, notes=tuple(notes))
    plan = concluded(made, without_budget(environment))  # these flows ask for none
    return plan.model_copy(update={"refused": (*refused, *plan.refused)})
