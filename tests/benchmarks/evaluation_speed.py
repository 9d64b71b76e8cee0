"""Log-likelihood requests a second, ours and lm-evaluation-harness's `hf` backend on the same weights and requests.

    python -m tests.benchmarks.evaluation_speed [--size 15m] [--batch-size 32] [--items FILE] [--requests N]

One process, on the CPU in float32 or on one GPU in bfloat16. Requests are HellaSwag's, four an item, from the file as
it is published or from `--items`, a JSON line with `query` and `endings` for each item. Both backends take text and
give numbers: tokenizing counts. The tokenizer is trained on the items; the weights are drawn. Our batches hold as many
tokens as `--batch-size` rows of mean length. The first call of each makes kernels; it counts on its own.

Beside what a rank of a training needs, this needs transformers, accelerate and lm_eval, and of what lm_eval depends on
what it imports: datasets, sacrebleu, jinja2 and dill with their own dependencies.
"""

import argparse
import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from model.config import ParallelSettings, TrainingSettings
from model.gpu import speed_up
from model.megatron import on_cpu
from model.settings.architecture import ModelSettings
from model.settings.benchmarks import BenchmarkSettings

END_OF_DOCUMENT = "<|end|>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="15m", help="name of a model's size")
    parser.add_argument("--vocabulary", type=int, default=32_768)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--items", type=Path, help="JSON lines with query and endings")
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--compiled", action="store_true", help="compile layers on GPUs; an evaluation does not")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    warnings.simplefilter("ignore")
    as_only_rank()
    on_cpu.install()
    speed_up.install()
    from model.parallel import parallel

    with parallel(ParallelSettings(), seed=1) as place:
        measure(options, place)


def as_only_rank() -> None:
    """What torchrun tells the only rank of a job, and libraries that neither print bars nor ask the network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": "0", "WORLD_SIZE": "1"})
    os.environ.update({"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})


def measure(options: argparse.Namespace, place: Any) -> None:
    """Print a line for each backend and each call, then the ratios."""
    from lm_eval.api.instance import Instance

    pairs = read_pairs(options.items)[: options.requests]
    content = train_tokenizer([text for pair in pairs for text in pair], options.vocabulary)
    given = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    ours, theirs = backends(options, place, content, pairs)
    clock = time.process_time if place.device.type == "cpu" else time.perf_counter  # one thread, beside others
    took: dict[str, list[float]] = {}
    answers: dict[str, list[tuple[float, bool]]] = {}
    for name, make in (("hf", theirs), ("ours", ours)):
        for call in ("first", "second"):
            asked, began = make(), clock()
            answers[name] = asked.loglikelihood(given, disable_tqdm=True)
            took.setdefault(name, []).append(clock() - began)
            print(f"{name}, {call} call: {len(pairs) / took[name][-1]:,.1f} requests a second", flush=True)
    for call, one, other in zip(("first", "second"), took["hf"], took["ours"], strict=True):
        print(f"ratio, {call} call: {one / other:.2f}")
    logs = np.array([[log for log, _ in answers[name]] for name in ("hf", "ours")])
    chosen = logs[:, : len(pairs) // 4 * 4].reshape(2, -1, 4).argmax(-1)
    same = (chosen[0] == chosen[1]).mean()
    print(f"largest difference {np.abs(logs[0] - logs[1]).max():.4f} nats; same choice {same:.4f}")


def read_pairs(items: Path | None) -> list[tuple[str, str]]:
    """Contexts and continuations, those of an item one after the other."""
    if items is None:
        from tests.model.benchmarks.benchmark_items import hellaswag

        return [pair for item in hellaswag() for pair in item]
    found = [json.loads(line) for line in items.read_text(encoding="utf-8").splitlines()]
    return [(each["query"], f" {ending}") for each in found for ending in each["endings"]]


def train_tokenizer(texts: list[str], size: int) -> bytes:
    """A byte-level tokenizer.json that learned from some texts, perhaps of fewer tokens."""
    import tokenizers

    tokenizer: Any = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END_OF_DOCUMENT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str().encode()


def backends(
    options: argparse.Namespace, place: Any, content: bytes, pairs: list[tuple[str, str]]
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Ours, with nothing answered yet, and theirs, on the same weights."""
    from model.architectures.build import build_model
    from model.evaluation.crew import Crew
    from model.evaluation.encoding import PromptEncoder
    from model.evaluation.harness import MegatronLM
    from model.evaluation.scoring import Scorer

    encoder = PromptEncoder(_vocabulary(content), 0)
    lengths = [len(one) + len(other) - 1 for one, other in encoder.encode_pairs(pairs)]
    settings = BenchmarkSettings(tokens_at_once=max(1, round(options.batch_size * float(np.mean(lengths)))))
    training = TrainingSettings(
        model=ModelSettings.model_validate(options.size),
        dtype="bfloat16" if place.device.type == "cuda" else "float32",
        compiled=options.compiled,
    )
    chunks = build_model(training, training.parallel, place, options.vocabulary)
    length = training.model.sequence_length
    scorer = Scorer(chunks, place, settings, length, options.vocabulary)
    crew = Crew(place, {"score": scorer.score})
    theirs = _their_model(options, place, training, chunks, content)
    tokens = f"{np.mean(lengths):.0f} tokens each"
    print(f"{options.size} {training.dtype} on {place.device}; {len(pairs):,} requests, {tokens}")
    return lambda: MegatronLM(encoder, crew, settings, length), lambda: theirs


