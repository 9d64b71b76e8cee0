"""Asking servers that want a login."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pytest


def ask(
    url: str, body: Mapping[str, Any] | None = None, login: str | None = None, more: Mapping[str, str] | None = None
) -> Any:
    """The answer of a JSON API, asked as user:password or as nobody; `more` are further headers."""
    headers = {"Content-Type": "application/json", **(more or {})}
    if login is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return json.load(answer)


def refused(url: str, body: Mapping[str, Any] | None = None, login: str | None = None) -> int:
    """The status with which a server refuses."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(url, body, login)
    with closing(caught.value) as error:
        return error.code
