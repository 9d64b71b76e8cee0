"""Tokenizers with names: where they are, what is said of them, and that corpora take them."""

from pathlib import Path

from infra.cluster import Cluster
from infra.manifest import DatasetManifest
from infra.store import Store
from infra.vocabulary import load_vocabulary
from tasks.heldout import HeldoutSettings, is_heldout
from tasks.stage import StageRunner
from tasks.tokens.tokenizer import train_tokenizer
from tasks.tokens.tokenizer_import import ExistingSettings, import_tokenizer
from tasks.tokens.tokenizer_publish import fertility, publish_tokenizer
from tests.tasks.tokenizer_files import write_corpus
from tests.tasks.tokens.test_tokenizer import ROWS, SMALL

HALF = HeldoutSettings(fraction=0.5)


def test_a_published_tokenizer_says_what_it_makes_of_unseen_text_and_corpora_take_it(tmp_path: Path, cluster: Cluster):
    store = Store(str(tmp_path))
    runner = StageRunner(store, cluster)
    corpus = write_corpus(runner, [ROWS[:40], ROWS[40:]])
    _, record = train_tokenizer(runner, corpus, SMALL, HALF)
    vocabulary = load_vocabulary(store, record)
    languages = fertility(store, corpus.kept_paths, HALF, vocabulary, 10**9)
    unseen = [row.text for row in ROWS if is_heldout(row.text, HALF)]
    assert {each.language for each in languages} == {"en", "de"}
    assert sum(each.documents for each in languages) == len(unseen)
    assert sum(each.text_bytes for each in languages) == sum(len(text.encode()) for text in unseen)
    assert sum(each.tokens for each in languages) == sum(len(ids) for ids in vocabulary.encode(unseen))
    assert sum(each.documents for each in fertility(store, corpus.kept_paths, HALF, vocabulary, 1)) == 1

    dataset = DatasetManifest(
        name="news", version="1", fingerprint="", stages={}, settings={}, tokenizer=record, shards=()
    )
    published = publish_tokenizer(store, "shared", dataset, record, SMALL, languages)
    assert published.tokenizer.path == f"tokenizers/shared/{record.sha256[:12]}/tokenizer.model"
    assert "bytes per token" in published.text()
    taken = import_tokenizer(store.full_path(published.tokenizer.path), ExistingSettings()).record
    assert (taken.sha256, taken.control) == (record.sha256, record.control)
    assert publish_tokenizer(store, "shared", dataset, record, SMALL, ()) == published, "it never changes"
