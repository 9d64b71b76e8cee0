"""Training under every layout is the same training, and goes on under any other.

`python -m tests.benchmarks.layouts` tries more layouts for longer.
"""

import pytest

from tests.benchmarks.layout_cases import CASES, Case
from tests.benchmarks.layouts import TOLERANCE, Order, differences, measure
from tests.model.test_architectures import CASES as ARCHITECTURES

STEPS = 4
TWO = (
    "data 2, overlap",
    "tensor 2, sequence",
    "pipeline 2 x 2 interleaved",
    "context 2",
    "mixture: expert 2",
    "mixture: tensor 2, sequence",
)
FOUR = (
    "tensor 2, sequence, pipeline 2",
    "context 2, data 2",
    "pipeline 2 x 2 interleaved, data 2, overlap",
    "mixture: pipeline 2 x 2 interleaved, expert 2",
)


@pytest.mark.parametrize(
    ("names", "more"),
    [pytest.param(TWO, ARCHITECTURES, id="two"), pytest.param(FOUR, [], id="four", marks=pytest.mark.e2e)],
)
def test_layouts_train_alike(names: tuple[str, ...], more: list[Case]) -> None:
    cases = [*(each for each in CASES if each.name in names), *more]
    outcomes = measure(Order(cases=tuple(cases), steps=STEPS), [cases[0].parallel.processes])
    found = list(differences(cases, outcomes))
    assert [outcome.name for outcome, *_ in found] == [each.name for each in cases]
    for outcome, loss, norm, resumed in found:
        assert loss < TOLERANCE["float32"], outcome.name
        assert norm < 1e-5, outcome.name
        assert outcome.resumed is None or resumed < TOLERANCE["float32"], outcome.name
        assert outcome.losses[-2] < outcome.losses[0], outcome.name
