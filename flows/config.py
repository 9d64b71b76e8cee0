"""The settings of everything: one class for the configuration file, the command line and Prefect's form."""

from pydantic import Field

from infra.environment import Environment
from infra.settings import Settings, operational
from model.config import EvaluationSettings, TrainingSettings
from tasks.config import CorpusSettings
from tasks.phrases.contamination import ContaminationSettings


class DatasetSettings(Settings):
    """What a dataset is called."""

    name: str = Field(default="corpus", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the dataset."""
    version: str | None = Field(default=None, pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]*$")
    """Version to publish or to read; unset publishes under today's date and reads the newest."""
    rebuild: str | None = Field(default=None, pattern=r"^[^/]+/[^/]+$")
    """NAME/VERSION of a dataset whose measured documents are filtered anew: its source is not read again."""


class PipelineSettings(Settings):
    """From crawl to evaluated model."""

    environment: Environment = operational(Environment())
    """Where the work is done; changes no result."""
    dataset: DatasetSettings = DatasetSettings()
    """What the dataset is called."""
    corpus: CorpusSettings = CorpusSettings()
    """From a crawl to token shards."""
    run: str = Field(default="model", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the training run."""
    training: TrainingSettings = TrainingSettings()
    """From token shards to a trained model."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is measured: held-out text, benchmarks, and samples."""
    contamination: ContaminationSettings | None = operational(ContaminationSettings())
    """What counts as a benchmark's item in a training document; null does not look for any."""
