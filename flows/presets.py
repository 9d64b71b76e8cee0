"""Named configurations, each a function that says what it is for. `--set` and `--config` lay changes over them."""

from collections.abc import Callable, Mapping

from flows.config import DatasetSettings, PipelineSettings
from flows.sample import sample_source
from infra.errors import BadInput
from model.config import (
    Duration,
    EvaluationSettings,
    ModelSettings,
    OptimizerSettings,
    ParallelSettings,
    TrainingSettings,
)
from model.settings.safety import CheckpointSettings
from tasks.config import CorpusSettings
from tasks.filters import FilterSettings
from tasks.quality.c4 import C4Settings
from tasks.quality.families import QualitySettings, QualitySignalSettings
from tasks.quality.gopher import GopherQualitySettings
from tasks.signals import SignalSettings
from tasks.sources.transport import SourceSettings
from tasks.tokens.tokenizer import TokenizerSettings


def default() -> PipelineSettings:
    """Every setting at its default."""
    return PipelineSettings()


def demo() -> PipelineSettings:
    """Two CPU cores and a few minutes: the sample crawl, a small vocabulary, a model that two processes share."""
    return PipelineSettings(
        dataset=DatasetSettings(name="demo"),
        corpus=CorpusSettings(
            source=sample_source(),
            signals=SignalSettings(quality=QualitySignalSettings(languages_with_rules=("en",))),
            # The sample is manuals of software: code among the prose is no fault there.
            filter=FilterSettings(
                quality=QualitySettings(
                    gopher_quality=GopherQualitySettings(min_alphabetic_words=0.6),
                    c4=C4Settings(max_curly_bracket_lines=None),
                )
            ),
            tokenizer=TokenizerSettings(vocabulary_size=2048, sample_bytes=4_000_000),
        ),
        run="demo",
        training=TrainingSettings(
            model=ModelSettings(
                num_layers=4,
                hidden_size=128,
                num_attention_heads=4,
                num_query_groups=2,
                ffn_hidden_size=384,
                sequence_length=128,
            ),
            optimizer=OptimizerSettings(learning_rate=4e-3, min_learning_rate=4e-4, warmup_steps=50),
            duration=Duration(steps=700),
            global_batch_size=8,
            micro_batch_size=4,
            dtype="float32",
            parallel=ParallelSettings(processes=2),
            checkpoint=CheckpointSettings(every_steps=250),
            log_every=50,
        ),
        evaluation=EvaluationSettings(
            prompts=("The database ", "This function returns ", "In this chapter "),
            max_tokens=50_000,
        ),
    )


def cc_en() -> PipelineSettings:
    """English text of one Common Crawl snapshot, with a 125M model: a first real run on one GPU."""
    return PipelineSettings(
        dataset=DatasetSettings(name="cc-en"),
        corpus=CorpusSettings(
            source=SourceSettings(shards=100),
            signals=SignalSettings(quality=QualitySignalSettings(languages_with_rules=("en",))),
        ),
        run="gpt-125m",
        training=TrainingSettings(
            model=ModelSettings(
                num_layers=12,
                hidden_size=768,
                num_attention_heads=12,
                num_query_groups=4,
                ffn_hidden_size=2048,
                sequence_length=2048,
            ),
            optimizer=OptimizerSettings(learning_rate=6e-4, min_learning_rate=6e-5, warmup_steps=500),
            duration=Duration(tokens=2_500_000_000),
            global_batch_size=256,
            micro_batch_size=16,
        ),
    )


PRESETS: Mapping[str, Callable[[], PipelineSettings]] = {"default": default, "demo": demo, "cc-en": cc_en}


def preset(name: str) -> PipelineSettings:
    """The preset of a name; BadInput lists the names there are."""
    if name not in PRESETS:
        raise BadInput(f"--preset {name}", f"presets are {', '.join(PRESETS)}", "Choose one of them")
    return PRESETS[name]()
