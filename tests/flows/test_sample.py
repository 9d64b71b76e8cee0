"""Which source the settings mean."""

from pathlib import Path

import pytest

from flows.presets import demo
from flows.sample import resolve_source
from infra.errors import BadInput
from infra.store import Store
from tasks.sources.transport import SourceSettings


def test_a_chosen_source_is_left_alone(tmp_path: Path):
    source = SourceSettings(base_url="s3://commoncrawl")
    assert resolve_source(source, Store(str(tmp_path))) == source


def test_a_crawl_named_over_the_demo_is_a_real_one(tmp_path: Path):
    named = demo().corpus.source.model_copy(update={"crawl": SourceSettings().crawl})
    assert resolve_source(named, Store(str(tmp_path))) == SourceSettings()
    assert list(tmp_path.iterdir()) == []


def test_the_sample_needs_a_folder():
    with pytest.raises(BadInput, match="sample"):
        resolve_source(demo().corpus.source, Store("memory://elsewhere"))
