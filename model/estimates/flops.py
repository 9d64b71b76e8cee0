"""Parameters and floating-point operations of a model, from its settings alone.

Model FLOP are those that the mathematics needs, whatever was really computed: recomputed activations do not count, so
that MFU (model FLOP utilisation, arXiv:2204.02311) tells how much of a device's peak went into learning.

A matrix of n weights that a position passes through takes 2 n operations forwards (a multiplication and an addition
each) and 4 n backwards (gradients of its input and of itself): 6 n. So a token costs

    6 N + 12 L w c

N     weights that a token meets: without those of the input embedding, which is looked up, but with the output layer's,
      tied or not; of a mixture, its router, shared expert and top_k experts
L     layers
w     heads times the width of a head; hidden_size in most models
c     positions that a position attends to, on average: the products of queries with keys and of weights with values
      take 2 w c each forwards and twice that backwards. With s positions c is s / 2 under a causal mask (which makes
      the well-known 6 L s w), s without one, and v - v^2 / (2 s) in a layer with a window of v < s. Masks between
      documents lower what is computed but not this number: the work that was asked for is then overstated.

An encoder-decoder is the same sum over the positions of both sides; keys and values of the cross-attention are made at
the encoder's positions, and a decoder's position attends to all of them. A layer of an LSTM has 8 h^2 weights and no
attention. Norms, rotary turns, softmax and other elementwise work is left out, as everywhere; vectors (norms, biases)
are counted within N, where they do not show.
"""

from model.settings.architecture import ModelSettings, embedding_rows, lengths


def parameters(model: ModelSettings, vocabulary_size: int) -> int:
    """Weights of the whole model, each counted once, those of padding in the vocabulary included."""
    rows = embedding_rows(model, vocabulary_size)
    return body_parameters(model) + embedding_parameters(model, rows)


def embedding_parameters(model: ModelSettings, rows: int) -> int:
    """Weights of the embeddings of tokens and positions, and of the output layer (its bias too) where not tied."""
    matrices = rows * model.hidden_size * (1 if model.tied_embeddings else 2)
    bias = rows if model.architecture in ("bert", "t5") else 0
    positions = model.hidden_size * _learned_positions(model)
    return matrices + bias + positions


def body_parameters(model: ModelSettings, *, active: bool = False) -> int:
    """Weights outside the embeddings and the output layer; `active` counts those that one token meets."""
    if model.architecture == "lstm":
        return model.num_layers * (8 * model.hidden_size**2 + 8 * model.hidden_size)
    norm = _norm(model, model.hidden_size)
    layer = _attention(model) + _feed_forward(model, active=active) + 2 * norm
    body = model.num_layers * layer + norm
    if model.architecture == "t5":
        body += model.num_layers * (layer + _cross_attention(model) + norm) + norm
    if model.architecture == "bert":
        body += model.hidden_size**2 + model.hidden_size + norm  # the dense layer before the output layer
    return body


def flops_per_token(model: ModelSettings, vocabulary_size: int) -> float:
    """Operations of training on one token of text; see the module docstring."""
    output = embedding_rows(model, vocabulary_size) * model.hidden_size
    encoder, decoder = lengths(model)
    if model.architecture == "t5":
        per_sample = _t5_flops(model, output, encoder, decoder)
    else:
        positions = encoder or decoder
        per_sample = positions * 6.0 * (body_parameters(model, active=True) + output)
        per_sample += positions * 12.0 * _heads_width(model) * sum(_attended(model))
    return per_sample / model.sequence_length


def _t5_flops(model: ModelSettings, output: int, encoder: int, decoder: int) -> float:
    width, layers = _heads_width(model), model.num_layers
    layer = _attention(model) + _feed_forward(model, active=True)
    crossing = _cross_attention(model) // 2  # half of its weights make keys and values, at the encoder's positions
    weights = layers * (encoder * (layer + crossing) + decoder * (layer + crossing)) + decoder * output
    attended = layers * (encoder * encoder + decoder * decoder / 2 + decoder * encoder)
    return 6.0 * weights + 12.0 * width * attended


def _attended(model: ModelSettings) -> list[float]:
    """Positions that a position attends to, on average, in each layer of a model with one stack of layers."""
    length, window, every = model.sequence_length, model.sliding_window, model.full_attention_every
    if model.architecture == "lstm":
        return []
    if model.architecture == "bert":
        full = float(length)
        windowed = min(full, 2.0 * window - 1) if window else full
    else:
        full = length / 2
        windowed = window - window**2 / (2 * length) if window and window < length else full
    return [
        full if window is None or (every is not None and layer % every == 0) else windowed
        for layer in range(1, model.num_layers + 1)
    ]


def _heads_width(model: ModelSettings) -> int:
    return 0 if model.architecture == "lstm" else model.num_attention_heads * model.kv_channels


def _attention(model: ModelSettings) -> int:
    queries = _heads_width(model)
    made = queries + 2 * model.num_query_groups * model.kv_channels
    weights = model.hidden_size * (made + queries)
    biases = made + model.hidden_size if model.biases else 0
    return weights + biases + (2 * _norm(model, model.kv_channels) if model.qk_norm else 0)


def _cross_attention(model: ModelSettings) -> int:
    width = _heads_width(model)
    return 4 * model.hidden_size * width + (3 * width + model.hidden_size if model.biases else 0)


def _feed_forward(model: ModelSettings, *, active: bool) -> int:
    if (mixture := model.mixture) is None:
        return _dense(model, model.ffn_hidden_size)
    experts = mixture.top_k if active else mixture.experts
    weights = experts * _dense(model, mixture.expert_ffn_hidden_size or model.ffn_hidden_size)
    shared = _dense(model, mixture.shared_ffn_hidden_size) if mixture.shared_ffn_hidden_size else 0
    return weights + shared + mixture.experts * model.hidden_size


def _dense(model: ModelSettings, width: int) -> int:
    inner = 2 * width if model.activation == "swiglu" else width
    return model.hidden_size * (inner + width) + (inner + model.hidden_size if model.biases else 0)


def _norm(model: ModelSettings, width: int) -> int:
    return width if model.normalization == "RMSNorm" else 2 * width


def _learned_positions(model: ModelSettings) -> int:
    return max(lengths(model)) if model.positions == "learned" and model.architecture != "lstm" else 0
