"""The tokenizer stage: learned from a stratified sample, or taken from a file."""

from pathlib import Path

import pytest
import sentencepiece

from infra.cluster import Cluster, open_cluster
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import StageManifest, TokenizerRecord
from infra.store import Store
from infra.vocabulary import load_vocabulary
from tasks.heldout import HeldoutSettings
from tasks.stage import StageRunner
from tasks.tokens.tokenizer import CHAT_MARKERS, TokenizerSettings, learn, train_tokenizer
from tasks.tokens.tokenizer_import import ExistingSettings
from tests.tasks.documents import prose, tree
from tests.tasks.tokenizer_files import Row, huggingface_file, sentencepiece_file, tiktoken_file, write_corpus

GERMAN = "Die Mühle am rauschenden Bach gehört seit Jahrhunderten der Müllerfamilie Schönwälder, Stück {} von vielen."
ROWS = [*(Row(text) for text in prose()), *(Row(GERMAN.format(n), "de", "books") for n in range(40))]
SMALL = TokenizerSettings(vocabulary_size=600)
HELDOUT = HeldoutSettings(fraction=0.1)


def trained(root: Path, cluster: Cluster, settings: TokenizerSettings) -> tuple[StageManifest, TokenizerRecord]:
    runner = StageRunner(Store(str(root)), cluster)
    return train_tokenizer(runner, write_corpus(runner, [ROWS[:40], ROWS[40:]]), settings, HELDOUT)


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_a_learned_tokenizer_is_recorded(tmp_path: Path, cluster: Cluster, algorithm: str) -> None:
    manifest, record = trained(
        tmp_path, cluster, TokenizerSettings.model_validate({**SMALL.model_dump(), "algorithm": algorithm})
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / record.path))
    assert (record.kind, record.vocabulary_size) == ("sentencepiece", model.vocab_size())
    assert (record.end_of_document, record.pad) == (model.eos_id(), model.pad_id()) == (2, 3)
    assert set(record.control) == {"<s>", "</s>", "<pad>", *CHAT_MARKERS}
    vocabulary = load_vocabulary(Store(str(tmp_path)), record)
    assert vocabulary.decode(vocabulary.encode(["Die Mühle</s>"])[0]) == "Die Mühle</s>"
    counters = manifest.total("counters")
    by_language = [counters[f"sample_bytes:language:{code}"] for code in ("de", "en")]
    assert sum(by_language) == counters["sample_bytes"]
    assert counters["sample_documents"] > 20


def test_a_share_for_a_language_shortens_it(tmp_path: Path, cluster: Cluster) -> None:
    text = GERMAN.format(7)
    lengths = []
    for shares in ({"de": 0.01}, {"de": 0.9}):
        settings = SMALL.model_copy(update={"language_shares": shares, "sample_bytes": 20_000})
        _, record = trained(tmp_path, cluster, settings)
        lengths.append(len(load_vocabulary(Store(str(tmp_path)), record).encode([text])[0]))
    assert lengths[1] < 0.8 * lengths[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_byte(tmp_path: Path, workers: int, cluster: Cluster) -> None:
    trained(tmp_path / "a", cluster, SMALL)
    with open_cluster(Environment(workers=workers)) as other:
        trained(tmp_path / "b", other, SMALL)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_an_existing_tokenizer_is_copied_under_its_content(tmp_path: Path, cluster: Cluster) -> None:
    files = {"m": sentencepiece_file(), "again": sentencepiece_file(), "j": huggingface_file(), "t": tiktoken_file()}
    existing = ExistingSettings(end_of_document="</s>", pattern="cl100k", special_tokens={"</s>": 700, "<pad>": 705})
    manifests, records = {}, {}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        settings = TokenizerSettings(path=str(tmp_path / name), existing=existing)
        manifests[name], records[name] = trained(tmp_path / "root", cluster, settings)
        (tmp_path / name).unlink()
        assert (tmp_path / "root" / records[name].path).read_bytes() == data
        assert load_vocabulary(Store(str(tmp_path / "root")), records[name]).size == records[name].vocabulary_size
    assert manifests["again"] == manifests["m"]
    assert len({manifest.folder for manifest in manifests.values()}) == 3
    assert [Path(record.path).name for record in records.values()] == [
        "tokenizer.model",
        "tokenizer.model",
        "tokenizer.json",
        "tokenizer.tiktoken",
    ]
    assert (records["t"].end_of_document, records["t"].pad, records["t"].vocabulary_size) == (700, 705, 706)


def test_a_vocabulary_that_cannot_be_is_refused() -> None:
    with pytest.raises(BadInput, match=r"tokenizer\.vocabulary_size=300"):
        learn(iter(()), TokenizerSettings(vocabulary_size=300))
