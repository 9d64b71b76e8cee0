"""New tokens a second, ours and those of transformers' `generate` with its cache, on the same weights and prompts.

    python -m tests.benchmarks.generation_speed [--size 15m] [--batch 1 8] [--prompt 64] [--new 128] [--threads 1]

One process, on the CPU in float32 or on one GPU in bfloat16; greedy, from random prompts of one length, so that
transformers pads nothing. Weights are random. On the CPU the time is that of the processor, because others may use it
too. The first call of each is not counted.
"""

import argparse
import os
import socket
import sys
import time
import warnings
from typing import Any

import numpy as np

from infra.manifest import TokenizerRecord
from model.config import ParallelSettings, TrainingSettings
from model.gpu import speed_up
from model.megatron import on_cpu
from model.settings.architecture import ModelSettings

VOCABULARY = 32_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="15m", help="name of a model's size")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens to add to each")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    warnings.simplefilter("ignore")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": "0", "WORLD_SIZE": "1"})
    on_cpu.install()
    speed_up.install()
    from model.parallel import parallel

    with parallel(ParallelSettings(), seed=1) as place:
        measure(options, place)


def measure(options: argparse.Namespace, place: Any) -> None:
    """Print a line for each batch size."""
    from model.evaluation.generation import GenerationRequest, Generator

    ours, theirs = both_models(options.size, place)
    record = TokenizerRecord(path="", sha256="", vocabulary_size=VOCABULARY, end_of_document=0, pad=None)
    generator = Generator([ours], place, ours.config.longest, record, Numbers())
    for rows in options.batch:
        prompts = np.random.default_rng(rows).integers(1, VOCABULARY, (rows, options.prompt)).tolist()
        requests = [GenerationRequest(tuple(prompt), options.new) for prompt in prompts]
        found, ours_s = timed(lambda given: generator.generate(given), requests)
        other, theirs_s = timed(lambda given: continued(theirs, given, options.new), prompts)
        count = sum(map(len, found))
        same = np.mean([one[: len(two)] == two[: len(one)] for one, two in zip(found, other, strict=True)])
        print(
            f"{options.size} on {place.device}, {rows} rows: ours {count / ours_s:,.0f}, transformers "
            f"{sum(map(len, other)) / theirs_s:,.0f} tokens a second; the same texts {same:.0%}",
            flush=True,
        )


class Numbers:
    """A vocabulary without texts."""

    size = VOCABULARY

    def encode(self, texts: Any) -> list[Any]:
        raise NotImplementedError

    def decode(self, ids: Any) -> str:
        raise NotImplementedError


def both_models(size: str, place: Any) -> tuple[Any, Any]:
    """One model of Megatron-Core and of transformers."""
    import torch
    import transformers

    from model.architectures.build import build_model
    from model.architectures.weights import sharded_tensors
    from model.interchange.tensors import fill_from
    from model.interchange.transformers_config import to_config

    dtype = "bfloat16" if place.device.type == "cuda" else "float32"
    training = TrainingSettings(model=ModelSettings.model_validate(size), dtype=dtype)
    config = to_config(training.model, VOCABULARY, 0, None, dtype)
    torch.manual_seed(1)
    theirs: Any = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    source = Weights(dict(theirs.state_dict()))
    chunk = build_model(training, training.parallel, place, VOCABULARY, draw=False)[0]
    with torch.no_grad():
        for part in sharded_tensors(chunk.sharded_state_dict(metadata={"dp_cp_group": place.data_group()})):
            if part.data is not None:
                stacked = part.prepend_axis_num
                layer = int(part.global_offset[0]) if stacked else None
                target = torch.empty(part.data.shape)
                fill_from(source, target, part.key, layer, tuple(part.global_offset[stacked:]), training.model)
                part.data.copy_(target)
    chunk.config.longest = training.model.sequence_length
    return chunk, theirs.to(device=place.device, dtype=getattr(torch, dtype)).eval()


class Weights:
    """Tensors by transformers' names."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        self._tensors = tensors

    def rows(self, name: str) -> int:
        return len(self._tensors[name])

    def read(self, name: str, rows: slice, columns: slice | None) -> Any:
        tensor = self._tensors[name].float()
        return tensor[rows] if columns is None else tensor[rows, columns]


def continued(model: Any, prompts: list[list[int]], count: int) -> list[list[int]]:
    """What transformers adds."""
    import torch

    ids = torch.tensor(prompts, device=model.device)
    options = {"max_new_tokens": count, "do_sample": False, "eos_token_id": 0, "pad_token_id": 0, "use_cache": True}
    with torch.no_grad():
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    added = whole[:, ids.shape[1] :].tolist()
    return [each[: each.index(0)] if 0 in each else each for each in added]


def timed(work: Any, given: Any) -> tuple[list[list[int]], float]:
    """What is found, and the seconds of the second call."""
    import torch

    on_gpu = torch.cuda.is_available()
    clock = time.perf_counter if on_gpu else time.process_time
    work(given)
    began = clock()
    found = work(given)
    if on_gpu:
        torch.cuda.synchronize()
    return found, clock() - began


if __name__ == "__main__":
    sys.exit(main())
