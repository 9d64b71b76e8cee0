"""Data ablations: what is refused, what is found in scores, and that shuffled words are told from real text."""

import gzip
import json
import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.ablations.findings import Findings, conclude
from flows.ablations.report import AblationRecord, VariantRecord, draw
from flows.ablations.scores import (
    MeasuredRun,
    Unseen,
    contaminated_items,
    heldout_by_all,
    read_scores,
    without_question,
)
from flows.ablations.settings import (
    AblationSettings,
    check_datasets,
    check_training,
    tokens,
    variant_corpora,
)
from infra.configuration import load_settings
from infra.errors import BadInput, RunFailed
from infra.manifest import DatasetManifest, TokenizerRecord, TokenShard, load_dataset
from infra.schema import tokens_schema
from infra.store import Store
from model.config import Duration, EvaluationSettings, TrainingSettings
from model.data.settings import DataSettings, Source
from model.findings.records import ITEMS, SCORES, TaskResult
from model.run import EvaluationRecord, Layout, RunRecord
from tests.flows.conftest import REPOSITORY
from tests.tasks.chains import only_long_documents

CONFIGURATION = """
name: quality
base:
  source: {shards: 2}
  heldout: {fraction: 0.1}
variants:
  all: {}
  clean:
    filter: {quality: {gopher_quality: {min_words: 80}}}
training:
  duration: {tokens: 100000}
judges: [heldout/all]
"""


def ablation(**changes: Any) -> AblationSettings:
    variants = {"all": {}, "clean": {"filter": {"quality": {"gopher_quality": {"min_words": 80}}}}}
    return AblationSettings.model_validate(
        {"variants": variants, "training": TrainingSettings(duration=Duration(tokens=100_000)), **changes}
    )


