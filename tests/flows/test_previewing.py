"""`gristmill preview`: other thresholds over a dataset's own settings, and the command that makes them so."""

import json
import shlex

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from flows.command_line import SettingsCommand, gather
from flows.previewing import stored_values, values_of
from infra.cluster import Cluster
from infra.manifest import DatasetManifest
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.pipeline import pinned_corpus, refine, remeasured
from tasks.stage import StageRunner
from tests.tasks.small_corpus import Small, build_small

MIN_WORDS = "corpus.filter.quality.gopher_quality.min_words"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Small:
    root = tmp_path_factory.mktemp("small")
    return build_small(tmp_path_factory.mktemp("crawl"), StageRunner(Store(str(root)), cluster))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def test_nothing_given_changes_nothing(small: Small) -> None:
    found = json.loads(run("preview", "small", "--root", small.store.root, "--json").output)
    assert found["changed"] == found["preview"]["moves"] == []
    assert found["preview"]["kept"]["after"]["documents"] == small.stage("filter").kept


def test_what_is_given_is_laid_over_the_datasets_own_settings(small: Small) -> None:
    """The dataset switches most rules off; that stays so, although the defaults have them on."""
    arguments = ["preview", "--root", small.store.root, "--set", "dataset.name=small", "--set", f"{MIN_WORDS}=5"]
    found = json.loads(run(*arguments, "--json").output)
    assert found["changed"] == [{"setting": MIN_WORDS, "before": 50, "after": 5}]
    assert [(each["before"], each["after"]) for each in found["preview"]["moves"]] == [("too_few_words", None)]
    text = run(*arguments).output
    for expected in (f"{MIN_WORDS}: 50 -> 5", "too_few_words -> kept", "http://short.example/", "gristmill corpus"):
        assert expected in text


def test_a_setting_may_be_given_at_its_default(small: Small) -> None:
    given = "corpus.filter.quality.fineweb.min_terminal_lines=0.12"
    found = json.loads(run("preview", "small", "--root", small.store.root, "--set", given, "--json").output)
    assert found["changed"] == [{"setting": given.partition("=")[0], "before": None, "after": 0.12}]


def test_the_command_rebuilds_what_was_promised(small: Small) -> None:
    given = ["--set", f"{MIN_WORDS}=80", "--set", "corpus.filter.language.languages=null"]
    found = json.loads(run("preview", "small/1", "--root", small.store.root, *given, "--json").output)
    words = shlex.split(found["command"])
    assert words[:2] == ["gristmill", "corpus"]
    command = main.commands["corpus"]
    assert isinstance(command, SettingsCommand)
    params = command.make_context("corpus", words[2:]).params
    params.pop("as_json")
    settings = gather("corpus", **params)
    assert settings.dataset.rebuild == "small/1"
    assert settings.environment.root == small.store.root
    corpus = pinned_corpus(settings.corpus, small.store)
    rebuilt = refine(small.runner, remeasured(small.runner, corpus, small.dataset), corpus).build.stage("filter")
    assert found["preview"]["kept"]["after"]["documents"] == rebuilt.kept
    reasons = {name: change["after"]["documents"] for name, change in found["preview"]["reasons"].items()}
    assert {name: count for name, count in reasons.items() if count} == rebuilt.total("reasons")


def test_settings_are_found_again_in_a_manifest() -> None:
    stored = dict(stored_values(CorpusSettings(), CorpusSettings().identity()))
    every = dict(values_of(CorpusSettings(), given=False))
    assert stored.items() <= every.items()
    assert dict(values_of(CorpusSettings(), given=True)) == {}
    assert any(path.startswith("filter.quality.gopher_quality.") for path in stored)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["absent"], "known: small/1"),
        (["small", "--set", "corpus.filter.min_score={absent: 1}"], "absent"),
        (["small", "--set", "corpus.filter.min_scroe=1"], "Did you mean min_score"),
    ],
)
def test_what_cannot_be_previewed_is_refused(small: Small, arguments: list[str], expected: str) -> None:
    result = run("preview", "--root", small.store.root, *arguments)
    assert result.exit_code == 2
    assert expected in result.stderr


def test_a_dataset_without_ledger_is_refused(small: Small, tmp_path) -> None:
    bare: DatasetManifest = small.dataset.model_copy(update={"stages": {}})
    bare.save(Store(str(tmp_path)), f"{bare.folder}/manifest.json")
    result = run("preview", "small", "--root", str(tmp_path))
    assert result.exit_code == 2
    assert "has no stage ledger" in result.stderr


def test_usage_names_the_dataset() -> None:
    command = main.commands["preview"]
    assert isinstance(command, SettingsCommand)
    assert command.get_usage(command.make_context("preview", [])).endswith("[NAME[/VERSION]]")
    assert command.sections == ("environment", "dataset", "corpus")
