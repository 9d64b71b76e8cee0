"""Settings of what keeps a run safe: checkpoints, requests to stop, and what is done about an unhealthy step.

All are operational. With the defaults health changes no weights (it stops or reports); where a policy does change them,
what was skipped stands in the run's events.jsonl (see model.recovery.events), so that a run stopped by an event may go
on under another policy and a run that is killed and resumed ends in the same weights.
"""

from typing import Literal

from infra.settings import Settings, operational

Policy = Literal["report", "stop", "skip", "rollback"]


class CheckpointSettings(Settings):
    """When and how training state is written."""

    every_steps: int | None = operational(1000, ge=1)
    """Steps between checkpoints; unset writes only the last."""
    keep: int | None = operational(2, ge=1)
    """Newest checkpoints that are kept; unset keeps all."""
    keep_every: int | None = operational(None, ge=1)
    """Checkpoints of steps that this divides are kept beside the newest; unset keeps none of them."""
    asynchronous: bool = operational(False)
    """Whether training goes on while a checkpoint is written; takes a copy of the state in host memory."""
    stop_signals: tuple[Literal["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT"], ...] = operational(("SIGTERM",))
    """Signals after which a checkpoint is written and training stops; Slurm sends the one that --signal names."""
    grace_seconds: int = operational(55, ge=1)
    """Time from a stop signal to the end of the process, whatever it is waiting for; checkpoints stay whole."""


class HealthSettings(Settings):
    """What is held for unhealthy, and what is done about it.

    `report` only records an event, `stop` ends the run with an error, `skip` leaves out the batch's update and goes on
    with the next batch, `rollback` goes back to the checkpoint before and leaves out all batches since
    (arXiv:2204.02311, section 5.1). A batch that is left out is no step: the run still makes as many updates.
    """

    non_finite: Literal["stop", "skip", "rollback"] = operational("stop")
    """Policy for a loss or gradient norm that is infinite or not a number."""
    spike: Policy = operational("report")
    """Policy for a loss far above those before it."""
    spike_threshold: float = operational(6.0, gt=0)
    """Robust standard deviations above the median of the window that make a spike (6 as in OLMo-core's SkipStep)."""
    spike_least: float = operational(0.1, ge=0)
    """Nats above the median below which nothing is a spike, however small the deviations are."""
    window: int = operational(128, ge=8)
    """Losses before a step that it is compared with; half as many must be there."""
    spike_after: int = operational(100, ge=0)
    """First steps of the run, in which no spike is looked for."""
    rollback_margin: int = operational(0, ge=0)
    """Further batches that a rollback leaves out, behind the one of the event."""
    limit: int = operational(10, ge=0)
    """Most skips and rollbacks within `limit_steps` steps; the next event stops the run."""
    limit_steps: int = operational(1000, ge=1)
    """Steps over which skips and rollbacks are counted."""
    straggler: Literal["report", "stop"] = operational("report")
    """Policy for a process that is slower than the others; `stop` writes a checkpoint first."""
    straggler_every: int | None = operational(100, ge=1)
    """Steps between measurements of every process's speed; unset measures none."""
    straggler_factor: float = operational(1.5, gt=1)
    """Times the median of all processes that make a straggler, in two measurements running."""
