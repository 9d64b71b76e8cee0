"""The run's events: what was unhealthy, and which samples were left out because of it. Nothing here imports torch.

    events.jsonl      in the run's folder; one line for each event, on disk before training goes on

The samples that training sees are those of the data's order without the skipped ones. This list is all that a resumed
run needs in order to leave out the same: it holds for whatever checkpoint the run goes on from.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from infra.settings import Settings
from infra.store import sync_path

Kind = Literal["loss not finite", "gradient norm not finite", "loss spike", "straggler"]


class SkippedSamples(Settings):
    """Samples that training leaves out, by their place in the data's order."""

    first: int
    count: int


class Event(Settings):
    """One thing that was unhealthy."""

    kind: Kind
    step: int
    """The update that was about to be made; for a straggler the last one made."""
    value: float | str
    """What was found; a number that JSON cannot hold is spelled out."""
    limit: float | None = None
    """What it was compared with."""
    action: Literal["report", "stop", "skip", "rollback"]
    first_sample: int | None = None
    """Place in the data's order of the batch's first sample."""
    samples: int = 0
    """Samples in the batch."""
    documents: tuple[str, ...] = ()
    """Documents in the batch, as far as they are named."""
    skipped: SkippedSamples | None = None
    """What is left out from now on."""
    back_to: int | None = None
    """Step of the checkpoint that a rollback goes back to."""
    detail: str = ""
    """For a straggler: its rank and host."""


def read_events(run_dir: Path) -> list[Event]:
    """Events in the order in which they happened; a last line that a killed process left unfinished is ignored."""
    path = run_dir / "events.jsonl"
    events: list[Event] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            events.append(Event.model_validate_json(line))
        except ValidationError:
            break
    return events


def append_event(run_dir: Path, event: Event) -> None:
    """Write one event behind the whole ones; it is on disk when this returns."""
    path = run_dir / "events.jsonl"
    lines = [each.model_dump_json() for each in (*read_events(run_dir), event)]
    temporary = path.with_suffix(".jsonl.tmp")
    with temporary.open("w") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_path(run_dir)


def skipped_samples(events: Iterable[Event]) -> tuple[SkippedSamples, ...]:
    """The ranges that events leave out, in order, those that overlap or touch made into one."""
    merged: list[SkippedSamples] = []
    for each in sorted((event.skipped for event in events if event.skipped), key=lambda each: each.first):
        before = merged[-1] if merged else None
        if before and each.first <= before.first + before.count:
            end = max(before.first + before.count, each.first + each.count)
            merged[-1] = SkippedSamples(first=before.first, count=end - before.first)
        else:
            merged.append(each)
    return tuple(merged)


def place_in_order(index: int, skipped: Sequence[SkippedSamples]) -> int:
    """Place in the data's order of the sample that training sees as its `index`-th, given ranges in order."""
    for each in skipped:
        if index < each.first:
            break
        index += each.count
    return index


def json_number(value: float) -> float | str:
    """The value, or its name where JSON has no way to write it."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return str(value)
    return value
