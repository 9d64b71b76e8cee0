"""What the process beside a rank is told of the machines whose hours it counts."""

from dataclasses import replace

import torch

from model.parallel import Place
from model.tracker import post_of


def test_hours_are_those_of_cores_or_of_gpus(place: Place) -> None:
    on_cores, on_gpus = (post_of(replace(place, device=torch.device(kind)), threads=4) for kind in ("cpu", "cuda"))
    assert on_cores is not None
    assert on_gpus is not None
    assert (on_cores.gpus, on_cores.cores) == (0, 4)
    assert (on_gpus.gpus, on_gpus.cores) == (1, 0)
