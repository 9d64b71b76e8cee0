"""What a refresh will take: a version of each part that is new, and the training that goes on from the champion."""

from collections.abc import Sequence

from flows.plans.evaluation_plan import plan_evaluation
from flows.plans.flow_plan import FlowPlan, summed
from flows.plans.planning import Plan, make_plan
from flows.plans.training_left import training_left
from flows.plans.training_plan import plan_training
from flows.plans.whole_plan import PlanOptions, choose_rate, during_training, refuse, without_budget
from flows.refreshes.champion import Champion, check_champion, require_champion
from flows.refreshes.continuation import awaited, begun, unseen, versions_until
from flows.refreshes.refreshing import upcoming
from flows.refreshes.settings import ContinuationSettings, RefreshSettings
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import DatasetManifest, dataset_versions, load_dataset
from infra.store import Store
from model.run import training_datasets


def plan_refresh(refresh: RefreshSettings, environment: Environment, options: PlanOptions) -> FlowPlan:
    """Plan a refresh: the versions that it would make of what is new, and the training after it."""
    store = Store(environment.root)
    corpora = [make_plan(each, environment, options.sample) for each in upcoming(store, refresh)]
    if refresh.continuation is None:
        return summed("refresh_corpus", environment, corpora)
    try:
        champion = require_champion(store, environment, refresh.continuation)
        check_champion(store, champion, refresh, environment)
    except BadInput as error:
        plan = summed("refresh_corpus", environment, corpora)
        return plan.model_copy(update={"refused": (f"{error.value}: {error.rule}", *plan.refused)})
    return plan_continued(refresh, refresh.continuation, champion, corpora, environment, options)


def plan_continued(
    refresh: RefreshSettings,
    settings: ContinuationSettings,
    champion: Champion,
    corpora: Sequence[Plan],
    environment: Environment,
    options: PlanOptions,
) -> FlowPlan:
    """The plan of versions that are to come and of what is trained then, or was begun before, from the champion."""
    store, elsewhere = Store(environment.root), environment.ranks_elsewhere
    due = bool(corpora) or awaited(store, refresh.dataset, champion) is not None
    times = due + (begun(store, refresh.dataset) is not None)
    if not times:
        return summed("refresh_corpus", environment, corpora)
    training, vocabulary_size = champion.training(settings), champion.run.vocabulary_size
    rate = choose_rate(store, training, vocabulary_size, options, elsewhere=elsewhere)
    tokens = _tokens(store, refresh.dataset, champion, corpora, settings.new_share)
    trained = plan_training(training, vocabulary_size, train_tokens=tokens, rate=rate, elsewhere=elsewhere)
    left = training_left(training, trained.weights, trained.steps, [0] * times)
    heldout, measured = [_heldout(store, refresh.dataset, corpora)], champion.measured(store, settings)
    theirs = f"{champion.run.dataset}/{champion.run.dataset_version}"
    measured = measured.model_copy(update={"held_out": tuple(dict.fromkeys([*measured.held_out, theirs]))})
    processes = measured.parallel.processes
    return summed(
        "refresh_corpus",
        environment,
        corpora,
        training=trained,
        trainings=times,
        left=left,
        during=during_training(training, trained, left, heldout, store),
        evaluation=plan_evaluation(measured, trained, heldout, times=times, processes=processes, store=store),
    )


def _tokens(store: Store, name: str, champion: Champion, corpora: Sequence[Plan], new_share: float) -> int:
    """Of one pass over all that is trained on."""
    seen, newest = training_datasets(store, champion.run), _newest(store, name)
    new = [] if newest is None else unseen(versions_until(store, newest), seen)
    there = sum(each.tokens("train") for each in (*new, *(seen if new_share < 1 else ())))
    return there + round(sum(each.tokens_train.expected for each in corpora if each.tokens_train is not None))


def _heldout(store: Store, name: str, corpora: Sequence[Plan]) -> float | None:
    """Held-out tokens of the version that will be the newest; None if unknown."""
    if corpora:
        return None if corpora[-1].tokens_heldout is None else corpora[-1].tokens_heldout.expected
    newest = _newest(store, name)
    return None if newest is None else newest.tokens("heldout")


def _newest(store: Store, name: str) -> DatasetManifest | None:
    return load_dataset(store, name) if dataset_versions(store, name) else None


def affordable_refresh(refresh: RefreshSettings, environment: Environment) -> Environment:
    """What `affordable` is for the flows of the chain: the plan covers each part, which has no budget of its own."""
    if environment.cost.budget is None:
        return environment
    refuse(plan_refresh(refresh, environment, PlanOptions()))
    return without_budget(environment)
