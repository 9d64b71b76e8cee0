"""What a refresh will take: versions of what is new, and the training that goes on from the champion after them."""

from collections.abc import Sequence

from flows.jobs import require_launchable, require_trainable
from flows.plans.evaluation_plan import plan_evaluation
from flows.plans.flow_plan import FlowPlan, summed
from flows.plans.planning import Plan, make_plan
from flows.plans.training_left import training_left
from flows.plans.training_plan import plan_training
from flows.plans.whole_plan import PlanOptions, choose_rate, during_training, refuse, without_budget
from flows.promotion import evaluated
from flows.refreshes.continuation import require_champion
from flows.refreshes.refreshing import upcoming
from flows.refreshes.settings import ContinuationSettings, RefreshSettings
from flows.runs import find_run
from infra.environment import Environment
from infra.store import Store
from model.config import EvaluationSettings
from model.run import RunRecord, open_run_folder


def plan_refresh(refresh: RefreshSettings, environment: Environment, options: PlanOptions) -> FlowPlan:
    """Plan a refresh: every version that it would make now, and what it would train then."""
    store, settings = Store(environment.root), refresh.continuation
    corpora = [make_plan(each, environment, options.sample) for each in upcoming(store, refresh)]
    if settings is None:
        return summed("refresh_corpus", environment, corpora)
    if not corpora:
        made = summed("refresh_corpus", environment, corpora)
        return made.model_copy(update={"notes": (*made.notes, "a training that an earlier refresh left is in no sum")})
    champion, evaluation = _champion(store, environment, settings)
    return plan_continuation(corpora, champion, evaluation, settings, environment, options)


def _champion(
    store: Store, environment: Environment, settings: ContinuationSettings
) -> tuple[RunRecord, EvaluationSettings]:
    """The run that training would go on from, and what would be measured."""
    tags = require_champion(store, environment, settings).tags
    _, champion, _ = open_run_folder(find_run(store, tags["run"]))
    return champion, settings.evaluation or evaluated(store, champion, int(tags["step"])).record.settings


def plan_continuation(
    corpora: Sequence[Plan],
    champion: RunRecord,
    evaluation: EvaluationSettings,
    settings: ContinuationSettings,
    environment: Environment,
    options: PlanOptions,
) -> FlowPlan:
    """Plan versions, a training on them like the champion's, and its evaluation, on the champion's text too."""
    store, elsewhere = Store(environment.root), environment.ranks_elsewhere
    optimizer = settings.optimizer or champion.training.optimizer
    training = champion.training.model_copy(update={"duration": settings.duration, "optimizer": optimizer})
    rate = choose_rate(store, training, champion.vocabulary_size, options, elsewhere=elsewhere)
    new = round(sum(each.tokens_train.expected for each in corpora if each.tokens_train is not None))
    trained = plan_training(training, champion.vocabulary_size, train_tokens=new, rate=rate, elsewhere=elsewhere)
    left = training_left(training, trained.weights, trained.steps, [0])
    heldout = [corpora[-1].tokens_heldout.expected if corpora[-1].tokens_heldout is not None else None]
    theirs = f"{champion.dataset}/{champion.dataset_version}"
    measured = evaluation.model_copy(update={"held_out": tuple(dict.fromkeys([*evaluation.held_out, theirs]))})
    processes = evaluation.parallel.processes
    return summed(
        "refresh_corpus",
        environment,
        corpora,
        training=trained,
        trainings=1,
        left=left,
        during=during_training(training, trained, left, heldout, store),
        evaluation=plan_evaluation(measured, trained, heldout, times=1, processes=processes, store=store),
    )


def affordable_refresh(refresh: RefreshSettings, environment: Environment) -> Environment:
    """BadInput for a refresh whose training could not start, or whose parts together cost more than a budget.

    Returns the environment for its parts: without a budget where one plan has covered them all. An earlier refresh's
    training that is still to be ended, where nothing is new, is no part of a plan and has the budget for itself.
    """
    if refresh.continuation is not None:
        store = Store(environment.root)
        champion, evaluation = _champion(store, environment, refresh.continuation)
        training = champion.training
        require_trainable(training, champion.vocabulary_size, refresh.dataset, environment)
        require_launchable(environment, training, training.parallel.processes, evaluation.parallel.processes)
    if environment.cost.budget is None:
        return environment
    plan = plan_refresh(refresh, environment, PlanOptions())
    refuse(plan)
    return without_budget(environment) if plan.corpora else environment
