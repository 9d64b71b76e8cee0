"""The settings of a corpus: those of its stages, composed."""

from infra.settings import Settings
from tasks.dedup import DedupSettings
from tasks.extract import ExtractSettings
from tasks.heldout import HeldoutSettings
from tasks.language import LanguageSettings
from tasks.quality import QualitySettings
from tasks.redact import RedactSettings
from tasks.tokenizer import TokenizerSettings
from tasks.transport import SourceSettings


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
