"""The sample crawl as a source: what the demo reads when no crawl is named."""

import logging

from flows.config import PipelineSettings
from infra.store import Store
from tasks.sample_crawl import SampleCrawlSettings, build_sample_crawl
from tasks.transport import SourceSettings, local_url

logger = logging.getLogger(__name__)


def with_sample_crawl(settings: PipelineSettings) -> PipelineSettings:
    """Settings that read the sample crawl, made under the root if need be; unchanged where a source was chosen."""
    source = settings.corpus.source
    untouched = SourceSettings()
    if (source.base_url, source.crawl) != (untouched.base_url, untouched.crawl):
        return settings
    folder = Store(settings.environment.root).local_path("sample-crawl")
    sample = build_sample_crawl(folder, SampleCrawlSettings())
    logger.info("sample crawl: %s pages, %s bytes of HTML", f"{sample.pages:,}", f"{sample.bytes:,}")
    source = source.model_copy(update={"base_url": local_url(folder), "crawl": sample.crawl})
    corpus = settings.corpus.model_copy(update={"source": source})
    return settings.model_copy(update={"corpus": corpus})
