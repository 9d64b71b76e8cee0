"""Files and assignments laid over a preset, and errors that name the path and the remedy."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.config import PipelineSettings
from infra.configuration import assignment, describe, load_settings, merged, nested, settings_at
from infra.errors import BadInput
from infra.launching.launcher_settings import LocalSettings, SlurmSettings
from infra.settings import Settings
from model.config import TrainingSettings
from tasks.config import CorpusSettings
from tasks.quality.families import QualitySettings
from tasks.sources.transport import SourceSettings

PRESET = CorpusSettings(source=SourceSettings(shards=7, first_shard=3))
FILES = {
    "toml": '[source]\nshards = 4\n[extract]\nextractor = "trafilatura"\n',
    "yaml": "source:\n  shards: 4\nextract:\n  extractor: trafilatura\n",
    "yml": "source: {shards: 4}\nextract: {extractor: trafilatura}\n",
    "json": '{"source": {"shards": 4}, "extract": {"extractor": "trafilatura"}}',
}


def load(file: Path | None = None, *assignments: str) -> CorpusSettings:
    return load_settings(CorpusSettings, PRESET, file, [assignment(each) for each in assignments])


@pytest.mark.parametrize("kind", FILES)
def test_the_kinds_of_file_say_the_same(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"corpus.{kind}"
    file.write_text(FILES[kind])
    settings = load(file)
    assert (settings.source.shards, settings.extract.extractor) == (4, "trafilatura")


def test_assignments_lie_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "corpus.toml"
    file.write_text("[source]\nshards = 4\nmax_records = 10\n")
    source = load(file, "source.max_records=20", "source.crawl=CC-MAIN-2026-01").source
    assert (source.first_shard, source.shards, source.max_records) == (3, 4, 20)
    assert source.crawl == "CC-MAIN-2026-01"
    assert load(None, "source.shards=1", "source.shards=2").source.shards == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=null", None),
        ("a.b=0.5", 0.5),
        ("a.b=[en, de]", ["en", "de"]),
        ("a.b=[no, on, true]", ["no", "on", True]),
        ("a.b={c: 1}", {"c": 1}),
        ("a.b=", None),
        ("a.b=x=y", "x=y"),
    ],
)
def test_an_assignment_is_read_as_yaml(text: str, value: Any) -> None:
    assert assignment(text) == ("a.b", value)


def test_norwegian_is_a_language() -> None:
    assert load(None, "filter.language.languages=[no, nn]").filter.language.languages == ("no", "nn")


def test_null_switches_a_rule_off() -> None:
    assert load(None, "filter.quality.c4.min_sentences=null").filter.quality.c4.min_sentences is None


@pytest.mark.parametrize("text", ["a.b", "=1", "a.b=[1"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--set"):
        assignment(text)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("source.shard", "shards"), ("filter.quality.gopher_quality.min_wrods", "min_words"), ("sourse.shards", "source")],
)
def test_a_misspelt_setting_is_named_and_the_right_one_proposed(wrong: str, right: str) -> None:
    with pytest.raises(BadInput, match="there is no such setting") as caught:
        load(None, f"{wrong}=4")
    assert caught.value.value.startswith(wrong if wrong.startswith(("source.", "filter.")) else "sourse")
    assert caught.value.remedy == f"Did you mean {right}"


def test_a_setting_unlike_any_other_gets_the_list_of_those_there_are() -> None:
    with pytest.raises(BadInput) as caught:
        load(None, "heldout.qqqq=4")
    assert caught.value.remedy == "Known there: fraction"


def test_a_value_out_of_bounds_is_named_with_path_rule_and_value() -> None:
    with pytest.raises(BadInput) as caught:
        load(None, "source.shards=0", "filter.language.min_score=2")
    assert "source.shards: Input should be greater than or equal to 1 (got 0)" in caught.value.value
    assert "filter.language.min_score" in caught.value.value
    assert "(2 wrong)" in caught.value.rule


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.ini", "a=1", "a configuration file ends in"),
        ("x.toml", "a = = 1", "valid TOML"),
        ("x.json", "{", "valid JSON"),
        ("x.yaml", "a: [1", "valid YAML"),
        ("x.yaml", "- 1", "top level is a table"),
        ("absent.toml", None, "must be readable"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(name: str, content: str | None, expected: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    with pytest.raises(BadInput) as caught:
        load(file)
    assert expected in str(caught.value)
    assert name in caught.value.value


def test_trees_are_merged_and_leaves_replaced() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3}, "d": [2]}) == {"a": {"b": 3, "c": 2}, "d": [2]}
    assert nested("a.b.c", 1) == {"a": {"b": {"c": 1}}}


def test_a_path_leads_to_the_class_of_its_settings() -> None:
    assert settings_at(CorpusSettings, ("filter", "quality")) is QualitySettings
    assert settings_at(CorpusSettings, ("filter", "quality", "by_language")) is None
    assert settings_at(CorpusSettings, ("nowhere", "else")) is None


@pytest.mark.parametrize("kind", [CorpusSettings, TrainingSettings, PipelineSettings])
def test_every_setting_is_described_and_has_a_docstring(kind: type[Settings]) -> None:
    listed = {path: (default, text) for path, default, text in describe(kind, list(kind.model_fields))}
    assert [path for path, (_, text) in listed.items() if not text] == []
    for path, _ in leaves(kind().model_dump(mode="json")):
        assert any(path == each or path.startswith(f"{each}.") for each in listed), path
    for default, _ in listed.values():
        json.loads(default)


def leaves(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in values.items():
        inner = isinstance(value, dict) and value
        found += leaves(value, f"{prefix}{name}.") if inner else [(f"{prefix}{name}", value)]
    return found


def test_a_described_default_is_the_one_of_the_section() -> None:
    rows = {path: default for path, default, _ in describe(CorpusSettings, ["source", "filter", "collections"])}
    assert rows["filter.quality.gopher_quality.min_words"] == "50"
    assert rows["source.transport.retries"] == "8"
    assert (rows["collections"], rows["collections[].name"]) == ("[]", '"required"')
    assert not any(path.startswith("extract") for path in rows)


def test_a_section_of_several_kinds_is_described_checked_and_replaced() -> None:
    described = {path: default for path, default, _ in describe(PipelineSettings, ["environment"])}
    assert described["environment.launcher.kind"] == '"local"'
    assert described["environment.launcher.partition"] == "null"
    assert described["environment.launcher.volume_claim"] == '"required"'
    slurm = assignment("environment.launcher={kind: slurm, partition: gpu}")
    settings = load_settings(PipelineSettings, PipelineSettings(), None, [slurm])
    assert settings.environment.launcher == SlurmSettings(partition="gpu")
    changed = load_settings(PipelineSettings, settings, None, [("environment.launcher.minutes", 5)])
    assert changed.environment.launcher == SlurmSettings(partition="gpu", minutes=5)
    local = load_settings(PipelineSettings, settings, None, [("environment.launcher.kind", "local")])
    assert local.environment.launcher == LocalSettings()
    with pytest.raises(BadInput, match="Did you mean partition"):
        load_settings(PipelineSettings, settings, None, [("environment.launcher.partitoin", "x")])
