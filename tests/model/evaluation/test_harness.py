"""The model as lm-evaluation-harness sees it, against the harness's own backend on the exported weights."""

import itertools
import json
import logging
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.manifest import DatasetManifest
from infra.store import Store
from infra.vocabulary import load_vocabulary
from model.architectures.build import build_model
from model.config import TrainingSettings
from model.evaluation.answers import Answers
from model.evaluation.crew import Crew
from model.evaluation.encoding import PromptEncoder
from model.evaluation.generation import Generator
from model.evaluation.scoring import Scorer
from model.interchange.export import ExportSettings, export_checkpoint
from model.parallel import Place
from model.recovery.checkpoint import Checkpoints
from model.run import prepare_run
from model.settings.benchmarks import BenchmarkSettings
from model.updates.distribution import distribute
from model.updates.optimizer import build_optimizer
from tests.model.benchmarks.benchmark_items import Pair, hellaswag, lambada
from tests.model.evaluation.their_model import their_model
from tests.model.small_runs import VOCABULARY, small_training

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lm_eval.api.instance import Instance

    from model.benchmarks.tasks import load_tasks
    from model.evaluation.harness import MegatronLM, run_tasks

LENGTH = 128
SETTINGS = BenchmarkSettings(tokens_at_once=512)


def asked(kind: Any, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]


def chosen(pairs: list[list[Pair]], answers: list[tuple[float, bool]]) -> list[int]:
    """Which answer of each item is likeliest."""
    left = iter(answers)
    return [max(range(len(item)), key=[next(left)[0] for _ in item].__getitem__) for item in pairs]


def training() -> TrainingSettings:
    settings = small_training(seed=3, checkpoint={"every_steps": None})
    return settings.model_copy(update={"model": settings.model.model_copy(update={"sequence_length": LENGTH})})


@pytest.fixture
def chunks(place: Place) -> list[Any]:
    """A model with weights far from the initial ones, which say little."""
    settings = training()
    built = build_model(settings, settings.parallel, place, VOCABULARY)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in built[0].named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.1 * noise if "norm" in name else 0.15 * noise)
    return built


@pytest.fixture
def encoder(store: Store, dataset: DatasetManifest) -> PromptEncoder:
    return PromptEncoder(load_vocabulary(store, dataset.tokenizer), dataset.tokenizer.end_of_document)


def test_answers_are_those_of_the_same_weights_in_transformers(
    place: Place, chunks: list[Any], encoder: PromptEncoder, store: Store, dataset: DatasetManifest, tmp_path: Path
) -> None:
    items = [*itertools.islice(hellaswag(), 24), *itertools.islice(lambada(), 24)]
    pairs = [pair for item in items for pair in item] + [("", "def"), ("x ", " y"), ("a\n", "b")]
    texts = ["import sys\n", "\n".join(question for question, _ in pairs[:40:4]), ""]
    scorer = Scorer(chunks, place, SETTINGS, LENGTH, VOCABULARY)
    with Crew(place, {"score": scorer.score}) as crew:
        ours = MegatronLM(encoder, crew, SETTINGS, LENGTH)
        found = ours.loglikelihood(asked("loglikelihood", pairs))
        rolled = ours.loglikelihood_rolling(asked("loglikelihood_rolling", [(each,) for each in texts]))

    settings = training()
    run = prepare_run(store, dataset, "harness", settings)
    checkpoints, wrapped = Checkpoints(store, run, place), distribute(chunks, settings.parallel)
    checkpoints.save(wrapped, build_optimizer(wrapped, settings), step=1, consumed_samples=8, seconds=1.0)
    checkpoints.finish()
    export_checkpoint(store, run, dataset, tmp_path / "exported", ExportSettings(dtype="float32"))
    theirs: Any = their_model(tmp_path / "exported", LENGTH)
    expected = theirs.loglikelihood(asked("loglikelihood", pairs), disable_tqdm=True)
    assert max(abs(one - other) for (one, _), (other, _) in zip(found, expected, strict=True)) < 1e-3
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert chosen(items, found) == chosen(items, expected)
    expected_rolled = theirs.loglikelihood_rolling(asked("loglikelihood_rolling", [(each,) for each in texts]))
    assert rolled == pytest.approx(expected_rolled, abs=1e-2)
    assert rolled[2] == 0


def plainly_continued(model: Any, prompt: list[int], count: int) -> list[int]:
    """The likeliest tokens, one after the other, from the whole text each time."""
    ids = list(prompt)
    for _ in range(count):
        read = torch.tensor([ids])
        with torch.no_grad():
            logits = model(read, torch.arange(len(ids))[None], None)[0, -1, :VOCABULARY]
        logits[3] = -torch.inf  # padding
        ids.append(int(logits.argmax()))
        if ids[-1] == 2:
            return ids[len(prompt) : -1]
    return ids[len(prompt) :]


