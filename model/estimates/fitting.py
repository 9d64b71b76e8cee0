"""Whether a training can work on the devices that it asks for, and which layouts near its own would."""

from collections.abc import Iterator
from itertools import product
from math import log2

from infra.errors import BadInput
from model.config import TrainingSettings, validate_layout
from model.estimates.memory import GIB, Memory, device_memory, estimate_memory, usable
from model.settings.layout import ParallelSettings

_SUGGESTIONS = 3
_RECOMPUTE = ("none", "selective", "full")
_MORE_PROCESSES = (1, 2, 4, 8, 16, 32, 64)
_WIDEST_TENSOR = 8  # GPUs with fast links among them, in the servers that there are


def require_fitting(training: TrainingSettings, vocabulary_size: int, *, elsewhere: bool = False) -> None:
    """Refuse with BadInput a training that cannot work, before any process starts, naming layouts that can.

    Its memory is looked at where that of a device is known; see `model.estimates.memory.device_memory`. Of ranks that
    run `elsewhere` only the settings are looked at, not this machine.
    """
    available = device_memory(training.parallel, elsewhere=elsewhere)
    room = None if available is None else usable(available)
    try:
        validate_layout(training, vocabulary_size, elsewhere=elsewhere)
        if room is not None and available is not None:
            _require_memory(training, vocabulary_size, room, available)
    except BadInput as error:
        lines = _alternatives(training, vocabulary_size, room, elsewhere=elsewhere)
        raise BadInput(error.value, error.rule, "\n  ".join([error.remedy, *lines])) from None


def require_weights(
    training: TrainingSettings, parallel: ParallelSettings, vocabulary_size: int, *, elsewhere: bool = False
) -> None:
    """Refuse with BadInput to evaluate where the weights of a training's model alone leave no room on a device."""
    available = device_memory(parallel, elsewhere=elsewhere)
    weights = estimate_memory(training.model_copy(update={"parallel": parallel}), vocabulary_size).weights
    if available is not None and weights > usable(available):
        raise BadInput(
            f"evaluation: {weights / GIB:.1f} GiB of weights on each device",
            f"a device of {available / GIB:.0f} GiB has room for {usable(available) / GIB:.1f} GiB of tensors",
            "Raise evaluation.parallel.processes, and tensor or pipeline with it",
        )


def _alternatives(
    training: TrainingSettings, vocabulary_size: int, room: float | None, *, elsewhere: bool
) -> list[str]:
    """The nearest layouts, of more processes where none of as many works; a heading, then a line for each."""
    for times in _MORE_PROCESSES:
        processes = times * training.parallel.processes
        parallel = training.parallel.model_copy(update={"processes": processes})
        widened = training.model_copy(update={"parallel": parallel})
        found = nearest(widened, vocabulary_size, room, elsewhere=elsewhere)
        if found:
            count = f"{processes} process{'es' if processes > 1 else ''}"
            return [f"Nearest with {count}:", *(describe(each, vocabulary_size, training) for each in found)]
    return []


def _require_memory(training: TrainingSettings, vocabulary_size: int, room: float, available: float) -> None:
    memory = estimate_memory(training, vocabulary_size)
    if memory.total > room:
        raise BadInput(
            f"{memory.total / GIB:.1f} GiB on each device of stage {memory.stage} ({parts(memory)})",
            f"a device of {available / GIB:.0f} GiB has room for {room / GIB:.1f} GiB of tensors",
            "Use more processes, smaller micro-batches or recompute = full",
        )


def parts(memory: Memory) -> str:
    """The parts of an estimate in GiB."""
    names = ("weights", "gradients", "optimizer", "activations", "working")
    return ", ".join(f"{name} {getattr(memory, name) / GIB:.1f}" for name in names)


def nearest(
    training: TrainingSettings, vocabulary_size: int, room: float | None, *, elsewhere: bool = False
) -> list[TrainingSettings]:
    """The same training in layouts of the same number of processes that work and need no more than `room` bytes.

    The nearest come first: those whose factors differ by the fewest doublings. Smaller micro-batches and recomputation
    are tried where no other layout is enough.
    """
    found: list[TrainingSettings] = []
    ordered = sorted(_candidates(training), key=lambda each: _distance(each, training))
    for candidate in ordered:
        if candidate != training and _works(candidate, vocabulary_size, room, elsewhere=elsewhere):
            found.append(candidate)
        if len(found) == _SUGGESTIONS:
            break
    return found


