"""Addresses in settings hold no password, whoever gives them."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from flows.refreshes.settings import RefreshSettings
from infra.address import is_relative, masked
from infra.configuration import explain
from infra.environment import Environment
from infra.settings import Settings
from tasks.inputs import UserFile
from tasks.sources.collections import CollectionSettings
from tasks.sources.select import SelectSettings
from tasks.sources.transport import SourceSettings
from tasks.tokens.tokenizer import TokenizerSettings

GOOD = [
    *("gristmill-data", "/data/mill", "a:b", "C:/mill", "s3://bucket/prefix", "s3://bucket/p:q@r", "memory://"),
    *("sqlite:////data/mlflow.db", "http://127.0.0.1:5000", "http://[::1]:80/x", "https://someone@host/x@y"),
    *("simplecache::s3://bucket/key", "https://data.commoncrawl.org", "http://[::1]:80/x@y", "/data/*.jsonl"),
    *("zip://*.jsonl::s3://bucket/a@b.zip", "zip://in/part.jsonl::https://host:80/a.zip", "postgresql:///mill"),
]
BAD = [
    *("https://someone:hunter2@host", "postgresql://u:hunter2@host/db", "http://:hunter2@host"),
    *("s3://key:hunter2/hunter2@bucket", "tcp://u:hunter2@host:8786", "https://u::hunter2@host", "ftp://u:123@host"),
    *("zip://in/part.jsonl::https://u:hunter2@host/a.zip", "simplecache::https://u:hunter2@host/a"),
]


LISTS = ("paths", "host_lists", "url_lists", "word_lists", "soft_word_lists", "subword_lists")
ADDRESSES: list[tuple[type[Settings], str]] = [
    *((Environment, name) for name in ("root", "mlflow_tracking_uri")),
    *((kind, "path") for kind in (UserFile, TokenizerSettings)),
    *((SelectSettings, name) for name in ("ut1_folder", *LISTS[1:])),
    *((SourceSettings, "base_url"), (CollectionSettings, "paths"), (RefreshSettings, "collinfo")),
]


def allowed(schema: dict[str, Any], name: str, address: str) -> bool:
    """What Prefect's server says before it stores a form."""
    found = schema["properties"][name]
    found = found.get("items", found)
    pattern = found.get("pattern") or next(each["pattern"] for each in found["anyOf"] if "pattern" in each)
    return re.search(pattern, address) is not None


def test_paths_and_urls_are_addresses() -> None:
    schema = Environment.model_json_schema()
    for address in GOOD:
        assert Environment(root=address, mlflow_tracking_uri=address).root == address
        assert allowed(schema, "root", address), address
        assert masked(f"see {address}") == f"see {address}"


@pytest.mark.parametrize(("kind", "name"), ADDRESSES)
def test_passwords_are_refused_and_not_repeated(kind: type[Settings], name: str) -> None:
    schema = kind.model_json_schema()
    for address in BAD:
        assert not allowed(schema, name, address)
        with pytest.raises(ValidationError) as refused:
            kind.model_validate({name: [address] if name in LISTS else address})
        said = str(explain(kind, refused.value))
        assert "holds no password" in said
        assert "hunter2" not in said


def test_a_scheduler_has_no_password_either() -> None:
    with pytest.raises(ValidationError) as refused:
        Environment(scheduler="tls://someone:hunter2@host:8786")
    assert "hunter2" not in str(explain(Environment, refused.value))


def test_a_root_that_depends_on_the_working_folder_is_known() -> None:
    relative = [each for each in GOOD if is_relative(each)]
    assert relative == ["gristmill-data", "a:b", "C:/mill"]
    assert is_relative("file://mill")
    assert is_relative("./mill")
    assert not any(map(is_relative, ("~/mill", "file:///mill", "local:///mill", "file:/mill")))
