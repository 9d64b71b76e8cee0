"""The run's events: what was unhealthy, and which samples were left out because of it. Nothing here imports torch.

    events.jsonl      in the run's folder; one line for each event, on disk before training goes on

The samples that training sees are those of the data's order without the skipped ones (see model.data.skips). This
record is all that a resumed run needs in order to leave out the same, from whatever checkpoint it goes on.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from infra.settings import Settings
from infra.store import sync_path
from model.data.skips import Skips

Kind = Literal["loss not finite", "gradient norm not finite", "loss spike", "straggler"]


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
    places: tuple[int, int] | None = None
    """The batch's places in the data's order, the end excluded."""
    documents: tuple[str, ...] = ()
    """Documents in the batch, as far as they are named."""
    skips: Skips | None = None
    """All that the run leaves out from now on; none where the event changed nothing of it."""
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


def current_skips(events: Iterable[Event]) -> Skips:
    """What the run leaves out after these events."""
    return next((event.skips for event in reversed(list(events)) if event.skips is not None), ())


def json_number(value: float) -> float | str:
    """The value, or its name where JSON has no way to write it."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return str(value)
    return value
