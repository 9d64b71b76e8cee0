"""Tasks of lm-evaluation-harness by name, ready to be asked: loaded, checked and their prompts built.

The harness's own YAML decides prompts, answers and metrics. Names are looked for in `tasks_dir` first; the harness's
index of thousands of tasks, which takes seconds, is read only for a name that is not there. Nothing here needs a model,
so that whatever is wrong with a task is known before weights are loaded. Rank 0 alone calls this.
"""

import hashlib
import io
import json
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from infra.errors import BadInput
from infra.sandbox import check_sandbox
from model.benchmarks import code_execution
from model.benchmarks.task_checks import build_requests, config_error
from model.benchmarks.task_data import TaskData
from model.settings.benchmarks import BenchmarkSettings

_SANDBOXED = {each.__name__: each for each in (code_execution.pass_at_k, code_execution.build_predictions)}
"""What stands in for functions of the harness that would fetch code from the hub and run programs unguarded."""


@dataclass(frozen=True)
class LoadedTasks:
    """Tasks that were asked for, each with its requests."""

    tasks: Mapping[str, Any]
    """The harness's `Task` objects by name; their `instances` are built."""
    groups: Mapping[str, Any]
    """The harness's `Group` objects by name, those within groups too."""
    group_map: Mapping[str, list[str]]
    """Children of each group: tasks and groups."""
    members: Mapping[str, tuple[str, ...]]
    """Tasks of each group and of each tag that was asked for, over all levels, sorted."""
    digest: str
    """SHA-256 over every item that is asked, with its prompts, examples, answers and way of scoring."""

    def task_dict(self) -> dict[str, Any]:
        """What `lm_eval.evaluate` takes as `task_dict`, with requests that nobody has answered yet."""
        for task in self.tasks.values():
            for instance in task.instances:
                instance.resps, instance.filtered_resps = [], {}
        return {"tasks": dict(self.tasks), "groups": dict(self.groups), "group_map": dict(self.group_map)}


def load_tasks(settings: BenchmarkSettings) -> LoadedTasks:
    """The tasks that are asked for; BadInput names the task, and the item, with which something is wrong."""
    names = list(dict.fromkeys(settings.tasks))
    with _quiet(), templates_compiled_once():
        manager = _manager(names, settings.tasks_dir)
        were_read: list[TaskData] = []
        for leaf in _all_leaves(manager, names):
            _prepare(manager.task_index[leaf], settings, were_read)
        with config_error(" ".join(names), were_read):
            found = manager.load(names)
        sources = {each.task: each for each in were_read}
        for name, task in found["tasks"].items():
            _set_examples(name, task, settings)
            build_requests(name, task, settings.limit, sources.get(name))
    members = {
        **{name: tuple(sorted(each.task_name for each in g.get_all_tasks())) for name, g in found["groups"].items()},
        **{name: tuple(_leaves(manager, name)) for name in names if manager.task_index[name].kind.name == "TAG"},
    }
    digest = _digest(found["tasks"])
    return LoadedTasks(found["tasks"], found["groups"], found["group_map"], members, digest)


def _manager(names: Sequence[str], tasks_dir: str | None) -> Any:
    """An index that has all names."""
    from lm_eval.tasks import TaskManager

    if tasks_dir is not None and not Path(tasks_dir).is_dir():
        raise BadInput(
            f"benchmarks.tasks_dir = {tasks_dir}", "it must be a folder", "Correct it; `gristmill benchmarks` makes one"
        )
    if tasks_dir is not None:
        manager = TaskManager(include_path=tasks_dir, include_defaults=False)
        if all(name in manager.task_index for name in names):
            return manager
        _check_files(Path(tasks_dir))
    manager = TaskManager(include_path=tasks_dir)
    for name in names:
        if name not in manager.task_index:
            _unknown(name, manager.all_tasks, tasks_dir)
    return manager


def _check_files(folder: Path) -> None:
    """Refuse YAML files that the harness would pass over in silence."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for path in sorted(folder.rglob("*.yaml")):
        try:
            load_yaml(path, resolve_func=False)
        except Exception as error:  # YAML, includes and their files fail in many ways
            raise BadInput(
                f"{path} ({error})", "a YAML file in tasks_dir must describe a task of the harness", "Correct it"
            ) from error


def _unknown(name: str, known: Sequence[str], tasks_dir: str | None) -> None:
    near = get_close_matches(name, known, n=5, cutoff=0.5)
    places = f"{tasks_dir} and lm-evaluation-harness have" if tasks_dir is not None else "lm-evaluation-harness has"
    raise BadInput(
        f"benchmarks.tasks has {name}",
        f"{places} no task, group or tag of that name",
        f"Take one that is there, such as {', '.join(near)}" if near else "Correct the name",
    )


def _all_leaves(manager: Any, names: Sequence[str]) -> list[str]:
    """Names of all tasks; BadInput where one would be asked twice."""
    found: dict[str, str] = {}
    for name in names:
        for leaf in _leaves(manager, name):
            if found.setdefault(leaf, name) != name:
                raise BadInput(
                    f"benchmarks.tasks has {found[leaf]} and {name}",
                    f"{leaf} belongs to both and would be asked twice",
                    "Remove one of them; a group's report has its parts",
                )
    return list(found)


def _leaves(manager: Any, name: str) -> Iterator[str]:
    """Names of the tasks that a task, group or tag comes to; BadInput where a member is missing."""
    entry = manager.task_index[name]
    if entry.kind.name == "TAG":
        yield from sorted(entry.tags)
    elif entry.kind.name == "GROUP":
        for member in entry.cfg["task"] if isinstance(entry.cfg.get("task"), list) else []:
            inner = member if isinstance(member, str) else member.get("group", member.get("task"))
            if inner in manager.task_index:
                yield from _leaves(manager, inner)
            elif isinstance(member, str):
                raise BadInput(f"group {name} has {member}", "its members must be there", "Add the task, or remove it")
    else:
        yield name


def _prepare(entry: Any, settings: BenchmarkSettings, were_read: list[TaskData]) -> None:
    """Put a resolved configuration in place of a task's YAML: with our reading of data, and with fixed chance."""
    from lm_eval.tasks._yaml_loader import load_yaml

    if entry.yaml_path is None:
        return
    path = Path(entry.yaml_path)
    config = load_yaml(path, resolve_func=False)
    if config.get("unsafe_code"):
        _check_may_run(entry.name, settings)
        config = _sandboxed(entry.name, config)
    else:
        with config_error(entry.name, []):
            config = load_yaml(path)
    if "dataset_path" in config and not callable(config.get("custom_dataset")):
        config["custom_dataset"] = TaskData(entry.name, config, path.parent, were_read)
    for part in (config, config.get("fewshot_config") or {}):
        if callable(part.get("process_docs")):
            part["process_docs"] = _seeded(part["process_docs"], settings.seed)
    entry.cfg, entry.yaml_path = config, None


