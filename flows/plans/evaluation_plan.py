"""What evaluations will take: forward passes over held-out text and the items of benchmarks."""

from collections.abc import Sequence

from flows.plans.training_plan import TrainingPlan
from infra.manifest import load_dataset
from infra.settings import Settings
from infra.store import Store
from model.config import EvaluationSettings

CHOICES, ITEM_TOKENS = 4, 150
"""Of a benchmark's item, where nothing else is known: MMLU has 4 choices, HellaSwag about 100 tokens in each."""
_ITEMS = 2000
"""Of a task without a limit."""


class EvaluationPlan(Settings):
    """What evaluations of the same kind will take; only its order of magnitude is certain."""

    times: int
    """So many are made in all."""
    processes: int
    """Among which each is shared."""
    heldout_tokens: float
    """Of one evaluation."""
    benchmark_tokens: float
    """Of one evaluation."""
    device_hours: float | None
    """Of one evaluation; unknown where the rate is."""

    @property
    def all_hours(self) -> float:
        """Device-hours of all of them, 0 where they are unknown."""
        return self.times * (self.device_hours or 0.0)


def plan_evaluation(
    settings: EvaluationSettings,
    trained: TrainingPlan,
    heldout: Sequence[float | None],
    *,
    times: int,
    processes: int,
    store: Store,
    baselines: bool = True,
) -> EvaluationPlan:
    """Plan forward passes: a third of a training's operations.

    `heldout` are the tokens of held-out splits, one of them the model's own, None where they are unknown; those that
    the settings name are added. With `baselines` a model's own is read untrained too.
    """
    own = [_read(settings, each) for each in heldout]
    named = [load_dataset(store, *each.split("/")).tokens("heldout") for each in settings.held_out]
    read = sum(own) + sum(_read(settings, each) for each in named)
    read += sum(own) / max(len(own), 1) if baselines else 0.0
    asked = len(settings.benchmarks.tasks) * (settings.benchmarks.limit or _ITEMS) * CHOICES * ITEM_TOKENS
    hours = trained.layouts[0].device_hours
    return EvaluationPlan(
        times=times,
        processes=processes,
        heldout_tokens=read,
        benchmark_tokens=asked,
        device_hours=None if hours is None else hours / trained.tokens * (read + asked) / 3,
    )


def _read(settings: EvaluationSettings, tokens: float | None) -> float:
    """Tokens that are read of a held-out split."""
    limit = settings.max_tokens
    known = [each for each in (limit, tokens) if each is not None]
    return min(known, default=0)
