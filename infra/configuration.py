"""Settings out of presets, files and `--set` assignments, with errors that a person can act on."""

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined, to_jsonable_python

from infra.address import masked
from infra.errors import BadInput
from infra.settings import Settings

AnySettings = TypeVar("AnySettings", bound=Settings)


class _Yaml(yaml.SafeLoader):
    """YAML whose booleans are true and false alone: `no` is Norwegian, `on` a word."""


_Yaml.yaml_implicit_resolvers = {
    letter: [(tag, rule) for tag, rule in rules if letter in "tTfF" or not tag.endswith(":bool")]
    for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read_yaml(text: str) -> Any:
    return yaml.load(text, _Yaml)  # noqa: S506 - a safe loader


def load_settings(
    kind: type[AnySettings], preset: AnySettings, file: Path | None, assignments: Sequence[tuple[str, Any]]
) -> AnySettings:
    """Lay a file over a preset, then assignments of dotted paths over both. BadInput names what is wrong and where."""
    values = preset.model_dump(mode="json", exclude_unset=True)
    if file is not None:
        values = merged(values, read_file(file))
    for path, value in assignments:
        values = merged(values, nested(path, value))
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise explain(kind, error) from error


def read_file(file: Path) -> Mapping[str, Any]:
    """A configuration file as a mapping: TOML, YAML or JSON by its suffix."""
    readers = {".toml": tomllib.loads, ".yaml": _read_yaml, ".yml": _read_yaml, ".json": json.loads}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise BadInput(str(file), f"a configuration file ends in {', '.join(readers)}", "Rename or convert it")
    try:
        values = reader(file.read_text())
    except OSError as error:
        raise BadInput(
            f"{file} ({error.strerror})", "a configuration file must be readable", "Check --config"
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        raise BadInput(f"{file} ({error})", f"it must be valid {file.suffix[1:].upper()}", "Mend the file") from error
    if not isinstance(values, Mapping):
        raise BadInput(
            f"{file} holds a {type(values).__name__}", "its top level is a table of settings", "Mend the file"
        )
    return values


def assignment(text: str) -> tuple[str, Any]:
    """`path.to.field=value` as path and value, read as YAML: null, 0.5 and [en, de] mean what they say."""
    path, separator, value = text.partition("=")
    if not separator or not path:
        raise BadInput(
            f"--set {text}", "an assignment is path.to.field=value", "Write for example corpus.source.shards=4"
        )
    try:
        return path.strip(), _read_yaml(value)
    except yaml.YAMLError as error:
        raise BadInput(f"--set {text} ({error})", "the value is read as YAML", "Quote it") from error


def nested(path: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for the path "a.b"."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees of settings, the second laid over the first.

    Where a text may stand for a table, as the name of a size for a model's settings, it does so as `size`: a table laid
    over it changes what the name stands for, and one that has a size of its own replaces what was there. So does one
    of another `kind`, whose settings are others.
    """
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        if isinstance(value, Mapping) and isinstance(old, str):
            old = {"size": old}
        if isinstance(value, Mapping) and isinstance(old, Mapping) and "size" not in value:
            other = "kind" in value and value["kind"] != old.get("kind", value["kind"])
            value = value if other else merged(old, value)
        result[name] = value
    return result


def explain(kind: type[BaseModel], error: ValidationError) -> BadInput:
    """The first errors of a validation as value, rule and remedy."""
    lines = [_explain_one(kind, each["loc"], each["msg"], each["type"], each["input"]) for each in error.errors()[:5]]
    return BadInput(
        "; ".join(value for value, _ in lines),
        f"every setting must exist and lie within its bounds ({error.error_count()} wrong)",
        next((remedy for _, remedy in lines if remedy), "`--help` lists all settings with their bounds"),
    )


def _explain_one(kind: type[BaseModel], place: tuple[Any, ...], why: str, code: str, value: Any) -> tuple[str, str]:
    path = ".".join(map(str, place))
    if code != "extra_forbidden":
        return masked(f"{path or kind.__name__}: {why} (got {value!r})" if path else f"{why}"), ""
    parent = settings_at(kind, place[:-1])
    known = list(parent.model_fields) if parent is not None else []
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    remedy = f"Did you mean {close[0]}" if close else f"Known there: {', '.join(known)}"
    return f"{path}: there is no such setting", remedy


def settings_at(kind: type[BaseModel], place: Sequence[Any]) -> type[BaseModel] | None:
    """The settings class at a path of field names, or None if there is none."""
    choices = [kind]
    for name in (str(each) for each in place if not isinstance(each, int)):
        if tagged := [each for each in choices if _tag(each) == name]:  # pydantic names the kind that was chosen
            choices = tagged
            continue
        field = next((each.model_fields[name] for each in choices if name in each.model_fields), None)
        choices = _settings_classes(field.annotation) if field is not None else []
    return choices[0] if choices else None


def _tag(kind: type[BaseModel]) -> Any:
    """By what a class of settings is told from others that may stand in the same place."""
    field = kind.model_fields.get("kind")
    return field.default if field is not None else None


def describe(kind: type[BaseModel], sections: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Dotted path, default and help text of every setting in some sections."""
    for name in sections:
        yield from _describe_field(kind, name, name, kind.model_fields[name].get_default(call_default_factory=True))


def _describe_field(kind: type[BaseModel], name: str, path: str, default: Any) -> Iterator[tuple[str, str, str]]:
    field = kind.model_fields[name]
    classes = _settings_classes(field.annotation)
    if not classes or not isinstance(default, BaseModel):
        shown = "required" if default is PydanticUndefined else to_jsonable_python(default)
        yield path, json.dumps(shown, ensure_ascii=False), " ".join((field.description or "").split())
    if get_origin(field.annotation) is tuple:
        path = f"{path}[]"  # what each item of the list may hold
    described: set[str] = set()
    for inner in classes:
        for each in (name for name in inner.model_fields if name not in described):
            value = getattr(default, each) if isinstance(default, inner) else inner.model_fields[each].get_default()
            yield from _describe_field(inner, each, f"{path}.{each}", value)
        described |= set(inner.model_fields)


def _settings_classes(annotation: Any) -> list[type[BaseModel]]:
    """The classes of settings that an annotation names: several where a kind says which one is meant."""
    named = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type)]
    return [each for each in named if issubclass(each, BaseModel)]
