"""Held-out text of other datasets: measured as a dataset's own, refused where tokens mean something else."""

import math
from functools import partial

import pyarrow.compute as pc
import pytest

from infra.errors import BadInput, DamagedData
from infra.manifest import DatasetManifest, load_dataset
from infra.store import Store
from model.architectures.build import build_model
from model.config import EvaluationSettings
from model.evaluation.further import further_datasets, further_likelihoods
from model.evaluation.heldout import HeldOut, document_nats
from model.parallel import Place
from tests.model.small_runs import VOCABULARY, layout, small_training


def copy_of(store: Store, dataset: DatasetManifest, name: str, **changes: object) -> DatasetManifest:
    copy = dataset.model_copy(update={"name": name, **changes})
    copy.save(store, f"{copy.folder}/manifest.json")
    return copy


def test_a_further_dataset_is_measured_as_a_whole(store: Store, dataset: DatasetManifest, place: Place) -> None:
    other = copy_of(store, dataset, "further")
    (found,) = further_datasets(store, dataset, [f"further/{dataset.version}"])
    assert found == other
    chunks = build_model(small_training(), layout(), place, VOCABULARY)
    asked: list[HeldOut] = []

    def measure(held_out: HeldOut):
        asked.append(held_out)
        return document_nats(chunks, held_out, 64, 4, place)

    settings = EvaluationSettings(max_tokens=8000)
    measured = partial(further_likelihoods, store, [found], measure, settings, place, every_token=True)
    (likelihood,) = measured()
    assert asked[0].tokens <= 8000
    scores = likelihood.scores()
    assert scores["task"].unique().to_pylist() == [f"heldout/further/{dataset.version}/all"]
    bits = scores.filter(pc.field("metric") == "bits_per_byte")
    assert bits.num_rows == asked[0].count
    nats = document_nats(chunks, asked[0], 64, 4, place).nats
    assert bits["value"].to_pylist() == pytest.approx(list(nats / math.log(2)))
    (group,) = likelihood.groups(settings.benchmarks)
    assert (group.group, group.documents) == (f"further/{dataset.version}/all", asked[0].count)

    damaged = dataset.split("heldout")[0].model_copy(update={"sha256": "0"})
    with pytest.raises(DamagedData):
        further_likelihoods(
            store, [found.model_copy(update={"shards": (damaged,)})], measure, settings, place, every_token=True
        )


def test_what_cannot_be_measured_is_refused(store: Store, dataset: DatasetManifest) -> None:
    foreign = dataset.tokenizer.model_copy(update={"sha256": "f" * 64})
    copy_of(store, dataset, "foreign", tokenizer=foreign)
    copy_of(store, dataset, "untested", shards=dataset.split("train"))
    own = load_dataset(store, dataset.name)
    for name, said in {"foreign": "of its own tokenizer", "untested": "held-out tokens", "absent": "known:"}.items():
        with pytest.raises(BadInput, match=said):
            further_datasets(store, own, [f"{name}/{dataset.version}"])