def test_a_file_names_base_and_variants(tmp_path: Path) -> None:
    file = tmp_path / "ablation.yaml"
    file.write_text(CONFIGURATION)
    settings = load_settings(AblationSettings, AblationSettings(), file, [("seeds", [3, 4, 5])])
    corpora = variant_corpora(settings)
    assert list(corpora) == ["all", "clean"]
    assert [each.source.shards for each in corpora.values()] == [2, 2]
    assert [each.filter.quality.gopher_quality.min_words for each in corpora.values()] == [50, 80]
    assert settings.seeds == (3, 4, 5)
    check_training(settings)


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ({}, "variants: none: an ablation compares two or more"),
        ({"one": {}}, "variants: one:"),
        ({"one": {}, "two": {}}, "one and two: their settings are the same"),
        ({"one": {}, "two": {"filter": {"langage": {}}}}, r"variants.two: filter.langage.*Did you mean language"),
        ({"one": {}, "two": {"tokenizer": {"vocabulary_size": 500}}}, "tokens mean the same in all variants"),
        ({"one": {}, "two": {"heldout": {"fraction": 0.5}}}, "all hold out alike"),
        ({"one": {}, "two": {"dedup": {"index": "seen"}}}, "Leave the index out"),
        ({"One two": {}, "two": {}}, "small letters"),
    ],
)
def test_variants_that_cannot_be_compared_are_refused(variants: Mapping[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        variant_corpora(ablation(variants=variants))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": TrainingSettings(duration=Duration(epochs=1))}, "the same number of tokens"),
        ({"training": TrainingSettings(data=DataSettings(blend=(Source(dataset="a", weight=1),)))}, "Mix in base.mix"),
        ({"seeds": (1, 1)}, "trains the same model"),
        ({"evaluation": EvaluationSettings(step=3)}, "at their end"),
        ({"evaluation": EvaluationSettings(parallel={"tensor": 3, "processes": 3})}, "tensor"),  # type: ignore[arg-type]
    ],
)
def test_trainings_that_compare_no_data_are_refused(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check_training(ablation(**changes))


def dataset(store: Store, name: str, train: list[str], heldout: list[str], length: int = 50_000) -> DatasetManifest:
    """A dataset of documents of one token each, which are said to be longer."""
    shards = []
    for split, ids in {"train": train, "heldout": heldout}.items():
        schema = tokens_schema(400, "0", 2)
        rows = [{"doc_id": each, "tokens": [2], "text_bytes": 9, "source": "s"} for each in ids]
        path = f"tokens/{name}-{split}.arrow"
        store.make_folder("tokens")
        store.write_table(path, pa.Table.from_pylist(rows, schema=schema))
        size = {"documents": len(ids), "tokens": length * len(ids), "text_bytes": 9, "bytes": 1, "sha256": name}
        shards.append(TokenShard(path=path, split=split, **size))  # type: ignore[arg-type]
    tokenizer = TokenizerRecord(path="t", sha256="0", vocabulary_size=400, end_of_document=2, pad=3)
    return DatasetManifest(
        name=f"abl-{name}",
        version="1",
        fingerprint=name,
        stages={},
        settings={},
        tokenizer=tokenizer,
        shards=tuple(shards),
    )


def test_documents_that_a_variant_trains_on_are_not_held_out(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    one = dataset(store, "one", ["a", "b#2", "b"], ["c", "d", "e"])
    other = dataset(store, "other", ["a", "d#2"], ["b", "f"])
    assert heldout_by_all(store, one, [one, other]).tolist() == [True, False, True]
    assert heldout_by_all(store, other, [one, other]).tolist() == [False, True]


def test_a_budget_beyond_a_corpus_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    pair = {"all": dataset(store, "one", ["a", "b", "c"], ["d"]), "clean": dataset(store, "other", ["a"], ["d"])}
    settings = ablation()
    assert tokens(settings.training) == 64 * 2048  # rounded up to whole steps
    with pytest.raises(BadInput, match=r"all 0.87, clean 2.62.*at most 50,000 tokens"):
        check_datasets(settings, pair)
    assert check_datasets(ablation(max_epochs=3), pair)["clean"] == pytest.approx(131_072 / 50_000)
    with pytest.raises(BadInput, match="came out the same to the byte"):
        check_datasets(ablation(max_epochs=3), {"all": pair["all"], "clean": pair["all"]})


class Scored:
    """Two variants with two seeds each, whose evaluations are written as an evaluation writes them."""

    tasks = (
        TaskResult(task="pair", version="1", items=80, few_shot=0, metrics={}, main_metric="acc", members=("x", "y")),
        TaskResult(task="x", version="1", items=40, few_shot=0, metrics={}, main_metric="acc"),
        TaskResult(task="y", version="1", items=40, few_shot=0, metrics={}, main_metric="acc"),
        TaskResult(task="z", version="1", items=40, few_shot=0, metrics={}, main_metric="acc_norm"),
    )

    def __init__(self, root: Path, tasks: tuple[TaskResult, ...]) -> None:
        self.store, self.results = Store(str(root)), tasks
        self.datasets = {
            "real": dataset(self.store, "real", ["a"], [f"r{n}" for n in range(40)]),
            "worse": dataset(self.store, "worse", ["a", "r0"], [f"w{n}" for n in range(40)]),
        }
        every = self.datasets.values()
        self.heldout = {name: heldout_by_all(self.store, each, every) for name, each in self.datasets.items()}
        self.runs = [self.run(variant, seed) for seed in (1, 2) for variant in self.datasets]

    def run(self, variant: str, seed: int) -> MeasuredRun:
        noise = np.random.default_rng([seed, len(variant)])
        own = self.datasets[variant]
        run = RunRecord(
            name=f"abl-{variant}-{seed}",
            dataset=own.name,
            dataset_version=own.version,
            dataset_fingerprint=own.fingerprint,
            dataset_manifest="",
            vocabulary_size=400,
            train_tokens=1,
            training=TrainingSettings(seed=seed),
            fingerprint="f",
        )
        evaluation = EvaluationRecord(
            fingerprint="f",
            step=7,
            layout=Layout(tensor=1, pipeline=1, data=1),
            settings=EvaluationSettings(),
            documents=40,
            tokens=40,
            text_bytes=40,
            loss=1,
            untrained_loss=2,
            perplexity=2,
            tasks=self.results,
            samples=(),
            seconds=1,
        )
        found = MeasuredRun(variant, seed, run, evaluation)
        hardness = np.random.default_rng(5).normal(3, 0.5, 40)
        rows: list[dict[str, Any]] = []
        for other, each in self.datasets.items():
            task = "heldout/all" if other == variant else f"heldout/{each.name}/{each.version}/all"
            bits = hardness + (0.2 if variant == "worse" and other == "real" else 0) + noise.normal(0, 0.02, 40)
            if variant == "worse" and other == "real":
                bits[0] = 0.0  # it knows this one by heart
            rows += self.rows(task, "bits_per_byte", bits * 100, np.full(40, 100.0))
        rows += self.rows("heldout/source=s", "bits_per_byte", hardness, np.ones(40))
        for task in ("x", "y", "z"):
            metric = "acc_norm" if task == "z" else "acc"
            rows += self.rows(task, metric, noise.integers(0, 2, 40).astype(float), np.ones(40))
            rows += self.rows(task, "margin", noise.normal(0, 1, 40), np.ones(40))
            rows += self.rows(task, "answer_bits_per_byte", hardness + noise.normal(0, 0.1, 40), np.ones(40))
        path = self.store.local_path(f"{found.folder}/scores.parquet")
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=SCORES), path)
        return found

    def rows(self, task: str, metric: str, values: Any, weights: Any) -> list[dict[str, Any]]:
        numbers = list(range(len(values)))
        random.Random(1).shuffle(numbers)  # rows come in any order
        return [
            {"task": task, "item": n, "metric": metric, "value": float(values[n]), "weight": float(weights[n])}
            for n in numbers
        ]

    def findings(self, *judges: str) -> Findings:
        unseen = Unseen(self.heldout, contaminated_items(self.store, self.runs))
        scores = read_scores(self.store, self.runs, self.datasets, unseen)
        return Findings(self.runs, scores, judges, 0.95, without_question(self.store, self.runs[0]))


