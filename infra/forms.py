"""JSON schemas as Prefect's forms need them, so that a person who did not write the code can fill them in.

The form shows what a schema says in its own way (prefect-ui-library, src/schemas):

- It shows every section, whatever its depth, and has nothing that folds. A *folded* section is offered as a choice of
  `As default`, an object without fields, and its own values. An empty object means the defaults to pydantic too, so
  nothing but the schema knows of folding. `if` and `then`, which the form does not read, have the server check values
  against the section alone: "not valid under any of the given schemas" would be all that a person was told.
- It fills in defaults from the outside in, so the default of a section has to be an empty object.
- It sorts by `position`, knows no `oneOf`, shows no bounds, and calls the parts of a choice `str` and `None`.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

_SPELLED: Mapping[str, str] = {
    **{word: word.upper() for word in ("url", "uri", "html", "id", "ut1", "c4", "gpu", "cpu", "s3", "json")},
    **{"urls": "URLs", "ids": "IDs", "gpus": "GPUs", "mlflow": "MLflow"},
    **{"dask": "Dask", "slurm": "Slurm", "kubernetes": "Kubernetes"},
}
_TYPES: Mapping[str, str] = {
    **{
        "null": "Unset",
        "array": "List",
        "integer": "Number",
        "number": "Number",
        "string": "Text",
        "boolean": "Yes, no",
    }
}
_RULES = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern", "minLength", "maxLength", "items")
"""What a schema may ask of a value of one type; it asks nothing of null."""
OWN_VALUES, AS_DEFAULT = "Own values", "As default"


def as_form(schema: dict[str, Any], kind: type[BaseModel]) -> None:
    """Change the JSON schema of a class of settings into one that Prefect's form shows well."""
    schema["title"] = words_of(kind.__name__) if _is_one_of_many(kind) else OWN_VALUES
    properties = schema.get("properties", {})
    last = []
    for name, field in kind.model_fields.items():
        if name in properties:
            section = _change(properties[name], name, field)
            last += [name] if section and _says(field, "operational") else []
    for position, name in enumerate([*(each for each in properties if each not in last), *last]):
        properties[name]["position"] = position


def _change(schema: dict[str, Any], name: str, field: FieldInfo) -> bool:
    """Change the schema of a field; returns whether it is a section."""
    schema["title"] = words_of(name)
    default = field.get_default(call_default_factory=True)
    for each in (schema, schema.get("items"), schema.get("additionalProperties")):
        if isinstance(each, dict) and "oneOf" in each:
            each["anyOf"] = each.pop("oneOf")
            each.pop("discriminator", None)
    if "$ref" in schema and isinstance(default, BaseModel):
        schema["description"] = field.description or ""
        _fold(schema, default, opened=_says(field, "opened"))
        return True
    if default is not PydanticUndefined and "default" not in schema:
        schema["default"] = to_jsonable_python(default)
    if "anyOf" in schema:
        _name_choices(schema)
    if bounds := _bounds(schema):
        schema["description"] = f"{schema.get('description', '')} {bounds}".strip()
    return isinstance(default, BaseModel)


def _fold(schema: dict[str, Any], default: BaseModel, opened: bool) -> None:
    schema.pop("opened", None)
    changed = default.model_dump(mode="json", exclude_defaults=True)
    schema["default"] = changed
    if opened or changed:
        return
    section = schema.pop("$ref")
    schema["anyOf"] = [{"type": "object", "properties": {}, "title": AS_DEFAULT}, {"$ref": section}]
    schema["if"], schema["then"] = {}, {"$ref": section}


def _name_choices(schema: dict[str, Any]) -> None:
    """Words for the types to choose from; rules go to the whole, where an error says which one was broken."""
    for each in schema["anyOf"]:
        if isinstance(each, dict) and "$ref" not in each:
            each["title"] = "Choice" if "enum" in each else _TYPES.get(each.get("type", ""), "Value")
    valued = [each for each in schema["anyOf"] if each.get("type") != "null"]
    if len(valued) == 1 and "$ref" not in valued[0]:
        schema |= {rule: valued[0].pop(rule) for rule in _RULES if rule in valued[0] and rule != "items"}


def _bounds(schema: Mapping[str, Any]) -> str:
    """What numbers are allowed, where that is not plain from what they count."""
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f"From {least:,} to {most:,}."
    parts = [
        f"at least {least:,}" if least is not None and (least > 1 or most is not None) else "",
        f"more than {above:,}" if above is not None else "",
        f"at most {most:,}" if most is not None else "",
        f"less than {below:,}" if below is not None else "",
    ]
    text = " and ".join(filter(None, parts))
    return f"{text[0].upper()}{text[1:]}." if text else ""


def typed_as_json(values: Any) -> Any:
    """The values of a section, with those read that a form hands over as JSON text: itself, a field, an item of a list.

    Prefect's server reads them for a run that is started by hand, not for one that its schedule starts.
    """
    if not isinstance(read := _read(values), dict):
        return read
    return {name: list(map(_read, each)) if isinstance(each, list) else _read(each) for name, each in read.items()}


def _read(value: Any) -> Any:
    return json.loads(value["value"]) if _is_json_text(value) else value


def _is_json_text(value: Any) -> bool:
    return isinstance(value, dict) and value.get("__prefect_kind") == "json" and isinstance(value.get("value"), str)


def _says(field: FieldInfo, word: str) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get(word))


def _is_one_of_many(kind: type[BaseModel]) -> bool:
    """Whether a field tells this class from others that may stand in the same place."""
    fields = kind.model_fields.values()
    return any(get_origin(each.annotation) is Literal and len(get_args(each.annotation)) == 1 for each in fields)


def words_of(name: str) -> str:
    """Words for a field or class: `mlflow_tracking_uri` is "MLflow tracking URI", `SlurmSettings` is "Slurm"."""
    if "_" not in name and not name.islower():
        name = "".join(f"_{each.lower()}" if each.isupper() else each for each in name.removesuffix("Settings"))
    words = [_SPELLED.get(each, each) for each in name.strip("_").split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])
