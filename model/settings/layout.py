"""Layouts: how the work of a step is spread over processes, and which layouts cannot work.

`tensor` processes share each layer, `pipeline` processes share the layers among them, `context` processes share each
sequence, and the remaining factor, `data`, works on different sequences. Of the processes of a stage `expert` share out
the experts of each mixture, each having some of them whole. A layout changes speed and memory but not results (up to
rounding), so it is operational: a run started under one layout may be resumed under another.
"""

from collections.abc import Iterator
from math import lcm

from infra.errors import BadInput
from infra.settings import Settings, operational
from model.settings.architecture import ModelSettings, check_divides, embedding_rows, lengths


class ParallelSettings(Settings):
    """A layout; see the module docstring."""

    processes: int = operational(1, ge=1)
    """Processes in all, one for each GPU; data = processes / (tensor * pipeline * context)."""
    tensor: int = operational(1, ge=1)
    """Processes that share each layer."""
    pipeline: int = operational(1, ge=1)
    """Processes among which the layers are shared out in order."""
    last_stage_layers: int | None = operational(None, ge=1)
    """Layers of the last pipeline process, which computes the loss as well; unset gives every process as many."""
    virtual_pipeline: int | None = operational(None, ge=2)
    """Pieces of the model in each pipeline process, taken in turn (interleaved 1F1B); unset has one."""
    context: int = operational(1, ge=1)
    """Processes that share the positions of each sequence."""
    expert: int = operational(1, ge=1)
    """Processes among which the experts of each mixture are shared out whole; with 1, those that share the other layers
    (tensor) share every expert too. Needs model.mixture."""
    sequence_parallel: bool = operational(False)
    """Whether tensor-parallel processes also share activations between layers by position; saves memory, and changes
    nothing with tensor = 1."""
    tensor_overlap: bool = operational(False)
    """Whether positions travel between tensor-parallel GPUs of one machine while layers multiply; needs
    tensor > 1 and sequence_parallel. On CPUs they travel before and after, as without it."""
    overlap: bool = operational(False)
    """Whether gradients are reduced and weights gathered while computing goes on; worth it with data > 1 on GPUs."""
    bucket_size: int | None = operational(None, ge=1)
    """Parameters in each piece of the overlapped reduction; unset leaves the choice to Megatron-Core."""

    device_memory_gib: float | None = operational(None, gt=0)
    """Memory of a device, for the check that a training fits; unset asks this machine's GPU and without one checks
    nothing."""

    @property
    def shares_positions(self) -> bool:
        """Whether sequence parallelism does anything."""
        return self.sequence_parallel and self.tensor > 1

    @property
    def expert_tensor(self) -> int:
        """Processes that share each expert."""
        return 1 if self.expert > 1 else self.tensor

    @property
    def data(self) -> int:
        """Processes that work on different sequences."""
        return self.processes // (self.tensor * self.pipeline * self.context)


def check_parallel(model: ModelSettings, parallel: ParallelSettings, vocabulary_size: int) -> None:
    """Refuse with BadInput a layout in which this model cannot work."""
    check_divides(
        "parallel.processes",
        parallel.processes,
        f"tensor x pipeline x context = {parallel.tensor} x {parallel.pipeline} x {parallel.context}",
        parallel.tensor * parallel.pipeline * parallel.context,
    )
    _check_architecture(model, parallel)
    _check_overlap(parallel)
    for name, value in _shared_widths(model, vocabulary_size, experts_whole=parallel.expert > 1):
        check_divides(name, value, "parallel.tensor", parallel.tensor)
    _check_layers(model, parallel)
    _check_positions(model, parallel)
    _check_experts(model, parallel)


def _check_architecture(model: ModelSettings, parallel: ParallelSettings) -> None:
    """Recurrence goes through all positions in turn; t5's two stacks and two lengths are not cut."""
    whole = {"lstm": ("tensor", "pipeline", "context"), "t5": ("pipeline", "context")}
    for name in whole.get(model.architecture, ()):
        if (size := getattr(parallel, name)) > 1:
            raise BadInput(
                f"parallel.{name} = {size} with model.architecture = {model.architecture}",
                f"{'an lstm' if model.architecture == 'lstm' else 'a t5'} cannot be shared out that way",
                f"Set parallel.{name} to 1: the processes then work on different sequences",
            )