def _vocabulary(content: bytes) -> Any:
    from infra.vocabulary import open_vocabulary

    return open_vocabulary(content, "huggingface", {END_OF_DOCUMENT: 0})


def _their_model(
    options: argparse.Namespace, place: Any, training: TrainingSettings, chunks: Any, content: bytes
) -> Any:
    """The same weights in transformers, as its backend of the harness has them."""
    import tokenizers
    import transformers

    from model.interchange.tensors import to_transformers
    from model.interchange.transformers_config import to_config
    from tests.model.evaluation.their_model import BegunHFLM

    config = to_config(training.model, options.vocabulary, 0, None, training.dtype)
    weights = dict(to_transformers(_Live(chunks[0], place), training.model, options.vocabulary))
    with place.device:
        model: Any = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**config), dtype=next(iter(weights.values())).dtype
        )
    found = model.load_state_dict(weights, strict=False)
    assert not found.unexpected_keys
    assert set(found.missing_keys) <= {"lm_head.weight"}, found.missing_keys  # tied
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(content.decode()),
        bos_token=END_OF_DOCUMENT,
        eos_token=END_OF_DOCUMENT,
    )
    return BegunHFLM(
        pretrained=model.eval().to(place.device),
        tokenizer=tokenizer,
        batch_size=options.batch_size,
        max_length=training.model.sequence_length,
        device=str(place.device),
    )


class _Live:
    """Weights of a model that is in one process, by Megatron-Core's names."""

    def __init__(self, chunk: Any, place: Any) -> None:
        from model.architectures.weights import sharded_tensors

        state = chunk.sharded_state_dict(metadata={"dp_cp_group": place.data_group()})
        parts = [each for each in sharded_tensors(state) if each.data is not None]
        self._parts: dict[Any, list[Any]] = {}
        for each in sorted(parts, key=lambda part: part.global_offset):  # gate and projection are parts of one tensor
            layer = int(each.global_offset[0]) if each.prepend_axis_num else None
            self._parts.setdefault((each.key, layer), []).append(each.data)

    def read(self, key: str, layer: int | None) -> Any:
        """One layer of a tensor, or a tensor that is no stack."""
        import torch

        return torch.cat([part.detach() for part in self._parts[key, layer]])


if __name__ == "__main__":
    sys.exit(main())
