"""Makes a few updates under layouts of two processes: `-m tests.model.updates_rank CASES RESULTS`.

CASES is a JSON list of TrainingSettings; RESULTS gets for each a list of [loss, objective, z-loss, gradient norm].
"""

import json
import sys
from pathlib import Path
from typing import Any

from model.config import TrainingSettings

VOCABULARY = 300


def make_updates(settings: TrainingSettings, place: Any, steps: int = 4) -> tuple[list[list[float]], list[Any]]:
    """Numbers of each step on random tokens, which are the same for every layout, and the model's chunks."""
    from model.architectures.build import build_model
    from model.timing import Clock
    from model.updates.distribution import distribute
    from model.updates.gradients import compute_gradients
    from model.updates.optimizer import build_optimizer, build_schedule, clip_gradients, has_whole_optimizer

    built = build_model(settings, settings.parallel, place, VOCABULARY)
    chunks = distribute(built, settings.parallel, whole_optimizer=has_whole_optimizer(settings.optimizer))
    optimizer, clock, found = build_optimizer(chunks, settings), Clock(place.device), []
    clock.attach(chunks, optimizer)
    schedule = build_schedule(optimizer, settings.optimizer, 10, 0)
    for step in range(steps):
        batches = random_batches(settings, place, step)
        gradients = compute_gradients(chunks, optimizer, batches, place, clock)
        schedule.step(1)
        clip_gradients(optimizer, gradients.norm)
        optimizer.step_with_ready_grads()
        found.append([gradients.loss, gradients.objective, gradients.z_loss, gradients.norm])
    assert clock.take()["compute"] > 0
    return found, chunks


def random_batches(settings: TrainingSettings, place: Any, step: int) -> list[Any]:
    """This rank's micro-batches of a step; half of the tokens of the first sequence are padding."""
    import torch

    from model.data.batches import Batch

    length, micro, size = settings.model.sequence_length, settings.micro_batch_size, settings.batches.at(step + 1)
    random = torch.Generator().manual_seed(step)
    text = torch.randint(0, 8, (size, length + 1), generator=random).cumsum(1) % VOCABULARY
    mask = torch.ones(size, length)
    mask[0, length // 2 :] = 0
    positions = torch.arange(length).expand(micro, -1)
    starts = range(place.data_rank * micro, size, micro * place.layout.data)
    return [
        Batch(
            text[s : s + micro, :-1].contiguous(), text[s : s + micro, 1:].contiguous(), positions, mask[s : s + micro]
        )
        for s in starts
    ]


def main(cases: str, results: str) -> None:
    from model.parallel import arranged, joined

    settings = [TrainingSettings.model_validate(each) for each in json.loads(Path(cases).read_text())]
    found, rank = [], 0
    with joined() as device:
        for each in settings:
            with arranged(each.parallel, each.seed, device) as place:
                numbers, _ = make_updates(each, place)
                found.append(numbers)
                rank = place.rank
    if rank == 0:
        Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    from model.rank import rank_process

    with rank_process():
        main(*sys.argv[1:])
