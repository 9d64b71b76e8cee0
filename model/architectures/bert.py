"""The encoder that fills in masked tokens: Megatron-Core's BERT with our layers.

It differs from the paper's (arXiv:1810.04805) as Megatron's does (arXiv:1909.08053): norms stand before attention and
feed-forward. There is no prediction of the next sentence (arXiv:1907.11692), hence no token types.
"""

from typing import Any

import torch
from megatron.core.models.bert import bert_lm_head
from megatron.core.models.bert.bert_model import BertModel

from model.architectures.attention import ResidualNorm
from model.architectures.layers import encoder_block
from model.config import TrainingSettings
from model.parallel import Place
from model.settings.architecture import embedding_rows


def build_bert(config: Any, training: TrainingSettings, place: Place, vocabulary_size: int, chunk: int = 0) -> Any:
    """Build one chunk of an encoder; see `model.architectures.build.build_model`."""
    head: Any = bert_lm_head
    head.LNImpl = ResidualNorm  # the released one refuses sequence parallelism
    return MaskedLanguageModel(
        config,
        num_tokentypes=0,
        transformer_layer_spec=encoder_block(config, place.virtual_stage(chunk)),
        vocab_size=embedding_rows(training.model, vocabulary_size),
        max_sequence_length=training.model.sequence_length,
        pre_process=place.embeds(chunk),
        post_process=place.computes_loss(chunk),
        vp_stage=place.virtual_stage(chunk),
        parallel_output=True,
        share_embeddings_and_output_weights=training.model.tied_embeddings,
        position_embedding_type="learned_absolute" if training.model.positions == "learned" else "rope",
        add_binary_head=False,
    )


class MaskedLanguageModel(BertModel):
    """Megatron-Core's BERT, called as its GPT is, with documents in the place of a mask."""

    def _sanity_check_attention_and_get_attn_mask_dimension(self) -> str:
        return "documents"  # it knows the shapes of masks for its own kernels only

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Losses of all positions, logits without labels, or hidden states for the next stage; see `build_model`."""
        embedded = self.embedding(input_ids, position_ids) if self.pre_process else None
        rotary = None
        if self.position_embedding_type == "rope":
            inputs: Any = embedded
            rotary = self.rotary_pos_emb(
                self.rotary_pos_emb.get_rotary_seq_len(None, self.encoder, inputs, self.config)  # pyright: ignore[reportArgumentType]
            )
        hidden = self.encoder(hidden_states=embedded, attention_mask=attention_mask, rotary_pos_emb=rotary)
        if not self.post_process:
            return hidden
        shared = self.shared_embedding_or_output_weight() if self.share_embeddings_and_output_weights else None
        logits, _ = self.output_layer(self.lm_head(hidden), weight=shared)
        if labels is None:
            return logits.transpose(0, 1).contiguous()
        return self.compute_language_model_loss(labels, logits)
