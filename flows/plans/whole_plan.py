"""What any flow will take before it runs: corpus, training and evaluation, as far as they are not there already."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from flows.config import PipelineSettings
from flows.plans import Planned
from flows.plans.evaluation_plan import EvaluationPlan, plan_evaluation
from flows.plans.flow_plan import FlowPlan, summed
from flows.plans.planning import Plan, make_plan
from flows.plans.sampling import PlanSettings
from flows.plans.training_left import TrainingLeft, is_evaluated, steps_done, training_left
from flows.plans.training_plan import DEVICE, TrainingPlan, plan_training, usual_rate
from flows.plans.trial import measured_rate
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import DatasetManifest, load_dataset
from infra.settings import Settings
from infra.store import Store
from model.config import EvaluationSettings, TrainingSettings, validate_evaluation
from model.data.sources import blend_tokens, blended, pass_tokens
from model.estimates.devices import this_device
from model.estimates.rate import Rate, earlier_rate
from model.run import RunRecord, named_run
from tasks.inputs import find
from tasks.tokens.tokenizer import TokenizerSettings
from tasks.tokens.tokenizer_import import import_tokenizer


class PlanOptions(Settings):
    """On what a plan is based."""

    sample: PlanSettings = PlanSettings()
    """How much of a source is measured."""
    device: str | None = None
    """Name of the devices to train on, such as H200 or CPU; unset takes this machine's GPU, or H200 without one and
    where the launcher starts ranks on other machines."""
    mfu: float | None = Field(default=None, gt=0, le=1)
    """Part of the device's peak that training reaches while it does not wait."""
    tokens_per_second: float | None = Field(default=None, gt=0)
    """Tokens per second of one device, in the layout of the settings."""
    measure_steps: int | None = Field(default=None, ge=4)
    """Steps of the training that are made here, on random tokens, to measure its rate and memory."""


def plan_pipeline(flow: Planned, settings: PipelineSettings, options: PlanOptions) -> FlowPlan:
    """Plan crawl_to_model or a flow that is a part of it."""
    environment, training = settings.environment, settings.training
    corpora: list[Plan] = []
    if flow in ("crawl_to_model", "build_corpus"):
        corpora.append(make_plan(settings.corpus, environment, options.sample))
    if flow == "build_corpus":
        return summed(flow, environment, corpora)
    store, elsewhere = Store(environment.root), environment.ranks_elsewhere
    data = _data(settings, store, corpora[0] if corpora else None)
    rate = choose_rate(store, training, data.vocabulary_size, options, elsewhere=elsewhere)
    trained = plan_training(
        training, data.vocabulary_size, train_tokens=data.train_tokens, rate=rate, elsewhere=elsewhere
    )
    run = _run_there(settings, data.manifest, store)
    done = [] if flow == "evaluate" else [0 if run is None else steps_done(store, run)]
    left = training_left(training, trained.weights, trained.steps, done)
    made = summed(
        flow,
        environment,
        corpora,
        training=trained,
        trainings=len(done),
        left=left,
        during=during_training(training, trained, left, [data.heldout_tokens], store),
        evaluation=None if flow == "pretrain" else _evaluation(settings, trained, data, run, store),
    )
    reasons = () if flow == "pretrain" else _unworkable(settings.evaluation, training, data.vocabulary_size)
    return made.model_copy(update={"refused": (*reasons, *made.refused)})


def choose_rate(
    store: Store, training: TrainingSettings, vocabulary_size: int, options: PlanOptions, *, elsewhere: bool = False
) -> Rate:
    """The rate that is stated, measured now, measured in an earlier run, or usual.

    Where the ranks run `elsewhere` this machine's device is not theirs.
    """
    known = options.device or (None if elsewhere else this_device())
    device = known or DEVICE
    if options.tokens_per_second is not None:
        return Rate(device=device, source="as stated", tokens_per_second_per_device=options.tokens_per_second)
    if options.mfu is not None:
        return usual_rate(training, device, options.mfu)
    if options.measure_steps is not None:
        return measured_rate(training, vocabulary_size, options.measure_steps)
    earlier = earlier_rate(store, training, vocabulary_size, known)
    return earlier or usual_rate(training, device)


def refuse(plan: FlowPlan) -> None:
    """BadInput for a plan that cannot fit or pay."""
    if plan.refused:
        raise BadInput(
            "; ".join(plan.refused),
            f"{plan.flow} is not started where its plan says that it cannot fit, or costs more than its budget",
            "Change what is named, or environment.cost.budget; `gristmill plan` shows the whole plan",
        )


