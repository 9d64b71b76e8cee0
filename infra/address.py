"""Addresses in settings. They hold no password, because settings stand in files, forms, logs and manifests."""

import re
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_PORT = r"[0-9]*(?:/|$)|:[A-Za-z][A-Za-z0-9+.-]*:[:/]"
"""What may follow a host and a colon: a port, or what a chain of fsspec goes on with (zip://name::s3://bucket/key)."""
_PASSWORD = re.compile(rf"(://[^\s:/@\[]*):(?!{_PORT})[^\s@]*@")
_PATTERN = rf"^(?![\s\S]*://[^:/@\[]*:(?!{_PORT})[^@]*@)"
"""A URL without a password, or a path. Forms have it too, so that a password is refused before it is stored."""


def without_password(address: str) -> str:
    """The address as it was; ValueError, which does not repeat it, if it holds a password."""
    if not re.match(_PATTERN, address):
        raise ValueError(
            "an address holds no password, because settings are written to files and logs; give it by the environment "
            "variables of whom it is for, such as MLFLOW_TRACKING_PASSWORD or AWS_SECRET_ACCESS_KEY"
        )
    return address


def is_relative(root: str) -> bool:
    """Whether a path, or the URL of one, means another place in another working folder."""
    path = re.sub(r"^(file|local):(//)?", "", root)
    return "://" not in path and not path.startswith(("/", "~"))


def masked(text: str) -> str:
    """A text with *** for the password of each URL in it."""
    return _PASSWORD.sub(r"\1:***@", text)


class _WithoutPassword:
    """Marks a type as an address."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(without_password, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "pattern": _PATTERN}


Address = Annotated[str, _WithoutPassword()]
"""A path or URL without a password."""
