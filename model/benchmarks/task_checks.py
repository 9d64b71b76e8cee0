"""What must hold of a task's items before a model is asked: columns, choices, right answers, length of prompts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from infra.errors import BadInput, GristmillError
from model.benchmarks.task_data import TaskData, cannot_be_had
from model.settings.benchmarks import BenchmarkSettings

if TYPE_CHECKING:
    from model.benchmarks.tasks import LoadedTasks

DEFAULT_NEW_TOKENS = 256
"""Most tokens of an answer where neither the task nor the settings say, as in the harness."""


class Encoder(Protocol):
    """`model.evaluation.encoding.PromptEncoder`."""

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Tokens of contexts and of continuations."""
        ...

    def encode_contexts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Tokens of prompts."""
        ...


@contextmanager
def config_error(name: str, were_read: Sequence[TaskData]) -> Iterator[None]:
    """Turn what the harness raises of a task's YAML or columns into BadInput; data were last read for the culprit."""
    try:
        yield
    except GristmillError:
        raise
    except Exception as error:
        data = were_read[-1] if were_read else None
        raise _task_error(data.task if data is not None else name, error, data) from error


def build_requests(name: str, task: Any, limit: int | None, data: TaskData | None) -> None:
    """Build a task's requests once and for all, and check its items; BadInput names the item.

    The harness would build them again, with other examples, as these are drawn from one stream of chance.
    """
    try:
        task.build_all_requests(limit=limit)
    except Exception as error:
        _find_item(name, task, limit, data)
        raise _task_error(name, error, data) from error
    if task.OUTPUT_TYPE == "multiple_choice":
        for number, document in _items(task, limit):
            _check_item(name, number, task, document, data)
    task.build_all_requests = _built


def _built(**_: Any) -> None:
    """Requests are there already."""


def _items(task: Any, limit: int | None) -> Iterator[tuple[int, Any]]:
    return islice(enumerate(task.eval_docs), limit)


def _find_item(name: str, task: Any, limit: int | None, data: TaskData | None) -> None:
    """Raise BadInput for the first item of which no request can be made, if an item is to blame."""
    for number, document in _items(task, limit):
        _check_item(name, number, task, document, data)
        try:
            context = task.fewshot_context(document, num_fewshot=0, gen_prefix=task.doc_to_prefix(document))
            task.construct_requests(doc=document, ctx=context, metadata=(name, number, 1))
        except Exception as error:
            raise _task_error(f"{name}, item {number}", error, data) from error


def _check_item(name: str, number: int, task: Any, document: Any, data: TaskData | None) -> None:
    if task.OUTPUT_TYPE != "multiple_choice":
        return
    try:
        choices = task.doc_to_choice(document)
        right = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    except Exception as error:
        raise _task_error(f"{name}, item {number}", error, data) from error
    if not isinstance(choices, list) or not choices:
        raise BadInput(f"task {name}, item {number} has no choices", "it must have some", "Correct the task's data")
    found = [_is_choice(each, choices) for each in (right if isinstance(right, list) else [right])]
    hidden = isinstance(label := document.get("label"), int) and not isinstance(label, bool) and label < 0
    if not found or not all(found) or hidden:
        raise BadInput(
            f"task {name}, item {number}: the right choice is {label if hidden else right!r} of {len(choices)} choices",
            "it must be one of them, counted from 0",
            "Correct the task's data; a split whose answers are not published cannot be scored",
        )


def _is_choice(right: Any, choices: list[Any]) -> bool:
    if isinstance(right, str):
        return right in choices
    return isinstance(right, int) and 0 <= right < len(choices)


