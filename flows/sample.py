"""The sample crawl as a source: `corpus.source.base_url=sample`, which the demo preset sets."""

import logging

from infra.errors import BadInput
from infra.store import Store
from tasks.sources.sample_crawl import SampleCrawlSettings, build_sample_crawl
from tasks.sources.transport import SourceSettings, local_url

logger = logging.getLogger(__name__)
SAMPLE = "sample"


def sample_source() -> SourceSettings:
    """The source that means the sample crawl."""
    return SourceSettings(base_url=SAMPLE, crawl=SampleCrawlSettings().crawl)


def resolve_source(source: SourceSettings, store: Store) -> SourceSettings:
    """Where to read from: the sample crawl, made under the root if need be, or what the settings say.

    A crawl named over the demo preset is a real one, so it is looked for where real ones are.
    """
    if source.base_url != SAMPLE or source.crawl is None:
        return source
    settings = SampleCrawlSettings()
    if source.crawl != settings.crawl:
        return source.model_copy(update={"base_url": SourceSettings().base_url})
    if not store.is_local:
        raise BadInput(
            f"source.base_url={SAMPLE} with root {store.root}",
            "the sample crawl is written to a folder of this machine",
            "Give a local --root, or name a crawl",
        )
    folder = store.local_path("sample-crawl")
    sample = build_sample_crawl(folder, settings)
    logger.info("sample crawl: %s pages, %s bytes of HTML", f"{sample.pages:,}", f"{sample.bytes:,}")
    return source.model_copy(update={"base_url": local_url(folder)})