def test_texts_are_continued_up_to_a_stop(
    place: Place, chunks: list[Any], encoder: PromptEncoder, store: Store, dataset: DatasetManifest
) -> None:
    vocabulary = load_vocabulary(store, dataset.tokenizer)
    generator = Generator(chunks, place, LENGTH, dataset.tokenizer, vocabulary)
    counts: list[int] = []
    long = "import sys\n" * 60
    greedy = {"do_sample": False, "max_gen_toks": 24}
    sampled = {"do_sample": True, "temperature": 1.0, "top_k": 20, "max_gen_toks": 12, "until": []}
    settings = BenchmarkSettings(tokens_at_once=512, max_new_tokens=16)
    with Crew(place, {"generate": counting(generator.generate, counts)}) as crew:
        lm = MegatronLM(encoder, crew, settings, LENGTH)
        plain = [("def f", {"until": [], **greedy}), (long, {"until": [], **greedy})]
        first, second = lm.generate_until(asked("generate_until", plain))
        chunks[0].eval()
        for text, prompt in ((first, encoder.encode("def f")), (second, encoder.encode(long)[-(LENGTH - 16) :])):
            added = plainly_continued(chunks[0], prompt, 16)
            assert text == encoder.decode([*prompt, *added])[len(encoder.decode(prompt)) :]
        stop = first[3:5]
        (cut,) = lm.generate_until(asked("generate_until", [("def f", {"until": [stop], **greedy})]))
        assert cut == first[: first.index(stop)]
        draws = lm.generate_until(asked("generate_until", [("def f", sampled)] * 3))
        assert len(set(draws)) == 3
        assert lm.generate_until(asked("generate_until", [("def f", sampled)] * 3)) == draws
    assert counts == [2, 1, 3]


class Killed(Exception):
    """The evaluation stops here."""


def counting(score: Callable[[Any], Any], counts: list[int], last: int | None = None) -> Callable[[Any], Any]:
    """Counts the requests of each group, and stops the evaluation after some groups."""

    def work(requests: Any) -> Any:
        if len(counts) == last:
            raise Killed
        counts.append(len(requests))
        return score(requests)

    return work


def test_killed_evaluation_goes_on_and_counts_nothing_twice(
    place: Place, chunks: list[Any], encoder: PromptEncoder, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    settings = BenchmarkSettings(tokens_at_once=64)
    pairs = [pair for item in itertools.islice(hellaswag(), 30) for pair in item]
    scorer = Scorer(chunks, place, settings, LENGTH, VOCABULARY)

    def answers_of(folder: str | None, counts: list[int], last: int | None = None) -> list[tuple[float, bool]]:
        with Crew(place, {"score": counting(scorer.score, counts, last)}) as crew:
            answers = Answers() if folder is None else Answers(store, folder)
            return MegatronLM(encoder, crew, settings, LENGTH, answers).loglikelihood(asked("loglikelihood", pairs))

    whole: list[int] = []
    expected = answers_of(None, whole)
    assert len(whole) > 4
    first, second, third, fourth = ([] for _ in range(4))
    with pytest.raises(Killed):
        answers_of("killed/answers", first, last=3)
    store.write_bytes("killed/answers/.half.json.1.tmp", b"{")
    assert answers_of("killed/answers", second) == expected, "to the bit"
    assert first + second == whole
    assert answers_of("killed/answers", third) == expected
    assert third == []
    damaged = store.names("killed/answers")[0]
    store.write_bytes(f"killed/answers/{damaged}", b"{}")
    with caplog.at_level(logging.WARNING):
        assert answers_of("killed/answers", fourth) == expected
    assert "is damaged: its answers are asked for again" in caplog.text
    assert len(fourth) == 1


TASK = """task: endings
dataset_path: json
dataset_kwargs: {data_files: {validation: items.jsonl}}
output_type: multiple_choice
validation_split: validation
fewshot_split: validation
num_fewshot: 2
doc_to_text: "{{query}}"
doc_to_target: label
doc_to_choice: endings
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def test_harness_measures_by_our_answers(
    place: Place, chunks: list[Any], encoder: PromptEncoder, tmp_path: Path
) -> None:
    (tmp_path / "endings.yaml").write_text(TASK)
    items = list(itertools.islice(hellaswag(), 6))
    rows = [{"query": item[0][0][:40], "endings": [each[:20] for _, each in item], "label": 1} for item in items]
    (tmp_path / "items.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = BenchmarkSettings(tasks=("endings",), tasks_dir=str(tmp_path), tokens_at_once=512)
    scorer = Scorer(chunks, place, settings, LENGTH, VOCABULARY)
    results: list[dict[str, Any]] = []
    for _ in range(2):
        with Crew(place, {"score": scorer.score}) as crew:
            loaded = load_tasks(settings)
            prompts = [each.args for each in loaded.tasks["endings"].instances]
            random.seed(7)
            results.append(run_tasks(MegatronLM(encoder, crew, settings, LENGTH), loaded.task_dict(), settings))
            assert random.random() == random.Random(7).random(), "nobody else's chance is disturbed"
            assert [each.args for each in loaded.tasks["endings"].instances] == prompts
    one, other = results
    assert one["samples"] == other["samples"]
    right = [
        max(range(4), key=[log for log, _ in each["filtered_resps"]].__getitem__) == 1
        for each in one["samples"]["endings"]
    ]
    assert one["results"]["endings"]["acc,none"] == pytest.approx(sum(right) / 6)


def test_equal_requests_are_asked_once(place: Place, chunks: list[Any], encoder: PromptEncoder) -> None:
    counts: list[int] = []
    scorer = Scorer(chunks, place, SETTINGS, LENGTH, VOCABULARY)
    with Crew(place, {"score": counting(scorer.score, counts)}) as crew:
        found = MegatronLM(encoder, crew, SETTINGS, LENGTH).loglikelihood(
            asked("loglikelihood", [("def", " x"), ("def", " y"), ("def", " x")])
        )
    assert counts == [2]
    assert found[0] == found[2] != found[1]
