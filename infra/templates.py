"""Templates of pages: everything that is put into one is escaped, and a name that is not there is an error."""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_templates(**filters: Callable[..., Any]) -> Environment:
    """The templates beside this module, with filters by name."""
    environment = Environment(
        loader=PackageLoader("infra", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment
