"""How long a checkpoint stops training: `torchrun --nproc-per-node N -m tests.benchmarks.checkpoint_stop --data N`.

Trains a decoder of the given size on random tokens and saves three times, first with training waiting for its
checkpoints, then with asynchronous ones: seconds for which the loop stands still at a save, until the checkpoint is
complete, and for a step with and without a write under way. The first asynchronous save, which pins memory, is left
out.
"""

import argparse
import os
import statistics
import tempfile
import time
from typing import Any

import torch

from infra.store import Store
from model.config import Duration, ModelSettings, ParallelSettings, TrainingSettings
from model.run import RunRecord
from model.settings.safety import CheckpointSettings


def settings_of(options: argparse.Namespace, *, asynchronous: bool) -> TrainingSettings:
    model = ModelSettings(
        num_layers=options.layers,
        hidden_size=options.hidden,
        num_attention_heads=options.hidden // 64,
        num_query_groups=options.hidden // 256,
        ffn_hidden_size=4 * options.hidden,
        sequence_length=options.length,
    )
    checkpoint = CheckpointSettings(asynchronous=asynchronous, keep=1)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return TrainingSettings(
        model=model,
        checkpoint=checkpoint,
        duration=Duration(steps=1000),
        global_batch_size=options.data,
        micro_batch_size=1,
        parallel=ParallelSettings(processes=processes, tensor=processes // options.data, overlap=options.data > 1),
        compiled=False,
    )


def measure(options: argparse.Namespace, folder: str, *, asynchronous: bool) -> dict[str, float]:
    from model.architectures.build import build_model
    from model.parallel import parallel
    from model.recovery.checkpoint import Checkpoints
    from model.timing import Clock
    from model.updates.distribution import distribute
    from model.updates.gradients import compute_gradients
    from model.updates.optimizer import build_optimizer, clip_gradients

    settings = settings_of(options, asynchronous=asynchronous)
    run = RunRecord(
        name="stop",
        dataset="random",
        dataset_version="1",
        dataset_fingerprint="random",
        dataset_manifest="",
        vocabulary_size=options.vocabulary,
        train_tokens=0,
        training=settings,
        fingerprint=f"asynchronous-{asynchronous}",
    )
    with parallel(settings.parallel, settings.seed) as place:
        chunks = distribute(build_model(settings, settings.parallel, place, options.vocabulary), settings.parallel)
        optimizer, clock = build_optimizer(chunks, settings), Clock(place.device)
        checkpoints = Checkpoints(Store(place.share(folder)), run, place)
        checkpoints.clean()
        batch = random_batch(options, place.device)

        def step() -> float:
            began = time.monotonic()
            found = compute_gradients(chunks, optimizer, [batch], place, clock)
            clip_gradients(optimizer, found.norm)
            optimizer.step_with_ready_grads()
            return time.monotonic() - began

        plain = [step() for _ in range(options.steps)][1:]
        stops, completions, meanwhile = [], [], []
        for number in range(1, 4):
            began = time.monotonic()
            checkpoints.save(chunks, optimizer, step=number, consumed_samples=0, seconds=0)
            stops.append(time.monotonic() - began)
            while asynchronous:
                meanwhile.append(step())
                if checkpoints.poll() is not None:
                    break
            completions.append(time.monotonic() - began)
        (record,) = checkpoints.complete()
        return {
            "GB": sum(file.bytes for file in record.files.values()) / 1e9,
            "stopped": statistics.median(stops[1:]),
            "complete": statistics.median(completions[1:]),
            "step": statistics.median(plain),
            "step while writing": statistics.median(meanwhile or plain),
        }


def random_batch(options: argparse.Namespace, device: torch.device) -> Any:
    from model.data.batches import Batch

    tokens = torch.randint(0, options.vocabulary, (1, options.length), device=device)
    places = torch.arange(options.length, device=device).expand(1, -1)
    return Batch(tokens=tokens, labels=tokens, positions=places, mask=torch.ones(1, options.length, device=device))


def main() -> None:
    from model.rank import rank_process

    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("hidden", 512), ("layers", 8), ("vocabulary", 32_000), ("length", 256), ("steps", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--data", type=int, default=1, help="data-parallel processes; the others share layers")
    options = parser.parse_args()
    with rank_process(), tempfile.TemporaryDirectory() as folder:
        for asynchronous in (False, True):
            found = measure(options, folder, asynchronous=asynchronous)
            if os.environ.get("RANK", "0") == "0":
                name = "asynchronous" if asynchronous else "synchronous"
                print(f"{name:12s}", "  ".join(f"{key} {value:.2f}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
