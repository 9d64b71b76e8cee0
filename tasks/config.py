"""The settings of a corpus: those of its stages, composed; and all stages in order."""

from infra.settings import Settings
from tasks.dedup import CLUSTERS, DEDUP, SIGNATURES, DedupSettings
from tasks.extract import EXTRACT, ExtractSettings
from tasks.fetch import FETCH
from tasks.heldout import HeldoutSettings
from tasks.language import LANGUAGE, LanguageSettings
from tasks.quality import QUALITY, QualitySettings
from tasks.redact import REDACT, RedactSettings
from tasks.tokenization import TOKENIZATION
from tasks.tokenizer import TOKENIZER, TokenizerSettings
from tasks.transport import SourceSettings

STAGES = (FETCH, EXTRACT, LANGUAGE, QUALITY, SIGNATURES, CLUSTERS, DEDUP, REDACT, TOKENIZER, TOKENIZATION)


class CorpusSettings(Settings):
    """From a crawl to token shards."""

    source: SourceSettings = SourceSettings()
    """Which crawl, and how much of it."""
    extract: ExtractSettings = ExtractSettings()
    """How text is taken out of pages."""
    language: LanguageSettings = LanguageSettings()
    """Which languages are kept."""
    quality: QualitySettings = QualitySettings()
    """Thresholds of the Gopher quality rules."""
    dedup: DedupSettings = DedupSettings()
    """What counts as a near-duplicate."""
    redact: RedactSettings = RedactSettings()
    """Which kinds of personal data are replaced."""
    heldout: HeldoutSettings = HeldoutSettings()
    """How much of the corpus is kept for evaluation."""
    tokenizer: TokenizerSettings = TokenizerSettings()
    """How the vocabulary is learned."""
