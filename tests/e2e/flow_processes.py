"""A flow run as the operating system sees it, how far its work is, and settings of work that lasts long enough."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil

from infra.manifest import load_dataset
from infra.store import Store
from model.run import read_metrics
from tests.flows.stacks import Stack, ask, nested
from tests.flows.test_end_to_end import SETTINGS
from tests.tasks.documents import prose
from tests.tasks.records import CRAWL, members, page, response, warcinfo, write_crawl

STEPS = 300
TRAINING = {
    **{name: value for name, value in SETTINGS.items() if name.startswith("training.")},
    "training.duration.steps": STEPS,
    "training.dtype": "float32",
    "training.parallel.processes": 2,
    "training.checkpoint.every_steps": 100,
}
"""A training of about a minute, in two processes."""


def write_many_shards(root: Path, shards: int = 24) -> Path:
    """A crawl of many small shards: time to stop a stage in its middle."""
    texts = prose()
    write_crawl(
        root,
        [
            members(warcinfo(), *(response(f"https://docs.test/{shard}/{n}", page(text)) for n, text in own))
            for shard in range(shards)
            if (own := list(enumerate(texts))[shard % len(texts) :: len(texts) // 4])
        ],
    )
    return root


def corpus_parameters(crawl: Path, name: str, **more: Any) -> dict[str, Any]:
    """Parameters of build_corpus over its own."""
    corpus = {name: value for name, value in SETTINGS.items() if name.startswith("corpus.")}
    source = {"corpus.source.base_url": str(crawl), "corpus.source.crawl": CRAWL, "dataset.name": name}
    return nested({**corpus, **source, **more})


def training_parameters(name: str, **more: Any) -> dict[str, Any]:
    """Parameters of pretrain over its own: a run of this name on the dataset `crash`."""
    return {"run": name, **nested({"dataset.name": "crash", **TRAINING, **more})}


def environment_of(stack: Stack) -> dict[str, Any]:
    """The addresses that deployments are registered with."""
    found = ask_patiently(f"{stack.api}/deployments/name/pretrain/default")
    return found["parameters"]["environment"]


def processes_of(flow_run: str) -> list[psutil.Process]:
    """Every process of a flow run that is alive: the engine, the agent, ranks; they inherit its id."""
    found = []
    for each in psutil.process_iter():
        try:
            if each.environ().get("PREFECT__FLOW_RUN_ID") == flow_run and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def ranks_of(flow_run: str) -> list[psutil.Process]:
    return [each for each in processes_of(flow_run) if "model.train" in each.cmdline()[:4]]


def agent_of(flow_run: str) -> psutil.Process:
    (found,) = [each for each in processes_of(flow_run) if each.cmdline()[4:5] == ["torch.distributed.run"]]
    return found


def engine_of(flow_run: str) -> psutil.Process:
    (found,) = [each for each in processes_of(flow_run) if "prefect.engine" in each.cmdline()]
    return found


def rows_of(stack: Stack, run: str) -> list[dict[str, Any]]:
    """metrics.jsonl of a run; empty before it exists."""
    return [row for folder in (stack.root / "runs" / run).glob("*") for row in read_metrics(folder)]


def checkpoints_of(stack: Stack, run: str) -> list[int]:
    return sorted(
        int(path.name.removeprefix("step-")) for path in (stack.root / "runs" / run).glob("*/checkpoints/step-*")
    )


def await_step(stack: Stack, run: str, step: int) -> None:
    until(lambda: len(rows_of(stack, run)) >= step, f"step {step} of {run}")


def until(holds: Callable[[], Any], what: str, seconds: float = 400) -> float:
    """Seconds until something holds; AssertionError after many."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)
    return time.monotonic() - began


def cancel(stack: Stack, flow_run: str) -> None:
    """What the button of the UI does."""
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    assert ask_patiently(f"{stack.api}/flow_runs/{flow_run}/set_state", state)["status"] == "ACCEPT"


def state_of(stack: Stack, flow_run: str) -> str:
    return ask_patiently(f"{stack.api}/flow_runs/{flow_run}")["state_type"]


def logs_of(stack: Stack, flow_run: str) -> list[str]:
    wanted = {"logs": {"flow_run_id": {"any_": [flow_run]}}, "limit": 200, "sort": "TIMESTAMP_DESC"}
    return [each["message"] for each in ask_patiently(f"{stack.api}/logs/filter", wanted)]


def ask_patiently(url: str, body: Mapping[str, Any] | None = None, seconds: float = 180) -> Any:
    """As `ask`, of a server that may be away, or busy with its SQLite (503), for a while."""
    end = time.monotonic() + seconds
    while True:
        try:
            return ask(url, body)
        except OSError as error:
            refused = isinstance(error, HTTPError) and error.code != 503
            if refused or time.monotonic() > end:
                raise
            time.sleep(1)


def start(stack: Stack, deployment: str, parameters: Mapping[str, Any]) -> str:
    """Start FLOW/default with these parameters over its own; returns the id of the flow run."""
    found = ask_patiently(f"{stack.api}/deployments/name/{deployment}/default")
    made = ask_patiently(f"{stack.api}/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
    return made["id"]


def completed(stack: Stack, flow_run: str, seconds: float = 1200) -> None:
    """Wait until a flow run has ended well; AssertionError with its last lines if it ends otherwise."""
    ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    until(lambda: state_of(stack, flow_run) in ends, f"end of {flow_run}", seconds)
    assert state_of(stack, flow_run) == "COMPLETED", "\n".join(logs_of(stack, flow_run)[:30])


def build_dataset(stack: Stack, crawl: Path) -> None:
    """The dataset `crash`, which trainings here read."""
    completed(stack, start(stack, "build_corpus", corpus_parameters(crawl, "crash")))
    assert load_dataset(Store(str(stack.root)), "crash").tokens("train") > 5_000
