"""Keys, tokens and passwords; placeholders, digests and code that only speaks of them stay.

Every value is put together here, so that no scanner takes this file for a leak.
"""

import pytest

from tasks.privacy.secrets import SECRETS, looks_random

BODY = "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5zA7bC9dE1fG3hI5jK7lM9nO1pQ3"
HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def finds(text: str) -> list[str]:
    spans = {span for detector in SECRETS for span in detector.find(text)}
    return [text[slice(*span)] for span in sorted(spans)]


@pytest.mark.parametrize(
    "key",
    [
        *("AKIA" + "Q3EGRTY7PLK2MNB4", "ghp_" + BODY[:36], "github_pat_" + BODY[:60], "glpat-" + BODY[:20]),
        *(
            "xoxb-" + "293847561029-" + BODY[:24],
            "AIza" + BODY[:35],
            "sk_live_" + BODY[:24],
            "sk-ant-api03-" + BODY[:50],
        ),
        *("sk-proj-" + BODY[:40], "sk-" + BODY[:32], "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNmQwErTyUi", "npm_" + BODY[:36]),
        *("pypi-AgE" + BODY, "SG." + BODY[:22] + "." + BODY[:43], "AC" + HEX[:32], "123498765:AA" + BODY[:33]),
        *("dop_v1_" + HEX, "shpat_" + HEX[:32], "eyJ" + BODY[:20] + ".eyJ" + BODY[:30] + "." + BODY[:40]),
    ],
)
def test_keys_of_services_are_found(key: str) -> None:
    assert finds(f"use {key}, then") == [key]
    assert finds(f'"{key}"') == [key]
    assert finds(f"x{key}") == []
    assert finds(key[: len(key) // 3]) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('password="Xk3!9fjQz2"', ["Xk3!9fjQz2"]),
        ("DB_PASS = 'WEoqYIgIq'", ["WEoqYIgIq"]),
        ("PASSWORD=Xk39fjQz2b\n", ["Xk39fjQz2b"]),
        ('"api_key": "' + HEX[:32] + '"', [HEX[:32]]),
        ("https://jo:Xk39fjQz2b@host.com/x", ["jo:Xk39fjQz2b"]),
        ("IDENTIFIED BY 'visFBPayAKq'", ["visFBPayAKq"]),
        ("Authorization: Bearer " + BODY[:30], [BODY[:30]]),
    ],
)
def test_assigned_and_carried_secrets_are_found(text: str, found: list[str]) -> None:
    assert finds(text) == found


def test_a_private_key_is_found_whole() -> None:
    key = "\n" + "\n".join(BODY for _ in range(8)) + "\n-----END RSA PRIVATE KEY-----"
    assert finds(f"-----BEGIN RSA PRIVATE KEY-----{key} x") == [key]
    assert finds(f"-----BEGIN PUBLIC KEY-----{key}") == []


@pytest.mark.parametrize(
    "text",
    [
        "password: hunter2, passwd: 'correct horse', Password is required",
        "password = get_password() or password=your-password or token: 2024-01-02T10:00",
        'api_key: os.environ["KEY"], api_key = "YOUR-API-KEY-123", password="${DB_PASS_1}"',
        "sk-" + "x" * 24 + " AKIA" + "X" * 16 + " sk-learn-extensions-for-everyone",
        f"commit {HEX[:40]} sha256:{HEX}",
        "https://host:8080/x@y https://user:password@host/",
        "-----BEGIN CERTIFICATE-----",
        "basic understanding, bearer of good news",
    ],
)
def test_what_only_speaks_of_secrets_stays(text: str) -> None:
    assert finds(text) == []


def test_random_values_are_told_from_words() -> None:
    assert looks_random("kFJSgOmU")
    assert looks_random("P@ssw0rd!")
    assert not looks_random("MyPassword1")
    assert not looks_random("correcthorse")
    assert not looks_random("db_user_password")
