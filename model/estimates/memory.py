"""How much memory a training takes on its fullest device, from its settings alone.

Notation: b sequences in a micro-batch, s positions, h hidden_size, q and k the widths of all query heads and of all key
(or value) heads, f ffn_hidden_size, V rows of the embedding; t, p, v, c, d processes of a layout (tensor, pipeline,
pieces, context, data); w bytes of a number in the type of computing (2 or 4).

**State.** A weight takes w bytes, its gradient 4. Adam's two moments, and in bfloat16 a float32 master weight, take 8
or 12 more, spread over the c d replicas (ZeRO-1, arXiv:1910.02054); Muon's momentum, and its master weights, are whole
in every replica. A device has L / p layers, each 1 / t of it; the first stage the embedding besides, the last the
output layer (a copy of the embedding where tied). Of experts it has 1 / expert, whole, and their state is spread over
the replicas of those; with expert = 1 they are like other layers.

**Activations** are what the backward pass needs again, as Korthikanti et al. (arXiv:2205.05198) count them, but for
fused attention, which keeps no scores. A decoder's layer keeps for each position these numbers of w bytes:

    4 h              residual stream before either norm, and either norm's result
    q + 2 k          queries, keys and values, turned; with norms of queries and keys also as they were, and q + k more
    q                result of the attention
    3 f or 2 f       what goes into SwiGLU (2 f) and comes out (f); f and f for other activations

and with dropout one byte for each of 2 h. Tensor parallelism divides all but the first line by t, sequence parallelism
that one too. A context rank has s / c positions but keeps the keys and values of all. In a mixture each of top_k
experts keeps its own input (h) and its 3 f. Full recomputation keeps h alone, selective recomputation leaves out the
feed-forward line; both have one layer's numbers twice (values and gradients) while it is computed again.

A stage of 1F1B holds as many micro-batches as there are stages from it to the last; the first of an interleaved
pipeline p v + p - 1 pieces of L / (p v) layers each, which is (p - 1) / (p v) more than one whole micro-batch a stage.

**Logits** are there when the last stage begins its backward pass, before layers free anything: w bytes each, because
their gradient is written over them (`model.updates.loss`), and float32 of 2^26 of them at a time.

Not counted: the CUDA context, NCCL's buffers and what the allocator cannot use; `usable` leaves room for them. With
Megatron-Core's own loss (10 bytes a logit) and rotary positions (q + k more) the same sums gave 43.4, 68.3, 86.1, 78.9
and 71.2 GiB where H200s showed 44 and 68 (1.1 B, micro-batches of 4 and 8), 86 and 82 (8 B, pipeline and tensor 2) and
71 (3.6 B, data 2). What layers keep on a CPU (`fused` false) `tests/model/test_memory.py` counts tensor by tensor.
"""

from infra.settings import Settings
from infra.software import driver_says
from model.config import TrainingSettings
from model.estimates.flops import body_parameters
from model.settings.architecture import ModelSettings, embedding_rows, lengths
from model.settings.layout import ParallelSettings

GIB = 1 << 30


class Memory(Settings):
    """Bytes on one device at the fullest moment of a step."""

    stage: int
    """Pipeline stage of the device, from 0."""
    weights: float
    gradients: float
    optimizer: float
    activations: float
    """Of all micro-batches that are under way."""
    working: float
    """Logits, or a layer that is recomputed or differentiated."""

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.working