def _task_error(place: str, error: Exception, data: TaskData | None) -> BadInput:
    if isinstance(error, ImportError):
        value = f"task {place} ({error.__cause__ or error})"
        return BadInput(value, "its code in the harness needs that", "Install it, or leave the task out")
    if isinstance(error, ConnectionError):
        return cannot_be_had(place, str(error), local=False)
    columns = "; ".join(f"{split}: {', '.join(names)}" for split, names in data.columns.items()) if data else ""
    missing = isinstance(error, KeyError) or "is undefined" in str(error) or "has no attribute" in str(error)
    reason = f"{type(error).__name__}: {error}"
    if columns and missing:
        return BadInput(
            f"task {place}: its data have other columns ({reason})",
            f"found are {columns}",
            "Convert the data with `gristmill benchmarks`, or correct the task's YAML",
        )
    return BadInput(
        f"task {place} ({reason})",
        f"lm-evaluation-harness must be able to make it{f' from {columns}' if columns else ''}",
        "Correct the task's data or YAML",
    )


def check_lengths(
    loaded: "LoadedTasks", encoder: Encoder, sequence_length: int, settings: BenchmarkSettings
) -> dict[str, int]:
    """Items whose prompts the model's context has no room for, by task; BadInput unless settings allow to cut them.

    A continuation that is scored needs room as well, but for its last token, which is never read; one that is
    generated needs room for all its tokens.
    """
    cut: dict[str, int] = {}
    for name, task in loaded.tasks.items():
        long = _too_long(task, encoder, sequence_length, settings)
        if long and not settings.truncate_long_prompts:
            raise _no_room(name, task, long, sequence_length)
        if long:
            cut[name] = len(long)
    return cut


def new_tokens(wanted: Mapping[str, Any], settings: BenchmarkSettings, sequence_length: int) -> int:
    """Most tokens of an answer to a request of `generate_until`: at most half of what the model can read."""
    from lm_eval.models.utils import normalize_gen_kwargs

    options: Any = normalize_gen_kwargs(dict(wanted), DEFAULT_NEW_TOKENS)
    most = int(options["max_gen_toks"])
    return min(most, settings.max_new_tokens or most, sequence_length // 2)


def _too_long(task: Any, encoder: Encoder, sequence_length: int, settings: BenchmarkSettings) -> dict[int, int]:
    """Tokens that the model would have to read for an item, answer included, of the items that are too long.

    No token is shorter than a byte, so that most texts need not be encoded.
    """
    scored = [each for each in task.instances if each.request_type == "loglikelihood" and _may(each, sequence_length)]
    pairs = encoder.encode_pairs([each.args for each in scored])
    lengths = [(each.doc_id, len(start) + len(end) - 1) for each, (start, end) in zip(scored, pairs, strict=True)]
    written = [each for each in task.instances if each.request_type == "generate_until"]
    if written:
        room = new_tokens(written[0].args[1], settings, sequence_length)
        written = [each for each in written if _may(each, sequence_length - room)]
        prompts = encoder.encode_contexts([each.args[0] for each in written])
        lengths += [(each.doc_id, len(prompt) + room) for each, prompt in zip(written, prompts, strict=True)]
    long: dict[int, int] = {}
    for item, length in lengths:
        if length > sequence_length:
            long[item] = max(length, long.get(item, 0))
    return long


def _may(instance: Any, tokens: int) -> bool:
    """Whether a request may have more tokens than that, the one before each text included."""
    return sum(len(text.encode()) for text in instance.args if isinstance(text, str)) + 1 > tokens


def _no_room(name: str, task: Any, long: Mapping[int, int], sequence_length: int) -> BadInput:
    item, length = next(iter(long.items()))
    examples = task.get_config("num_fewshot") or 0
    fewer = "Set benchmarks.few_shot lower, take" if examples else "Take"
    return BadInput(
        f"task {name} with {examples} examples: {len(long)} items are longer than the model's context, such as item "
        f"{item} with {length} tokens",
        f"the model reads {sequence_length} tokens",
        f"{fewer} a model with a longer context, or set benchmarks.truncate_long_prompts to true, which cuts prompts "
        "from the left and counts them",
    )
