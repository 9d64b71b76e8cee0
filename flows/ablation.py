"""Data ablations: the same small model on each of several corpora, and which corpus is better.

This is how FineWeb chose its filters (arXiv:2406.17557): one model, one number of tokens, at least two seeds, the same
measurements. Each variant of the corpus is a base configuration with some settings changed. The first variant is the
*baseline* that others are compared with. All share one tokenizer: that of `base.tokenizer.path`, or one learned from
the baseline's text, which favours the baseline a little; with it tokens mean the same everywhere, so that the same
number of tokens is the same amount of training.

Every model is measured on the held-out text of every variant, as far as no variant trains on it, and on benchmarks if
there are any. Any model does well on text like its own, so held-out text alone cannot say which data is good:
benchmarks decide where there are some, or the measures that `judges` names.

Runs are ordinary runs, `runs/NAME-VARIANT-SEED`. An ablation that was stopped goes on where it was.
"""

import logging
from collections.abc import Mapping
from typing import Any

from prefect import flow

from flows import progress
from flows.ablation_findings import Findings, MeasuredRun, conclude, heldout_by_all
from flows.ablation_report import AblationRecord, VariantRecord, publish
from flows.ablation_settings import AblationSettings, check_datasets, check_training, tokens, variant_corpora
from flows.config import DatasetSettings
from flows.corpus import build_corpus
from flows.evaluation import evaluate
from flows.pretraining import pretrain
from infra.errors import BadInput
from infra.manifest import DatasetManifest, fingerprint
from infra.store import Store
from infra.tracking import TrackedRun, finish_run, open_run
from tasks.config import CorpusSettings

logger = logging.getLogger(__name__)
_FEWEST_DOCUMENTS = 2


@flow(name="ablate", persist_result=False)
def ablate(settings: AblationSettings) -> AblationRecord:
    """Build every variant of a corpus, train the same model on each with each seed, and say which data is better."""
    progress.let_through()
    corpora = variant_corpora(settings)
    check_training(settings)
    store = Store(settings.environment.root)
    datasets = _build(settings, corpora, store)
    epochs = check_datasets(settings, datasets)
    held_out = _held_out(settings, datasets, store)
    runs = [_train_and_measure(settings, name, seed, datasets) for seed in settings.seeds for name in datasets]
    confidence = settings.evaluation.benchmarks.confidence
    measures = Findings(store, runs, datasets, held_out, settings.judges, confidence).measures()
    record = AblationRecord(
        name=settings.name,
        fingerprint=_fingerprint(settings, datasets),
        tokens=tokens(settings.training),
        seeds=settings.seeds,
        confidence=confidence,
        variants=tuple(
            VariantRecord(
                name=name,
                dataset=f"{each.name}/{each.version}",
                fingerprint=each.fingerprint,
                train_tokens=each.tokens("train"),
                epochs=epochs[name],
                changes=dict(settings.variants[name]),
                runs=tuple(run.run.folder for run in runs if run.variant == name),
            )
            for name, each in datasets.items()
        ),
        measures=measures,
        conclusions=conclude(measures, list(datasets)),
    )
    publish(store, record, settings.environment)
    return record


def _build(
    settings: AblationSettings, corpora: Mapping[str, CorpusSettings], store: Store
) -> dict[str, DatasetManifest]:
    """The dataset of every variant; the first one's tokenizer is that of all."""
    datasets: dict[str, DatasetManifest] = {}
    for name, corpus in corpora.items():
        if datasets:
            path = store.full_path(next(iter(datasets.values())).tokenizer.path)
            existing = corpus.tokenizer.model_copy(update={"path": path})
            corpus = corpus.model_copy(update={"tokenizer": existing})
        named = build_corpus.with_options(flow_run_name=f"corpus {settings.name}-{name}")
        dataset = DatasetSettings(name=f"{settings.name}-{name}")
        datasets[name] = named(corpus, dataset, settings.environment).dataset
    return datasets


def _held_out(settings: AblationSettings, datasets: Mapping[str, DatasetManifest], store: Store) -> dict[str, Any]:
    """For each variant, which of its held-out documents no variant trains on; BadInput if nothing is left anywhere."""
    common = {name: heldout_by_all(store, each, list(datasets.values())) for name, each in datasets.items()}
    for name, mask in common.items():
        if not mask.all():
            logger.warning(
                "held out of %s: %d of %d documents are trained on by another variant, which makes other text of them; "
                "they are left out",
                name,
                len(mask) - mask.sum(),
                len(mask),
            )
    if all(mask.sum() < _FEWEST_DOCUMENTS for mask in common.values()) and not settings.evaluation.benchmarks.tasks:
        raise BadInput(
            f"held-out documents that no variant trains on: {sum(int(mask.sum()) for mask in common.values())}",
            "models are compared on text that none of them has seen",
            "Raise base.heldout.fraction, take more of the source, or name benchmarks",
        )
    return common


def _train_and_measure(
    settings: AblationSettings, name: str, seed: int, datasets: Mapping[str, DatasetManifest]
) -> MeasuredRun:
    run = f"{settings.name}-{name}-{seed}"
    own = datasets[name]
    dataset = DatasetSettings(name=own.name, version=own.version)
    training = settings.training.model_copy(update={"seed": seed})
    others = [f"{each.name}/{each.version}" for each in datasets.values() if each is not own]
    measured = tuple(dict.fromkeys([*others, *settings.evaluation.held_out]))
    evaluation = settings.evaluation.model_copy(update={"held_out": measured})
    trained = pretrain.with_options(flow_run_name=f"pretrain {run}")(dataset, run, training, settings.environment)
    _tag(Store(settings.environment.root), trained.tracked, settings, name, seed)
    flow_of_run = evaluate.with_options(flow_run_name=f"evaluate {run}")
    found = flow_of_run(dataset, run, training, evaluation, settings.environment)
    return MeasuredRun(name, seed, trained.run, found.record)


def _tag(store: Store, tracked: TrackedRun | None, settings: AblationSettings, name: str, seed: int) -> None:
    """Mark the MLflow run of a training, so that all of an ablation are found together."""
    if tracked is None:
        return
    tags = {"ablation": settings.name, "ablation.variant": name, "ablation.seed": str(seed)}
    finish_run(open_run(store, tracked.tracking_uri, tracked.experiment, "", tags=tags, previous=tracked))


def _fingerprint(settings: AblationSettings, datasets: Mapping[str, DatasetManifest]) -> str:
    return fingerprint(
        settings=settings.identity(), datasets={name: each.fingerprint for name, each in datasets.items()}
    )
