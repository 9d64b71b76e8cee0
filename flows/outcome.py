"""What a whole chain came to, and how a second run of the same chain finds it in a moment."""

from typing import Self

from flows.config import PipelineSettings
from infra.manifest import DatasetManifest, Manifest, fingerprint, library_versions
from infra.report import Report
from infra.store import Store
from tasks.config import STAGES


class Outcome(Manifest):
    """The report of a finished chain, and the folders of its run and dataset, relative to the root."""

    report: Report
    run: str
    dataset: str

    def remember(self, store: Store, settings: PipelineSettings) -> None:
        """Write down that these settings led here; not if a shard was lost, because a rerun would try it again."""
        if self.report.records.quarantined == 0:
            self.save(store, outcome_path(settings))

    @classmethod
    def recall(cls, store: Store, settings: PipelineSettings) -> Self | None:
        """What the same settings, code and libraries led to before, if all of it is still there."""
        path = outcome_path(settings)
        if not store.exists(path):
            return None
        outcome = cls.load(store, path)
        files = [f"{outcome.run}/{name}" for name in ("run.json", "training.json", "report.json", "report.html")]
        manifest = f"{outcome.dataset}/manifest.json"
        if not all(map(store.exists, [*files, manifest])):
            return None
        shards = DatasetManifest.load(store, manifest).shards
        whole = all(store.exists(each.path) and store.size(each.path) == each.bytes for each in shards)
        return outcome if whole else None


def outcome_path(settings: PipelineSettings) -> str:
    """Where the outcome of some settings is written, relative to the root."""
    key = fingerprint(
        settings=settings.identity(),
        stages={stage.name: [stage.version, library_versions(stage.libraries)] for stage in STAGES},
    )
    return f"outcomes/{key}.json"
