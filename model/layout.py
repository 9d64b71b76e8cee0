"""Layouts: how the work of a step is spread over processes, and which layouts cannot work.

`tensor` processes share each layer, `pipeline` processes share the layers among them, `context` processes share each
sequence, and the remaining factor, `data`, works on different sequences; of those, `expert` share the experts of a
mixture. A layout changes speed and memory but not results (up to rounding), so it is operational: a run started under
one layout may be resumed under another.
"""

from infra.settings import Settings, operational
from model.architecture import ModelSettings, check_divides, padded_vocabulary


class ParallelSettings(Settings):
    """A layout; see the module docstring."""

    processes: int = operational(1, ge=1)
    """Processes in all, one for each GPU; data = processes / (tensor * pipeline * context)."""
    tensor: int = operational(1, ge=1)
    """Processes that share each layer."""
    pipeline: int = operational(1, ge=1)
    """Processes among which the layers are shared out in order."""
    virtual_pipeline: int | None = operational(None, ge=2)
    """Pieces of the model in each pipeline process, taken in turn (interleaved 1F1B); unset has one."""
    context: int = operational(1, ge=1)
    """Processes that share the positions of each sequence."""
    expert: int = operational(1, ge=1)
    """Of the data processes, those that share the experts of each mixture; needs model.mixture."""
    sequence_parallel: bool = operational(False)
    """Whether tensor-parallel processes also share activations between layers by position; saves memory."""
    overlap: bool = operational(False)
    """Whether gradients are reduced and weights gathered while computing goes on; worth it with data > 1 on GPUs."""
    bucket_size: int | None = operational(None, ge=1)
    """Parameters in each piece of the overlapped reduction; unset leaves the choice to Megatron-Core."""

    @property
    def data(self) -> int:
        """Processes that work on different sequences."""
        return self.processes // (self.tensor * self.pipeline * self.context)


def check_parallel(model: ModelSettings, parallel: ParallelSettings, vocabulary_size: int) -> None:
    """Refuse with BadInput a layout in which this model cannot work."""
    grid = parallel.tensor * parallel.pipeline
    check_divides(
        "parallel.processes", parallel.processes, f"tensor x pipeline = {parallel.tensor} x {parallel.pipeline}", grid
    )
    check_divides("num_attention_heads", model.num_attention_heads, "parallel.tensor", parallel.tensor)
    check_divides("num_query_groups", model.num_query_groups, "parallel.tensor", parallel.tensor)
    check_divides("ffn_hidden_size", model.ffn_hidden_size, "parallel.tensor", parallel.tensor)
    check_divides("the padded vocabulary", padded_vocabulary(vocabulary_size), "parallel.tensor", parallel.tensor)
    check_divides("num_layers", model.num_layers, "parallel.pipeline", parallel.pipeline)
    if parallel.sequence_parallel:
        check_divides("sequence_length", model.sequence_length, "parallel.tensor (sequence_parallel)", parallel.tensor)
