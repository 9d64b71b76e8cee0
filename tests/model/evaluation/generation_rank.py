"""Continues token sequences under layouts of two processes: `-m tests.model.evaluation.generation_rank OUT`.

OUT gets the answers under each of LAYOUTS.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from infra.manifest import TokenizerRecord
from model.config import ModelSettings, ParallelSettings, TrainingSettings
from tests.model.small_runs import VOCABULARY, layout, small_training

MIXTURE = {"experts": 4, "expert_ffn_hidden_size": 16}
CASES: dict[str, dict[str, Any]] = {
    "gpt": {"num_layers": 4},
    "windows": {"num_layers": 4, "sliding_window": 7, "full_attention_every": 2, "tied_embeddings": False},
    "gpt-2": {"positions": "learned", "normalization": "LayerNorm", "activation": "gelu", "biases": True},
    "placeless": {"positions": "none", "qk_norm": False},
    "mixture": {"mixture": MIXTURE},
    "lstm": {"architecture": "lstm"},
}
LAYOUTS: list[tuple[str, ParallelSettings]] = [
    ("gpt", layout(tensor=2, sequence_parallel=True)),
    ("windows", layout(pipeline=2)),
    ("gpt", layout(pipeline=2, virtual_pipeline=2)),
    ("windows", layout(data=2)),
    ("mixture", layout(data=2, expert=2)),
    ("mixture", layout(tensor=2, sequence_parallel=True)),
    ("lstm", layout(data=2)),
]
RECORD = TokenizerRecord(path="", sha256="", vocabulary_size=VOCABULARY, end_of_document=2, pad=3)


class Letters:
    """A vocabulary whose tokens are characters."""

    size = VOCABULARY

    def encode(self, texts: Any) -> list[Any]:
        return [np.array([ord(each) for each in text], np.uint32) for text in texts]

    def decode(self, ids: Any) -> str:
        return "".join(map(chr, ids))


def settings_of(case: str, **changes: Any) -> TrainingSettings:
    """A model whose weights are so large that what it says varies."""
    shape = {**small_training().model.model_dump(exclude_unset=True), "init_std": 0.3, **CASES[case]}
    return small_training(model=ModelSettings.model_validate(shape), seed=3, **changes)


def prompts(count: int = 9) -> list[tuple[int, ...]]:
    """Token sequences of different lengths, the first of one token, two of the same length."""
    random = np.random.default_rng(7)
    sizes = [1, 30, 5, 5, 17, 44, 2, 9, 58][:count]
    return [tuple(random.integers(4, VOCABULARY, size).tolist()) for size in sizes]


def answers(training: TrainingSettings, parallel: ParallelSettings, place: Any) -> list[list[int]]:
    """Half of the prompts greedily and half at random, of 2 to 8 tokens, in batches of some."""
    from model.architectures.build import build_model
    from model.evaluation.generation import GenerationRequest, Generator

    chunks = build_model(training, parallel, place, VOCABULARY)
    generator = Generator(chunks, place, 64, RECORD, Letters(), tokens_at_once=128)
    return generator.generate(
        [
            GenerationRequest(prompt, 2 + 2 * (number % 4), temperature=number % 2, top_k=20, top_p=0.9, seed=number)
            for number, prompt in enumerate(prompts())
        ]
    )


def main(results: str) -> None:
    from model.parallel import arranged, joined

    found, rank = [], 0
    with joined() as device:
        for case, parallel in LAYOUTS:
            training = settings_of(case)
            with arranged(parallel, 1, device) as place:
                everyone = place.gather_everywhere(answers(training, parallel, place))
                assert all(each == everyone[0] for each in everyone), (case, parallel)
                found.append(everyone[0])
                rank = place.rank
    if rank == 0:
        Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    from model.rank import rank_process

    with rank_process():
        main(*sys.argv[1:])
