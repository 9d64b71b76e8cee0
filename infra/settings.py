"""The one base of all settings: the same class is the configuration file, the command line and the Prefect form.

Two kinds of field are told apart. *Identity* fields decide the bytes of an output and enter its fingerprint;
*operational* fields (`operational(...)`: addresses, retries, worker counts) say how or where the work is done and
stay out of it.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from infra.forms import as_form, typed_as_json


class Settings(BaseModel):
    """Frozen, strict about names, and self-documenting: the docstring under a field is its help text."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra=as_form,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _from_form(cls, values: Any) -> Any:
        return typed_as_json(values)

    def identity(self) -> dict[str, Any]:
        """The fields that decide output bytes, as JSON values: what a fingerprint is made of."""
        values: dict[str, Any] = {}
        dumped = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if not (isinstance(extra, dict) and extra.get("operational")):
                values[name] = _identity(getattr(self, name), dumped[name])
        return values


def _identity(value: Any, dumped: Any) -> Any:
    """A field's identity: its JSON value, in which settings, also those in tuples and mappings, give their own."""
    if isinstance(value, Settings):
        return value.identity()
    if isinstance(value, Mapping):
        return {key: _identity(each, dumped[str(key)]) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_identity(each, part) for each, part in zip(value, dumped, strict=True)]
    return dumped


def operational(default: Any, **rules: Any) -> Any:
    """Declare a field that never enters a fingerprint: it changes how the work is done, not its result."""
    return Field(default, json_schema_extra={"operational": True}, **rules)


def opened(default: Any) -> Any:
    """Declare a section that forms show with all its fields; others are folded until a person opens them."""
    return Field(default, json_schema_extra={"opened": True})


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"num_layers": 2}} becomes {"model.num_layers": 2}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
