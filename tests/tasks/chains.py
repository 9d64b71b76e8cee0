"""Chains for tests: a whole corpus, stage after stage, without a flow."""

from typing import NamedTuple

from infra.manifest import StageManifest, TokenizerRecord
from tasks.config import CorpusSettings
from tasks.filters import FilterSettings
from tasks.pipeline import measure, pinned_corpus, refine
from tasks.quality.c4 import C4Settings
from tasks.quality.families import QualitySettings
from tasks.quality.fineweb import FineWebSettings
from tasks.quality.gopher import GopherQualitySettings
from tasks.quality.repetition import RepetitionSettings
from tasks.stage import StageRunner


def only_long_documents() -> FilterSettings:
    """English of fifty words and more, whatever else is wrong with it."""
    quality = QualitySettings(
        gopher_repetition=RepetitionSettings(**dict.fromkeys(RepetitionSettings.model_fields)),
        gopher_quality=GopherQualitySettings(**{**dict.fromkeys(GopherQualitySettings.model_fields), "min_words": 50}),
        c4=C4Settings(**dict.fromkeys(C4Settings.model_fields)),
        fineweb=FineWebSettings(**dict.fromkeys(FineWebSettings.model_fields)),
    )
    return FilterSettings(quality=quality)


class Chain(NamedTuple):
    """The manifests of a corpus."""

    stages: list[StageManifest]
    """The stages through which documents pass."""
    every: list[StageManifest]
    tokenizer: TokenizerRecord
    ledger: StageManifest

    def stage(self, name: str) -> StageManifest:
        """A stage by name."""
        return next(each for each in self.every if each.stage == name)


def run_chain(runner: StageRunner, corpus: CorpusSettings) -> Chain:
    """Every stage of the corpus, one after the other."""
    settings = pinned_corpus(corpus, runner.store)
    made = refine(runner, measure(runner, settings), settings)
    return Chain(made.build.passed, made.build.every, made.tokenizer, made.ledger)