def test_held_out_text_tells_which_is_better(tmp_path: Path) -> None:
    scored = Scored(tmp_path, ())
    measures = {each.task: each for each in scored.findings("heldout/real").measures()}
    assert list(measures) == ["heldout/real", "heldout/worse"]
    real = measures["heldout/real"]
    assert (real.items, real.decides, real.higher_is_better) == (39, True, False)
    (found,) = real.differences
    assert found.verdict == "worse"
    assert found.above.low < 0.2 < found.above.high
    assert found.above.low > 0
    assert measures["heldout/worse"].differences[0].verdict == "no difference shown"
    assert not measures["heldout/worse"].decides
    (conclusion,) = conclude(list(measures.values()), ["real", "worse"])
    assert conclusion.text == "worse against real: worse by heldout/real bits_per_byte"
    with pytest.raises(BadInput, match="a judge is one of heldout/real, heldout/worse"):
        scored.findings("hellaswag").measures()


def test_benchmarks_decide_and_groups_stand_for_their_members(tmp_path: Path) -> None:
    measures = Scored(tmp_path, Scored.tasks).findings().measures()
    assert [(each.name, each.items, each.decides) for each in measures] == [
        ("heldout/real bits_per_byte", 39, False),
        ("heldout/worse bits_per_byte", 40, False),
        ("pair acc", 80, True),
        ("pair answer_bits_per_byte", 80, True),
        ("z acc_norm", 40, True),
        ("z answer_bits_per_byte", 40, True),
        ("benchmarks score", 120, True),
        ("benchmarks answer_bits_per_byte", 120, True),
    ]
    (conclusion,) = conclude(measures, ["real", "worse"])
    assert conclusion.text == "worse against real: no difference shown"
    pair, z, score = (
        next(each for each in measures if each.name == name) for name in ("pair acc", "z acc_norm", "benchmarks score")
    )
    for place in (0, 1):
        mean = (pair.figures[place].mean.value + z.figures[place].mean.value) / 2
        assert score.figures[place].mean.value == pytest.approx(mean)


def test_items_that_a_variant_has_read_are_left_out(tmp_path: Path) -> None:
    scored = Scored(tmp_path, Scored.tasks)
    rows = [{"task": "y", "item": item, "documents": documents} for item, documents in ((3, 1), (4, 0), (39, 2))]
    path = scored.store.local_path(f"{scored.runs[-1].folder}/contamination/items.parquet")
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert contaminated_items(scored.store, scored.runs) == {"y": {3, 39}}
    items = {each.name: each.items for each in scored.findings().measures()}
    assert (items["pair acc"], items["z acc_norm"]) == (78, 40)


