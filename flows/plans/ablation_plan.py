"""What an ablation will take: every variant's corpus, and a training and its measurements for each variant and seed."""

from collections.abc import Mapping, Sequence
from typing import Literal

from flows.ablations.settings import AblationSettings, evaluation_of, training_of, variant_corpora
from flows.plans.evaluation_plan import plan_evaluation
from flows.plans.flow_plan import FlowPlan, summed
from flows.plans.planning import Plan, make_plan
from flows.plans.training_left import evaluations_until, is_evaluated, same_measures, steps_done, training_left
from flows.plans.training_plan import TrainingPlan, plan_training
from flows.plans.whole_plan import PlanOptions, choose_rate, during_training
from infra.errors import BadInput
from infra.manifest import DatasetManifest, load_dataset
from infra.store import Store
from model.config import EvaluationSettings, TrainingSettings
from model.run import named_run
from tasks.config import CorpusSettings
from tasks.tokens.tokenizer import vocabulary_of


def plan_ablation(settings: AblationSettings, options: PlanOptions) -> FlowPlan:
    """Plan an ablation; variants that read, extract and measure alike share those stages."""
    environment, store = settings.environment, Store(settings.environment.root)
    plans, datasets = _corpora(settings, options, store)
    corpora, elsewhere = list(plans.values()), environment.ranks_elsewhere
    first = next(iter(datasets.values()), None)
    vocabulary_size = first.tokenizer.vocabulary_size if first else vocabulary_of(settings.base.tokenizer, store)
    rate = choose_rate(store, settings.training, vocabulary_size, options, elsewhere=elsewhere)
    tokens = min((_tokens(each, datasets.get(name), "train") or 0 for name, each in plans.items()), default=0)
    trained = plan_training(
        settings.training, vocabulary_size, train_tokens=round(tokens), rate=rate, elsewhere=elsewhere
    )
    heldout = [_tokens(each, datasets.get(name), "heldout") for name, each in plans.items()]
    done, measured_later = runs_done(settings, trained, list(plans), datasets, store)
    training = training_of(settings)
    left = training_left(training, trained.weights, trained.steps, done)
    # An evaluation that training makes at its end is of all variants' text; one that was set, of what that says.
    each_run = heldout if settings.training.evaluation is None else [_mean(heldout)]
    return summed(
        "ablate",
        environment,
        corpora,
        training=trained,
        trainings=len(done),
        left=left,
        during=during_training(training, trained, left, each_run, store),
        evaluation=plan_evaluation(
            settings.evaluation,
            trained,
            heldout,
            times=measured_later,
            processes=settings.evaluation.parallel.processes,
            store=store,
        ),
    )


def _corpora(
    settings: AblationSettings, options: PlanOptions, store: Store
) -> tuple[dict[str, Plan], dict[str, DatasetManifest]]:
    """The plan of each variant's corpus, and the datasets that are there; all take the first one's tokenizer."""
    plans: dict[str, Plan] = {}
    datasets: dict[str, DatasetManifest] = {}
    measured: list[CorpusSettings] = []
    for name, corpus in variant_corpora(settings).items():
        if datasets:
            path = store.full_path(next(iter(datasets.values())).tokenizer.path)
            corpus = corpus.model_copy(update={"tokenizer": corpus.tokenizer.model_copy(update={"path": path})})
        made = make_plan(corpus, settings.environment, options.sample)
        if made.complete and (found := _dataset(store, f"{settings.name}-{name}")) is not None:
            datasets[name] = found
        shared = not made.complete and any(_measures_alike(corpus, each) for each in measured)
        plans[name] = _without_measuring(made) if shared else made
        measured.append(corpus)
    return plans, datasets


def _dataset(store: Store, name: str) -> DatasetManifest | None:
    try:
        return load_dataset(store, name)
    except BadInput:
        return None


def _measures_alike(one: CorpusSettings, other: CorpusSettings) -> bool:
    names = ("source", "collections", "select", "extract", "signals", "train")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _without_measuring(plan: Plan) -> Plan:
    """A plan that finds everything up to the signals made by another variant."""
    names = [each.stage for each in plan.stages]
    stages = plan.stages[names.index("signals") + 1 :] if "signals" in names else plan.stages
    network = plan.network.model_copy(update={"bytes": 0.0, "requests": 0.0})
    sums = {name: sum(getattr(each, name) for each in stages) for name in ("disk_bytes", "cpu_seconds", "seconds")}
    return plan.model_copy(update={"stages": stages, "network": network, "totals": plan.totals.model_copy(update=sums)})


def _tokens(plan: Plan, dataset: DatasetManifest | None, split: Literal["train", "heldout"]) -> float | None:
    """Tokens of a variant: counted where its dataset is there, planned otherwise; None if unknown."""
    if dataset is not None:
        return dataset.tokens(split)
    planned = plan.tokens_train if split == "train" else plan.tokens_heldout
    return None if planned is None else planned.expected


def _mean(amounts: Sequence[float | None]) -> float | None:
    """None where one is unknown."""
    known = [each for each in amounts if each is not None]
    return sum(known) / len(known) if known and len(known) == len(amounts) else None


def runs_done(
    settings: AblationSettings,
    trained: TrainingPlan,
    variants: Sequence[str],
    datasets: Mapping[str, DatasetManifest],
    store: Store,
) -> tuple[list[int], int]:
    """Steps that each run has made, and how many runs are to be measured after their training."""
    done: list[int] = []
    later = 0
    versions = {name: f"{each.name}/{each.version}" for name, each in datasets.items()}
    for name in variants:
        others = [versions.get(each, f"{settings.name}-{each}/new") for each in variants if each != name]
        wanted = evaluation_of(settings, others)
        for seed in settings.seeds:
            training, dataset = training_of(settings, seed, others), datasets.get(name)
            run = None if dataset is None else named_run(store, dataset, f"{settings.name}-{name}-{seed}", training)
            done.append(0 if run is None else steps_done(store, run))
            if run is not None and done[-1] >= trained.steps:
                later += not is_evaluated(store, run, trained.steps, wanted)
            else:
                later += not _measures_at_end(training, trained.steps, wanted)
    return done, later


def _measures_at_end(training: TrainingSettings, steps: int, wanted: EvaluationSettings) -> bool:
    """Whether a training measures at its last step what is wanted of its model."""
    at_end = evaluations_until(training, steps) > evaluations_until(training, steps - 1)
    return at_end and training.evaluation is not None and same_measures(training.evaluation.of, wanted)