def _works(training: TrainingSettings, vocabulary_size: int, room: float | None, *, elsewhere: bool) -> bool:
    try:
        validate_layout(training, vocabulary_size, elsewhere=elsewhere)
    except BadInput:
        return False
    return room is None or estimate_memory(training, vocabulary_size).total <= room


def _candidates(training: TrainingSettings) -> Iterator[TrainingSettings]:
    parallel = training.parallel
    micros = _divisors(training.micro_batch_size)
    recomputes = _RECOMPUTE[_RECOMPUTE.index(training.recompute) :]
    for layout in _layouts(parallel, training):
        for micro, recompute in product(micros, recomputes):
            update = {"parallel": layout, "micro_batch_size": micro, "recompute": recompute}
            yield training.model_copy(update=update)


def _layouts(parallel: ParallelSettings, training: TrainingSettings) -> Iterator[ParallelSettings]:
    """Every way to share the processes out; stages are equal, because a last one of another size fits one number."""
    sizes = _divisors(parallel.processes)
    experts = sizes if training.model.mixture else [1]
    widest = max(_WIDEST_TENSOR, parallel.tensor)
    contexts = [each for each in sizes if each <= max(2 * parallel.context, 1)] if parallel.context > 1 else [1]
    for tensor, pipeline, context, expert in product(sizes, sizes, contexts, experts):
        if parallel.processes % (tensor * pipeline * context) or tensor > widest:
            continue
        for pieces in {None, parallel.virtual_pipeline if pipeline > 1 else None}:
            factors = {"tensor": tensor, "pipeline": pipeline, "context": context, "expert": expert}
            last = parallel.last_stage_layers if pipeline == parallel.pipeline else None
            more = {"virtual_pipeline": pieces, "last_stage_layers": last, "sequence_parallel": tensor > 1}
            if tensor == parallel.tensor:
                more["sequence_parallel"] = parallel.sequence_parallel
            more["tensor_overlap"] = parallel.tensor_overlap and tensor > 1 and bool(more["sequence_parallel"])
            yield parallel.model_copy(update={**factors, **more})


def _distance(one: TrainingSettings, other: TrainingSettings) -> tuple[float, ...]:
    """Doublings between two trainings: those of what costs speed first, then of the layout."""
    mine, yours = one.parallel, other.parallel
    recompute = _RECOMPUTE.index(one.recompute) - _RECOMPUTE.index(other.recompute)
    cost = 2 * recompute + log2(other.micro_batch_size / one.micro_batch_size)
    names = ("tensor", "pipeline", "context", "expert", "data")
    doublings = sum(abs(log2(max(getattr(mine, name), 1) / max(getattr(yours, name), 1))) for name in names)
    pieces = 0.5 * (mine.virtual_pipeline != yours.virtual_pipeline)
    # Among equals the one that shares layers least, because that sends most.
    return (cost, doublings + pieces, mine.tensor, mine.pipeline, mine.context, mine.expert)


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def describe(training: TrainingSettings, vocabulary_size: int, other: TrainingSettings | None = None) -> str:
    """A layout and its memory in one line; with another training, also what else differs from that one's."""
    parallel = training.parallel
    line = f"tensor {parallel.tensor}{' with sequence_parallel' * parallel.shares_positions}"
    line += f", pipeline {parallel.pipeline}"
    line += f" with virtual_pipeline {parallel.virtual_pipeline}" if parallel.virtual_pipeline else ""
    line += f", context {parallel.context}" if parallel.context > 1 else ""
    line += f", expert {parallel.expert}" if parallel.expert > 1 else ""
    line += f", data {parallel.data}"
    if other is None or training.micro_batch_size != other.micro_batch_size:
        line += f", micro_batch_size {training.micro_batch_size}"
    if other is None or training.recompute != other.recompute:
        line += f", recompute {training.recompute}"
    return f"{line}: {estimate_memory(training, vocabulary_size).total / GIB:.1f} GiB"
