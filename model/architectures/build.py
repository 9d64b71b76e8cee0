"""From settings to this rank's part of a model."""

from typing import Any

from megatron.core.transformer.module import Float16Module

from model.architectures.bert import build_bert
from model.architectures.gpt import build_gpt, transformer_config
from model.architectures.layers import set_rotary_frequencies
from model.architectures.lstm import build_lstm
from model.architectures.mixture import keep_experts_apart
from model.architectures.t5 import build_t5
from model.architectures.weights import initialise
from model.config import TrainingSettings
from model.gpu import speed_up
from model.megatron import cpu_kernels, fixes
from model.parallel import Place
from model.settings.layout import ParallelSettings
from model.updates.loss import use_loss


def build_model(
    training: TrainingSettings, parallel: ParallelSettings, place: Place, vocabulary_size: int, *, draw: bool = True
) -> list[Any]:
    """Build this rank's part of the model, on its device, with its initial weights.

    The result is a list of chunks, one but for interleaved pipelines. The weights depend on `training.seed` alone:
    every layout starts as the same model. A chunk called with tokens and position ids [batch, positions] returns
    logits [batch, positions, padded vocabulary / tensor], or with labels the loss of each token in nats
    [batch, positions]. Without `draw` the weights are any, for those that will be loaded.
    """
    fixes.install()
    config = transformer_config(training, parallel, place.device)
    chunks = [_build_chunk(config, training, place, vocabulary_size, chunk) for chunk in range(place.chunks)]
    for chunk in chunks:
        set_rotary_frequencies(chunk, training.model)
        keep_experts_apart(chunk)
        use_loss(chunk, training.loss)
        if draw:
            initialise(chunk, place, training.model, training.seed)
        chunk.to(place.device)
        if place.device.type == "cpu":
            cpu_kernels.shorten_activation(chunk)
        elif training.compiled and not config.engine:
            speed_up.speed_up(chunk)
    return [Float16Module(config, chunk) for chunk in chunks] if training.dtype == "bfloat16" else chunks


def _build_chunk(config: Any, training: TrainingSettings, place: Place, vocabulary_size: int, chunk: int) -> Any:
    match training.model.architecture:
        case "gpt":
            return build_gpt(config, training, place, vocabulary_size, chunk)
        case "bert":
            return build_bert(config, training, place, vocabulary_size, chunk)
        case "t5":
            return build_t5(config, training, place, vocabulary_size)
        case "lstm":
            return build_lstm(config, training, vocabulary_size)
