"""trafilatura's text is what its own parser would give."""

import subprocess
import sys
from pathlib import Path

import pytest
from lxml.html import HtmlElementClassLookup
from trafilatura.utils import HTML_PARSER

from infra.store import Store
from tasks.extraction import trafilatura_text as ours
from tasks.extraction.decode import decode
from tasks.sources.fetch import fetch_shard, shard_paths
from tasks.sources.transport import SourceSettings, local_url

MIRROR = Path(__file__).parents[4] / "shared/data/commoncrawl"


def pages() -> list[str]:
    """Some pages of the mirror."""
    source = SourceSettings(base_url=local_url(MIRROR), crawl="CC-MAIN-2026-91", shards=2, max_records=40)
    splits = [split for path in shard_paths(source) for split in fetch_shard(Store("."), path, source)]
    columns = [split.kept.select(["payload", "charset"]).to_pylist() for split in splits]
    return [decode(row["payload"], row["charset"]) for rows in columns for row in rows]


@pytest.mark.skipif(not MIRROR.is_dir(), reason="no mirror at ../shared/data/commoncrawl")
def test_one_kind_of_element_changes_no_text() -> None:
    found = pages()
    assert len(found) > 60
    mine = [ours.trafilatura_text(page, fast=False) for page in found]
    HTML_PARSER.set_element_class_lookup(HtmlElementClassLookup())
    try:
        theirs = [ours.trafilatura_text(page, fast=False) for page in found]  # the lookup is set once only
    finally:
        ours._make_elements_plain.cache_clear()
    assert mine == theirs
    assert sum(map(bool, mine)) > 50


def test_only_those_who_ask_for_it_load_it() -> None:
    code = "import sys; import tasks.pipeline; print('trafilatura' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
