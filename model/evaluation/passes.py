"""Passes over the beginnings of texts and then over one more token of each, through all stages of a pipeline.

What a chunk of the model consists of is called piece by piece, because a row of the batch is at a position of its own,
and because logits are wanted after one position of each row only.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.architectures.key_value_cache import KeyValueCache
from model.parallel import Place

_TRAINING_FORMS = (
    "sequence_parallel",  # a single position cannot be shared out
    "scatter_to_sequence_parallel",
    "reduce_scatter_embeddings",
    "fused_single_qkv_rope",  # gives all rows the same positions
)
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # cuDNN plans for each shape


class Passes:
    """Passes over some positions of a batch, through all stages of the pipeline."""

    def __init__(self, chunks: Sequence[Any], place: Place, sequence_length: int) -> None:
        assert place.layout.context == 1, "positions are read one by one"
        self.chunks, self._place, self._length = [_bare(chunk) for chunk in chunks], place, sequence_length
        groups, layout = self.chunks[0].pg_collection, place.layout
        self._pipeline = groups.pp
        # Where replicas share out experts, each needs all others at every token, so that they all do the same.
        self.together = together = layout.expert > 1
        self.draws = place.is_last_stage and place.tensor_rank == 0 and not (together and place.data_rank > 0)
        """Whether this rank has the logits and draws tokens for its replica, or for all."""
        self._group = None if together else groups.mp
        stage = place.processes // layout.pipeline if together else layout.tensor
        self._source = (layout.pipeline - 1) * stage
        self._recurrent = hasattr(self.chunks[0], "recurrent")

    def memory(self, rows: int, capacity: int) -> Any:
        """What a batch remembers."""
        return _RecurrentState() if self._recurrent else KeyValueCache(rows, capacity, self._place.device)

    def go_together(self, one: Sequence[int], other: Sequence[int]) -> bool:
        """Whether two prompts can be in one batch: a recurrent state has read the padding too."""
        return not self._recurrent or len(one) == len(other)

    def read(self, tokens: torch.Tensor, last: torch.Tensor, memory: Any) -> torch.Tensor | None:
        """Logits after the position `last` of each row, float32 [rows, padded vocabulary], on ranks that draw.

        `tokens` [rows, positions] begin at position 0, or are one of each row, at its position `last`.
        """
        rows, positions = tokens.shape
        first = positions > 1 or memory.is_empty
        places = torch.arange(positions, device=tokens.device).expand(rows, -1) if first else last[:, None]
        each = torch.arange(rows, device=tokens.device)
        if self._recurrent:
            logits = self.chunks[0](tokens, places, inference_context=memory)
            return logits[each, last if first else 0].float()
        logits = None
        for index, chunk in enumerate(self.chunks):
            embedded = chunk.embedding(tokens, places) if self._place.embeds(index) else None
            if embedded is None:
                chunk.decoder.set_input_tensor(self._receive(positions, rows, chunk))
            hidden = chunk.decoder(
                hidden_states=embedded, attention_mask=memory, rotary_pos_emb=self._angles(chunk, places, first)
            )
            if self._place.computes_loss(index):
                logits = self._logits(chunk, hidden[last, each] if first else hidden[0])
            else:
                dist.send(hidden.contiguous(), group=self._pipeline, group_dst=self._neighbour(1))
        return logits if self.draws else None

    def tell(self, drawn: list[tuple[int, int]] | None, rows: int) -> torch.Tensor:
        """Tokens and whether rows go on, int64 [rows, 2], from the rank that draws to all of its replica."""
        device = self._place.device
        told = torch.tensor(drawn, device=device) if drawn else torch.empty(rows, 2, dtype=torch.int64, device=device)
        if self._place.processes > 1 and (self._group is None or self._group.size() > 1):
            dist.broadcast(told, group=self._group, group_src=self._source)
        return told

    def _angles(self, chunk: Any, places: torch.Tensor, first: bool) -> torch.Tensor | None:
        """Rotary angles of positions, [positions, rows or 1, 1, width], or none where there are no such positions."""
        if (rotary := getattr(chunk, "rotary_pos_emb", None)) is None:
            return None
        angles = rotary(self._length)
        return angles[: places.shape[1]] if first else angles[places[:, 0], 0][None]

    def _logits(self, chunk: Any, hidden: torch.Tensor) -> torch.Tensor:
        shared = chunk.shared_embedding_or_output_weight() if chunk.share_embeddings_and_output_weights else None
        logits, _ = chunk.output_layer(hidden[None], weight=shared, runtime_gather_output=True)
        return logits[0].float()

    def _receive(self, positions: int, rows: int, chunk: Any) -> torch.Tensor:
        """What the stage before has computed, [positions, rows, width]."""
        shape, dtype = (positions, rows, chunk.config.hidden_size), chunk.config.params_dtype
        hidden = torch.empty(shape, dtype=dtype, device=self._place.device)
        dist.recv(hidden, group=self._pipeline, group_src=self._neighbour(-1))
        return hidden

    def _neighbour(self, distance: int) -> int:
        return (self._place.pipeline_rank + distance) % self._place.layout.pipeline


class _RecurrentState:
    """What a recurrent network remembers, in the form in which `model.architectures.lstm` takes it."""

    def __init__(self) -> None:
        self.key_value_memory_dict: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def is_empty(self) -> bool:
        return not self.key_value_memory_dict

    def go_on(self, places: torch.Tensor, furthest: int) -> None:
        """The state knows no positions."""

    def keep(self, rows: torch.Tensor) -> None:
        hidden, cell = self.key_value_memory_dict["recurrent"]
        self.key_value_memory_dict["recurrent"] = (hidden[:, rows].contiguous(), cell[:, rows].contiguous())


@contextmanager
def token_by_token(chunks: Sequence[Any]) -> Iterator[None]:
    """Layers without dropout and gradients, and without the forms that are for the long sequences of training.

    Nothing is compiled: a compiler would do it anew for each number of rows and positions.
    """
    modules = [module for chunk in chunks for module in chunk.modules()]
    owners = {id(each): each for module in modules for each in (module, getattr(module, "config", None))}
    changed = [
        (owner, name) for owner in owners.values() for name in _TRAINING_FORMS if getattr(owner, name, False) is True
    ]
    training = [chunk.training for chunk in chunks]
    for owner, name in changed:
        setattr(owner, name, False)
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), sdpa_kernel(_KERNELS):
            for chunk in chunks:
                chunk.eval()
            yield
    finally:
        for owner, name in changed:
            setattr(owner, name, True)
        for chunk, was in zip(chunks, training, strict=True):
            chunk.train(was)


def _bare(chunk: Any) -> Any:
    """A chunk without the wrappers for its type of numbers and for data parallelism."""
    while hasattr(chunk, "module"):
        chunk = chunk.module
    return chunk
