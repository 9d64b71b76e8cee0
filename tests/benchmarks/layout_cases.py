"""The layouts that `tests.benchmarks.layouts` compares, and the models that need them."""

import json
from typing import Any

from pydantic import Field

from infra.settings import Settings
from model.settings.layout import ParallelSettings


class Case(Settings):
    """A layout to try, and what the model has that the layout needs."""

    name: str
    parallel: ParallelSettings
    training: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ, as in a configuration file."""

    @property
    def model(self) -> str:
        """Cases of the same model have one reference."""
        return json.dumps({key: self.training[key] for key in ("model",) if key in self.training})


def case(name: str, tensor: int = 1, pipeline: int = 1, context: int = 1, data: int = 1, **more: Any) -> Case:
    processes = tensor * pipeline * context * data
    training = more.pop("training", {})
    layout = ParallelSettings(tensor=tensor, pipeline=pipeline, context=context, processes=processes, **more)
    return Case(name=name, parallel=layout, training=training)


MIXTURE: dict[str, Any] = {"model": {"mixture": {"experts": 4, "top_k": 2, "shared_ffn_hidden_size": 64}}}
PLAIN: dict[str, Any] = {
    "model": {
        "normalization": "LayerNorm",
        "activation": "gelu",
        "positions": "learned",
        "biases": True,
        "qk_norm": False,
        "tied_embeddings": False,
        "num_query_groups": 8,
        "sliding_window": 24,
        "full_attention_every": 2,
    }
}
BERT: dict[str, Any] = {"model": {"architecture": "bert", "num_query_groups": 8}}
T5: dict[str, Any] = {"model": {"architecture": "t5", "num_query_groups": 8}}
LSTM: dict[str, Any] = {"model": {"architecture": "lstm"}}

CASES = [
    case("one process"),
    case("data 2", data=2),
    case("data 2, overlap", data=2, overlap=True, bucket_size=20_000),
    case("tensor 2", tensor=2),
    case("tensor 2, sequence", tensor=2, sequence_parallel=True),
    case("tensor 2, sequence, exchange", tensor=2, sequence_parallel=True, tensor_overlap=True),
    case("pipeline 2", pipeline=2),
    case("pipeline 2 x 2 interleaved", pipeline=2, virtual_pipeline=2),
    case("context 2", context=2),
    case("mixture: expert 2", data=2, expert=2, training=MIXTURE),
    case("mixture: tensor 2, sequence", tensor=2, sequence_parallel=True, training=MIXTURE),
    case("mixture: context 2, expert 2", context=2, expert=2, training=MIXTURE),
    case("gpt-2: tensor 2, sequence", tensor=2, sequence_parallel=True, training=PLAIN),
    case("gpt-2: context 2", context=2, training=PLAIN),
    case("gpt-2: pipeline 2, full recomputation", pipeline=2, training={**PLAIN, "recompute": "full"}),
    case("bert: tensor 2, sequence", tensor=2, sequence_parallel=True, training=BERT),
    case("bert: pipeline 2", pipeline=2, training=BERT),
    case("bert: context 2", context=2, training=BERT),
    case("t5: tensor 2, sequence", tensor=2, sequence_parallel=True, training=T5),
    case("t5: data 2", data=2, training=T5),
    case("lstm: data 2", data=2, training=LSTM),
    case("data 4", data=4),
    case("tensor 2, data 2", tensor=2, data=2),
    case("tensor 2, sequence, data 2, overlap", tensor=2, data=2, sequence_parallel=True, overlap=True),
    case("tensor 4, sequence", tensor=4, sequence_parallel=True),
    case("pipeline 4", pipeline=4),
    case("pipeline 2, data 2", pipeline=2, data=2),
    case(
        "pipeline 2 x 2 interleaved, data 2, overlap",
        pipeline=2,
        data=2,
        virtual_pipeline=2,
        overlap=True,
        bucket_size=20_000,
    ),
    case("tensor 2, sequence, pipeline 2", tensor=2, pipeline=2, sequence_parallel=True),
    case(
        "tensor 2, sequence, pipeline 2 x 2 interleaved",
        tensor=2,
        pipeline=2,
        virtual_pipeline=2,
        sequence_parallel=True,
    ),
    case("mixture: expert 2, data 4", data=4, expert=2, training=MIXTURE),
    case("mixture: expert 4", data=4, expert=4, training=MIXTURE),
    case("mixture: tensor 2, sequence, expert 2", tensor=2, data=2, expert=2, sequence_parallel=True, training=MIXTURE),
    case(
        "mixture: pipeline 2 x 2 interleaved, expert 2",
        pipeline=2,
        virtual_pipeline=2,
        data=2,
        expert=2,
        training=MIXTURE,
    ),
    case("context 4", context=4),
    case("context 2, data 2", context=2, data=2),
    case("context 2, pipeline 2", context=2, pipeline=2),
    case("context 2, tensor 2, sequence", context=2, tensor=2, sequence_parallel=True),
    case(
        "tensor 2, sequence, pipeline 2 x 2 interleaved, data 2, overlap",
        tensor=2,
        pipeline=2,
        data=2,
        virtual_pipeline=2,
        sequence_parallel=True,
        overlap=True,
    ),
    case("tensor 2, sequence, pipeline 2, context 2", tensor=2, pipeline=2, context=2, sequence_parallel=True),
    case("tensor 2, context 2, data 2", tensor=2, context=2, data=2, sequence_parallel=True),
]
