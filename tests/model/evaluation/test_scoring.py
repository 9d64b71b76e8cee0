"""Log-likelihoods at the positions that are asked for, in every layout."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.errors import BadInput
from infra.launching.launch import JobSpec, LocalLauncher
from model.architectures.build import build_model
from model.config import ParallelSettings
from model.evaluation.asked import token_scores
from model.evaluation.scoring import Request, Score, Scorer, groups
from model.parallel import Place
from model.settings.benchmarks import BenchmarkSettings
from model.updates.forward import sum_micro_batches
from tests.model.evaluation.scoring_rank import CASES, requests, scorer, training
from tests.model.small_runs import VOCABULARY
from tests.model.updates_rank import random_batches


def plainly(model: Any, request: Request, length: int = 64) -> tuple[float, bool]:
    """From the logits of all positions of the one sequence."""
    read = torch.tensor([(request.context + request.continuation)[-(length + 1) : -1]])
    answer = torch.tensor(request.continuation)
    with torch.no_grad():
        logits = model(read, torch.arange(read.shape[1])[None], None)[0, -len(answer) :, :VOCABULARY].float()
    found = torch.log_softmax(logits, -1).gather(1, answer[:, None]).double().sum()
    return float(found), bool((logits.argmax(-1) == answer).all())


def largest_difference(ours: list[Score], theirs: list[Any]) -> float:
    assert [each.greedy for each in ours] == [greedy for _, greedy in theirs]
    return max(abs(each.log_likelihood - other) for each, (other, _) in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("name", "dtype"), [("rotary", "float32"), ("lstm", "float32"), ("learned", "bfloat16")])
def test_scores_are_those_of_all_logits(place: Place, name: str, dtype: Any) -> None:
    settings = training(name, dtype=dtype)
    chunks = build_model(settings, settings.parallel, place, VOCABULARY)
    model = chunks[0].eval()
    all_requests = requests()
    all_requests.append(Request((2,), (int(model(torch.tensor([[2]]), torch.tensor([[0]]), None)[0, 0].argmax()),)))
    model.train()
    batches = [random_batches(settings, place, 0)[0]] if dtype == "float32" else []
    before = [sum_micro_batches(chunks, [each], place, backward=False).tolist() for each in batches]
    ours = Scorer(chunks, place, BenchmarkSettings(tokens_at_once=256), 64, VOCABULARY).score(all_requests)
    assert [sum_micro_batches(chunks, [each], place, backward=False).tolist() for each in batches] == before, (
        "as it was"
    )
    model.eval()
    theirs = [plainly(model, each) if each.continuation else (0.0, True) for each in all_requests]
    assert largest_difference(ours, theirs) < (1e-5 if dtype == "float32" else 0.5)
    assert ours[-1].greedy
    assert 0 < sum(each.greedy for each in ours) < len(ours)


def test_model_goes_on_as_before(place: Place) -> None:
    one = scorer("rotary", place, ParallelSettings())
    one._chunks[0].train()
    one.score(requests()[:3])
    assert one._chunks[0].training


def test_answer_that_the_model_cannot_read_is_refused(place: Place) -> None:
    one = scorer("rotary", place, ParallelSettings())
    (score,) = one.score([Request((2,), tuple(range(4, 68)))])
    assert score.log_likelihood < -64
    with pytest.raises(BadInput, match="an answer of 65 tokens: the model reads 64 tokens at most"):
        one.score([Request((2,), tuple(range(4, 69)))])


def test_layouts_score_alike(place: Place, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    LocalLauncher().run(JobSpec(module="tests.model.evaluation.scoring_rank", arguments=(str(results),), processes=2))
    found = json.loads(results.read_text())
    for name in CASES:
        alone = scorer(name, place, ParallelSettings()).score(requests())
        for each in found["scores"][name]:
            assert largest_difference(alone, each) < 1e-5, name
    rank0, rank1 = found["led"]
    expected = found["scores"]["rotary"][0]
    for parts in (rank0[0], rank0[1]):
        assert largest_difference([Score(*each) for part in parts for each in part], expected) < 1e-5
    assert rank0[2] == "raised"
    assert rank1 == [True, False]


def test_groups_hold_each_request_once_and_rows_whole() -> None:
    all_requests = requests()
    found = groups(all_requests, 64, 16)
    assert len(found) == 3
    assert sorted(number for group in found for number in group) == list(range(len(all_requests)))
    where = {number: index for index, group in enumerate(found) for number in group}
    for first in range(0, len(all_requests), 3):
        if all_requests[first].continuation:
            assert where[first] == where[first + 1] == where[first + 2]


def test_padding_of_the_vocabulary_is_impossible_and_the_first_of_equals_likeliest(place: Place) -> None:
    from model.parallel import tensor_group

    logits = torch.zeros(2, 16)
    logits[:, 3] = logits[:, 5] = 1.0
    logits[:, 10:] = 9.0
    scores = token_scores(logits, torch.tensor([3, 5]), 10, tensor_group())
    expected = torch.log_softmax(logits[:, :10], -1)
    assert torch.allclose(scores[0], torch.stack([expected[0, 3], expected[1, 5]]))
    assert scores[1].tolist() == [1, 0]
