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

from flows.ablations.findings import FEWEST_ITEMS, Findings, conclude
from flows.ablations.report import AblationRecord, VariantRecord, open_tracked, publish
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
    evaluation_of,
    tokens,
    training_of,
    variant_corpora,
)
from flows.beginning import begin
from flows.config import DatasetSettings, TrackingSettings
from flows.corpus import build_corpus
from flows.evaluation import contaminated, evaluate
from flows.plans.ablation_plan import plan_ablation
from flows.plans.whole_plan import PlanOptions, refuse, without_budget
from flows.pretraining import Wanted, handed_in, pretrain
from infra.errors import BadInput
from infra.manifest import DatasetManifest, fingerprint
from infra.store import Store
from infra.tracking import TrackedRun, ending_with
from model.config import EvaluationSettings
from model.run import EvaluationRecord, RunRecord, evaluation_path
from tasks.config import CorpusSettings
from tasks.phrases.contamination import ContaminationSettings

logger = logging.getLogger(__name__)


@flow(name="ablate", persist_result=False)
def ablate(settings: AblationSettings = AblationSettings()) -> AblationRecord:
    """Build every variant of a corpus, train the same model on each with each seed, and say which data is better."""
    store = begin(settings.environment)
    corpora = variant_corpora(settings)
    check_training(settings)
    if settings.environment.cost.budget is not None:
        refuse(plan_ablation(settings, PlanOptions()))
        settings = settings.model_copy(update={"environment": without_budget(settings.environment)})
    datasets = _build(settings, corpora, store)
    epochs = check_datasets(settings, datasets)
    heldout = _unseen_heldout(settings, datasets, store)
    tracked = open_tracked(store, settings, _fingerprint(settings, datasets), list(datasets.values()))
    order = [(name, seed) for seed in settings.seeds for name in datasets]
    wanted = [_wanted(settings, *each, datasets, tracked) for each in order]
    with ending_with(tracked):
        with handed_in(wanted, settings.environment):
            runs = [
                _train_and_measure(settings, *each, datasets, training)
                for each, training in zip(order, wanted, strict=True)
            ]
        record = _conclude(settings, datasets, epochs, runs, Unseen(heldout, contaminated_items(store, runs)))
        publish(store, record, tracked)
    return record


def _conclude(
    settings: AblationSettings,
    datasets: Mapping[str, DatasetManifest],
    epochs: Mapping[str, float],
    runs: list[MeasuredRun],
    unseen: Unseen,
) -> AblationRecord:
    store = Store(settings.environment.root)
    confidence = settings.evaluation.benchmarks.confidence
    scores = read_scores(store, runs, datasets, unseen)
    unasked = without_question(store, runs[0])
    measures = Findings(runs, scores, settings.judges, confidence, unasked).measures()
    return AblationRecord(
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


def _unseen_heldout(
    settings: AblationSettings, datasets: Mapping[str, DatasetManifest], store: Store
) -> dict[str, Any]:
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
    if all(mask.sum() < FEWEST_ITEMS for mask in common.values()) and not settings.evaluation.benchmarks.tasks:
        raise BadInput(
            f"held-out documents that no variant trains on: {sum(int(mask.sum()) for mask in common.values())}",
            "models are compared on text that none of them has seen",
            "Raise base.heldout.fraction, take more of the source, or name benchmarks",
        )
    return common


def _others(name: str, datasets: Mapping[str, DatasetManifest]) -> list[str]:
    return [f"{each.name}/{each.version}" for variant, each in datasets.items() if variant != name]


def _wanted(
    settings: AblationSettings, name: str, seed: int, datasets: Mapping[str, DatasetManifest], tracked: TrackedRun
) -> Wanted:
    """The training of a variant."""
    dataset = DatasetSettings(name=datasets[name].name, version=datasets[name].version)
    training = training_of(settings, seed, _others(name, datasets))
    return Wanted(dataset, f"{settings.name}-{name}-{seed}", training, _tracking(settings, name, seed, tracked))


def _train_and_measure(
    settings: AblationSettings, name: str, seed: int, datasets: Mapping[str, DatasetManifest], wanted: Wanted
) -> MeasuredRun:
    """A run of a variant, measured by its own processes at its last step, or later where that was not done."""
    environment = settings.environment
    store, evaluation = Store(environment.root), evaluation_of(settings, _others(name, datasets))
    named = pretrain.with_options(flow_run_name=f"pretrain {wanted.run}")
    trained = named(wanted.dataset, wanted.run, wanted.training, environment, wanted.tracking)
    found = _evaluation(store, trained.run, trained.summary.steps, evaluation)
    if found is None:
        later = evaluate.with_options(flow_run_name=f"evaluate {wanted.run}")
        found = later(trained.run.folder, evaluation, environment=environment).record
    elif found.tasks:
        found = contaminated(store, trained.run, found, ContaminationSettings(), environment)
    return MeasuredRun(name, seed, trained.run, found)


def _evaluation(store: Store, run: RunRecord, step: int, wanted: EvaluationSettings) -> EvaluationRecord | None:
    """The evaluation of a run's last step, if it is one that was wanted."""
    path = evaluation_path(run, step)
    if not store.exists(path):
        return None
    found = EvaluationRecord.load(store, path)
    same = {**found.settings.identity(), "step": None} == {**wanted.identity(), "step": None}
    return found if same and found.fingerprint == run.fingerprint else None


def _tracking(settings: AblationSettings, name: str, seed: int, tracked: TrackedRun) -> TrackingSettings:
    """A training's MLflow run says which ablation it belongs to, and MLflow shows it below that one's."""
    belongs = {"ablation": settings.name, "ablation.variant": name, "ablation.seed": str(seed)}
    return TrackingSettings(tags={**belongs, "mlflow.parentRunId": tracked.run_id})


def _fingerprint(settings: AblationSettings, datasets: Mapping[str, DatasetManifest]) -> str:
    return fingerprint(
        settings=settings.identity(), datasets={name: each.fingerprint for name, each in datasets.items()}
    )
