"""`gristmill index`: which earlier datasets an index holds, and entries retired from it."""

from infra.errors import BadInput
from infra.settings import Settings
from infra.store import Store
from tasks.duplicates.dedup_index import retire, retirements, segments


class IndexedDataset(Settings):
    """A dataset that an index holds."""

    dataset: str
    """NAME/VERSION."""
    documents: int
    retired: int
    """Documents of it that match no more; all of them if it was retired as a whole."""


class IndexContents(Settings):
    """What an index holds, oldest dataset first."""

    name: str
    datasets: tuple[IndexedDataset, ...]

    def text(self) -> str:
        """The same for people."""
        lines = [f"Index {self.name}"]
        lines += [f"  {each.dataset}  {each.documents:,} documents, {each.retired:,} retired" for each in self.datasets]
        return "\n".join(lines)


def index_contents(store: Store, name: str) -> IndexContents:
    """Read the manifests of an index; BadInput if there is none of that name."""
    found, requests = segments(store, name), retirements(store, name)
    if not found:
        known = ", ".join(store.names("indexes")) or "none"
        raise BadInput(f"index {name}", f"there must be one under {store.root}; known: {known}", "Correct its name")
    whole = {segment for request in requests for segment in request.segments}
    datasets = []
    for segment in found:
        refs = {ref for request in requests for ref in request.refs.get(segment.name, ())}
        retired = segment.rows if segment.name in whole else len(refs)
        datasets.append(IndexedDataset(dataset=segment.name, documents=segment.rows, retired=retired))
    return IndexContents(name=name, datasets=tuple(datasets))


def change_index(
    store: Store, name: str, ids: tuple[str, ...], urls: tuple[str, ...], datasets: tuple[str, ...]
) -> IndexContents:
    """Retire what is named, if anything is, and say what the index holds then."""
    if ids or urls or datasets:
        retire(store, name, ids, urls, datasets)
    return index_contents(store, name)
