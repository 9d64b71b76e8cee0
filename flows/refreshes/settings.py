"""Settings of a refresh: what is taken of newer crawls, how it is judged, and what is trained on it."""

from pydantic import Field

from infra.address import Address
from infra.environment import Environment
from infra.settings import Settings, opened, operational
from model.config import Duration, EvaluationSettings, OptimizerSettings
from model.findings.verdict import PromotionSettings
from tasks.changes import DriftSettings
from tasks.config import CorpusSettings
from tasks.phrases.contamination import ContaminationSettings

CRAWL = r"^[A-Z0-9][A-Za-z0-9._-]*$"


class RefreshBudget(Settings):
    """The most that one refresh takes; what does not fit is taken by the next. Unset limits nothing."""

    shards: int | None = Field(default=None, ge=1)
    """Archive files to read."""
    bytes: int | None = Field(default=None, ge=1)
    """Bytes of these files as they lie on the server, whose sizes are asked for first."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens to add, estimated beforehand by what the version before gave for each byte; needs such a version."""


class CrawlRange(Settings):
    """Crawls from one to another, both included."""

    first: str = Field(pattern=CRAWL)
    """Oldest crawl, such as CC-MAIN-2026-05."""
    last: str = Field(pattern=CRAWL)
    """Newest crawl, such as CC-MAIN-2026-42."""


class ContinuationSettings(Settings):
    """Training that goes on from the champion on what is new, then evaluation, then the gate of promotion."""

    run: str = Field(default="continued", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the training run."""
    duration: Duration = Duration(tokens=100_000_000)
    """How long to train on the mixture."""
    new_share: float = Field(default=0.5, gt=0, le=1)
    """Share of training samples from versions newer than all that the champion was trained on; what it was trained on
    keeps it from forgetting (arXiv:2403.08763). Within either part each version counts by its tokens."""
    optimizer: OptimizerSettings | None = None
    """Learning rate and its schedule, warm-up included; unset takes the champion's, from the start."""
    evaluation: EvaluationSettings | None = None
    """What is measured; unset measures what was measured of the champion. Its held-out text is always added."""
    contamination: ContaminationSettings | None = operational(ContaminationSettings())
    """What counts as a benchmark's item in a training document; null does not look for any."""
    promotion: PromotionSettings = PromotionSettings()
    """Which model's champion to go on from, and when the new checkpoint takes its place."""


class RefreshSettings(Settings):
    """A dataset that is kept up to date with the crawls of a source."""

    dataset: str = Field(default="corpus", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the dataset; each refresh publishes a version that is named after its crawl, such as 2026.42."""
    budget: RefreshBudget = opened(RefreshBudget())
    """The most that one refresh takes, besides Corpus / Source / Shards, which bounds each crawl."""
    first_crawl: str | None = Field(default=None, pattern=CRAWL)
    """Where a dataset without any version begins: with this crawl, then all that are newer; unset takes the newest."""
    first_crawls: int = Field(default=1, ge=1)
    """Where first_crawl is unset: with how many of the newest crawls a dataset begins."""
    backfill: CrawlRange | None = None
    """Take these crawls instead of newer ones, a version for each, oldest first, but for those that are done. A
    continuation passes over what is older than what the champion was trained on."""
    corpus: CorpusSettings = opened(CorpusSettings())
    """From a crawl to token shards. source.crawl is chosen by the refresh; the tokenizer is that of the version before
    where there is one; dedup.index is the dataset's name unless set."""
    collinfo: Address | None = operational(None, min_length=1)
    """Address of the list of crawls; unset takes collinfo.json of the source."""
    drift: DriftSettings = DriftSettings()
    """How far a version may differ from the one before it without an alarm."""
    continuation: ContinuationSettings | None = None
    """Training that goes on from the champion after a refresh; unset trains nothing."""


class RefreshOptions(Settings):
    """Settings of `gristmill refresh`, and of its plan."""

    environment: Environment = operational(Environment())
    """Where the work is done."""
    refresh: RefreshSettings = RefreshSettings()
    """What is taken of newer crawls, how it is judged, and what is trained on it."""
