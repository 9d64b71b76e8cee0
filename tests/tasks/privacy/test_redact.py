"""Redact: what is personal data becomes a tag, what only looks like it stays, and every word of the settings holds."""

import gzip
import json
import time
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from infra.schema import DOCUMENTS
from tasks.privacy.redact import PRIORITY, RedactSettings, find_personal_data, redact, redact_text
from tests.benchmarks.pii_quality import ANNOTATED, score_records, score_values
from tests.benchmarks.pii_values import make

SETTINGS = RedactSettings()
EVERYTHING = RedactSettings(kinds=PRIORITY)


def documents(texts: list[str], languages: list[str | None] | None = None) -> pa.Table:
    codes = languages or [None] * len(texts)
    rows = [
        {"id": str(n), "source": "c", "file": "w", "offset": n, "text": text, "language": language}
        for n, (text, language) in enumerate(zip(texts, codes, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def test_counts_are_kept_by_kind() -> None:
    text = "a@example.com b@example.com 93.184.216.34"
    assert redact_text(text, SETTINGS) == ("<EMAIL> <EMAIL> <IP>", {"email": 2, "ip": 1})


def test_only_the_chosen_kinds_are_replaced() -> None:
    text = "a@example.com 93.184.216.34"
    assert redact_text(text, RedactSettings(kinds=("ip",)))[0] == "a@example.com <IP>"
    assert redact_text(text, RedactSettings(kinds=()))[0] == text
    assert redact(documents([text]), RedactSettings(kinds=())).kept["text"].to_pylist() == [text]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://jo:Xk3!9fQz2@host.example.com/", "https://<SECRET>@host.example.com/"),  # no e-mail of the password
        ("IBAN DE89 3704 0044 0532 0130 00 +49 30 901820", "IBAN <IBAN> <PHONE>"),
        ("+49 30 901820 4111 1111 1111 1111", "<PHONE> <CARD>"),
        ("SSN 219-09-9998, 219-099-9998", "SSN <NATIONAL_ID>, <PHONE>"),
        ("93.184.216.34@mail.example.com", "<EMAIL>"),
        ("40.7128, -74.0060, 415-555-2671", "<COORDINATES>, <PHONE>"),
    ],
)
def test_what_could_be_two_kinds_is_the_first_of_them(text: str, clean: str) -> None:
    assert redact_text(text, SETTINGS)[0] == clean
    reversed_kinds = SETTINGS.model_copy(update={"kinds": SETTINGS.kinds[::-1]})
    assert redact_text(text, reversed_kinds)[0] == clean


def test_finds_are_in_order_and_apart() -> None:
    text = "415-555-2671 a@example.com 4111 1111 1111 1111 93.184.216.34"
    finds = find_personal_data(text, SETTINGS)
    assert [kind for _, kind in finds] == ["phone", "email", "card", "ip"]
    assert all(before[0][1] <= after[0][0] for before, after in pairwise(finds))


def test_redacting_twice_changes_nothing() -> None:
    once = redact_text("a@example.com +49 30 901820 4111 1111 1111 1111 DE89370400440532013000", SETTINGS)[0]
    assert once == "<EMAIL> <PHONE> <CARD> <IBAN>"
    assert redact_text(once, SETTINGS) == (once, {})


def test_what_is_allowed_stays() -> None:
    settings = RedactSettings(allow={"email": ("*@example.com", "info@*"), "ip": ("93.184.*",)})
    text = "A@Example.com info@acme.org b@acme.org 93.184.216.34 151.101.1.69"
    assert redact_text(text, settings)[0] == "A@Example.com info@acme.org <EMAIL> 93.184.216.34 <IP>"


def test_private_addresses_are_replaced_on_request() -> None:
    text = "10.11.12.13 fe80::1:2:3"
    assert redact_text(text, SETTINGS)[0] == text
    assert redact_text(text, RedactSettings(ip_scope="all"))[0] == "<IP> <IP>"


def test_dates_of_birth_are_replaced_on_request() -> None:
    text = "Date of birth: 12 May 1980, DOB 1980-05-12, Geburtsdatum: 12.05.1980, founded 12 May 1980"
    assert redact_text(text, SETTINGS)[0] == text
    clean = redact_text(text, RedactSettings(kinds=("birth_date",)))[0]
    assert clean == ("Date of birth: <BIRTH_DATE>, DOB <BIRTH_DATE>, Geburtsdatum: <BIRTH_DATE>, founded 12 May 1980")


def test_a_documents_language_suggests_regions() -> None:
    text = "030 901820 oder 0171 1234567"
    split = redact(documents([text, text, text], ["de", "en", None]), SETTINGS)
    assert split.kept["text"].to_pylist() == ["<PHONE> oder <PHONE>", text, text]
    assert redact_text(text, SETTINGS, "de")[1] == {"phone": 2}
    assert redact_text(text, RedactSettings(language_regions={}), "de")[1] == {}


def test_a_batch_keeps_all_documents_and_counts_its_bytes() -> None:
    texts = ["a@example.com b@example.com", "nothing", "ü 93.184.216.34"]
    split = redact(documents(texts), SETTINGS)
    assert split.kept["text"].to_pylist() == ["<EMAIL> <EMAIL>", "nothing", "ü <IP>"]
    assert split.kept.schema == DOCUMENTS
    assert split.dropped.num_rows == 0
    assert dict(split.counters) == {"redacted_email": 2, "redacted_ip": 1, "redacted_documents": 2, "text_bytes": 29}


def test_batches_of_any_shape_give_the_same() -> None:
    texts = ["a@example.com", "", "x", "93.184.216.34 " * 3, "SSN 219-09-9998"]
    whole = redact(documents(texts), SETTINGS)
    table = documents(texts)
    chunked = redact(pa.concat_tables([table.slice(0, 2), table.slice(2)]), SETTINGS)
    single = [redact(table.slice(n, 1), SETTINGS).kept["text"][0].as_py() for n in range(len(texts))]
    assert whole.kept["text"].to_pylist() == chunked.kept["text"].to_pylist() == single
    assert whole.counters == chunked.counters
    assert redact(documents([]), SETTINGS).kept.num_rows == 0


def test_documents_with_too_much_are_dropped_redacted() -> None:
    split = redact(documents(["a@example.com " * 6, "a@example.com " * 5]), RedactSettings(max_redactions=5))
    assert split.kept["text"].to_pylist() == ["<EMAIL> " * 5]
    assert split.dropped.select(["stage", "reason", "value", "text"]).to_pylist() == [
        {"stage": "redact", "reason": "too_much_personal_data", "value": 6.0, "text": "<EMAIL> " * 6}
    ]
    assert split.counters["text_bytes"] == 40


@pytest.mark.parametrize(
    "text",
    [
        *("1", "1 ", "a@", "a:", "1.", "AB12", "1-", "+1 ", "(415) ", "::", ":1", "%40", "a at b dot ", "@a.", "[at]"),
        *("0.1234,", "12.3456, ", "40°4'", "password=", "password: 'a1", "eyJ", "eyJabcdefghij.", "-----BEGIN "),
        *("://a:b", "SSN ", "DNI 1", "passport number ", "National ID: A", "12345678-", "12 34 56 ", "A1B2C3D4E5"),
        *("bc1q", "sk-a", "xoxb-1-", "date of birth ", "tel. ", "-----BEGIN PRIVATE KEY-----\n", "00:1B:", "N 4°"),
        *("a.b-c+d", "12.34.", "DE89 ", "Bearer a1b2c3d4e5f6g7h8", "IDENTIFIED BY '", "\u0660", "geo:1.2345,"),
    ],
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    text = text * (200_000 // len(text))
    started = time.process_time()
    redact_text(text, EVERYTHING, "de")
    redact(documents([text]), EVERYTHING)
    assert time.process_time() - started < 8


def test_no_gate_hides_what_its_detector_finds(shared_data: Path) -> None:
    texts = [text for made in make(20) for text in made[2:] if text]
    for file in sorted((shared_data / "pii").glob("test_*.jsonl.gz")):
        with gzip.open(file, "rt") as lines:
            texts += [json.loads(line)["text"] for line in lines][:500]
    with gzip.open(shared_data / "text" / "peps.jsonl.gz", "rt") as lines:
        texts += [json.loads(line)["text"][:20_000] for _, line in zip(range(60), lines, strict=False)]
    gated = redact(documents(texts), EVERYTHING).kept["text"].to_pylist()
    assert gated == [redact_text(text, EVERYTHING)[0] for text in texts]


def test_annotated_records_are_redacted(shared_data: Path) -> None:
    scores = score_records(shared_data / "pii", EVERYTHING)
    for kind in ANNOTATED:
        score = scores.get(kind)
        if score is None or not score.annotated:
            continue
        assert score.covered / score.annotated >= 0.95, kind
        assert score.right / (score.finds - score.unannotated) >= 0.95, kind
    assert {"email", "phone", "ip", "mac", "national_id", "secret", "birth_date"} <= set(scores)


def test_values_made_by_chance_are_found_and_wrong_ones_stay() -> None:
    for name, (values, found, mistaken) in score_values(SETTINGS, 20).items():
        assert found / values >= 0.95, name
        assert mistaken / values <= 0.05, name
