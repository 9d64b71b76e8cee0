"""What becomes of the parameters of a deployment that is registered again."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from flows.deployments import REFRESH_CORPUS, VERSION
from flows.servers.registration import Filling, _form, _mark, fill_again

PLACES = {"root": "/mill", "workers": 2}
Again = Callable[..., Filling]


@pytest.fixture(scope="module")
def again() -> Again:
    """Registers parameters again, as Prefect's server hands them out; other addresses may be stated."""
    form = _form(REFRESH_CORPUS.load())

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
