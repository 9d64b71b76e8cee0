"""Training of the quality classifier: reference against crawl."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from infra.cluster import Cluster
from infra.errors import BadInput
from infra.manifest import StageManifest
from infra.store import Store
from tasks.models.preparation import prepare
from tasks.models.quality_model import scores_of
from tasks.models.quality_training import (
    Examples,
    QualityTrainingSettings,
    Sample,
    count_words,
    gather,
    learn,
    measure,
    train_quality_model,
)
from tasks.models.reference import PassageSettings, ReferenceFile
from tasks.stage import StageRunner
from tests.tasks.documents import prose, stage_of

SMALL = QualityTrainingSettings(
    references=(ReferenceFile(path="reference.jsonl", sha256="0" * 64),),
    buckets=10_000,
    heldout_fraction=0.3,
    passages=PassageSettings(min_characters=50),
)
SHOP = "buy cheap shoes now free shipping click here to add to cart login register wishlist checkout number {0} "


def shop(number: int) -> str:
    """A page of the crawl."""
    return SHOP.format(number) * 3


def crawl(store: Store, texts: list[str], shards: int) -> StageManifest:
    """A finished stage that holds texts in so many shards."""
    rows = [{"id": f"{n:032x}", "offset": n, "text": text, "language": "en"} for n, text in enumerate(texts)]
    return stage_of(store, [rows[index::shards] for index in range(shards)])


def reference(store: Store) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in prose()[:60])
    store.write_bytes("reference.jsonl", lines.encode())


def test_a_model_is_trained_and_scores_as_any_other_file(tmp_path: Path, cluster: Cluster) -> None:
    store = Store(str(tmp_path))
    reference(store)
    given = SMALL.model_copy(update={"references": (ReferenceFile(path="reference.jsonl"),)})
    runner = StageRunner(store, cluster)
    parent = crawl(store, [shop(n) for n in range(80)], 3)
    manifest, model = train_quality_model(runner, parent, given)
    report = json.loads(store.read_bytes(f"{manifest.folder}/report.json"))
    assert report["heldout_auc"] > 0.99
    assert manifest.total("counters")["learned_crawl"] == report["learned_crawl"] > 40
    good, bad = scores_of([prose()[60], shop(1000)], model)
    assert good > 0.7
    assert bad < 0.3
    assert train_quality_model(runner, parent, given) == (manifest, model)


def test_the_model_does_not_depend_on_how_documents_are_sharded(tmp_path: Path, cluster: Cluster) -> None:
    made = []
    for shards in (1, 4):
        store = Store(str(tmp_path / str(shards)))
        reference(store)
        given = SMALL.model_copy(update={"references": (ReferenceFile(path="reference.jsonl"),)})
        parent = crawl(store, [shop(n) for n in range(60)], shards)
        made.append(train_quality_model(StageRunner(store, cluster), parent, given)[1].sha256)
    assert made[0] == made[1]


def test_a_sample_is_the_same_in_any_order() -> None:
    rows = [(key, str(n), "text") for n, key in enumerate(np.random.default_rng(0).random(500).tolist())]
    samples = []
    for order in (rows, rows[::-1]):
        sample = Sample(20)
        for row in order:
            sample.add(*row)
        samples.append(sample.rows)
    assert samples[0] == samples[1] == sorted(rows)[:20]


def test_only_documents_of_the_languages_are_learned_from(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in prose()[:40]))
    given = SMALL.model_copy(update={"references": (ReferenceFile(path=str(tmp_path / "r.jsonl"), sha256="0" * 64),)})
    german = "Die Mühle steht am Fluss, und der Müller arbeitet dort, seit er ein Junge war. Nummer "
    documents = [(f"e{n}", shop(n), None) for n in range(30)] + [(f"d{n}", f"{german}{n}", None) for n in range(30)]
    documents += [(f"f{n}", shop(n + 100), "fr") for n in range(30)]
    texts = gather(documents, given).texts
    assert not any("Mühle" in text for text in texts)
    assert sum("cheap" in text for text in texts) == 30


def test_pieces_of_a_record_are_on_one_side(tmp_path: Path) -> None:
    books = [" ".join(f"book{n}" for _ in range(400)) for n in range(20)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in books))
    given = SMALL.model_copy(
        update={
            "references": (ReferenceFile(path=str(tmp_path / "r.jsonl"), sha256="0" * 64),),
            "passages": PassageSettings(characters=200, min_characters=50),
        }
    )
    examples = gather([(str(n), shop(n), "en") for n in range(50)], given)
    sides: dict[str, set[bool]] = {}
    for text, good, heldout in zip(examples.texts, examples.good, examples.heldout, strict=True):
        if good:
            sides.setdefault(text.split()[0], set()).add(bool(heldout))
    assert {len(side) for side in sides.values()} == {1}
    assert len(sides) == 20


def test_too_little_to_learn_from_is_said(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text(prose()[0])
    given = SMALL.model_copy(update={"references": (ReferenceFile(path=str(tmp_path / "r.txt"), sha256="0" * 64),)})
    with pytest.raises(BadInput, match="no reference text"):
        gather([(str(n), shop(n), "en") for n in range(50)], given)


def test_training_is_deterministic_and_words_are_the_most_frequent() -> None:
    texts = [*prose()[:30], *(shop(n) for n in range(30))]
    good = np.array([True] * 30 + [False] * 30)
    examples = Examples(texts, good, np.arange(60) % 5 == 0)
    assert learn(examples, SMALL) == learn(examples, SMALL)
    vocabulary = count_words(prepare(["b a a a b c", "c a"], "words"), 2, 2)
    assert (vocabulary.words, vocabulary.counts) == ([b"</s>", b"a", b"b"], [2, 4, 2])


def test_measures_are_what_they_are_called() -> None:
    report = measure(np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False]))
    assert (report["heldout_auc"], report["heldout_accuracy"]) == (0.75, 0.5)
    assert (report["heldout_reference"], report["heldout_crawl"]) == (2, 2)


def test_books_are_told_from_documentation(shared_data: Path) -> None:
    def passages(name: str, count: int) -> list[str]:
        with gzip.open(shared_data / f"text/{name}.jsonl.gz", "rt") as lines:
            return [json.loads(line)["text"][2000:6000] for line, _ in zip(lines, range(count), strict=False)]

    books, peps = passages("books", 80), passages("peps", 80)
    heldout = np.array([index % 80 >= 60 for index in range(160)])
    examples = Examples([*books, *peps], np.array([True] * 80 + [False] * 80), heldout)
    assert learn(examples, SMALL)[1]["heldout_auc"] > 0.97