def affordable(flow: Planned, settings: PipelineSettings) -> Environment:
    """Plan a flow if a budget is stated; BadInput where its plan refuses it, or the launcher its numbers of processes.

    Returns the environment for the flow's parts, which the plan has covered: without a budget of their own.
    """
    environment = settings.environment
    if flow in ("crawl_to_model", "pretrain"):
        environment.launcher.shape(settings.training.parallel.processes)
    if flow in ("crawl_to_model", "evaluate"):
        environment.launcher.shape(settings.evaluation.parallel.processes)
    if environment.cost.budget is None:
        return environment
    refuse(plan_pipeline(flow, settings, PlanOptions()))
    return without_budget(environment)


def without_budget(environment: Environment) -> Environment:
    """The same environment, where nothing is planned before it starts."""
    return environment.model_copy(update={"cost": environment.cost.model_copy(update={"budget": None})})


@dataclass(frozen=True)
class _Data:
    """What is trained on and measured."""

    vocabulary_size: int
    train_tokens: int
    """In one pass, over a blend too; 0 if unknown."""
    heldout_tokens: float | None
    """None if unknown."""
    manifest: DatasetManifest | None = None
    """The dataset, if it is there as it is to be."""


def _data(settings: PipelineSettings, store: Store, corpus: Plan | None) -> _Data:
    """By the plan of a corpus, or by the dataset that is there."""
    chosen, data = settings.dataset, settings.training.data
    if corpus is not None and corpus.tokens_train is not None:
        own, heldout = round(corpus.tokens_train.expected), corpus.tokens_heldout
        sizes = [
            own
            if each.dataset == chosen.name and each.version in (None, chosen.version)
            else load_dataset(store, each.dataset, each.version).tokens("train")
            for each in data.blend
        ]
        vocabulary_size = vocabulary_of(settings.corpus.tokenizer, store)
        return _Data(vocabulary_size, pass_tokens(sizes or [own], data), heldout and heldout.expected)
    try:
        found = load_dataset(store, chosen.name, chosen.version)
    except BadInput:
        return _Data(vocabulary_of(settings.corpus.tokenizer, store), 0, None)
    tokens = blend_tokens(blended(store, found, data), data)
    there = found if corpus is None or corpus.complete else None
    return _Data(found.tokenizer.vocabulary_size, tokens, found.tokens("heldout"), there)


def vocabulary_of(tokenizer: TokenizerSettings, store: Store) -> int:
    """Tokens of a vocabulary: of the file that is named, or as many as are to be learned."""
    if tokenizer.path is None:
        return tokenizer.vocabulary_size
    return import_tokenizer(find(tokenizer.path, store), tokenizer.existing).record.vocabulary_size


def _run_there(settings: PipelineSettings, dataset: DatasetManifest | None, store: Store) -> RunRecord | None:
    """The training run of some settings, if its folder is there."""
    if dataset is None or not store.is_local:
        return None
    run = named_run(store, dataset, settings.run, settings.training)
    return run if store.exists(f"{run.folder}/run.json") else None


def during_training(
    training: TrainingSettings,
    trained: TrainingPlan,
    left: TrainingLeft,
    heldout: Sequence[float | None],
    store: Store,
) -> EvaluationPlan | None:
    """Evaluations on the way of trainings, by their own processes; None where they make none."""
    if training.evaluation is None or not left.evaluations:
        return None
    of, processes = training.evaluation.of, training.parallel.processes
    times = left.evaluations
    return plan_evaluation(of, trained, heldout, times=times, processes=processes, store=store, baselines=False)


def _evaluation(
    settings: PipelineSettings, trained: TrainingPlan, data: _Data, run: RunRecord | None, store: Store
) -> EvaluationPlan:
    """The evaluation of a run's checkpoint, unless that is there."""
    wanted = settings.evaluation
    done = run is not None and is_evaluated(store, run, wanted.step or run.steps, wanted, baselines=True)
    processes, times = wanted.parallel.processes, 0 if done else 1
    return plan_evaluation(wanted, trained, [data.heldout_tokens], times=times, processes=processes, store=store)


def _unworkable(settings: EvaluationSettings, training: TrainingSettings, vocabulary_size: int) -> tuple[str, ...]:
    """Why an evaluation cannot work."""
    try:
        validate_evaluation(settings, training.model, vocabulary_size)
    except BadInput as error:
        return (f"evaluation: {error.value}: {error.rule}",)
    return ()
