"""Settings: what they refuse, what enters a fingerprint, and what a form is told."""

import pytest
from pydantic import Field, ValidationError

from infra.environment import Environment
from infra.manifest import fingerprint
from infra.settings import Settings, operational


class Inner(Settings):
    """Nested settings."""

    threshold: float = 0.5
    """Lowest value."""
    retries: int = operational(3, ge=0)
    """How often."""


class Outer(Settings):
    """Settings of several kinds."""

    zebra: int = 1
    """First."""
    inner: Inner = Inner()
    """Second."""
    apple: tuple[str, ...] = ("a",)
    """Third."""
    where: str = operational("here")
    """Fourth."""


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().zebra = 2


def test_an_unknown_name_is_refused_with_its_path() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted") as caught:
        Outer.model_validate({"inner": {"treshold": 1}})
    assert caught.value.errors()[0]["loc"] == ("inner", "treshold")


def test_identity_leaves_out_what_changes_no_result() -> None:
    assert Outer().identity() == {"zebra": 1, "inner": {"threshold": 0.5}, "apple": ["a"]}
    assert Outer(where="there", inner=Inner(retries=9)).identity() == Outer().identity()
    assert Outer(inner=Inner(threshold=0.6)).identity() != Outer().identity()


def test_explicit_defaults_are_the_same_settings() -> None:
    explicit = Outer(zebra=1, inner=Inner(threshold=0.5), apple=("a",))
    assert explicit.identity() == Outer().identity()
    assert fingerprint(settings=explicit.identity()) == fingerprint(settings=Outer().identity())


class Several(Settings):
    """Settings in containers."""

    items: tuple[Inner, ...] = (Inner(), Inner(threshold=0.1))
    """Some."""
    named: dict[str, Inner] = Field(default={"one": Inner()})
    """More."""


def test_settings_in_tuples_and_mappings_give_their_own_identity() -> None:
    assert Several().identity() == {
        "items": [{"threshold": 0.5}, {"threshold": 0.1}],
        "named": {"one": {"threshold": 0.5}},
    }
    assert Several(items=(Inner(retries=7), Inner(threshold=0.1))).identity() == Several().identity()


def test_nothing_of_the_environment_is_identity() -> None:
    assert Environment(root="elsewhere", workers=3, worker_memory="1GiB").identity() == {}


def test_the_schema_tells_the_form_each_help_text_and_the_declared_order() -> None:
    schema = Outer.model_json_schema()
    fields = schema["properties"]
    assert sorted(fields, key=lambda name: fields[name]["position"]) == ["zebra", "inner", "apple", "where"]
    assert [fields[name]["description"] for name in fields] == ["First.", "Second.", "Third.", "Fourth."]
    inner = schema["$defs"]["Inner"]["properties"]
    assert [(name, inner[name]["position"]) for name in inner] == [("threshold", 0), ("retries", 1)]


@pytest.mark.parametrize("values", [{"workers": 0}, {"scheduler": "10.0.0.5:8786"}, {"shard_retries": -1}])
def test_the_environment_has_bounds(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        Environment.model_validate(values)
    assert caught.value.errors()[0]["loc"] == tuple(values)
