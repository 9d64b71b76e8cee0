"""What lies under a root: datasets and runs, and the settings that a command would use."""

from typing import Any

from flows.config import PipelineSettings
from infra.manifest import DatasetManifest, dataset_folder
from infra.settings import Settings
from infra.store import Store
from model.run import RunRecord, finished_training


class DatasetEntry(Settings):
    """A published dataset."""

    name: str
    version: str
    fingerprint: str
    documents: int
    tokens: int


class RunEntry(Settings):
    """A training run."""

    folder: str
    dataset: str
    steps: int
    finished: bool
    last_loss: float | None


class Inventory(Settings):
    """Datasets, runs and settings."""

    root: str
    datasets: tuple[DatasetEntry, ...]
    runs: tuple[RunEntry, ...]
    settings: dict[str, Any]

    def text(self) -> str:
        """The same for people."""
        lines = [f"Root {self.root}", "", "Datasets" if self.datasets else "No datasets yet"]
        lines += [
            f"  {each.name}/{each.version}  {each.fingerprint}  {each.documents:,} documents, {each.tokens:,} tokens"
            for each in self.datasets
        ]
        lines += ["Runs" if self.runs else "No runs yet"]
        for each in self.runs:
            state = f"finished, loss {each.last_loss:.4f}" if each.last_loss is not None else "not finished"
            lines.append(f"  {each.folder}  on {each.dataset}, {each.steps:,} steps, {state}")
        return "\n".join(lines)


def take_inventory(store: Store, settings: PipelineSettings) -> Inventory:
    """Read every manifest under the root."""
    return Inventory(
        root=store.root,
        datasets=tuple(_datasets(store)),
        runs=tuple(_runs(store)) if store.is_local else (),
        settings=settings.model_dump(mode="json"),
    )


def _datasets(store: Store) -> list[DatasetEntry]:
    paths = [
        f"{dataset_folder(name, version)}/manifest.json"
        for name in store.names("datasets")
        for version in store.names(f"datasets/{name}")
    ]
    manifests = [DatasetManifest.load(store, path) for path in paths if store.exists(path)]
    return [
        DatasetEntry(
            name=each.name,
            version=each.version,
            fingerprint=each.fingerprint,
            documents=sum(shard.documents for shard in each.shards),
            tokens=each.tokens("train") + each.tokens("heldout"),
        )
        for each in manifests
    ]


def _runs(store: Store) -> list[RunEntry]:
    folders = [f"runs/{name}/{run}" for name in store.names("runs") for run in store.names(f"runs/{name}")]
    entries = []
    for folder in folders:
        if store.exists(f"{folder}/run.json"):
            record = RunRecord.load(store, f"{folder}/run.json")
            summary = finished_training(store, record)
            entries.append(
                RunEntry(
                    folder=folder,
                    dataset=f"{record.dataset}/{record.dataset_version}",
                    steps=record.steps,
                    finished=summary is not None,
                    last_loss=None if summary is None else summary.loss.last,
                )
            )
    return entries
