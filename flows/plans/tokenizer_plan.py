"""What `train_tokenizer` will take: what learning the dataset's own tokenizer took, by bytes of text."""

from flows.config import DatasetSettings
from flows.plans.flow_plan import FlowPlan, concluded
from infra.cost import Cost
from infra.environment import Environment
from infra.manifest import DatasetManifest, StageManifest, Telemetry, load_dataset
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.pipeline import manifest_path
from tasks.tokens.tokenization import TOKENIZATION
from tasks.tokens.tokenizer import TOKENIZER, TokenizerSettings


def plan_tokenizer(
    dataset: DatasetSettings, tokenizer: TokenizerSettings, measured_bytes: int, environment: Environment
) -> FlowPlan:
    """Plan the tokenizer flow; its time is unknown where the dataset took a tokenizer that it was given.

    Byte-pair encoding and unigram models are learned by one process in a time that grows with the sample.
    """
    store = Store(environment.root)
    manifest = load_dataset(store, dataset.name, dataset.version)
    learning, notes = _learning(store, manifest, tokenizer)
    measuring = _measuring(store, manifest, measured_bytes)
    seconds = None if learning is None else learning + measuring
    cost = Cost(core_hours=(seconds or 0.0) / 3600)
    return concluded(FlowPlan(flow="train_tokenizer", cost=cost, seconds=seconds, notes=notes), environment)


def _learning(
    store: Store, dataset: DatasetManifest, tokenizer: TokenizerSettings
) -> tuple[float | None, tuple[str, ...]]:
    """Processor seconds, None where they are unknown, and what there is to say of them."""
    own = CorpusSettings.model_validate(dataset.settings).tokenizer
    if tokenizer.path is not None or tokenizer == own:
        return 0.0, ("the tokenizer is there already",)
    if own.path is not None:
        return None, (f"{dataset.name}/{dataset.version} learned no tokenizer whose time could be known",)
    learned = StageManifest.load(store, manifest_path(dataset, TOKENIZER.name))
    sample = learned.total("counters")["sample_bytes"]
    wanted = tokenizer.sample_bytes if sample >= own.sample_bytes else min(tokenizer.sample_bytes, sample)
    other = own.model_copy(update={"sample_bytes": tokenizer.sample_bytes}) != tokenizer
    notes = ("measured with other settings of the tokenizer than these",) if other else ()
    return _processor_seconds(store, learned) * wanted / max(sample, 1), notes


def _measuring(store: Store, dataset: DatasetManifest, measured_bytes: int) -> float:
    """Processor seconds to encode held-out text, at the rate at which the dataset was tokenized."""
    encoded = StageManifest.load(store, manifest_path(dataset, TOKENIZATION.name))
    heldout, every = (sum(each.text_bytes for each in some) for some in (dataset.split("heldout"), dataset.shards))
    return _processor_seconds(store, encoded) * min(measured_bytes, heldout) / max(every, 1)


def _processor_seconds(store: Store, manifest: StageManifest) -> float:
    return Telemetry.load(store, f"{manifest.folder}/telemetry.json").counts["cpu_ms"] / 1000
