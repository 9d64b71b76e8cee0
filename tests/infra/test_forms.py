"""What Prefect's form shows of a class of settings, and what its server says of a wrong value."""

from typing import Annotated, Any, Literal

import pytest
from prefect.utilities.schema_tools.validation import build_error_obj, validate
from pydantic import Field

from infra.settings import Settings, opened, operational


class Depth(Settings):
    """Deep."""

    min_share: float | None = Field(default=None, ge=0, le=1)
    """A share."""


class Slow(Settings):
    """One way."""

    kind: Literal["slow"] = "slow"


class Fast(Settings):
    """Another."""

    kind: Literal["fast"] = "fast"
    speed: int = Field(default=3, ge=2)


class Shown(Settings):
    """Everything that a form has to show."""

    where: Depth = operational(Depth())
    """Addresses, which come last."""
    base_url: str = ""
    """An address."""
    depth: Depth = Depth()
    """Folded."""
    first: Depth = opened(Depth())
    """Shown."""
    changed: Depth = Depth(min_share=0.5)
    """Shown too, because it differs."""
    way: Annotated[Slow | Fast, Field(discriminator="kind")] = Slow()
    """A choice."""
    floors: dict[str, float] = Field(default_factory=dict)
    """By name."""


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return Shown.model_json_schema()


def test_names_are_words_and_sections_of_addresses_come_last(schema: dict[str, Any]):
    fields = schema["properties"]
    order = sorted(fields, key=lambda name: fields[name]["position"])
    assert order == ["base_url", "depth", "first", "changed", "way", "floors", "where"]
    assert fields["base_url"]["title"] == "Base URL"
    assert schema["$defs"]["Fast"]["title"] == "Fast"
    assert schema["$defs"]["Depth"]["title"] == "Own values"
    assert schema["$defs"]["Depth"]["properties"]["min_share"]["description"] == "A share. From 0 to 1."


def test_a_section_is_folded_unless_it_is_opened_or_differs(schema: dict[str, Any]):
    fields = schema["properties"]
    assert [each.get("title") for each in fields["depth"]["anyOf"]] == ["As default", None]
    assert fields["depth"]["default"] == fields["first"]["default"] == {}
    assert "anyOf" not in fields["first"]
    assert fields["changed"]["default"] == {"min_share": 0.5}
    assert fields["depth"]["description"] == "Folded."
    assert fields["floors"]["default"] == {}  # the form takes a text of JSON, which must not be empty


def test_what_a_form_begins_with_is_the_defaults(schema: dict[str, Any]):
    filled = {name: each["default"] for name, each in schema["properties"].items() if name != "way"}
    assert Shown.model_validate(filled) == Shown()
    assert not validate(filled, schema)


@pytest.mark.parametrize("section", ["depth", "first"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"min_share": 2}, "2 is greater than the maximum of 1"),
        ({"min_sahre": 0}, "Additional properties are not allowed ('min_sahre' was unexpected)"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(schema: dict[str, Any], section: str, value: dict[str, Any], why: str):
    (error,) = validate({section: value}, schema)
    assert error.message == why
    assert next(iter(error.relative_path)) == section
    assert section in str(build_error_obj([error]))


def test_a_choice_of_classes_is_one_that_the_form_knows(schema: dict[str, Any]):
    way = schema["properties"]["way"]
    assert [each["$ref"] for each in way["anyOf"]] == ["#/$defs/Slow", "#/$defs/Fast"]
    assert not validate({"way": {"kind": "fast", "speed": 4}}, schema)
    assert validate({"way": {"kind": "fast", "speed": 1}}, schema)


class Shares(Settings):
    """A section with values that forms hand over as JSON."""

    by_language: dict[str, float] = Field(default_factory=dict)
    """Shares."""
    parts: tuple[Depth, ...] = ()
    """Items of a list."""
    names: tuple[str, ...] = ()
    """Texts."""


class Mixed(Settings):
    """A whole of sections."""

    shares: Shares = Shares()
    """A section."""


def typed(text: str) -> dict[str, str]:
    """What "Use JSON input" leaves in a schedule."""
    return {"__prefect_kind": "json", "value": text}


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"shares": {"by_language": typed('{"en": 0.5}')}}, Shares(by_language={"en": 0.5})),
        ({"shares": typed('{"by_language": {"en": 0.5}}')}, Shares(by_language={"en": 0.5})),
        (typed('{"shares": {"by_language": {"en": 0.5}}}'), Shares(by_language={"en": 0.5})),
        ({"shares": {"parts": [typed('{"min_share": 0.5}'), {}]}}, Shares(parts=(Depth(min_share=0.5), Depth()))),
        ({"shares": {"parts": [{"min_share": typed("0.5")}]}}, Shares(parts=(Depth(min_share=0.5),))),
        ({"shares": {"names": [typed('"en"'), "de"]}}, Shares(names=("en", "de"))),
    ],
)
def test_values_typed_as_json_are_read_where_a_schedule_starts_the_run(values: dict[str, Any], found: Shares):
    assert Mixed.model_validate(values).shares == found


def test_a_text_that_is_no_json_is_refused_with_its_place():
    with pytest.raises(ValueError, match=r"shares\n.*Expecting property name"):
        Mixed.model_validate({"shares": {"by_language": typed("{en}")}})
