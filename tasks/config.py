"""The settings of a corpus: those of its stages, composed; and all stages in order."""

from pydantic import Field

from infra.settings import Settings, opened
from tasks.duplicates.dedup import DEDUP, DedupSettings
from tasks.duplicates.dedup import HELPERS as DEDUP_HELPERS
from tasks.duplicates.repeats import REPEAT_UNITS, REPEATED, TRIM, RepeatSettings
from tasks.examples import EXAMPLES, ExampleSettings
from tasks.extraction.extract import EXTRACT, ExtractSettings
from tasks.filters import FILTER, FilterSettings
from tasks.heldout import HeldoutSettings
from tasks.ledger import LEDGER
from tasks.models.ngram_training import NGRAM_MODEL, NgramTrainingSettings
from tasks.models.quality_training import QUALITY_MODEL, QualityTrainingSettings
from tasks.phrases.decontaminate import BENCHMARK_INDEX, DECONTAMINATE, DecontaminationSettings
from tasks.privacy.redact import REDACT, RedactSettings
from tasks.profile import PROFILE, ProfileSettings
from tasks.signals import SIGNALS, SignalSettings
from tasks.sources.collections import CollectionSettings
from tasks.sources.fetch import FETCH
from tasks.sources.select import SELECT, SelectSettings
from tasks.sources.transport import SourceSettings
from tasks.tokens.mix import MIX, MixSettings
from tasks.tokens.tokenization import TOKENIZATION
from tasks.tokens.tokenizer import TOKENIZER, TokenizerSettings

STAGES = (
    *(FETCH, SELECT, EXTRACT, QUALITY_MODEL, NGRAM_MODEL, SIGNALS, FILTER, *DEDUP_HELPERS, DEDUP),
    *(REPEAT_UNITS, REPEATED, TRIM, BENCHMARK_INDEX, DECONTAMINATE, REDACT, MIX, TOKENIZER, TOKENIZATION),
    *(LEDGER, PROFILE, EXAMPLES),
)


class TrainedModels(Settings):
    """Models that are trained before documents are measured, besides those given as files."""

    classifiers: tuple[QualityTrainingSettings, ...] = ()
    """Classifiers that learn to tell reference text from this crawl."""
    language_models: tuple[NgramTrainingSettings, ...] = ()
    """N-gram models of reference text, for perplexity."""


class ReportSettings(Settings):
    """What people get to see of a dataset."""

    examples: ExampleSettings = ExampleSettings()
    """Documents that each rule dropped, and that it nearly dropped."""
    profile: ProfileSettings = ProfileSettings()
    """Counts by language, domain and signal."""


class CorpusSettings(Settings):
    """From a crawl to token shards."""

    source: SourceSettings = opened(SourceSettings())
    """Which crawl, and how much of it."""
    collections: tuple[CollectionSettings, ...] = ()
    """Corpora of your own, read beside the crawl."""
    select: SelectSettings = SelectSettings()
    """Which pages are not taken at all: opt-outs and URL lists."""
    extract: ExtractSettings = ExtractSettings()
    """How text is taken out of pages."""
    train: TrainedModels = TrainedModels()
    """Models to train before documents are measured."""
    signals: SignalSettings = SignalSettings()
    """What is measured of every document."""
    filter: FilterSettings = FilterSettings()
    """Which documents are kept, given what was measured."""
    dedup: DedupSettings = DedupSettings()
    """What counts as a duplicate, and which datasets it may be one of."""
    repeats: RepeatSettings = RepeatSettings()
    """Lines, paragraphs and spans that are cut because many documents share them."""
    decontaminate: DecontaminationSettings = DecontaminationSettings()
    """Benchmarks whose items must not be in the corpus."""
    redact: RedactSettings = RedactSettings()
    """Which kinds of personal data are replaced."""
    mix: MixSettings = MixSettings()
    """How often documents of each source, language and bucket are in the dataset."""
    heldout: HeldoutSettings = HeldoutSettings()
    """How much of the corpus is kept for evaluation."""
    tokenizer: TokenizerSettings = TokenizerSettings()
    """How the vocabulary is learned, or which one is taken."""
    report: ReportSettings = Field(default=ReportSettings())
    """What people get to see of the dataset."""
