"""The encoder-decoder that writes what is missing from a text: Megatron-Core's T5 with our layers.

A sample is one row of `lengths(model)` positions: what the encoder reads, then what the decoder reads, so that batches
and the loop need not know that there are two. Positions are learned or rotary, as the settings say; the paper's
(arXiv:1910.10683) are biases of the attention by distance, which no fused kernel takes.
"""

from typing import Any

import torch
from megatron.core.models.T5.t5_model import T5Model

from model.architectures.layers import cross_decoder_block, encoder_block
from model.config import TrainingSettings
from model.parallel import Place
from model.settings.architecture import embedding_rows, lengths


def build_t5(config: Any, training: TrainingSettings, place: Place, vocabulary_size: int) -> Any:
    """Build the whole model (it has no stages); see `model.architectures.build.build_model`."""
    assert place.layout.pipeline == 1
    model = training.model
    return SpanModel(
        config,
        config,
        encoder_block(config),
        cross_decoder_block(config),
        vocab_size=embedding_rows(model, vocabulary_size),
        max_sequence_length=max(lengths(model)),
        parallel_output=True,
        share_embeddings_and_output_weights=model.tied_embeddings,
        position_embedding_type="learned_absolute" if model.positions == "learned" else "rope",
        encoder_length=lengths(model)[0],
    )


class SpanModel(T5Model):
    """Megatron-Core's T5, called as its GPT is, with documents in the place of masks."""

    def __init__(self, *arguments: Any, encoder_length: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._encoder_length = encoder_length
        # The model holds two modules a second time, under other names: both would be saved twice.
        self.position_embeddings = None
        head = self.lm_head
        del self.lm_head
        object.__setattr__(self, "lm_head", head)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Losses of all positions (0 in the encoder's), or logits of the decoder's; see `build_model`."""
        start = self._encoder_length
        masks = (None, None, None) if attention_mask is None else _masks(attention_mask, start)
        wanted = None if labels is None else labels[:, start:].contiguous()
        result: Any = super().forward(input_ids[:, :start], input_ids[:, start:], *masks, lm_labels=wanted)  # pyright: ignore[reportArgumentType]
        return result if labels is None else torch.nn.functional.pad(result, (start, 0))


def _masks(documents: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of the encoder's and the decoder's self-attention, and of the cross-attention (true where it must not look)."""
    encoder, decoder = documents[:, :start].contiguous(), documents[:, start:].contiguous()
    hidden = (encoder[:, None, :] != decoder[:, :, None]) & (decoder[:, :, None] >= 0)  # padding may look anywhere
    return encoder, decoder, hidden[:, None]
