"""Plans of datasets that are made anew from the signals of another: its source is not looked at."""

from pathlib import Path
from typing import Any

import pytest

from flows.config import PipelineSettings
from flows.plans.flow_plan import FlowPlan
from flows.plans.whole_plan import PlanOptions, plan_pipeline
from infra.errors import BadInput
from infra.manifest import StageManifest, Telemetry
from infra.store import Store
from tasks.config import CorpusSettings
from tests.model.made_runs import made_dataset

CORPUS = CorpusSettings.model_validate({"source": {"base_url": "https://gone.invalid", "crawl": "CC-MAIN-2026-05"}})


def made_stage(store: Store, name: str, settings: dict[str, Any]) -> None:
    """A finished stage without documents, which took 7.2 s of a processor."""
    manifest = StageManifest(
        stage=name,
        version=1,
        fingerprint=name,
        settings=settings,
        libraries={},
        parents={},
        shards=(),
        digest=name,
    )
    manifest.save(store, f"{manifest.folder}/manifest.json")
    Telemetry(
        seconds=1, shards_reused=0, workers=1, peak_worker_bytes=5, finished_at="2026-01-01", counts={"cpu_ms": 7200}
    ).save(store, f"{manifest.folder}/telemetry.json")


def test_a_rebuild_takes_what_its_dataset_took_from_the_signals_on(tmp_path: Path):
    store = Store(str(tmp_path))
    measured = {"fetch": {}, **{name: getattr(CORPUS, name).identity() for name in ("select", "extract", "signals")}}
    for name in (*measured, "filter", "dedup", "redact"):
        made_stage(store, name, measured.get(name, {}))
    dataset = made_dataset(store, "news", 10_000, 100)
    names = (*measured, "filter", "dedup", "redact", "tokenization")
    dataset = dataset.model_copy(update={"stages": dict(zip(names, names, strict=True))})
    dataset.save(store, f"{dataset.folder}/manifest.json")

    def plan(corpus: CorpusSettings) -> FlowPlan:
        given = {"environment": {"root": str(tmp_path), "workers": 2, "cost": {"core_hour": 1.0, "budget": 1e-3}}}
        made = {"corpus": corpus, "dataset": {"name": "news", "rebuild": "news/1"}}
        return plan_pipeline("build_corpus", PipelineSettings.model_validate({**given, **made}), PlanOptions())

    made = plan(CORPUS)
    (corpus,) = made.corpora
    assert [each.stage for each in corpus.stages] == ["filter", "dedup", "redact"], (
        "tokenization has no figures any more"
    )
    assert made.cost.core_hours == pytest.approx(3 * 7.2 / 3600)
    assert corpus.network.requests == 0
    assert corpus.tokens_train is not None
    assert corpus.tokens_train.expected == 10_000
    assert made.refused[0].endswith("USD, the budget is 0.00")
    with pytest.raises(BadInput, match=r"corpus\.extract differs"):
        plan(CorpusSettings.model_validate({**CORPUS.model_dump(), "extract": {"main_content": False}}))
