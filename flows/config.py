"""The settings of everything: one class for the configuration file, the command line and Prefect's form."""

from pydantic import Field

from infra.environment import Environment
from infra.settings import Settings, opened, operational
from model.config import EvaluationSettings, TrainingSettings
from tasks.config import CorpusSettings
from tasks.phrases.contamination import ContaminationSettings


class DatasetSettings(Settings):
    """What a dataset is called."""

    name: str = Field(default="corpus", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the dataset."""
    version: str | None = Field(default=None, pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]*$")
    """Version to publish or to read; unset publishes under today's date, as the newest, and reads the newest."""
    rebuild: str | None = Field(default=None, pattern=r"^[^/]+/[^/]+$")
    """NAME/VERSION of a dataset whose measured documents are filtered anew: its source is not read again."""


class TrackingSettings(Settings):
    """What people say of a run in MLflow; changes no result."""

    title: str | None = operational(None, max_length=120)
    """Name of the MLflow run in a person's words; unset names it after run and dataset."""
    notes: str | None = operational(None, max_length=4000)
    """What the run is for, in Markdown: stands at the top of its page."""
    tags: dict[str, str] = operational({})
    """Tags to find the run by, such as team or ticket."""
    system_metrics_seconds: float | None = operational(10.0, ge=1)
    """Seconds between samples of the load of processors, memory, disk, network and GPUs; unset takes none."""


class PipelineSettings(Settings):
    """From crawl to evaluated model."""

    environment: Environment = operational(Environment())
    """Where the work is done; changes no result."""
    dataset: DatasetSettings = opened(DatasetSettings())
    """What the dataset is called."""
    corpus: CorpusSettings = opened(CorpusSettings())
    """From a crawl to token shards."""
    run: str = Field(default="model", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the training run."""
    training: TrainingSettings = opened(TrainingSettings())
    """From token shards to a trained model."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is measured: held-out text, benchmarks, and samples."""
    contamination: ContaminationSettings | None = operational(ContaminationSettings())
    """What counts as a benchmark's item in a training document; null does not look for any."""
    tracking: TrackingSettings = operational(TrackingSettings())
    """What is said of runs in MLflow; changes no result."""