def _check_may_run(name: str, settings: BenchmarkSettings) -> None:
    if not settings.run_generated_code:
        raise BadInput(
            f"task {name} with benchmarks.run_generated_code = false",
            "it runs the programs that the model writes",
            "Set benchmarks.run_generated_code to true, which runs each in a sandbox, or leave the task out",
        )
    check_sandbox()


def _sandboxed(name: str, value: Any) -> Any:
    """A configuration whose functions (as the harness leaves them unresolved) are those that use the sandbox."""
    if isinstance(value, dict):
        return {key: _sandboxed(name, each) for key, each in value.items()}
    if isinstance(value, list):
        return [_sandboxed(name, each) for each in value]
    if not isinstance(value, str) or not Path(value).is_absolute() or "\n" in value:
        return value
    function = Path(value).name.rpartition(".")[2]
    if function not in _SANDBOXED:
        raise BadInput(
            f"task {name} uses {function}", "programs of a model run in our sandbox only", "Take humaneval instead"
        )
    return _SANDBOXED[function]


def _seeded(process: Callable[[Any], Any], seed: int) -> Callable[[Any], Any]:
    """`process` done once for each split and with fixed chance.

    The harness asks for the items again and again, and GPQA's shuffles the choices each time.
    """
    done: list[tuple[Any, Any]] = []

    def process_docs(documents: Any) -> Any:
        for before, processed in done:
            if before is documents:
                return processed
        state = random.getstate()
        random.seed(seed)
        try:
            done.append((documents, process(documents)))
        finally:
            random.setstate(state)
        return done[-1][1]

    return process_docs


def _set_examples(name: str, task: Any, settings: BenchmarkSettings) -> None:
    """As the harness does: a task that says 0 examples keeps them. No item is ever its own example."""
    own = task.get_config("num_fewshot")
    if own is None or (own != 0 and settings.few_shot is not None):
        task.set_config(key="num_fewshot", value=settings.few_shot or 0)
    task.set_fewshot_seed(seed=settings.seed)
    if not (wanted := task.get_config("num_fewshot")) or not hasattr(task, "sampler"):
        return
    config, examples = task.config, task.fewshot_cfg
    if examples.split is None and examples.samples is None and not (config.training_split or config.validation_split):
        examples.split = config.test_split
    # The harness leaves an item out of its examples where these two are the same.
    there = len(task.sampler.df) - (examples.split == config.test_split)
    if wanted > there:
        raise BadInput(
            f"task {name} with {wanted} examples",
            f"{there} are there to be taken",
            "Set benchmarks.few_shot lower, or convert the benchmark with its training split",
        )


def _digest(tasks: Mapping[str, Any]) -> str:
    """What is asked and how it is scored; the same for the same items, wherever their data came from."""
    digest = hashlib.sha256()
    for name in sorted(tasks):
        task = tasks[name]
        how = [name, str(task.VERSION), task.OUTPUT_TYPE, task.get_config("num_fewshot"), sorted(task.aggregation())]
        digest.update(json.dumps(how, default=str).encode())
        documents = {each.doc_id: each.doc for each in task.instances}
        requests = [[each.doc_id, each.idx, each.request_type, each.repeats, each.args] for each in task.instances]
        for part in (*documents.items(), *requests):
            digest.update(json.dumps(part, default=str, sort_keys=True).encode())
    return digest.hexdigest()


@contextmanager
def templates_compiled_once() -> Iterator[None]:
    """While the block runs, the harness compiles a template of a prompt once instead of for every item.

    That is most of the time in which prompts are made and answers are looked up.
    """
    from lm_eval import utils

    environment: Any = utils.env
    compiling = environment.from_string
    environment.from_string = lru_cache(maxsize=1024)(compiling)
    try:
        yield
    finally:
        environment.from_string = compiling


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's remarks and the bars of its libraries, which say nothing of use to us."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
