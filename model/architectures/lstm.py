"""A recurrent language model (arXiv:1409.2329), the baseline that a transformer has to beat.

It shares nothing out: each process holds all of it, so that only data parallelism is possible. Its state runs on from
one document of a sample to the next. What goes into the layers and what comes out of them is brought to unit size, as
before and after a transformer's layers: otherwise, with small embeddings that also serve as the output layer, it learns
no more than how frequent tokens are (nats after 250 small steps: 2.80, without 4.36).
"""

from typing import Any

import torch
from megatron.core.enums import ModelType
from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding
from megatron.core.models.common.language_module.language_module import LanguageModule
from megatron.core.tensor_parallel import ColumnParallelLinear

from model.config import TrainingSettings
from model.settings.architecture import embedding_rows


def build_lstm(config: Any, training: TrainingSettings, vocabulary_size: int) -> Any:
    """Build the whole model; see `model.architectures.build.build_model`."""
    return RecurrentModel(config, training, embedding_rows(training.model, vocabulary_size))


class RecurrentModel(LanguageModule):
    """Embedding, LSTM layers of one width, and output layer, called as Megatron-Core's GPT is."""

    pre_process = post_process = True
    model_type = ModelType.encoder_or_decoder

    def __init__(self, config: Any, training: TrainingSettings, rows: int) -> None:
        super().__init__(config)
        settings, hidden = training.model, config.hidden_size
        group: Any = self.tp_group
        self.share_embeddings_and_output_weights = settings.tied_embeddings
        self.embedding = LanguageModelEmbedding(config, rows, settings.sequence_length, "none", tp_group=group)
        self.recurrent = torch.nn.LSTM(
            hidden,
            hidden,
            settings.num_layers,
            dropout=settings.hidden_dropout if settings.num_layers > 1 else 0.0,
            dtype=config.params_dtype,
        )
        self.output_layer = ColumnParallelLinear(
            hidden,
            rows,
            config=config,
            init_method=config.init_method,
            bias=False,
            gather_output=False,
            skip_weight_param_allocation=settings.tied_embeddings,
            tp_group=group,
        )
        self.setup_embeddings_and_output_layer()
        self._remember()

    def _remember(self) -> None:
        """Set biases to zero, but to one where they open the forget gate (Jozefowicz et al., ICML 2015)."""
        hidden = self.config.hidden_size
        for name, parameter in self.recurrent.named_parameters():
            if name.startswith("bias"):
                parameter.data.zero_()
            if name.startswith("bias_ih"):
                parameter.data[hidden : 2 * hidden] = 1.0

    def _unit_size(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(hidden, (self.config.hidden_size,), eps=self.config.layernorm_epsilon)

    def set_input_tensor(self, input_tensor: Any) -> None:
        """There is no stage before this one."""

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        inference_context: Any = None,
        runtime_gather_output: bool | None = None,
    ) -> torch.Tensor:
        """Losses of all positions, or logits without labels; an inference context holds the state between calls."""
        memory = {} if inference_context is None else inference_context.key_value_memory_dict
        embedded = self._unit_size(self.embedding(input_ids, position_ids))
        hidden, memory["recurrent"] = self.recurrent(embedded, memory.get("recurrent"))
        shared = self.shared_embedding_or_output_weight() if self.share_embeddings_and_output_weights else None
        logits, _ = self.output_layer(self._unit_size(hidden), weight=shared)
        if labels is None:
            return logits.transpose(0, 1).contiguous()
        return self.compute_language_model_loss(labels, logits)
