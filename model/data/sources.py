"""The datasets that a run trains on: found, checked and opened."""

from collections.abc import Sequence

from infra.errors import BadInput
from infra.manifest import DatasetManifest, load_dataset
from infra.settings import Settings
from infra.store import Store
from model.data.documents import Documents
from model.data.order import TrainingOrder, training_order
from model.data.settings import DataSettings, Source


class BlendedDataset(Settings):
    """A dataset that a run trains on, as it was when the run was prepared."""

    name: str
    version: str
    fingerprint: str


def blended(store: Store, dataset: DatasetManifest, settings: DataSettings) -> tuple[DatasetManifest, ...]:
    """The datasets of a blend, in its order; the run's own alone where there is none.

    BadInput for a blend without the run's own dataset, a dataset that does not exist, or one of another tokenizer.
    """
    if not settings.blend:
        return (dataset,)
    own = [source for source in settings.blend if source.dataset == dataset.name]
    if not own:
        raise BadInput(
            f"data.blend of {', '.join(source.dataset for source in settings.blend)} for a run on {dataset.name}",
            "a blend says of every dataset how much of it there is, of the run's own too",
            f"Add {dataset.name} to the blend, or train on another dataset",
        )
    if sum(source.version in (None, dataset.version) for source in own) != 1:
        raise BadInput(
            f"data.blend has version {', '.join(str(source.version) for source in own)} of {dataset.name}",
            f"the run is on version {dataset.version}, which a blend has once",
            "Leave the version out of the blend, or name the same in both places",
        )
    found = tuple(_find(store, dataset, source) for source in settings.blend)
    for each in found:
        _require_same_tokenizer(each, dataset)
    return found


def _find(store: Store, dataset: DatasetManifest, source: Source) -> DatasetManifest:
    if source.dataset == dataset.name and source.version in (None, dataset.version):
        return dataset
    return load_dataset(store, source.dataset, source.version)


def _require_same_tokenizer(one: DatasetManifest, other: DatasetManifest) -> None:
    if one.tokenizer.sha256 != other.tokenizer.sha256:
        raise BadInput(
            f"dataset {one.name}/{one.version} was encoded with tokenizer {one.tokenizer.sha256[:12]}, "
            f"{other.name}/{other.version} with {other.tokenizer.sha256[:12]}",
            "all datasets of a blend share one tokenizer",
            "Build one of them again with tokenizer.path set to the other's tokenizer",
        )


def blend_tokens(datasets: Sequence[DatasetManifest], settings: DataSettings) -> int:
    """Tokens of one pass: of all training splits, each as often as its epochs say where the blend is by epochs."""
    return pass_tokens([each.tokens("train") for each in datasets], settings)


def pass_tokens(sizes: Sequence[int], settings: DataSettings) -> int:
    """The same of training splits of so many tokens, in the order of the blend."""
    times = [source.epochs or 1 for source in settings.blend] or [1]
    return round(sum(size * time for size, time in zip(sizes, times, strict=True)))


def open_order(
    store: Store, datasets: Sequence[DatasetManifest], settings: DataSettings, length: int, seed: int
) -> TrainingOrder:
    """The order of training on the training splits of some datasets, in samples of `length` tokens."""
    return training_order([Documents(store, each.split("train")) for each in datasets], settings, length, seed)
