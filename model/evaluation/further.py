"""Held-out text of further datasets than the run's own, as comparisons of corpora need it.

Figures and scores bear the dataset's name: group `NAME/VERSION/all`, task `heldout/NAME/VERSION/all`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from infra.errors import BadInput
from infra.manifest import DatasetManifest, load_dataset
from infra.store import Store
from model.data.shards import verify_shards
from model.evaluation.groups import ALL
from model.evaluation.perplexity import HeldOutLikelihood, held_out_likelihood

if TYPE_CHECKING:
    from model.config import EvaluationSettings
    from model.evaluation.heldout import DocumentNats, HeldOut
    from model.parallel import Place


def further_datasets(store: Store, own: DatasetManifest, names: Sequence[str]) -> list[DatasetManifest]:
    """Datasets by NAME/VERSION; BadInput for one that is not there, of another tokenizer or without held-out text."""
    found = [load_dataset(store, *name.split("/")) for name in names]
    for name, each in zip(names, found, strict=True):
        if each.tokenizer.sha256 != own.tokenizer.sha256:
            raise BadInput(
                f"evaluation.held_out: {name} was encoded with tokenizer {each.tokenizer.sha256[:12]}, "
                f"{own.name}/{own.version} with {own.tokenizer.sha256[:12]}",
                "a model reads token ids of its own tokenizer",
                f"Build {name} again with tokenizer.path set to {store.full_path(own.tokenizer.path)}",
            )
        if not each.tokens("heldout"):
            raise BadInput(
                f"evaluation.held_out: {name}", "it must have held-out tokens", "Build it with a held-out split"
            )
    return found


def further_likelihoods(
    store: Store,
    datasets: Sequence[DatasetManifest],
    measure: Callable[["HeldOut"], "DocumentNats"],
    settings: "EvaluationSettings",
    place: "Place",
    *,
    every_token: bool,
) -> list[HeldOutLikelihood]:
    """What `measure` makes of the held-out split of each dataset as a whole; every rank calls this and gets all."""
    from model.data.documents import Documents
    from model.evaluation.heldout import choose

    found = []
    for dataset in datasets:
        shards = dataset.split("heldout")
        verify_shards(store, dataset, shards[place.rank :: place.processes], content=settings.verify_shards)
        place.wait_for_all()
        held_out = choose(Documents(store, shards), settings.max_tokens, dataset.tokenizer.end_of_document)
        nats = measure(held_out)
        likelihood = held_out_likelihood(store, dataset, held_out, nats, (), place, every_token=every_token)
        named = {f"{dataset.name}/{dataset.version}/{ALL}": likelihood.members[ALL]}
        found.append(replace(likelihood, members=named))
    return found