def estimate_memory(training: TrainingSettings, vocabulary_size: int, *, fused: bool = True) -> Memory:
    """Memory on the device that needs most; `fused` is false for a CPU, whose activations keep more."""
    stages = sorted({0, training.parallel.pipeline // 2, training.parallel.pipeline - 1})
    each = [_on_stage(training, vocabulary_size, stage, fused=fused) for stage in stages]
    return max(each, key=lambda memory: memory.total)


def usable(device_bytes: float) -> float:
    """What of a device's memory tensors can take: a gigabyte of context and 5 % of holes and buffers are left out."""
    return 0.95 * device_bytes - GIB


def device_memory(parallel: ParallelSettings, *, elsewhere: bool = False) -> float | None:
    """Bytes of a device: as the settings say, or as the driver says of this machine's first GPU; None without one.

    This machine's is not asked where the ranks run `elsewhere`.
    """
    if parallel.device_memory_gib is not None or elsewhere:
        return None if parallel.device_memory_gib is None else parallel.device_memory_gib * GIB
    mebibytes = next(iter(driver_says("memory.total")), "")
    return float(mebibytes) * (1 << 20) if mebibytes.isdigit() else None


def _on_stage(training: TrainingSettings, vocabulary_size: int, stage: int, *, fused: bool) -> Memory:
    model, parallel = training.model, training.parallel
    width = 2 if training.dtype == "bfloat16" else 4
    dense, experts = _weights(model, parallel, vocabulary_size, stage)
    sequences = training.micro_batch_size / parallel.context  # as if each had all positions
    under_way = _pieces_under_way(training, stage) / (parallel.virtual_pipeline or 1)
    kept = _layer_elements(model, parallel, training.recompute, fused=fused) * _layers(model, parallel, stage)
    activations = sequences * width * kept * under_way
    working = sequences * width * _layer_elements(model, parallel, "none", fused=fused)
    working *= 1 if training.recompute == "none" else 2
    if stage == parallel.pipeline - 1:
        positions = lengths(model)[1] or lengths(model)[0]
        logits = sequences * positions * embedding_rows(model, vocabulary_size) / parallel.tensor
        working = max(working, width * logits + 8 * min(logits, 1 << 26))
        activations += sequences * positions * width * _tail_elements(model) / _whole(parallel)
    return Memory(
        stage=stage,
        weights=width * (dense + experts),
        gradients=4 * (dense + experts),
        optimizer=_optimizer(training, dense, experts),
        activations=activations,
        working=working,
    )


def _layers(model: ModelSettings, parallel: ParallelSettings, stage: int) -> float:
    """Layers of a stage."""
    if parallel.last_stage_layers is None:
        return model.num_layers / parallel.pipeline
    if stage == parallel.pipeline - 1:
        return parallel.last_stage_layers
    return (model.num_layers - parallel.last_stage_layers) / (parallel.pipeline - 1)


def _weights(model: ModelSettings, parallel: ParallelSettings, vocabulary_size: int, stage: int) -> tuple[float, float]:
    """Weights on a device of a stage, experts apart."""
    experts = 0.0
    if model.mixture is not None:
        width = model.mixture.expert_ffn_hidden_size or model.ffn_hidden_size
        experts = model.num_layers * model.mixture.experts * model.hidden_size * width * _matrices(model)
    share = _layers(model, parallel, stage) / model.num_layers
    layers = (body_parameters(model) - experts) * share
    vocabulary = embedding_rows(model, vocabulary_size) * model.hidden_size
    first, last = stage == 0, stage == parallel.pipeline - 1
    ends = first + last if not (model.tied_embeddings and parallel.pipeline == 1) else 1
    learned = max(lengths(model)) * model.hidden_size if first and model.positions == "learned" else 0
    dense = (layers + ends * vocabulary) / parallel.tensor + learned
    return dense, experts * share / (parallel.expert_tensor * parallel.expert)


def _optimizer(training: TrainingSettings, dense: float, experts: float) -> float:
    master = 4 if training.dtype == "bfloat16" else 0
    parallel = training.parallel
    stage = parallel.tensor * parallel.context * parallel.data
    replicas, of_expert = stage / parallel.tensor, stage / (parallel.expert * parallel.expert_tensor)
    if training.optimizer.kind == "muon":
        return (master + 4) * (dense + experts)
    return (master + 8) * (dense / replicas + experts / of_expert)


def _pieces_under_way(training: TrainingSettings, stage: int) -> int:
    """Forward passes of pieces of the model whose backward pass has not begun, at most."""
    parallel = training.parallel
    batches = training.global_batch_size // (training.micro_batch_size * parallel.data)
    pieces = parallel.virtual_pipeline or 1
    if pieces == 1:
        return min(batches, parallel.pipeline - stage)
    warm_up = 2 * (parallel.pipeline - stage - 1) + (pieces - 1) * parallel.pipeline
    return min(batches * pieces, warm_up + 1)


def _whole(parallel: ParallelSettings) -> int:
    """Ranks that share what stands between tensor-parallel layers."""
    return parallel.tensor if parallel.shares_positions else 1


def _layer_elements(model: ModelSettings, parallel: ParallelSettings, recompute: str, *, fused: bool) -> float:
    """Numbers that a layer (of either side, for t5) keeps of one sequence, but for context parallelism."""
    encoder, decoder = lengths(model)
    positions, whole = encoder + decoder, _whole(parallel)
    if recompute == "full":
        return model.hidden_size * positions / whole
    if model.architecture == "lstm":
        return positions * 17.0 * model.hidden_size  # gates, states and the library's workspace, as counted on a CPU
    norm = _norm_elements(model)
    stream = 2 * norm + _dropout(model, fused=fused)
    inside = _attention(model, parallel, fused=fused)
    inside += _feed_forward(model, fused=fused) if recompute == "none" else 0
    total = positions * (stream / whole + inside / parallel.tensor)
    if model.architecture == "t5":  # the cross-attention: queries and results at its own positions, keys at the others
        queries = model.num_attention_heads * model.kv_channels
        total += decoder * (norm / whole + 2 * queries / parallel.tensor) + encoder * 2 * queries / parallel.tensor
    return total


def _norm_elements(model: ModelSettings) -> float:
    """What goes into a norm of the residual stream and what comes out."""
    return 2.0 * model.hidden_size


def _attention(model: ModelSettings, parallel: ParallelSettings, *, fused: bool) -> float:
    queries = model.num_attention_heads * model.kv_channels
    keys = model.num_query_groups * model.kv_channels
    product, turned = queries + 2 * keys, queries + (keys if model.positions == "rope" else 0)
    if not model.qk_norm:
        if parallel.context > 1:  # keys and values are kept as gathered
            return 2 * queries + 2 * keys * parallel.context
        return product + queries + (0 if fused else turned)
    gathered = 2 * keys * parallel.context - keys if parallel.context > 1 else 0
    return product + queries + turned + gathered + queries


def _feed_forward(model: ModelSettings, *, fused: bool) -> float:
    kept = (3 if fused else 4) if model.activation == "swiglu" else 2
    if (mixture := model.mixture) is None:
        return kept * model.ffn_hidden_size
    width = mixture.expert_ffn_hidden_size or model.ffn_hidden_size
    weighted = 0 if fused else 1  # the product with the router's probability
    experts = mixture.top_k * ((kept + weighted) * width + model.hidden_size)
    return experts + kept * (mixture.shared_ffn_hidden_size or 0)


def _dropout(model: ModelSettings, *, fused: bool) -> float:
    """Masks of one byte; on a CPU of the type of computing."""
    return (1 if fused else 2) * model.hidden_size if model.hidden_dropout else 0


def _tail_elements(model: ModelSettings) -> float:
    """The last norm; bert has a dense layer with an activation and a norm more."""
    if model.architecture == "lstm":
        return 0
    norm = _norm_elements(model)
    return 2 * (norm + model.hidden_size) if model.architecture == "bert" else norm


def _matrices(model: ModelSettings) -> int:
    return 3 if model.activation == "swiglu" else 2
