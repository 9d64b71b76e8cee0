"""`gristmill batch`: the documents of a step are those that the loader gave out, with their places in the crawl."""

import pytest
import torch

from flows.batches import BatchDetails, batch_details
from infra.cluster import Cluster
from infra.errors import BadInput
from infra.manifest import DatasetManifest
from infra.store import Store
from model.config import Duration, TrainingSettings
from model.data.documents import Documents
from model.data.loader import Loader
from model.data.settings import DataSettings, Source
from model.data.skips import skip
from model.data.sources import open_order
from model.recovery.events import Event, append_event
from model.run import RunRecord, prepare_run, training_datasets
from model.settings.architecture import ModelSettings
from model.settings.duration import BatchRamp
from model.settings.layout import ParallelSettings
from tasks.stage import StageRunner
from tests.tasks.small_corpus import Small, build_small

LENGTH = 32


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Small:
    root = tmp_path_factory.mktemp("root")
    return build_small(tmp_path_factory.mktemp("crawl"), StageRunner(Store(str(root)), cluster))


@pytest.fixture(scope="module")
def run(small: Small) -> RunRecord:
    """Two replicas on a blend, packed, with a batch ramp and a batch that was left out."""
    other = small.dataset.model_copy(update={"name": "other"})
    other.save(small.store, f"{other.folder}/manifest.json")
    blend = (Source(dataset="small", weight=2), Source(dataset="other", weight=1))
    training = TrainingSettings(
        model=ModelSettings(sequence_length=LENGTH),
        data=DataSettings(blend=blend, packing="best-fit", attend_across_documents=False),
        duration=Duration(steps=20),
        global_batch_size=16,
        batch_ramp=BatchRamp(start=8, increment=8, samples=16),
        micro_batch_size=2,
        parallel=ParallelSettings(processes=2),
    )
    run = prepare_run(small.store, small.dataset, "blended", training)
    event = Event(kind="loss spike", step=4, value=9.0, action="skip", skips=skip((), 32, 48))
    append_event(small.store.local_path(run.folder), event)
    return run


def tokens_of(details: BatchDetails, datasets: dict[str, DatasetManifest], store: Store) -> list[list[int]]:
    """What each sample's documents spell."""
    found: dict[int, list[int]] = {}
    documents = {name: Documents(store, each.split("train")) for name, each in datasets.items()}
    numbers = {name: {each.name(n): n for n in range(len(each))} for name, each in documents.items()}
    for part in details.documents:
        number = numbers[part.dataset][part.id]
        text = documents[part.dataset].read(number, part.start, part.tokens)
        assert len(text) == part.tokens
        assert documents[part.dataset].lengths[number] == part.length
        found.setdefault(part.sample, []).extend(text.tolist())
    return [found[sample] for sample in sorted(found)]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 20])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_documents_are_those_that_the_loader_gave_out(small: Small, run: RunRecord, step: int, rank: int) -> None:
    training, datasets = run.training, training_datasets(small.store, run)
    details = batch_details(small.store, "blended", step, rank)
    assert details.left_out == 16
    assert not details.made
    first, count = training.batches.samples(step - 1), training.batches.at(step)
    assert details.samples == count
    order = open_order(small.store, datasets, training.data, LENGTH, training.seed)
    end = small.dataset.tokenizer.end_of_document
    with Loader(order, training, end, rank=rank, ranks=2, device=torch.device("cpu")) as loader:
        batches = loader.take(first, count, skip((), 32, 48))
    labels = torch.cat([each.labels for each in batches])
    mask = torch.cat([each.mask for each in batches]) > 0
    given = [row[counts].tolist() for row, counts in zip(labels, mask, strict=True)]
    assert tokens_of(details, {f"{each.name}/{each.version}": each for each in datasets}, small.store) == given
    samples = torch.cat([each.samples for each in batches if each.samples is not None]).tolist()
    assert list(dict.fromkeys(part.sample for part in details.documents)) == samples


def test_every_document_is_traced_to_its_place_in_the_crawl(small: Small, run: RunRecord) -> None:
    rows = {row["id"]: row for row in small.ledger().to_pylist()}
    parts = [part for step in range(1, 9) for part in batch_details(small.store, "blended", step).documents]
    assert {part.dataset for part in parts} == {"small/1", "other/1"}
    assert any("#" in part.id for part in parts), "copies of the mixture are traced as well"
    for part in parts:
        row = rows[part.id.partition("#")[0]]
        assert part.url is not None
        assert (part.url, part.source, part.file) == (row["url"], row["source"], row["file"])
        assert (part.offset, part.license) == (row["offset"], row["license"])


def test_people_read_a_line_for_each_document(small: Small, run: RunRecord) -> None:
    details = batch_details(small.store, run.folder, 5)
    text = details.text()
    assert f"{run.folder}, step 5, not made yet: 16 samples" in text
    assert "16 samples are left out" in text
    part = details.documents[0]
    (line, *_) = [line for line in text.splitlines() if part.id in line]
    for expected in (
        str(part.sample),
        f"{part.start}+{part.tokens} of {part.length}",
        str(part.url),
        f"@ {part.offset}",
    ):
        assert expected in line
    assert BatchDetails.model_validate_json(details.model_dump_json()) == details


def test_what_there_is_not_is_refused(small: Small, run: RunRecord) -> None:
    for arguments, message in [
        (("absent", 1), "Name one of these"),
        (("blended", 0), "has steps 1 to 20"),
        (("blended", 21), "has steps 1 to 20"),
        (("blended", 1, 2), "has 2 data-parallel replicas"),
    ]:
        with pytest.raises(BadInput, match=message):
            batch_details(small.store, *arguments)


def test_without_a_ledger_the_ids_remain(small: Small) -> None:
    stages = {name: each for name, each in small.dataset.stages.items() if name != "ledger"}
    old = small.dataset.model_copy(update={"name": "old", "stages": stages})
    old.save(small.store, f"{old.folder}/manifest.json")
    training = TrainingSettings(model=ModelSettings(sequence_length=LENGTH), micro_batch_size=1)
    prepare_run(small.store, old, "old", training)
    details = batch_details(small.store, "old", 1)
    assert all(part.id and part.url is None for part in details.documents)
    assert "old/1" in details.text()