def test_of_sentences_without_a_question_the_margin_is_looked_at(tmp_path: Path) -> None:
    scored = Scored(tmp_path, Scored.tasks)
    rows = [
        {"task": task, "item": 0, "digest": "d", "text": "Why?" if task == "z" else "", "answer": "a", "response": "r"}
        for task in ("x", "y", "z")
    ]
    path = scored.store.local_path(f"{scored.runs[0].folder}/items.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=ITEMS), path)
    assert without_question(scored.store, scored.runs[0]) == {"pair", "x", "y"}
    names = [each.name for each in scored.findings().measures() if each.decides]
    assert names == ["pair acc", "pair margin", "z acc_norm", "z answer_bits_per_byte", "benchmarks score"]


def test_other_items_in_one_run_are_noticed(tmp_path: Path) -> None:
    scored = Scored(tmp_path, Scored.tasks)
    last = scored.runs[-1]
    other = last.evaluation.model_copy(update={"items_digest": "else"})
    scored.runs[-1] = last._replace(evaluation=other)
    with pytest.raises(RunFailed, match="all variants answer the same items"):
        scored.findings().measures()
    path = scored.store.local_path(f"{last.folder}/scores.parquet")
    pq.write_table(pq.read_table(path).slice(1), path)
    scored.runs[-1] = last
    with pytest.raises(RunFailed, match="were asked different items"):
        scored.findings().measures()


def test_the_report_says_what_it_found(tmp_path: Path) -> None:
    scored = Scored(tmp_path, Scored.tasks)
    measures = scored.findings("heldout/real").measures()
    variants = tuple(
        VariantRecord(
            name=name, dataset=f"{each.name}/1", fingerprint="f", train_tokens=9, epochs=0.5, changes={}, runs=()
        )
        for name, each in scored.datasets.items()
    )
    record = AblationRecord(
        name="abl",
        fingerprint="f",
        tokens=1000,
        seeds=(1, 2),
        confidence=0.95,
        variants=variants,
        measures=measures,
        conclusions=conclude(measures, ["real", "worse"]),
    )
    assert "=> worse against real: worse" in record.text()
    assert "cover the choice of items and the seeds" in record.text()
    assert "| heldout/real bits_per_byte (-) * | 39 | real |" in record.markdown()
    assert draw(record) == draw(record)
    alone = record.model_copy(update={"seeds": (1,)})
    assert "give two seeds or more" in alone.text()


SEEDS = [1]
"""Each takes half a minute: that of two is left to the tests above, on scores."""
COMMAND = """
import sqlite3, sys
from flows.cli import main

for judge in ("heldout/real", "heldout/shuffled"):
    main(["ablate", "--config", sys.argv[1], "--set", f"judges=[{judge}]", "--json"], standalone_mode=False)
    print(end="\\0")
    if judge == "heldout/real":
        with sqlite3.connect(sys.argv[2]) as tracked:
            tracked.execute("update runs set status = 'RUNNING'")
"""
"""An ablation, and the same one again with another judge, as after flows that were killed when training had ended."""


def shuffled(text: str, numbers: random.Random) -> str:
    """The same words between the same white space, in another order."""
    parts = re.split(r"(\s+)", text)
    words = parts[::2]
    numbers.shuffle(words)
    parts[::2] = words
    return "".join(parts)


def write_words(source: Path, root: Path, documents: int = 120) -> dict[str, Any]:
    """The beginnings of real documents as a collection, and the same with words shuffled; settings that read both."""
    with gzip.open(source, "rt") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(documents), strict=False)]
    texts = {row["path"]: row["text"][:4000] for row in rows}
    variants = {}
    for name in ("real", "shuffled"):
        lines = [
            {"path": path, "text": text if name == "real" else shuffled(text, random.Random(path))}
            for path, text in texts.items()
        ]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        collection = {"name": "peps", "paths": [str(root / f"{name}.jsonl")], "columns": {"id": "path"}}
        variants[name] = {"collections": [collection]}
    return variants


