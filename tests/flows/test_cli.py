"""The command line: what it refuses, how it says so, and that its help is whole."""

import json

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from flows.config import PipelineSettings
from infra.configuration import describe


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


@pytest.mark.parametrize("command", ["demo", "corpus", "plan", "preview", "pretrain", "evaluate", "show"])
def test_help_explains_every_setting_of_the_command(command: str):
    sections = main.commands[command].sections  # type: ignore[attr-defined]
    text = run(command, "--help").output
    for path, _, help_text in describe(PipelineSettings, sections):
        assert path in text
        assert help_text.split()[0] in text
    assert "--set" in text
    assert "--json" in text


def test_every_setting_has_a_docstring():
    missing = [path for path, _, text in describe(PipelineSettings, list(PipelineSettings.model_fields)) if not text]
    assert missing == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "corpus.filter.quality.gopher_quality.min_wrods=3"], "Did you mean min_words"),
        (["--set", "corpus.filter.quality.gopher_quality.min_words=-1"], "greater than or equal to 0"),
        (["--set", "corpus.filter.quality.gopher_quality.min_words"], "path.to.field=value"),
        (["--preset", "demmo"], "presets are"),
        (["--config", "absent.toml"], "must be readable"),
        (["--crawl", "../../etc"], "corpus.source.crawl"),
    ],
)
def test_bad_input_is_refused_with_value_rule_and_remedy(arguments: list[str], expected: str, tmp_path):
    result = run("corpus", "--root", str(tmp_path / "root"), *arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1


def test_errors_are_json_too(tmp_path):
    result = run("show", "--root", str(tmp_path), "--set", "trainning.seed=1", "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "BadInput"
    assert "training" in error["remedy"]


def test_settings_are_laid_over_each_other_in_order(tmp_path):
    file = tmp_path / "mill.toml"
    file.write_text('[corpus.filter.language]\nlanguages = ["de"]\nmin_score = 0.5\n[dataset]\nname = "german"\n')
    shared = [
        "--preset",
        "demo",
        "--config",
        str(file),
        "--set",
        "corpus.filter.language.min_score=0.7",
        "--workers",
        "3",
    ]
    shown = json.loads(run("show", "--root", str(tmp_path), *shared, "--json").stdout)["settings"]
    assert shown["corpus"]["filter"]["language"]["languages"] == ["de"]
    assert shown["corpus"]["filter"]["language"]["min_score"] == 0.7
    assert shown["dataset"]["name"] == "german"
    assert shown["environment"]["workers"] == 3
    assert shown["corpus"]["tokenizer"]["vocabulary_size"] == 2048


def test_show_of_an_empty_root(tmp_path):
    result = run("show", "--root", str(tmp_path))
    assert result.exit_code == 0
    assert "No datasets yet" in result.output
