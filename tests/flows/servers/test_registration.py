"""What becomes of the parameters of a deployment that is registered again, and what is asked before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deployments import REFRESH_CORPUS, VERSION
from flows.servers.registration import Filling, _form, _mark, _stated, fill_again, register, require_root, still_taken
from infra.environment import Environment
from infra.errors import BadInput

PLACES = {"root": "/mill", "workers": 2}
Again = Callable[..., Filling]


@pytest.fixture(scope="module")
def form() -> dict[str, Any]:
    return _form(REFRESH_CORPUS.load())


@pytest.fixture(scope="module")
def again(form: dict[str, Any]) -> Again:
    """Registers parameters again, as Prefect's server hands them out; other addresses may be stated."""

    def fill(known: dict[str, Any], version: str = VERSION, **addresses: Any) -> Filling:
        return fill_again(REFRESH_CORPUS, json.loads(json.dumps(known)), version, addresses, form)

    return fill


def test_what_nobody_has_changed_becomes_what_it_is_today(again: Again) -> None:
    before = {"refresh": {"budget": {"shards": 3}}, "environment": PLACES}
    today = REFRESH_CORPUS.form({**PLACES, "workers": 4})
    assert again(before, f"0.0.9{_mark(before)}", workers=4) == (today, VERSION + _mark(today), [])


def test_what_a_person_has_saved_stays(again: Again) -> None:
    saved = {"refresh": {"dataset": "news", "budget": {"bytes": 10}}, "environment": PLACES}
    registered = VERSION + _mark(REFRESH_CORPUS.form(PLACES))
    kept = {**saved, "environment": {**PLACES, "workers": 4}}
    assert again(saved, registered, workers=4) == (kept, VERSION, [])
    assert again(kept) == (kept, VERSION, []), "the next time too"
    assert again({"environment": PLACES}).parameters == REFRESH_CORPUS.form(PLACES), "a new section is filled in"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("refresh.budget.pages", 4),
        ("refresh.budget.shards", 0),
        ("refresh.corpus.dedup.gone", {"a": 1}),
        ("refresh.corpus.source.shards", "many"),
        ("refresh.continuation.evaluation.tasks", [1]),
        ("environment.dask", {"kind": "gone"}),
        ("gone", 1),
    ],
)
def test_what_a_form_does_not_take_is_dropped_and_named(again: Again, path: str, value: Any) -> None:
    saved: dict[str, Any] = {"refresh": {"dataset": "news", "first_crawls": 2}}
    *folders, name = path.split(".")
    inner = saved
    for folder in folders:
        inner = inner.setdefault(folder, {})
    inner[name] = value
    kept, _, dropped = again(saved)
    assert dropped == [path]
    assert kept["refresh"]["first_crawls"] == 2
    assert REFRESH_CORPUS.load().validate_parameters(kept)


def typed(value: Any) -> dict[str, str]:
    """What "Use JSON input" leaves in a schedule."""
    return {"__prefect_kind": "json", "value": json.dumps(value)}


@pytest.mark.parametrize(
    ("saved", "kept", "dropped"),
    [
        ({"refresh": {"dataset": "news", "gone": 1}}, {"refresh": {"dataset": "news"}}, ["refresh.gone"]),
        ({"refresh": typed({"dataset": "news", "gone": 1})}, {"refresh": {"dataset": "news"}}, ["refresh.gone"]),
        (typed({"refresh": {"dataset": "news"}, "gone": 1}), {"refresh": {"dataset": "news"}}, ["gone"]),
        ({"refresh": {"budget": typed({"shards": 3})}}, {"refresh": {"budget": {"shards": 3}}}, []),
        ({"refresh": {**typed(1), "value": "{no"}}, {"refresh": {**typed(1), "value": "{no"}}, []),
        (typed([1]), typed([1]), []),
    ],
)
def test_what_a_schedule_has_saved_is_held_against_the_form_too(
    form: dict[str, Any], saved: dict[str, Any], kept: dict[str, Any], dropped: list[str]
) -> None:
    before = json.dumps(saved)
    assert still_taken(saved, form) == (kept, dropped)
    assert json.dumps(saved) == before


def test_every_deployment_needs_a_root_that_is_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = [{"environment": {"root": "/mill"}}, {"settings": {"environment": {"root": "s3://mill/a"}}}]
    require_root({}, filled)
    for lacking in ({}, {"environment": {"workers": 2}}, {"settings": {"environment": {"root": "mill"}}}):
        require_root({"root": "/mill"}, [*filled, lacking])
        with pytest.raises(BadInput, match="register --root"):
            require_root({}, [*filled, lacking])
    monkeypatch.chdir(tmp_path)
    assert _stated(Environment(root="mill")) == {"root": str(tmp_path / "mill")}
    assert _stated(Environment(workers=2)) == {"workers": 2}


def test_a_server_that_ends_with_the_command_is_not_registered_with() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(BadInput, match="no Prefect server"):
        register(Environment(root="/mill"), "pool")
