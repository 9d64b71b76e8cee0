"""A training that cannot work is refused with the nearest that can."""

from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInput
from model.config import TrainingSettings, validate_layout
from model.estimates.fitting import nearest, require_fitting, require_weights
from model.estimates.memory import GIB, estimate_memory, usable
from model.settings.layout import ParallelSettings
from tests.model.small_runs import layout, small_training

LLAMA_VOCABULARY = 128_256


def of_size(size: str, gib: float = 139, **settings: Any) -> TrainingSettings:
    parallel = {"device_memory_gib": gib, **settings.pop("parallel", {})}
    values: dict[str, Any] = {"global_batch_size": 512, "micro_batch_size": 1, **settings, "parallel": parallel}
    return TrainingSettings.model_validate({**values, "model": {"size": size}})


def refusal(training: TrainingSettings, vocabulary_size: int = LLAMA_VOCABULARY) -> BadInput:
    with pytest.raises(BadInput) as refused:
        require_fitting(training, vocabulary_size)
    return refused.value


def test_an_evaluation_has_room_for_the_weights_at_least() -> None:
    training = TrainingSettings.model_validate({"model": {"size": "70b"}, "dtype": "bfloat16"})
    one, eight = ({"processes": n, "tensor": n, "device_memory_gib": 80} for n in (1, 8))
    require_weights(training, ParallelSettings.model_validate(eight), LLAMA_VOCABULARY)
    with pytest.raises(BadInput, match="GiB of weights on each device"):
        require_weights(training, ParallelSettings.model_validate(one), LLAMA_VOCABULARY)


def test_a_layout_that_does_not_divide_names_those_that_do() -> None:
    message = str(refusal(small_training(parallel=layout(tensor=4)), 400))
    assert "num_query_groups = 2 with parallel.tensor = 4" in message
    heading, *suggestions = message.splitlines()[1:]
    assert heading == "  Nearest with 4 processes:"
    assert suggestions[0].strip().startswith("tensor 2 with sequence_parallel, pipeline 1, data 2: ")
    assert len(suggestions) == 3


def test_what_does_not_fit_is_refused_before_any_process_starts() -> None:
    error = refusal(of_size("70b", parallel={"processes": 8}))
    assert "GiB on each device" in error.value
    assert "optimizer" in error.value
    assert "139 GiB" in error.rule
    assert "Nearest with 16 processes:" in error.remedy


def test_suggestions_work_and_fit() -> None:
    training = of_size("70b", parallel={"processes": 64})
    room = usable(139 * GIB)
    assert estimate_memory(training, LLAMA_VOCABULARY).total > room
    found = nearest(training, LLAMA_VOCABULARY, room)
    assert len(found) == 3
    for each in found:
        validate_layout(each, LLAMA_VOCABULARY)
        assert each.parallel.processes == 64
        assert estimate_memory(each, LLAMA_VOCABULARY).total <= room
        assert each.identity() == training.identity()


def test_micro_batches_and_recomputation_come_after_layouts() -> None:
    training = of_size("8b", micro_batch_size=8, parallel={"processes": 2, "tensor": 2, "sequence_parallel": True})
    message = str(refusal(training))
    assert "micro_batch_size" in message
    assert "micro_batch_size" not in str(refusal(of_size("8b", 80, parallel={"processes": 8})))


def test_this_machine_says_nothing_of_ranks_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"  # of a small GPU
    driver.write_text("#!/bin/sh\necho 16384\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    large = TrainingSettings.model_validate({"model": {"size": "8b"}, "global_batch_size": 8, "fp8": "hybrid"})
    require_fitting(large, LLAMA_VOCABULARY, elsewhere=True)
    assert "fp8 = hybrid" in refusal(large).value
    assert "device of 16 GiB" in refusal(large.model_copy(update={"fp8": "none"})).rule
    stated = of_size("8b", 16, fp8="hybrid")
    with pytest.raises(BadInput, match="GiB on each device"):
        require_fitting(stated, LLAMA_VOCABULARY, elsewhere=True)
    assert nearest(of_size("8b", fp8="hybrid", parallel={"processes": 8}), LLAMA_VOCABULARY, None, elsewhere=True)
    assert not nearest(of_size("8b", fp8="hybrid", parallel={"processes": 8}), LLAMA_VOCABULARY, None)


def test_what_fits_is_accepted() -> None:
    require_fitting(of_size("8b", parallel={"processes": 8, "tensor": 2, "sequence_parallel": True}), LLAMA_VOCABULARY)
    require_fitting(small_training(), 400)
