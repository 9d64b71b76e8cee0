"""The architectures once more in plain PyTorch: dense masks, loops over heads' groups and experts, no Megatron-Core.

Weights are looked up by Megatron-Core's names. Tensors are [batch, positions, width].
"""

import math
from collections.abc import Mapping

import torch
from torch.nn.functional import gelu, layer_norm, linear, relu, rms_norm, silu

from model.settings.architecture import ModelSettings, lengths

Weights = Mapping[str, torch.Tensor]


class Plain:
    """A model's logits from its weights."""

    def __init__(self, model: ModelSettings, weights: Weights) -> None:
        self.model, self.weights = model, weights
        self.routers: list[torch.Tensor] = []
        """Logits [batch, positions, experts] of each layer's router in the last call."""

    def logits(self, tokens: torch.Tensor, documents: torch.Tensor | None) -> torch.Tensor:
        """Logits of all positions, for t5 of the decoder's."""
        self.routers.clear()
        if documents is None:
            documents = torch.zeros_like(tokens)
        if self.model.architecture == "bert":
            hidden = self._stack("encoder", self._embed(tokens), _same(documents, documents))
            hidden = gelu(self._linear("lm_head.dense", hidden))
            return self._output(self._norm("lm_head.layer_norm", hidden))
        if self.model.architecture == "gpt":
            return self._output(self._stack("decoder", self._embed(tokens), _causal(_same(documents, documents))))
        start = lengths(self.model)[0]
        (read, written), (source, target) = (
            each.split([start, each.shape[1] - start], 1) for each in (tokens, documents)
        )
        encoded = self._stack("encoder", self._embed(read), _same(source, source))
        mask = _causal(_same(target, target))
        return self._output(self._stack("decoder", self._embed(written), mask, encoded, _same(target, source)))

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        embedded = self.weights["embedding.word_embeddings.weight"][tokens]
        if self.model.positions == "learned":
            embedded = embedded + self.weights["embedding.position_embeddings.weight"][: tokens.shape[1]]
        return embedded

    def _output(self, hidden: torch.Tensor) -> torch.Tensor:
        matrix = self.weights[
            "embedding.word_embeddings.weight" if self.model.tied_embeddings else "output_layer.weight"
        ]
        return linear(hidden, matrix, self.weights.get("output_layer.bias"))

    def _stack(
        self,
        name: str,
        hidden: torch.Tensor,
        mask: torch.Tensor,
        encoded: torch.Tensor | None = None,
        cross_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        for number in range(self.model.num_layers):
            layer = f"{name}.layers.{number}"
            normed = self._norm(f"{layer}.input_layernorm", hidden)
            hidden = hidden + self._self_attention(f"{layer}.self_attention", normed, self._windowed(mask, number))
            if encoded is not None and cross_mask is not None:
                normed = self._norm(f"{layer}.pre_cross_attn_layernorm", hidden)
                hidden = hidden + self._cross_attention(f"{layer}.cross_attention", normed, encoded, cross_mask)
            hidden = hidden + self._feed_forward(f"{layer}.mlp", self._norm(f"{layer}.pre_mlp_layernorm", hidden))
        return self._norm(f"{name}.final_layernorm", hidden)

    def _windowed(self, mask: torch.Tensor, number: int) -> torch.Tensor:
        every = self.model.full_attention_every
        if self.model.sliding_window is None or (every and (number + 1) % every == 0):
            return mask
        places = torch.arange(mask.shape[-1])
        return mask & ((places[:, None] - places).abs() < self.model.sliding_window)

    def _norm(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        weight, width = self.weights[f"{name}.weight"], (hidden.shape[-1],)
        if self.model.normalization == "RMSNorm":
            return rms_norm(hidden, width, weight, self.model.norm_epsilon)
        return layer_norm(hidden, width, weight, self.weights[f"{name}.bias"], self.model.norm_epsilon)

    def _linear(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        return linear(hidden, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def _self_attention(self, name: str, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        model = self.model
        heads, groups, width = model.num_attention_heads, model.num_query_groups, model.kv_channels
        mixed = self._linear(f"{name}.linear_qkv", hidden).unflatten(-1, (groups, heads // groups + 2, width))
        query, key, value = mixed.split([heads // groups, 1, 1], -2)  # [batch, positions, groups, heads of it, width]
        if model.qk_norm:
            query, key = self._norm(f"{name}.q_layernorm", query), self._norm(f"{name}.k_layernorm", key)
        if model.positions == "rope":
            query, key = self._turned(query), self._turned(key)
        attended = torch.stack(
            [
                _attend(
                    query[:, :, head // (heads // groups), head % (heads // groups)],
                    key[:, :, own, 0],
                    value[:, :, own, 0],
                    mask,
                )
                for head in range(heads)
                for own in [head // (heads // groups)]
            ],
            2,
        )
        return self._linear(f"{name}.linear_proj", attended.flatten(2))

    def _cross_attention(
        self, name: str, hidden: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        heads, width = self.model.num_attention_heads, self.model.kv_channels
        query = self._linear(f"{name}.linear_q", hidden).unflatten(-1, (heads, width))
        key, value = self._linear(f"{name}.linear_kv", encoded).unflatten(-1, (heads, 2 * width)).chunk(2, -1)
        attended = [_attend(query[:, :, head], key[:, :, head], value[:, :, head], mask) for head in range(heads)]
        return self._linear(f"{name}.linear_proj", torch.stack(attended, 2).flatten(2))

    def _turned(self, each: torch.Tensor) -> torch.Tensor:
        width, scaling = self.model.kv_channels, self.model.rope_scaling
        angles = torch.zeros(each.shape[1], width // 2)
        for pair in range(width // 2):
            frequency = self.model.rope_base ** (-2 * pair / width)
            if scaling is not None:
                wave = 2 * math.pi / frequency
                low = scaling.original_length / scaling.low_frequency_factor
                high = scaling.original_length / scaling.high_frequency_factor
                smooth = (scaling.original_length / wave - scaling.low_frequency_factor) / (
                    scaling.high_frequency_factor - scaling.low_frequency_factor
                )
                if scaling.kind == "linear" or wave > low:
                    frequency /= scaling.factor
                elif wave >= high:
                    frequency = (1 - smooth) * frequency / scaling.factor + smooth * frequency
            angles[:, pair] = torch.arange(each.shape[1]) * frequency
        cosine, sine = (function(angles)[:, None, None] for function in (torch.cos, torch.sin))
        one, two = each.chunk(2, -1)
        return torch.cat([one * cosine - two * sine, two * cosine + one * sine], -1)

    def _feed_forward(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        mixture = self.model.mixture
        if mixture is None:
            return self._one_feed_forward(name, hidden)
        self.routers.append(linear(hidden, self.weights[f"{name}.router.weight"]))
        chances = self.routers[-1].softmax(-1)
        result = torch.zeros_like(hidden)
        for batch, position in torch.cartesian_prod(*(torch.arange(size) for size in hidden.shape[:2])).tolist():
            best, experts = chances[batch, position].topk(mixture.top_k)
            for share, expert in zip(best / best.sum(), experts.tolist(), strict=True):
                one = self._one_feed_forward(f"{name}.experts.local_experts.{expert}", hidden[batch, position])
                result = result.index_put((torch.tensor(batch), torch.tensor(position)), share * one, accumulate=True)
        return result + self._one_feed_forward(f"{name}.shared_experts", hidden)

    def _one_feed_forward(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        inner = self._linear(f"{name}.linear_fc1", hidden)
        if self.model.activation == "swiglu":
            gate, up = inner.chunk(2, -1)
            inner = silu(gate) * up
        else:
            inner = gelu(inner) if self.model.activation == "gelu" else relu(inner) ** 2
        return self._linear(f"{name}.linear_fc2", inner)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    return scores.masked_fill(~mask, -1e30).softmax(-1) @ value


def _same(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return queries[:, :, None] == keys[:, None, :]


def _causal(mask: torch.Tensor) -> torch.Tensor:
    return mask & torch.ones(mask.shape[-2:], dtype=torch.bool).tril()
