"""An evaluation under a layout of its own, recorded in the MLflow run of the training."""

import math
from pathlib import Path

import pytest
import torch

from infra.errors import BadInput, RunFailed
from infra.manifest import DatasetManifest
from infra.run_description import used_dataset
from infra.store import Store
from infra.tracking import TrackedRun, open_run
from model.architectures.build import build_model
from model.config import EvaluationSettings
from model.run import (
    EvaluationRecord,
    LaunchRecord,
    RunRecord,
    evaluation_folder,
    evaluation_path,
    prepare_run,
    read_metrics,
)
from model.settings.benchmarks import BenchmarkSettings
from tests.model.benchmarks.harness_tasks import write_tasks
from tests.model.small_runs import launch, layout, small_training


@pytest.fixture(scope="module")
def tracked(store: Store, dataset: DatasetManifest) -> TrackedRun:
    used = [used_dataset(store, dataset, "training")]
    return open_run(store, None, "tests", "evaluated", datasets=used)


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkSettings:
    """A task of each kind: choices, likelihoods, whole texts, and answers in words."""
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder)
    return BenchmarkSettings(
        tasks=("ending", "pairs", "last_word", "pages", "told"),
        tasks_dir=str(folder),
        truncate_long_prompts=True,
        max_new_tokens=8,
        tokens_at_once=512,
    )


@pytest.fixture(scope="module")
def trained(store: Store, dataset: DatasetManifest, tracked: TrackedRun, benchmarks: BenchmarkSettings) -> RunRecord:
    """Trained under pipeline parallelism, for evaluations under other layouts; evaluated twice on the way."""
    settings = small_training(
        30,
        parallel=layout(pipeline=2),
        checkpoint={"every_steps": None},
        evaluation={"every_steps": 12, "of": {"benchmarks": {**benchmarks.model_dump(), "limit": 4}}},
    )
    run = prepare_run(store, dataset, "evaluated", settings)
    LaunchRecord(tracked=tracked).save(store, f"{run.folder}/launch.json")
    launch(store, run)
    return run


def evaluate(store: Store, run: RunRecord, tmp_path: Path, settings: EvaluationSettings) -> EvaluationRecord:
    path = tmp_path / "evaluation.json"
    path.write_text(settings.model_dump_json())
    launch(store, run, "model.evaluate", str(path), processes=settings.parallel.processes)
    return EvaluationRecord.load(store, evaluation_path(run, 30))


def test_training_is_evaluated_on_its_way(store, trained, tracked) -> None:
    from mlflow.tracking import MlflowClient

    early, later = (EvaluationRecord.load(store, evaluation_path(trained, step)) for step in (12, 24))
    assert early.loss > later.loss
    assert [task.task for task in early.tasks] == [
        "ending",
        "last_word",
        "pages",
        "pairs",
        "other_pair",
        "pair",
        "told",
    ]
    assert [task.items for task in early.tasks] == [4, 4, 4, 8, 4, 4, 4]
    client = MlflowClient(tracked.tracking_uri)
    history = client.get_metric_history(tracked.run_id, "benchmarks/pairs acc")
    assert [each.step for each in history if each.step < 30] == [12, 24]
    tokens = client.get_metric_history(tracked.run_id, "evaluated_tokens")
    assert [each.value for each in tokens if each.step < 30] == [12 * 8 * 64, 24 * 8 * 64]
    assert "benchmarks.json" in [each.path for each in client.list_artifacts(tracked.run_id)]


