"""Contamination of an evaluation by all that its run was trained on, and its scores without it."""

import logging
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.contamination import look_for_contamination, with_clean_scores
from infra.cluster import Cluster
from infra.manifest import DatasetManifest
from infra.store import Store
from model.config import Duration, TrainingSettings
from model.data.settings import DataSettings, Source
from model.findings.records import ITEMS, SCORES, Estimate, TaskResult
from model.run import RunRecord, evaluation_path, prepare_run, training_datasets
from model.settings.architecture import ModelSettings
from model.settings.benchmarks import BenchmarkSettings
from tasks.config import CorpusSettings
from tasks.dataset import publish
from tasks.heldout import HeldoutSettings, is_heldout
from tasks.phrases.contamination import ContaminationRecord, ContaminationSettings
from tasks.stage import StageRunner
from tasks.tokens.tokenization import tokenization
from tasks.tokens.tokenizer import TokenizerSettings, train_tokenizer
from tests.tasks.documents import prose
from tests.tasks.tokenizer_files import Row, write_corpus

HELDOUT = HeldoutSettings(fraction=0.2)
TRAINED = [text for text in prose() if not is_heldout(text, HELDOUT)]


def made_dataset(runner: StageRunner, name: str, texts: list[str]) -> DatasetManifest:
    parent = write_corpus(runner, [[Row(text) for text in texts]], 7)
    learned, tokenizer = train_tokenizer(runner, parent, TokenizerSettings(vocabulary_size=600), HELDOUT)
    tokens = tokenization(runner, parent, tokenizer, HELDOUT)
    return publish(runner.store, name, "1", CorpusSettings(), [parent, learned, tokens], tokenizer)


@pytest.fixture
def runner(tmp_path: Path, cluster: Cluster) -> StageRunner:
    return StageRunner(Store(str(tmp_path)), cluster)


@pytest.fixture
def run(runner: StageRunner) -> RunRecord:
    dataset = made_dataset(runner, "small", list(prose()))
    training = TrainingSettings(model=ModelSettings(sequence_length=32), duration=Duration(steps=20))
    return prepare_run(runner.store, dataset, "model", training)


def write_evaluation(store: Store, folder: str, questions: list[str], right: list[float]) -> TaskResult:
    rows = [
        {"task": "quiz", "item": number, "digest": "", "text": text, "answer": "", "response": ""}
        for number, text in enumerate(questions)
    ]
    scores = [
        {"task": "quiz", "item": number, "metric": "acc", "value": value, "weight": 1.0}
        for number, value in enumerate(right)
    ]
    for name, given, schema in (("items", rows, ITEMS), ("scores", scores, SCORES)):
        with store.create(f"{folder}/{name}.parquet") as out:
            pq.write_table(pa.Table.from_pylist(given, schema=schema), pa.PythonFile(out, "w"))
    return TaskResult(
        task="quiz",
        version="1",
        items=len(questions),
        few_shot=0,
        metrics={"acc": Estimate(value=sum(right) / len(right))},
        main_metric="acc",
    )


def test_an_evaluation_is_told_what_its_model_has_seen(runner, run, caplog) -> None:
    folder = evaluation_path(run, 20).removesuffix(".json")
    seen = " ".join(TRAINED[3].split()[:30])
    unseen = "Nobody has told the miller that the bridge over the river would be closed until the end of next winter."
    result = write_evaluation(runner.store, folder, [unseen, seen, "Why?"], [0.0, 1.0, 1.0])
    with caplog.at_level(logging.INFO):
        found = look_for_contamination(runner, run, folder, ContaminationSettings())
    assert found is not None
    assert "quiz: 1 of 2 items stand in the training documents" in caplog.text
    assert ContaminationRecord.load(runner.store, f"{folder}/contamination.json") == found.record
    assert found.record.documents == len(TRAINED)
    path = runner.store.local_path(f"{folder}/contamination/items.parquet")
    assert pq.read_table(path).equals(found.items)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]
    assert found.items["documents"].to_pylist() == [0, 1, 0]
    (told,) = with_clean_scores(runner.store, folder, [result], found, BenchmarkSettings())
    assert told.contaminated == 1
    assert told.clean_metrics is not None
    assert (told.metrics["acc"].value, told.clean_metrics["acc"].value) == (pytest.approx(2 / 3), 0.5)


def test_all_datasets_of_a_blend_are_searched(runner, run, caplog) -> None:
    store = runner.store
    (first,) = training_datasets(store, run)
    second = first.model_copy(update={"name": "other"})
    second.save(store, f"{second.folder}/manifest.json")
    blend = (Source(dataset="small", weight=2), Source(dataset="other", weight=1))
    blended = prepare_run(store, first, "blended", run.training.model_copy(update={"data": DataSettings(blend=blend)}))
    folder = evaluation_path(blended, 20).removesuffix(".json")
    write_evaluation(store, folder, [" ".join(TRAINED[3].split()[:30])], [1.0])
    found = look_for_contamination(runner, blended, folder, ContaminationSettings())
    assert found is not None
    assert found.record.datasets == ("small/1", "other/1")
    store.remove("stages/given")
    with caplog.at_level(logging.WARNING):
        assert look_for_contamination(runner, blended, folder, ContaminationSettings()) is None
    assert "documents of dataset small/1, other/1 before tokenization are gone" in caplog.text
