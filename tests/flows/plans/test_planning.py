"""Plans: what they predict is what runs take, within what they say of themselves."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.cli import main
from flows.plans.cached import StageThere
from flows.plans.estimates import Estimate, StagePlan, files_bytes
from flows.plans.flow_plan import FlowPlan
from flows.plans.plan_text import render, size, time
from flows.plans.planning import NetworkPlan, Plan, comes_from_elsewhere, disk_warning, make_plan, network_left
from flows.plans.sampling import PlanSettings, evenly
from infra.cluster import Cluster
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import StageManifest
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.heldout import HeldoutSettings
from tasks.sources.collections import CollectionSettings
from tasks.sources.transport import SourceSettings, TransportSettings
from tasks.stage import StageRunner
from tasks.tokens.tokenizer import TokenizerSettings
from tests.tasks.chains import run_chain
from tests.tasks.documents import prose
from tests.tasks.records import CRAWL, members, page, response, warcinfo, write_crawl

SHARDS = 6


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of sentences drawn by chance, so that the heads of some shards tell of the others and few are alike."""
    root, numbers = tmp_path_factory.mktemp("crawl"), random.Random(7)
    sentences = [" ".join(part.split()) for text in prose() for part in text.split(". ")]
    plain = [each for each in sentences if len(each) > 40 and sum(map(str.isalpha, each)) > 0.77 * len(each)]
    texts = [". ".join(numbers.sample(plain, numbers.choice((1, 8, 14, 20)))) + "." for _ in range(40 * SHARDS)]
    pages = [response(f"http://{n}.example/", page(text)) for n, text in enumerate(texts)]
    write_crawl(root, [members(warcinfo(), *pages[shard::SHARDS]) for shard in range(SHARDS)])
    return root


def corpus(base: Path | str, **settings: Any) -> CorpusSettings:
    return CorpusSettings(
        source=SourceSettings(base_url=str(base), crawl=CRAWL, **settings),
        tokenizer=TokenizerSettings(vocabulary_size=600),
        heldout=HeldoutSettings(fraction=0.1),
    )


def plan_for(root: Path, settings: CorpusSettings, records: int = 25, workers: int = 2) -> Plan:
    environment = Environment(root=str(root / "root"), workers=workers)
    return make_plan(settings, environment, PlanSettings(sample_records=records))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, crawl: Path) -> Plan:
    """What the command prints as JSON. It leaves nothing under its root."""
    root = tmp_path_factory.mktemp("plan")
    options = ["--root", str(root), "--crawl", CRAWL, "--base-url", str(crawl), "--workers", "2", "--json"]
    options += ["--set", "corpus.tokenizer.vocabulary_size=600", "--set", "corpus.heldout.fraction=0.1"]
    result = CliRunner().invoke(main, ["plan", *options, "--sample-records", "25"], catch_exceptions=False)
    assert result.exit_code == 0
    assert list(root.iterdir()) == []
    return FlowPlan.model_validate_json(result.stdout).corpora[0]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, crawl: Path) -> Plan:
    """Of a crawl with missing shards and a collection, each limited, for more workers than there are shards."""
    root = tmp_path_factory.mktemp("odd")
    paths = write_crawl(root / "crawl", [b"", None, b"", b""])
    for path, whole in zip((paths[0], *paths[2:]), sorted(crawl.rglob("*.warc.gz")), strict=False):
        (root / "crawl" / path).write_bytes(whole.read_bytes())
    lines = [json.dumps({"text": f"{text} {n}"}) for n, text in enumerate(prose() * 3)]
    (root / "texts.jsonl").write_text("\n".join(lines))
    collection = CollectionSettings(name="own", paths=(str(root / "texts.jsonl"),), format="jsonl")
    settings = corpus(root / "crawl", max_records=12).model_copy(
        update={
            "collections": (collection,),
            "tokenizer": TokenizerSettings(vocabulary_size=200_000, algorithm="unigram"),
        }
    )
    return plan_for(root, settings, records=6, workers=100)


def expected(estimate: Estimate | None) -> float:
    assert estimate is not None
    assert estimate.low <= estimate.expected <= estimate.high
    return estimate.expected


def stages(plan: Plan) -> dict[str, StagePlan]:
    return {each.stage: each for each in plan.stages}