def small_ablation(source: Path, root: Path, **training: Any) -> dict[str, Any]:
    """Settings of an ablation that takes a minute: real text against the same words in any order."""
    base = {
        "source": {"crawl": None},
        "signals": {"quality": {"languages_with_rules": ["en"], "c4": {"edit": False}}},
        "filter": only_long_documents().model_dump(mode="json"),
        "heldout": {"fraction": 0.3},
        "tokenizer": {"vocabulary_size": 800},
    }
    shape = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_query_groups": 2}
    small = {
        "model": {**shape, "ffn_hidden_size": 128, "sequence_length": 64},
        # Muon's updates bring so small a model far in few steps, whatever the seed.
        "optimizer": {"kind": "muon", "learning_rate": 4e-3, "min_learning_rate": 4e-4, "warmup_steps": 10},
        "duration": {"steps": 100},
        "global_batch_size": 8,
        "micro_batch_size": 8,
        "dtype": "float32",
        "log_every": 100,
        **training,
    }
    return {
        "name": "words",
        "environment": {"root": str(root / "data"), "workers": 1},
        "base": base,
        "variants": write_words(source, root),
        "training": small,
        "seeds": SEEDS,
        "evaluation": {"groups": [], "micro_batch_size": 64, "benchmarks": {"bootstrap_draws": 100}},
    }


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, shared_data: Path, clean_environment: dict[str, str]) -> Any:
    """Both ablations of one root, and what was said while they were made."""
    root = tmp_path_factory.mktemp("words")
    settings = small_ablation(shared_data / "text" / "peps.jsonl.gz", root)
    (root / "ablation.json").write_text(json.dumps(settings))
    command = [sys.executable, "-c", COMMAND, str(root / "ablation.json"), str(root / "data" / "mlflow.db")]
    done = subprocess.run(
        command, env=clean_environment, capture_output=True, text=True, cwd=REPOSITORY, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    records = [AblationRecord.model_validate_json(line) for line in done.stdout.split("\0")[:-1]]
    return root / "data", records, done.stderr


def test_shuffled_words_are_told_from_real_text(words: Any) -> None:
    root, (by_real, by_shuffled), _ = words
    measures = {each.task: each for each in by_real.measures}
    real = measures["heldout/real"]
    (found,) = real.differences
    assert found.above.low > 0.02
    assert found.verdict == "worse"
    assert 5 <= real.items < 45, "those are left out that are trained on with their words shuffled"
    assert measures["heldout/shuffled"].differences[0].verdict == "better", "each does best on text like its own"
    assert [each.verdict for each in by_real.conclusions] == ["worse"]
    assert [each.verdict for each in by_shuffled.conclusions] == ["better"]
    store = Store(str(root))
    one, other = (load_dataset(store, *each.dataset.split("/")) for each in by_real.variants)
    assert one.tokenizer.sha256 == other.tokenizer.sha256
    assert len({run for each in by_real.variants for run in each.runs}) == 2 * len(SEEDS)
    for name in ("ablation.json", "ablation.md", "ablation.svg"):
        assert (root / by_real.folder / name).is_file()


def test_finished_runs_are_found_again(words: Any) -> None:
    _, (by_real, by_shuffled), said = words
    assert said.count("training is complete") == 2 * len(SEEDS)
    assert len({line for line in said.splitlines() if "pretrain: already done" in line}) == 2 * len(SEEDS)
    assert [each.runs for each in by_real.variants] == [each.runs for each in by_shuffled.variants]


def test_mlflow_has_every_run_and_the_ablation(words: Any) -> None:
    root, (by_real, _), _ = words
    with sqlite3.connect(root / "mlflow.db") as tracked:
        tags = tracked.execute("select run_uuid, key, value from tags where key like 'ablation%'").fetchall()
        metrics = dict(tracked.execute("select key, value from latest_metrics where key like 'heldout/%/shuffled'"))
        assert set(tracked.execute("select status from runs where name like 'words-%'")) == {("FINISHED",)}
    assert sorted(value for _, key, value in tags if key == "ablation.variant") == sorted(
        ["real", "shuffled"] * len(SEEDS)
    )
    assert {value for _, key, value in tags if key == "ablation"} == {"words"}
    figure = next(each for each in by_real.measures[0].figures if each.variant == "shuffled")
    assert metrics["heldout/real/bits_per_byte/shuffled"] == pytest.approx(figure.mean.value)
