"""Runs as people name them."""

from pathlib import Path

from infra.errors import BadInput
from infra.store import Store


def find_run(store: Store, run: str) -> Path:
    """The folder of a run, given its name, NAME/VERSION-FINGERPRINT or a path; BadInput names what there is instead."""
    if (Path(run) / "run.json").exists():
        return Path(run)
    name = run.removeprefix("runs/").strip("/")
    within = [name] if "/" in name else [f"{name}/{each}" for each in store.names(f"runs/{name}")]
    found = [each for each in within if store.exists(f"runs/{each}/run.json")]
    if len(found) == 1:
        return store.local_path(f"runs/{found[0]}")
    known = found or [f"{each}/{one}" for each in store.names("runs") for one in store.names(f"runs/{each}")]
    raise BadInput(
        f"run {run}",
        f"it names one run under {store.full_path('runs')}; there are {', '.join(known) or 'none'}",
        "Name one of these",
    )