class Recorder(StageRunner):
    """Keeps the manifests of all stages."""

    def run(self, *arguments: Any, **named: Any) -> StageManifest:
        manifest = super().run(*arguments, **named)
        self.store.write_bytes(f"seen/{manifest.stage}", manifest.folder.encode())
        return manifest


def test_a_plan_predicts_the_run(plan: Plan, crawl: Path, tmp_path: Path, cluster: Cluster) -> None:
    store = Store(str(tmp_path))
    store.make_folder("seen")
    chain = run_chain(Recorder(store, cluster), corpus(crawl))
    planned = stages(plan)
    assert set(planned) == set(store.names("seen"))
    assert expected(planned["fetch"].documents_in) == pytest.approx(chain.stage("fetch").rows_in, rel=0.1)
    for manifest in chain.stages:
        assert expected(planned[manifest.stage].documents_in) == pytest.approx(manifest.rows_in, rel=0.2)
        assert expected(planned[manifest.stage].documents_out) == pytest.approx(manifest.kept, rel=0.2)
    disk = 0
    for name in store.names("seen"):
        folder = store.read_bytes(f"seen/{name}").decode()
        disk += files_bytes(StageManifest.load(store, f"{folder}/manifest.json"))
    assert plan.totals.disk_bytes == pytest.approx(disk, rel=0.1)
    tokens = expected(plan.tokens_train) + expected(plan.tokens_heldout)
    counters = chain.stage("tokenization").total("counters")
    assert tokens == pytest.approx(counters["tokens_train"] + counters["tokens_heldout"], rel=0.2)


def test_a_plan_says_what_it_was_measured_on(plan: Plan, crawl: Path) -> None:
    [source] = plan.sources
    sizes = [path.stat().st_size for path in crawl.rglob("*.warc.gz")]
    assert (source.shards, source.sizes_known, source.missing) == (SHARDS, SHARDS, 0)
    assert source.bytes == sum(sizes)
    assert [each.records for each in source.sampled] == [25, 25]
    assert all(0 < each.bytes_read < each.bytes for each in source.sampled)
    assert any("upper bounds" in each for each in plan.assumptions)
    assert plan.warnings == ()
    assert plan.network.requests == 0
    assert all(each.cpu_seconds >= 0 and each.seconds >= 0 and each.peak_worker_bytes > 1 << 20 for each in plan.stages)
    assert stages(plan)["tokenizer"].workers == 1
    assert stages(plan)["extract"].workers == 2


def test_more_workers_than_shards_find_no_work(odd: Plan) -> None:
    assert stages(odd)["extract"].workers == 5
    assert stages(odd)["tokenizer"].workers == 1


def test_records_that_the_run_leaves_out_are_not_planned_for(odd: Plan) -> None:
    crawled, own = odd.sources
    assert (crawled.shards, crawled.sizes_known, crawled.missing) == (4, 3, 1)
    assert (own.name, own.shards, own.sizes_known) == ("own", 1, 1)
    assert expected(stages(odd)["fetch"].documents_in) == pytest.approx(12 * (3 + 1), rel=0.2)
    [sampled] = own.sampled
    assert sampled.records == 6
    assert own.bytes == pytest.approx(2 * sampled.bytes_read, rel=0.01)
    assert own.bytes < sampled.bytes / 2


def test_shards_that_are_not_there_are_not_sampled_and_warned_of(odd: Plan) -> None:
    assert odd.warnings == (f"1 of 4 shards of {CRAWL} that were asked for are not there",)
    assert len(odd.sources[0].sampled) == 2


def test_a_vocabulary_that_the_sample_cannot_fill_is_no_obstacle(odd: Plan) -> None:
    assert expected(odd.tokens_train) > 0
    assert any("vocabulary of 200,000" in each for each in odd.assumptions)


def test_what_a_sample_has_nothing_for_is_said(tmp_path: Path) -> None:
    shards = [members(warcinfo(), response(f"http://{n}.example/", page("Short."))) for n in range(3)]
    write_crawl(tmp_path / "crawl", shards)
    planned = plan_for(tmp_path, corpus(tmp_path / "crawl"))
    assert planned.tokens_train is None
    assert any("after redact could not be measured" in each for each in planned.assumptions)
    assert expected(stages(planned)["fetch"].documents_out) == 3
    assert "Tokens for training: unknown" in render(planned)


