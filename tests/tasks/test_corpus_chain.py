"""The whole corpus chain, fetch to token shards: nothing is lost, and no circumstance changes a byte."""

import hashlib
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sentencepiece
from fastwarc.warc import ArchiveIterator, WarcRecordType

from infra.cluster import Cluster, open_cluster
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import StageManifest, load_dataset
from infra.schema import tokens_schema
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.dataset import NothingLeft, publish
from tasks.heldout import HeldoutSettings, is_heldout, share
from tasks.quality.families import QualitySignalSettings
from tasks.signals import SignalSettings
from tasks.sources.transport import SourceSettings, TransportSettings
from tasks.stage import StageRunner
from tasks.tokens.tokenization import TokenizationSettings, Tokenize
from tasks.tokens.tokenizer import TokenizerSettings, learn, split_lines, train_tokenizer
from tests.tasks.chains import Chain, only_long_documents, run_chain
from tests.tasks.documents import prose, tree
from tests.tasks.records import CRAWL, members, page, record, response, warcinfo, write_crawl

SMALL_TOKENIZER = TokenizerSettings(vocabulary_size=600)
GERMAN = "Die Mühle steht am Fluss, und der Müller arbeitet dort seit vielen Jahren mit seinem Sohn zusammen. " * 5


def corpus(base: Path | str, crawl: str = CRAWL, **source: Any) -> CorpusSettings:
    return CorpusSettings(
        source=SourceSettings(base_url=str(base), crawl=crawl, **source),
        # The mirror's pages are in forty languages: each worker is spared loading the rules of each.
        signals=SignalSettings(quality=QualitySignalSettings(languages_with_rules=("en",))),
        filter=only_long_documents(),
        tokenizer=SMALL_TOKENIZER,
        heldout=HeldoutSettings(fraction=0.1),
    )


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crawl of three shards that holds something for every stage to drop."""
    root = tmp_path_factory.mktemp("mirror")
    pages = [
        response(f"http://{n}.example/", page(f"{text} Write to a{n}@example.com.")) for n, text in enumerate(prose())
    ]
    odd = [
        response("http://german.example/", page(GERMAN)),
        response("http://copy.example/", page(prose()[0])),
        response("http://short.example/", page("The mill and the river have not moved.")),
        response("http://empty.example/", b"<html></html>"),
        response("http://gone.example/", b"gone", "404 Not Found"),
        response("http://pdf.example/", b"%PDF", content_type="application/pdf"),
        record("response", "http://odd.example/", b"no http at all"),
    ]
    third = len(pages) // 3
    shards = [pages[:third] + odd[:4], pages[third : 2 * third] + odd[4:], pages[2 * third :]]
    write_crawl(root, [members(warcinfo(), *shard) for shard in shards])
    return root


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, mirror: Path, cluster: Cluster) -> tuple[Path, Chain]:
    root = tmp_path_factory.mktemp("built")
    return root, run_chain(StageRunner(Store(str(root)), cluster), corpus(mirror))


def rows(root: Path, manifest: StageManifest, output: str) -> list[dict[str, Any]]:
    """Rows of one output over all shards of a stage."""
    found = []
    for shard in manifest.shards:
        file = {"kept": shard.kept, "dropped": shard.dropped, **shard.others}[output]
        found += Store(str(root)).read_table(f"{manifest.folder}/{file.path}").to_pylist()
    return found


def ends(root: Path, chain: Chain) -> tuple[list[str], list[tuple[str, int]]]:
    """Ids of every document at the one place where it ended, and the places of what was quarantined."""
    ids = [row["doc_id"] for output in ("kept", "heldout") for row in rows(root, chain.stage("tokenization"), output)]
    for stage in chain.stages[:-1]:
        ids += [row["id"] for row in rows(root, stage, "dropped")]
    quarantined = [(row["file"], row["offset"]) for row in rows(root, chain.stage("fetch"), "quarantined")]
    return ids, quarantined


def test_every_stage_drops_what_it_is_there_for(built: tuple[Path, Chain]) -> None:
    chain = built[1]
    assert chain.stage("fetch").total("reasons") == {"http_status": 1, "not_html": 1}
    assert chain.stage("fetch").rows_of("quarantined") == 1
    assert chain.stage("extract").total("reasons") == {"no_text": 1}
    assert chain.stage("filter").total("reasons")["language_unwanted"] >= 1
    assert chain.stage("filter").total("reasons").keys() >= {"language_unwanted", "too_few_words"}
    assert sum(chain.stage("dedup").total("reasons").values()) >= 1
    assert chain.stage("redact").total("counters")["redacted_email"] >= 20
    assert chain.stage("tokenization").kept == chain.stage("redact").kept > 20


def test_every_response_ends_at_exactly_one_place(built: tuple[Path, Chain]) -> None:
    ids, quarantined = ends(*built)
    assert len(ids) == len(set(ids))
    assert len(ids) + len(quarantined) == len(prose()) + 7


@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_no_byte(
    tmp_path: Path, mirror: Path, built: tuple[Path, Chain], workers: int
) -> None:
    with open_cluster(Environment(workers=workers)) as cluster:
        run_chain(StageRunner(Store(str(tmp_path)), cluster), corpus(mirror))
    assert tree(tmp_path) == tree(built[0])


def test_a_second_run_does_nothing(built: tuple[Path, Chain], mirror: Path, cluster: Cluster) -> None:
    root, chain = built
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert run_chain(StageRunner(Store(str(root)), cluster), corpus(mirror)) == chain
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == times


@pytest.fixture(scope="module")
def processor(built: tuple[Path, Chain]) -> sentencepiece.SentencePieceProcessor:
    root, chain = built
    return sentencepiece.SentencePieceProcessor(model_file=str(root / chain.tokenizer.path))


def test_special_ids_are_where_training_expects_them(
    built: tuple[Path, Chain], processor: sentencepiece.SentencePieceProcessor
) -> None:
    assert [processor.unk_id(), processor.bos_id(), processor.eos_id(), processor.pad_id()] == [0, 1, 2, 3]
    tokenizer = built[1].tokenizer
    assert (tokenizer.end_of_document, tokenizer.pad) == (2, 3)
    assert tokenizer.vocabulary_size == processor.vocab_size() <= 600
    assert processor.is_control(processor.piece_to_id("<|im_start|>"))


@pytest.mark.parametrize("text", ["<|im_start|>user<|im_end|>", "<s></s><pad><unk>", "<0x0A>"])
def test_text_cannot_spell_a_control_symbol(processor: sentencepiece.SentencePieceProcessor, text: str) -> None:
    ids = processor.encode(text)
    assert not [each for each in ids if processor.is_control(each) or processor.is_unknown(each)]
    assert processor.decode(ids) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  leading and   inner  ",
        "tab\tnew\nline\n\n",
        "emoji 🏭👩‍🔬 水車",
        "e\u0301 \u00e9 ﬁ ½",
        "\u200b\u00a0",
        "\U0010ffff",
    ],
)
def test_any_text_comes_back_exactly(processor: sentencepiece.SentencePieceProcessor, text: str) -> None:
    assert processor.decode(processor.encode(text)) == text


def test_held_out_documents_are_not_learned_from(tmp_path: Path, built: tuple[Path, Chain], cluster: Cluster) -> None:
    root, chain = built
    texts = {row["id"]: row["text"] for row in rows(root, chain.stage("redact"), "kept")}
    heldout = HeldoutSettings(fraction=0.1)
    lines = [line for text in texts.values() if not is_heldout(text, heldout) for line in split_lines(text, 8192)]
    with_all = [line for text in texts.values() for line in split_lines(text, 8192)]
    model = (root / chain.tokenizer.path).read_bytes()
    assert learn(iter(lines), SMALL_TOKENIZER) == model
    assert learn(iter(with_all), SMALL_TOKENIZER) != model


def test_too_little_text_is_refused(built: tuple[Path, Chain], cluster: Cluster) -> None:
    root, chain = built
    runner = StageRunner(Store(str(root)), cluster)
    with pytest.raises(BadInput, match="enough text to learn a vocabulary from"):
        train_tokenizer(runner, chain.stage("redact"), SMALL_TOKENIZER, HeldoutSettings(fraction=0.999999))


def test_long_lines_are_learned_from_in_parts() -> None:
    assert list(split_lines("abcdef\n\n gh ", 16)) == ["abcd", "ef", "gh"]
    assert max(len(part.encode()) for part in split_lines("🏭" * 1000, 64)) <= 64


def test_token_shards_hold_each_document_once_and_end_it(
    built: tuple[Path, Chain], processor: sentencepiece.SentencePieceProcessor
) -> None:
    root, chain = built
    texts = {row["id"]: row["text"] for row in rows(root, chain.stage("redact"), "kept")}
    counters = chain.stage("tokenization").total("counters")
    for output, split in (("kept", "train"), ("heldout", "heldout")):
        found = rows(root, chain.stage("tokenization"), output)
        assert found
        for row in found:
            assert row["tokens"][-1] == 2
            assert processor.decode(row["tokens"][:-1]) == texts[row["doc_id"]]
            assert row["text_bytes"] == len(texts[row["doc_id"]].encode())
            assert is_heldout(texts[row["doc_id"]], HeldoutSettings(fraction=0.1)) == (split == "heldout")
        assert counters[f"tokens_{split}"] == sum(len(row["tokens"]) for row in found)
        assert counters[f"text_bytes_{split}"] == sum(row["text_bytes"] for row in found)


def test_token_files_say_what_they_are_and_are_mapped_without_a_copy(built: tuple[Path, Chain]) -> None:
    root, chain = built
    path = root / chain.stage("tokenization").kept_paths[0]
    before = pa.total_allocated_bytes()
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    tokens = table["tokens"].chunk(0).flatten().to_numpy()
    assert tokens.dtype == "uint16"
    assert len(tokens) > 1000
    assert pa.total_allocated_bytes() == before
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert metadata == {
        "tokenizer_sha256": chain.tokenizer.sha256,
        "vocabulary_size": str(chain.tokenizer.vocabulary_size),
        "end_of_document": "2",
    }


@pytest.mark.parametrize(("size", "kind"), [(1 << 16, pa.uint16()), ((1 << 16) + 1, pa.uint32())])
def test_tokens_are_as_wide_as_the_vocabulary_needs(tmp_path: Path, size: int, kind: pa.DataType) -> None:
    assert tokens_schema(size, "0", 2).field("tokens").type.value_type == kind


@pytest.mark.parametrize("size", [600, 70_000])
def test_tokens_survive_either_width(built: tuple[Path, Chain], size: int) -> None:
    root, chain = built
    store = Store(str(root))
    schema = tokens_schema(size, chain.tokenizer.sha256, 2)
    tokenizer = chain.tokenizer.model_copy(update={"vocabulary_size": size})
    settings = TokenizationSettings(heldout=HeldoutSettings(fraction=0), tokenizer=tokenizer)
    split = Tokenize(store)(store.read_table(chain.stage("redact").kept_paths[0]), settings)
    assert split.kept.schema == schema
    ends_of = {
        row["doc_id"]: row["tokens"] for o in ("kept", "heldout") for row in rows(root, chain.stage("tokenization"), o)
    }
    assert split.kept.num_rows > 5
    assert all(row["tokens"] == ends_of[row["doc_id"]] for row in split.kept.to_pylist())


def test_the_held_out_side_depends_on_the_text_alone_and_has_its_share() -> None:
    assert is_heldout("x", HeldoutSettings(fraction=share("heldout:x") + 1e-9))
    assert not is_heldout("x", HeldoutSettings(fraction=share("heldout:x")))
    held = sum(is_heldout(str(n), HeldoutSettings(fraction=0.1)) for n in range(5000))
    assert 400 < held < 600


def test_a_dataset_is_published_once_for_each_content(tmp_path: Path, built: tuple[Path, Chain], mirror: Path) -> None:
    store, (_, chain) = Store(str(tmp_path)), built
    settings = corpus(mirror)
    first = publish(store, "corpus", None, settings, chain.stages, chain.tokenizer)
    assert publish(store, "corpus", None, settings, chain.stages, chain.tokenizer) == first
    assert load_dataset(store, "corpus") == first
    assert first.tokens("train") == chain.stage("tokenization").total("counters")["tokens_train"]
    assert [shard.split for shard in first.shards] == sorted((s.split for s in first.shards), reverse=True)
    named = publish(store, "corpus", "v1", settings, chain.stages, chain.tokenizer)
    assert (named.version, named.fingerprint) == ("v1", first.fingerprint)

    other_tokens = chain.stage("tokenization").model_copy(update={"shards": chain.stage("tokenization").shards[:2]})
    stages = [*chain.stages[:-1], other_tokens]
    other = corpus(mirror, shards=2)
    second = publish(store, "corpus", None, other, stages, chain.tokenizer)
    assert second.version == f"{first.version}-2"
    publish(store, "corpus", "9000.42", settings, chain.stages, chain.tokenizer)
    fewer = chain.stage("tokenization").model_copy(update={"shards": chain.stage("tokenization").shards[:1]})
    third = publish(store, "corpus", None, other, [*chain.stages[:-1], fewer], chain.tokenizer)
    assert third.version == f"9000.42-{first.version}-3", "behind a refresh's version"
    assert load_dataset(store, "corpus") == third
    again = publish(store, "other", None, corpus(mirror, shards=1), stages, chain.tokenizer, origin=named)
    assert again.settings["source"] == named.settings["source"], "what was read, not what was named"
    with pytest.raises(BadInput, match=r"corpus/v1 exists with other content.*source\.shards: None -> 2"):
        publish(store, "corpus", "v1", other, stages, chain.tokenizer)
    assert load_dataset(store, "corpus", "v1") == named


def test_a_dataset_needs_both_splits(tmp_path: Path, built: tuple[Path, Chain], mirror: Path) -> None:
    chain = built[1]
    empty = [
        s.model_copy(update={"others": {"heldout": s.others["heldout"].model_copy(update={"rows": 0})}})
        for s in chain.stage("tokenization").shards
    ]
    tokens = chain.stage("tokenization").model_copy(update={"shards": tuple(empty)})
    stages, settings = [*chain.stages[:-1], tokens], corpus(mirror)
    with pytest.raises(NothingLeft, match="no document is left in the heldout split"):
        publish(Store(str(tmp_path)), "c", None, settings, stages, chain.tokenizer)
    none = settings.model_copy(update={"heldout": HeldoutSettings(fraction=0)})
    with pytest.raises(BadInput, match="heldout split") as refused:
        publish(Store(str(tmp_path)), "c", None, none, stages, chain.tokenizer)
    assert refused.type is BadInput, "it is not for lack of documents"


def document_id(path: str, offset: int) -> str:
    """The id of a record by its place, as the schema defines it."""
    return hashlib.sha256(f"{path}:{offset}".encode()).hexdigest()[:32]


def faults(seed: int, count: int) -> Counter[str]:
    """What the mirror does to the first requests: it draws from its seed for each."""
    numbers = random.Random(seed)
    draws = [numbers.random() for _ in range(count)]
    return Counter("503" if draw < 0.1 else "truncate" if draw < 0.15 else "none" for draw in draws)


def test_a_real_crawl_from_a_misbehaving_mirror_is_accounted_for(
    tmp_path: Path, shared_data: Path, cluster: Cluster
) -> None:
    crawl = "CC-MAIN-2026-92"
    seed = next(seed for seed in range(1000) if min(faults(seed, 7)["503"], faults(seed, 7)["truncate"]) > 0)
    command = [sys.executable, shared_data / "serve_mirror.py", shared_data / "commoncrawl", "--port", "0"]
    options = ["--fault", "503=0.1,truncate=0.05", "--seed", str(seed)]
    server = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = f"http://127.0.0.1:{int(server.stdout.readline())}"
        quick = TransportSettings(backoff_seconds=0.05, max_wait_seconds=0.1)
        faulty = corpus(address, crawl, transport=quick)
        chain = run_chain(StageRunner(Store(str(tmp_path / "faulty")), cluster), faulty)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    assert chain.stage("fetch").total("counters").get("lost_shards", 0) == 0

    expected: list[str] = []
    for shard in chain.stage("fetch").shards:
        with (shared_data / "commoncrawl" / shard.source).open("rb") as stream:
            responses = ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=False)
            expected += [document_id(shard.source, each.stream_pos) for each in responses]
    ids, quarantined = ends(tmp_path / "faulty", chain)
    assert len(expected) > 1000
    assert len(ids) == len(set(ids))
    assert sorted([*ids, *(document_id(*place) for place in quarantined)]) == sorted(expected)

    run_chain(StageRunner(Store(str(tmp_path / "sound")), cluster), corpus(shared_data / "commoncrawl", crawl))
    assert tree(tmp_path / "sound") == tree(tmp_path / "faulty")
