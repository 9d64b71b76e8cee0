"""The tokenizer flow: from the texts of a published dataset to a tokenizer that several corpora can share."""

import logging

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.beginning import begin
from flows.config import DatasetSettings
from flows.corpus import stage
from flows.live.watching import watched_runner
from flows.plans.tokenizer_plan import plan_tokenizer
from flows.plans.whole_plan import refuse
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import DatasetManifest, StageManifest, load_dataset
from infra.store import Store
from infra.vocabulary import load_vocabulary
from tasks.config import CorpusSettings
from tasks.pipeline import manifest_path
from tasks.tokens import tokenizer as tokenizers
from tasks.tokens.tokenizer import TokenizerSettings
from tasks.tokens.tokenizer_publish import PublishedTokenizer, fertility, publish_tokenizer

logger = logging.getLogger(__name__)


@flow(name="train_tokenizer", persist_result=False)
def train_tokenizer(
    dataset: DatasetSettings = DatasetSettings(),
    name: str = "shared",
    tokenizer: TokenizerSettings = TokenizerSettings(),
    environment: Environment = Environment(),
    measured_bytes: int = 20_000_000,
) -> PublishedTokenizer:
    """Learn a vocabulary from the texts of a dataset, and measure it on text that it has not seen.

    Args:
        dataset: Whose texts it learns from.
        name: What the tokenizer is to be called.
        tokenizer: How it is learned.
        environment: Where the work is done.
        measured_bytes: Held-out text to measure bytes per token on, at most.
    """
    store = begin(environment)
    if environment.cost.budget is not None:
        refuse(plan_tokenizer(dataset, tokenizer, measured_bytes, environment))
    manifest = load_dataset(store, dataset.name, dataset.version)
    documents = _documents(store, manifest)
    heldout = CorpusSettings.model_validate(manifest.settings).heldout
    with watched_runner(store, environment) as runner:
        _, record = stage("tokenizer", tokenizers.train_tokenizer, runner, documents, tokenizer, heldout)
    vocabulary = load_vocabulary(store, record)
    languages = stage("measure", fertility, store, documents.kept_paths, heldout, vocabulary, measured_bytes)
    published = publish_tokenizer(store, name, manifest, record, tokenizer, languages)
    what = f"Tokenizer {name}/{published.version}, {record.vocabulary_size:,} tokens: {published.tokenizer.path}"
    create_table_artifact(published.rows(), key="tokenizer", description=what)
    logger.info("%s", published.text())
    return published


def _documents(store: Store, dataset: DatasetManifest) -> StageManifest:
    """The stage whose texts the dataset's own tokens were made of; BadInput if it is gone."""
    order = list(dataset.stages)
    last = order[order.index("tokenizer") - 1]
    try:
        return StageManifest.load(store, manifest_path(dataset, last))
    except FileNotFoundError as error:
        raise BadInput(
            f"dataset {dataset.name}/{dataset.version} has no texts any more",
            f"a tokenizer learns from the texts of its stage {last}",
            "Build the dataset anew, or name another one",
        ) from error