def test_a_crawl_of_which_nothing_is_there_is_bad_input(tmp_path: Path) -> None:
    write_crawl(tmp_path / "crawl", [None, None])
    with pytest.raises(BadInput, match="size of one of 2 listed shards"):
        plan_for(tmp_path, corpus(tmp_path / "crawl"))


@pytest.fixture
def busy_mirror(shared_data: Path) -> Iterator[str]:
    command = [sys.executable, shared_data / "serve_mirror.py", shared_data / "commoncrawl", "--port", "0"]
    command += ["--fault", "503=0.2", "--seed", "3"]  # its complaints of clients that hang up are not ours
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_the_network_is_planned_under_the_limits(busy_mirror: str, shared_data: Path, tmp_path: Path) -> None:
    transport = TransportSettings(
        backoff_seconds=0.05, max_wait_seconds=0.1, requests_per_second=50, bytes_per_second=4e6
    )
    source = SourceSettings(base_url=busy_mirror, crawl="CC-MAIN-2026-91", transport=transport)
    planned = plan_for(tmp_path, CorpusSettings(source=source), records=40)
    sizes = [
        path.stat().st_size for path in (shared_data / "commoncrawl/crawl-data/CC-MAIN-2026-91").rglob("*.warc.gz")
    ]
    network = planned.network
    assert network.bytes == sum(sizes)
    assert network.requests == 1 + len(sizes) + network.expected_retries
    assert network.bytes_per_second is not None
    assert network.seconds_at_limits == pytest.approx(sum(sizes) / 4e6, abs=0.1)
    assert stages(planned)["fetch"].seconds >= network.seconds_at_limits
    assert planned.warnings == ()  # a server of this machine needs no contact address


def test_what_is_fetched_already_is_not_fetched_again() -> None:
    whole = NetworkPlan(
        bytes=1000, requests=11, expected_retries=0, bytes_per_second=5, seconds_at_speed=200, seconds_at_limits=20
    )
    half = network_left(whole, [StageThere(stage="fetch", shards=10, shards_done=5)])
    assert (half.bytes, half.requests, half.seconds_at_speed, half.bytes_per_second) == (500, 5.5, 100, 5)
    assert network_left(whole, [StageThere(stage="fetch", shards=10, shards_done=10)]).requests == 0
    assert network_left(whole, []) == whole


@pytest.mark.parametrize(
    ("base", "path", "elsewhere"),
    [("https://data.example", "a.jsonl", [True, False]), ("/data", "s3://bucket/*.jsonl", [False, True])],
)
def test_all_that_comes_over_the_network_is_counted(base: str, path: str, elsewhere: list[bool]) -> None:
    own = CollectionSettings(name="own", paths=(path,), format="jsonl")
    settings = corpus(base).model_copy(update={"collections": (own,)})
    assert [comes_from_elsewhere(each, settings) for each in (CRAWL, "own")] == elsewhere
    assert comes_from_elsewhere(CRAWL, corpus("s3://bucket"))


def test_a_plan_reads_well(plan: Plan) -> None:
    text = render(plan)
    assert f"{CRAWL}: 6 shards" in text
    for each in (*plan.stages, "Disk: ", "Time: ", "Memory: ", "Tokens for training: ", "Assumed:"):
        assert (each if isinstance(each, str) else each.stage) in text


def test_a_disk_that_is_too_small_is_warned_of(plan: Plan) -> None:
    assert disk_warning(plan.totals, free=plan.totals.disk_bytes) is None
    assert "are needed under the root, 10 are free" in str(disk_warning(plan.totals, free=10))
    assert disk_warning(plan.totals, free=None) is None


def test_shards_are_taken_from_all_over() -> None:
    items = [str(n) for n in range(10)]
    assert evenly(items, 2) == ["2", "7"]
    assert evenly(items, 20) == items
    assert evenly([], 3) == []


def test_numbers_are_told_as_people_tell_them() -> None:
    values = (0, 999, 1000, 12_345, 999_950, 1_234_000_000, 5e18)
    assert [size(value) for value in values] == ["0 B", "999 B", "1.00 kB", "12.3 kB", "1.00 MB", "1.23 GB", "5000 PB"]
    assert [time(value) for value in (0, 89, 120, 7200, 864_000)] == ["0.0 s", "89.0 s", "2.0 min", "2.0 h", "10.0 d"]
