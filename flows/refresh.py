"""The refresh flow: what is new in a source's crawls becomes a dataset version, with a report of what changed.

On a schedule it mostly finds nothing new, which takes seconds. Otherwise it builds (`build_corpus`), compares, and, if
asked to, trains on from the champion. Killed, it goes on where it was when it is started again.
"""

import logging
from functools import partial

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed

from flows.beginning import begin
from flows.corpus import build_corpus
from flows.live.watching import watched_runner
from flows.plans.refresh_plan import affordable_refresh
from flows.refreshes.champion import check_champion, require_champion
from flows.refreshes.continuation import Continuation, continue_from_champion, finish_continuation
from flows.refreshes.refreshing import Refreshed, Refreshing
from flows.refreshes.settings import RefreshSettings
from flows.reports.change_report import publish_change_report
from flows.reports.corpus_tracking import track_changes
from infra.change_report import ChangeReport
from infra.environment import Environment
from infra.errors import BadInput
from infra.lock import only_one
from infra.manifest import DatasetManifest, StageManifest, dataset_versions
from infra.settings import Settings
from infra.store import Store
from tasks.changes import change_report
from tasks.duplicates.dedup_index import add_segment, segments
from tasks.pipeline import manifest_path

logger = logging.getLogger(__name__)
NOTHING_NEW = "NothingNew"
"""Name of the state in which a flow run ends that had nothing to do."""


class Refresh(Settings):
    """What the flow returns."""

    dataset: str
    newest: str | None
    """The newest version now."""
    made: tuple[Refreshed, ...]
    """In the order of their making."""
    pending: tuple[str, ...]
    """Crawls that are not done: no room was left for them, or for all of them."""
    continuation: Continuation | None

    @property
    def is_nothing(self) -> bool:
        """Whether there was nothing to do."""
        return not self.made and self.continuation is None

    def text(self) -> str:
        """The same for people."""
        newest = f"the newest version is {self.dataset}/{self.newest}" if self.newest else "there is no version yet"
        lines = [f"{self.dataset}/{each.text()}" for each in self.made] or [f"Nothing new: {newest}"]
        if self.pending:
            lines.append(f"Left to the next refresh: {', '.join(self.pending)}")
        return "\n".join(lines + ([self.continuation.text()] if self.continuation else []))


@flow(name="refresh_corpus", persist_result=False)
def refresh_corpus(
    refresh: RefreshSettings = RefreshSettings(), environment: Environment = Environment()
) -> Refresh | State[Refresh]:
    """Take what is new in a source's crawls into a new dataset version, report what changed, and train on if asked."""
    store = begin(environment)
    with only_one(store, f"refreshes/{refresh.dataset}.lock", f"a refresh of {refresh.dataset}"):
        environment = affordable_refresh(refresh, environment)
        continuation = champion = None
        if refresh.continuation is not None:
            continuation = finish_continuation(store, refresh, environment)
            champion = require_champion(store, environment, refresh.continuation)
            check_champion(store, champion, refresh, environment)
        steps = Refreshing(
            store,
            refresh,
            build=lambda corpus, dataset: build_corpus(corpus, dataset, environment).dataset,
            report=partial(report_changes, store, refresh, environment),
            index=partial(ensure_indexed, store, environment),
        )
        made = steps.run()
        if champion is not None:
            continuation = continue_from_champion(store, refresh, champion, environment) or continuation
        found = Refresh(
            dataset=refresh.dataset,
            newest=next(reversed(dataset_versions(store, refresh.dataset)), None),
            made=tuple(made),
            pending=tuple(each.name for each in steps.pending()),
            continuation=continuation,
        )
        steps.end()
    create_markdown_artifact(found.text(), key="refresh", description=f"Refresh of dataset {refresh.dataset}")
    logger.info("refresh: %s", found.text())
    return Completed(name=NOTHING_NEW, message=found.text(), data=found) if found.is_nothing else found


@task(cache_policy=NO_CACHE, task_run_name="report changes", persist_result=False)
def report_changes(
    store: Store,
    refresh: RefreshSettings,
    environment: Environment,
    dataset: DatasetManifest,
    previous: DatasetManifest | None,
    crawl: str,
) -> ChangeReport:
    """Compare a version with the one before, show what changed, and raise an event for each alarm."""
    with watched_runner(store, environment) as runner:
        found = change_report(store, dataset, previous, refresh.drift, [crawl], runner)
    publish_change_report(store, found)
    track_changes(store, found, previous)
    resource = {"prefect.resource.id": f"gristmill.dataset.{dataset.name}", "prefect.resource.name": dataset.name}
    emit_event("gristmill.dataset.published", resource, payload={"version": dataset.version, "crawl": crawl})
    for alarm in found.alarms:
        emit_event("gristmill.dataset.drift", resource, payload={"version": dataset.version, "alarm": alarm.text})
    return found


def ensure_indexed(store: Store, environment: Environment, index: str, dataset: DatasetManifest) -> None:
    """Add a dataset to an index, from the stages that it was made of, unless it is there.

    BadInput if these are gone: without them its documents cannot be known again.
    """
    name = f"{dataset.name}/{dataset.version}"
    if any(segment.name == name for segment in segments(store, index)):
        return
    order = list(dataset.stages)
    before_tokens = order[order.index("tokenizer") - 1]
    try:
        signed, documents = (
            StageManifest.load(store, manifest_path(dataset, each)) for each in ("signatures", before_tokens)
        )
        with watched_runner(store, environment) as runner:
            add_segment(runner, index, dataset.name, dataset.version, signed, documents)
    except FileNotFoundError as error:
        raise BadInput(
            f"{name} is not in the index {index}, and its stages are gone ({error})",
            "a refresh drops what earlier versions have, which it knows by their index",
            f"Build {name} again with corpus.dedup.index={index}, or start another dataset",
        ) from error
    logger.info("refresh: %s added to the index %s", name, index)
