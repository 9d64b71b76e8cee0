"""Scores of random requests under layouts of two processes: `-m tests.model.evaluation.scoring_rank RESULTS`.

RESULTS gets for each of CASES, by name, the scores in each of its LAYOUTS, and what a crew did.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from model.config import ModelSettings, ParallelSettings, TrainingSettings
from tests.model.small_runs import VOCABULARY, layout, small_training

SHAPE = {**small_training().model.model_dump(exclude_unset=True), "num_layers": 4}
MIXTURE: dict[str, Any] = {"mixture": {"experts": 4, "top_k": 2}}
LEARNED: dict[str, Any] = {"positions": "learned", "tied_embeddings": False}
CASES: dict[str, tuple[dict[str, Any], list[ParallelSettings]]] = {
    "rotary": (
        {},
        [
            layout(tensor=2, sequence_parallel=True),
            layout(pipeline=2),
            layout(pipeline=2, virtual_pipeline=2),
            layout(data=2),
            ParallelSettings(processes=2, context=2),
        ],
    ),
    "learned": (LEARNED, [layout(tensor=2)]),
    "mixture": (MIXTURE, [layout(data=2, expert=2)]),
    "lstm": ({"architecture": "lstm"}, [layout(data=2)]),
}
"""Model, and layouts."""


def requests() -> list[Any]:
    """Some share their rows, some are equal, some are too long, some are empty."""
    from model.evaluation.scoring import Request

    random = np.random.default_rng(0)
    found: list[Any] = []
    for _ in range(16):
        context = tuple(random.integers(4, VOCABULARY, random.integers(1, 90)).tolist())
        answer = tuple(random.integers(4, VOCABULARY, random.integers(0, 20)).tolist())
        found += [Request(context, answer), Request(context, (*answer[:-1], 7)), Request(context, answer)]
    return found


def training(name: str, **changes: Any) -> TrainingSettings:
    model = ModelSettings.model_validate({**SHAPE, **CASES[name][0]})
    return TrainingSettings.model_validate({**small_training(**changes).model_dump(), "model": model})


def scorer(name: str, place: Any, parallel: ParallelSettings, *, wrapped: bool = False) -> Any:
    """Of an untrained model; as it is in training where it is `wrapped`."""
    from model.architectures.build import build_model
    from model.evaluation.scoring import Scorer
    from model.settings.benchmarks import BenchmarkSettings
    from model.updates.distribution import distribute

    settings = training(name)
    chunks = build_model(settings, parallel, place, VOCABULARY)
    chunks = distribute(chunks, parallel) if wrapped else chunks
    return Scorer(chunks, place, BenchmarkSettings(tokens_at_once=256), 64, VOCABULARY)


def led(place: Any, score: Any) -> list[Any]:
    """What a crew makes of two lists, and whether the other rank hears of an error on rank 0."""
    from model.evaluation.crew import Crew

    heard, all_requests = [], requests()
    for fails in (False, True):
        try:
            with Crew(place, {"score": score}) as crew:
                if place.rank:
                    heard.append(crew.follow())
                else:
                    heard.append([crew.ask("score", part) for part in (all_requests[:5], all_requests[5:])])
                    if fails:
                        raise KeyError("rank 0 alone")
        except KeyError:
            heard.append("raised")
    return place.gather_everywhere(heard)


def main(results: str) -> None:
    from model.parallel import arranged, joined

    found: dict[str, Any] = {"scores": {}}
    rank = 0
    with joined() as device:
        for name, (_, layouts) in CASES.items():
            for parallel in layouts:
                with arranged(parallel, 1234, device) as place:
                    one = scorer(name, place, parallel, wrapped=parallel.data == 2)
                    everywhere = place.gather_everywhere(one.score(requests()))
                    assert everywhere[0] == everywhere[1], "every rank gets the same scores"
                    found["scores"].setdefault(name, []).append(everywhere[0])
                    if parallel.tensor == 2 and name == "rotary":
                        found["led"] = led(place, one.score)
                    rank = place.rank
    if rank == 0:
        Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    from model.rank import rank_process

    with rank_process():
        main(*sys.argv[1:])
