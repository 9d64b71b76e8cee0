"""Likelihoods of held-out documents under layouts of two processes: `-m tests.model.evaluation.heldout_rank ROOT OUT`.

OUT gets for each of CASES in each of its LAYOUTS the nats and the predicted tokens of each document.
"""

import json
import sys
from pathlib import Path
from typing import Any

from infra.manifest import DatasetManifest, load_dataset
from infra.store import Store
from model.config import ModelSettings, ParallelSettings, TrainingSettings
from tests.model.small_runs import VOCABULARY, layout, small_training

SHAPE = small_training().model.model_dump(exclude_unset=True)
BERT: dict[str, Any] = {"architecture": "bert", "positions": "learned", "num_query_groups": 4}
T5: dict[str, Any] = {"architecture": "t5", "num_query_groups": 4}
CASES: dict[str, tuple[dict[str, Any], bool, list[ParallelSettings]]] = {
    "apart": ({"num_layers": 4}, False, [layout(data=2), layout(data=2, context=2)]),
    "together": (
        {"num_layers": 4},
        True,
        [layout(tensor=2), layout(pipeline=2, virtual_pipeline=2), layout(data=2, context=2)],
    ),
    "bert": (BERT, True, [layout(tensor=2)]),
    "t5": (T5, True, [layout(data=2)]),
}
"""Model, whether documents see one another, layouts."""


def nats_of(store: Store, dataset: DatasetManifest, name: str, parallel: ParallelSettings, place: Any) -> Any:
    """What an untrained model makes of the first held-out documents."""
    from model.architectures.build import build_model
    from model.data.documents import Documents
    from model.data.objectives import Objective
    from model.evaluation.heldout import choose, document_nats

    model, across, _ = CASES[name]
    settings = TrainingSettings.model_validate(
        {**small_training().model_dump(), "model": ModelSettings.model_validate({**SHAPE, **model})}
    )
    chunks = build_model(settings, parallel, place, VOCABULARY)
    held_out = choose(Documents(store, dataset.split("heldout")), 5000, 2)
    asks = None if settings.model.predicts_next_token else Objective(settings.model, VOCABULARY, 2, 1, held_out=True)
    return document_nats(chunks, held_out, 64, 2, place, across=across, objective=asks)


def main(root: str, results: str) -> None:
    from model.parallel import arranged, joined

    store = Store(root)
    dataset, found, rank = load_dataset(store, "small"), {}, 0
    with joined() as device:
        for name, (_, _, layouts) in CASES.items():
            for parallel in layouts:
                with arranged(parallel, 1234, device) as place:
                    nats = nats_of(store, dataset, name, parallel, place)
                    found.setdefault(name, []).append([nats.nats.tolist(), nats.tokens.tolist()])
                    rank = place.rank
    if rank == 0:
        Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    from model.rank import rank_process

    with rank_process():
        main(*sys.argv[1:])