def _check_overlap(parallel: ParallelSettings) -> None:
    if parallel.tensor_overlap and not parallel.shares_positions:
        raise BadInput(
            f"parallel.tensor_overlap = true with tensor = {parallel.tensor} and sequence_parallel = "
            f"{str(parallel.sequence_parallel).lower()}",
            "only positions that tensor-parallel processes share travel between them",
            "Set parallel.tensor to 2 or more and sequence_parallel to true, or tensor_overlap to false",
        )


def _shared_widths(model: ModelSettings, vocabulary_size: int, *, experts_whole: bool) -> Iterator[tuple[str, int]]:
    """What tensor-parallel processes share out."""
    if model.architecture == "lstm":
        return
    yield "num_attention_heads", model.num_attention_heads
    yield "num_query_groups", model.num_query_groups
    if (mixture := model.mixture) is None:
        yield "ffn_hidden_size", model.ffn_hidden_size
    elif not experts_whole:
        yield "an expert's ffn_hidden_size", mixture.expert_ffn_hidden_size or model.ffn_hidden_size
    if mixture and mixture.shared_ffn_hidden_size:
        yield "mixture.shared_ffn_hidden_size", mixture.shared_ffn_hidden_size
    yield "the padded vocabulary", embedding_rows(model, vocabulary_size)


def _check_layers(model: ModelSettings, parallel: ParallelSettings) -> None:
    pieces, last = parallel.virtual_pipeline, parallel.last_stage_layers
    if last is not None:
        _check_last_stage(model, parallel, last)
        return
    if pieces is None:
        check_divides("num_layers", model.num_layers, "parallel.pipeline", parallel.pipeline)
        return
    if parallel.pipeline == 1:
        raise BadInput(
            f"parallel.virtual_pipeline = {pieces} with parallel.pipeline = 1",
            "stages can only be interleaved where there are several",
            "Leave virtual_pipeline unset, or set parallel.pipeline to 2 or more",
        )
    name = f"parallel.pipeline x virtual_pipeline = {parallel.pipeline} x {pieces}"
    check_divides("num_layers", model.num_layers, name, parallel.pipeline * pieces)


def _check_last_stage(model: ModelSettings, parallel: ParallelSettings, last: int) -> None:
    if parallel.pipeline == 1 or parallel.virtual_pipeline is not None or last >= model.num_layers:
        raise BadInput(
            f"parallel.last_stage_layers = {last} with pipeline = {parallel.pipeline}, virtual_pipeline = "
            f"{parallel.virtual_pipeline} and {model.num_layers} layers",
            "the last of several stages, not interleaved, may have another number of layers",
            "Leave last_stage_layers unset",
        )
    check_divides(
        "num_layers - last_stage_layers", model.num_layers - last, "parallel.pipeline - 1", parallel.pipeline - 1
    )


def _check_positions(model: ModelSettings, parallel: ParallelSettings) -> None:
    """Of 2 x context chunks each rank has two, and sequence parallelism cuts what a rank has once more."""
    halves = 2 * parallel.context if parallel.context > 1 else 1
    divisor = lcm(halves, parallel.context * parallel.tensor) if parallel.shares_positions else halves
    if divisor == 1:
        return
    used = ["2 x context"] * (parallel.context > 1) + ["tensor (sequence_parallel)"] * parallel.shares_positions
    for length in filter(None, lengths(model)):
        check_divides("sequence_length", length, f"parallel.{' and '.join(used)}, together", divisor)


def _check_experts(model: ModelSettings, parallel: ParallelSettings) -> None:
    if (mixture := model.mixture) is None:
        if parallel.expert > 1:
            raise BadInput(
                f"parallel.expert = {parallel.expert} without model.mixture",
                "only the experts of a mixture can be shared out",
                "Set parallel.expert to 1, or give model.mixture",
            )
        return
    check_divides("mixture.experts", mixture.experts, "parallel.expert", parallel.expert)
    stage = parallel.processes // parallel.pipeline
    check_divides("tensor x context x data processes", stage, "parallel.expert", parallel.expert)
    if parallel.tensor > 1 and not parallel.sequence_parallel:
        raise BadInput(
            f"parallel.tensor = {parallel.tensor} without sequence_parallel, with model.mixture",
            "each token is sent to its experts once, by the one process that has its position",
            "Set parallel.sequence_parallel to true",
        )