def test_layouts_measure_alike(store, dataset, trained, tracked, benchmarks, tmp_path) -> None:
    prompts = ("def ", "The file")
    settings = EvaluationSettings(
        prompts=prompts, sample_tokens=8, temperature=0, micro_batch_size=4, benchmarks=benchmarks
    )
    one = evaluate(store, trained, tmp_path, settings)
    heldout = dataset.split("heldout")
    assert (one.step, one.tokens, one.text_bytes) == (30, heldout[0].tokens, heldout[0].text_bytes)
    assert one.perplexity == pytest.approx(math.exp(one.loss))
    assert one.untrained_loss is not None
    assert one.untrained_loss > one.loss
    assert one.bits_per_byte
    assert one.bits_per_byte.untrained is not None
    assert one.bits_per_byte.trained == pytest.approx(one.loss * one.tokens / math.log(2) / one.text_bytes)
    # As initialised, the model says nothing: one of 512 padded tokens.
    assert one.bits_per_byte.untrained == pytest.approx(math.log2(512) * one.tokens / one.text_bytes, rel=0.01)
    assert one.bits_per_byte.trained < one.bits_per_byte.untrained
    assert [sample.prompt for sample in one.samples] == list(prompts)
    assert all(sample.text for sample in one.samples)

    store.remove(evaluation_path(trained, 30))
    two = evaluate(store, trained, tmp_path, settings.model_copy(update={"parallel": layout(tensor=2)}))
    assert two.layout.tensor == 2
    assert two.bits_per_byte
    for ours, theirs in zip(
        two.bits_per_byte.model_dump().values(), one.bits_per_byte.model_dump().values(), strict=True
    ):
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert two.samples == one.samples
    assert two.items_digest == one.items_digest
    assert [task.task for task in two.tasks] == [task.task for task in one.tasks]
    for ours, theirs in zip(two.tasks, one.tasks, strict=True):
        for metric, estimate in ours.metrics.items():
            assert estimate.value == pytest.approx(theirs.metrics[metric].value, rel=1e-5, abs=1e-5), (
                ours.task,
                metric,
            )
    folder = store.local_path(evaluation_folder(trained, 30))
    assert sorted(each.name for each in folder.iterdir()) == ["items.parquet", "scores.parquet"]
    assert evaluate(store, trained, tmp_path, settings) == two, "the layout is no reason to measure again"

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracked.tracking_uri)
    run = client.get_run(tracked.run_id)
    assert run.data.metrics["heldout/bits_per_byte"] == pytest.approx(one.bits_per_byte.trained)
    told = client.get_metric_history(tracked.run_id, "heldout/bits_per_byte")
    values = sorted({one.bits_per_byte.trained, two.bits_per_byte.trained})
    assert sorted(each.value for each in told if each.step == 30) == pytest.approx(values, rel=1e-15), "none twice"
    assert run.data.metrics["loss"] == read_metrics(store.local_path(trained.folder))[-1]["loss"]


def test_training_metrics_are_in_mlflow(store, trained, tracked) -> None:
    from mlflow.tracking import MlflowClient

    history = MlflowClient(tracked.tracking_uri).get_metric_history(tracked.run_id, "loss")
    rows = read_metrics(store.local_path(trained.folder))
    assert [(metric.step, metric.value) for metric in history] == [(row["step"], row["loss"]) for row in rows]


def test_missing_step_is_named(store, trained, tmp_path) -> None:
    with pytest.raises(BadInput, match=r"no whole checkpoint of step 7: .* those of steps \[30\]"):
        evaluate(store, trained, tmp_path, EvaluationSettings(step=7))


def test_cached_generation_is_that_of_whole_sequences(place) -> None:
    from megatron.core.inference.contexts import StaticInferenceContext

    settings = small_training(seed=5)
    model = build_model(settings, settings.parallel, place, 400)[0].eval()
    tokens = torch.arange(4, 16)[None]
    positions = torch.arange(12)[None]
    with torch.no_grad():
        whole = model(tokens, positions, None)
        cache = StaticInferenceContext(max_batch_size=1, max_sequence_length=12)
        steps = []  # logits of the last position of each part
        for part in (slice(0, 9), slice(9, 10), slice(10, 11), slice(11, 12)):
            steps.append(
                model(tokens[:, part], positions[:, part], None, inference_context=cache, runtime_gather_output=True)
            )
            cache.sequence_len_offset += part.stop - part.start
            cache.enable_decode_mode()
    assert torch.allclose(torch.cat(steps, 1), whole[:, 8:], atol=1e-6)


def test_loss_that_is_no_number_stops_the_run(store, dataset) -> None:
    optimizer = small_training().optimizer.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    run = prepare_run(store, dataset, "diverging", small_training(optimizer=optimizer))
    said = r"(loss|gradient norm) not finite \((nan|inf)\) at step \d.*Lower optimizer\.learning_rate"
    with pytest.raises(RunFailed, match=said):
        launch(store, run)
