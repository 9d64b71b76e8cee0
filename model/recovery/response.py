"""What is done about an unhealthy step, so that every rank does the same and a resumed run would do it again.

The event is on disk before anything else changes; a run that is killed at any moment after that goes on as if it had
not been (see model.recovery.events).
"""

import logging
from pathlib import Path

from infra.errors import RunFailed
from model.data.skips import place_of, skip
from model.recovery.checkpoint import CheckpointRecord
from model.recovery.events import Event, append_event, json_number
from model.recovery.health import Unhealthy
from model.settings.safety import Policy
from model.updates.step import Training

logger = logging.getLogger(__name__)

_NAMED_DOCUMENTS = 200


def respond(training: Training, finding: Unhealthy, run_dir: Path) -> bool:
    """Skip the batch of the next step, or go back (True); every rank calls this. RunFailed where the run is to stop."""
    settings, step = training.run.training.health, training.step + 1
    size = training.run.training.batches.at(step)
    policy: Policy = finding.policy
    why = "the settings of health say so"
    target: CheckpointRecord | None = None
    if (
        policy in ("skip", "rollback")
        and _recent_changes(training.events, step, settings.limit_steps) >= settings.limit
    ):
        policy, why = (
            "stop",
            f"this would be more than {settings.limit} skips and rollbacks in {settings.limit_steps} steps",
        )
    if policy == "rollback":
        training.checkpoints.finish()
        target = _target(training)
        if target is None:
            policy, why = "stop", "there is no checkpoint to go back to"
    skips = None
    if policy in ("skip", "rollback"):
        first = target.consumed_samples if target else training.consumed_samples
        margin = settings.rollback_margin if target else 0
        skips = skip(training.skips, first, training.consumed_samples + size * (1 + margin))
    event = _event(training, finding, policy, size).model_copy(
        update={"skips": skips, "back_to": target.step if target else None}
    )
    record_event(training, event, run_dir)
    if policy == "stop":
        training.checkpoints.finish()
        raise _stopped(event, why)
    if target:
        _go_back(training, target)
    training.schedule.num_steps = training.step
    return target is not None


def report(training: Training, finding: Unhealthy, run_dir: Path) -> None:
    """Record a finding about the step that was just made, with no other consequence."""
    size = training.run.training.batches.at(training.step)
    record_event(training, _event(training, finding, "report", size, made=True), run_dir)


def record_straggler(training: Training, slow: tuple[str, float, float], run_dir: Path, seconds: float) -> None:
    """Record a process that stays slow; RunFailed, after a checkpoint, where that is the policy."""
    who, taken, limit = slow
    action = training.run.training.health.straggler
    event = Event(kind="straggler", step=training.step, value=taken, limit=limit, action=action, detail=who)
    record_event(training, event, run_dir)
    if action == "stop":
        training.save(seconds, wait=True)
        raise RunFailed(
            f"{who} took {taken * 1e3:.1f} ms for work that the others do in {limit * 1e3:.1f} ms or less",
            "health.straggler stops the run, because all processes wait for the slowest",
            "Leave that machine or device out and run the same command again",
        )


def record_event(training: Training, event: Event, run_dir: Path) -> None:
    """Have the event on disk, in memory and in the log; one that a resumed run meets again is recorded once."""
    if event in training.events:
        return
    if training.place.rank == 0:
        append_event(run_dir, event)
        done = {"rollback": f"going back to step {event.back_to}", "skip": "its batch is left out"}
        logger.warning(
            "%s at step %d (%s): %s", event.kind, event.step, event.value, done.get(event.action, event.detail)
        )
    training.place.wait_for_all()
    training.events.append(event)


def _recent_changes(events: list[Event], step: int, steps: int) -> int:
    return sum(event.skips is not None and event.step > step - steps for event in events)


def _target(training: Training) -> CheckpointRecord | None:
    """The newest whole checkpoint; where an earlier rollback went to the same one in vain, the one before."""
    newest = training.checkpoints.latest()
    if newest and newest.step in {event.back_to for event in training.events}:
        return training.checkpoints.latest(upto=newest.step - 1) or newest
    return newest


def _go_back(training: Training, target: CheckpointRecord) -> None:
    training.checkpoints.remove_after(target.step)
    training.checkpoints.load(target, [chunk.module for chunk in training.chunks], training.optimizer)
    training.health.restart(target.losses)
    training.step = training.saved_step = target.step
    training.consumed_samples = target.consumed_samples


def _event(training: Training, finding: Unhealthy, policy: Policy, size: int, *, made: bool = False) -> Event:
    first = training.consumed_samples - (size if made else 0)
    places = place_of(first, training.skips), place_of(first + size - 1, training.skips) + 1
    return Event(
        kind=finding.kind,
        step=training.step + (not made),
        value=json_number(finding.value),
        limit=finding.limit,
        action=policy,
        places=places,
        documents=_documents(training, first, size),
    )


def _documents(training: Training, first: int, size: int) -> tuple[str, ...]:
    """Ids of the documents in a batch, each once."""
    order, found = training.loader.order, dict[str, None]()
    for sample in range(first, first + size):
        source, pieces = order.sample(place_of(sample, training.skips))
        documents = order.sources[source].documents
        found |= dict.fromkeys(documents.name(int(document)) for document in pieces.documents)
    return tuple(list(found)[:_NAMED_DOCUMENTS])


def _stopped(event: Event, why: str) -> RunFailed:
    documents = ", ".join(event.documents[:5]) + (", ..." if len(event.documents) > 5 else "")
    return RunFailed(
        f"{event.kind} ({event.value}) at step {event.step}, in a batch with the documents {documents}",
        f"training stops here because {why}; events.jsonl in the run's folder has the whole list",
        "Lower optimizer.learning_rate or lengthen optimizer.warmup_steps, or have health skip the batch or roll back; "
        "checkpoints before this step are kept",
    )
