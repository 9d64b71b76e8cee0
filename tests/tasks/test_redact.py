"""Redact: what is personal data becomes a tag, and what only looks like it stays."""

import gzip
import ipaddress
import json
import re
import time
from pathlib import Path

import pyarrow as pa
import pytest

from infra.schema import DOCUMENTS
from tasks.redact import RedactSettings, redact, redact_text

SETTINGS = RedactSettings()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Write to jane.doe+news@mail.example.co.uk.", "Write to <EMAIL>."),
        ("?to=jane%40example.com&x", "?to=<EMAIL>&x"),
        ("(jörg@bücher.example, j_d@e-x.org)", "(<EMAIL>, <EMAIL>)"),
        ("from 93.184.216.34, 151.101.1.69.", "from <IP>, <IP>."),
        ("http://93.184.216.34:80/", "http://<IP>:80/"),
        ("at 2001:4860:4860::8888.", "at <IP>."),
        ("[2001:4860:4860:0:0:0:0:8888]", "[<IP>]"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN <IBAN>."),
        ("GB82WEST12345698765432 and", "<IBAN> and"),
        ("4111 1111 1111 1111, 5500-0000-0000-0004", "<CARD>, <CARD>"),
        ("378282246310005 or 3782 822463 10005", "<CARD> or <CARD>"),
        ("card 4111 1111 1111 1111 12/27", "card <CARD> 12/27"),
        ("4111111111111111 123", "<CARD> 123"),
        ("Order 12 4111 1111 1111 1111", "Order 12 <CARD>"),
        ("2025 1234 4111 1111 1111 1111 5500 0000 0000 0004", "2025 1234 <CARD> <CARD>"),
        ("call +1 (234) 817-8325 now", "call <PHONE> now"),
        ("(415) 555-2671 or 415-555-2671", "<PHONE> or <PHONE>"),
        ("+49 30 901820 +44 20 7946 0018", "<PHONE> <PHONE>"),
    ],
)
def test_personal_data_becomes_a_tag(text: str, clean: str) -> None:
    assert redact_text(text, SETTINGS)[0] == clean


@pytest.mark.parametrize(
    "text",
    [
        "x@y, @handle, me@localhost, a@b.c, foo @ bar.com",
        "10.1.2.3 192.168.100.200 172.16.254.1 127.0.0.1 169.254.10.10 203.0.113.195",
        "fe80::1 ::1 2001:db8::1 fd12:3456:789a::1",
        "256.184.216.34 and 1.2.3.4.5.6",
        "version 2.10.7.1, section 1.2.3.4, release 10.4.0.1",
        "std::vector<int>::iterator at 12:34:56",
        "DE89 3704 0044 0532 0130 01",  # wrong checksum
        "DE89 3704 0044 0532 0130",  # too short
        "ZZ89 3704 0044 0532 0130 00",  # no such country
        "4111 1111 1111 1112",  # wrong check digit
        "1234567890123456",  # no such issuer
        "0.4111111111111111 and 4111111111111111.5",
        "ISBN 978-3-16-148410-0, 2026-11-22 12:00:00, 1234567890",
        "pi is 3.14159265358979, 1 000 000 people",
        "",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redact_text(text, SETTINGS) == (text, {})


def test_counts_are_kept_by_kind() -> None:
    text = "a@example.com b@example.com 93.184.216.34"
    assert redact_text(text, SETTINGS) == ("<EMAIL> <EMAIL> <IP>", {"email": 2, "ip": 1})


def test_only_the_chosen_kinds_are_replaced() -> None:
    text = "a@example.com 93.184.216.34"
    assert redact_text(text, RedactSettings(kinds=("ip",)))[0] == "a@example.com <IP>"
    assert redact_text(text, RedactSettings(kinds=()))[0] == text


def test_numbers_without_a_country_code_are_those_of_the_chosen_regions() -> None:
    text = "030 901820 and 415-555-2671"
    assert redact_text(text, RedactSettings(phone_regions=("DE",)))[0].startswith("<PHONE> and")
    assert redact_text(text, RedactSettings(phone_regions=("US",)))[0] == "030 901820 and <PHONE>"
    assert redact_text(text, RedactSettings(phone_regions=()))[0] == text


def test_what_two_regions_find_is_replaced_once() -> None:
    clean, found = redact_text("call 415-555-2671.", RedactSettings(phone_regions=("US", "CA", "US")))
    assert (clean, found) == ("call <PHONE>.", {"phone": 1})


def test_redacting_twice_changes_nothing() -> None:
    once = redact_text("a@example.com +49 30 901820 4111 1111 1111 1111 DE89370400440532013000", SETTINGS)[0]
    assert once == "<EMAIL> <PHONE> <CARD> <IBAN>"
    assert redact_text(once, SETTINGS) == (once, {})


def test_a_batch_keeps_all_documents_and_counts_its_bytes() -> None:
    texts = ["a@example.com b@example.com", "nothing", "ü 93.184.216.34"]
    rows = [{"id": t, "source": "c", "file": "w", "offset": 0, "text": t} for t in texts]
    split = redact(pa.Table.from_pylist(rows, schema=DOCUMENTS), SETTINGS)
    assert split.kept["text"].to_pylist() == ["<EMAIL> <EMAIL>", "nothing", "ü <IP>"]
    assert split.kept.schema == DOCUMENTS
    assert dict(split.counters) == {"redacted_email": 2, "redacted_ip": 1, "redacted_documents": 2, "text_bytes": 29}


@pytest.mark.parametrize(
    "text", ["1" * 100_000, "1 " * 50_000, "a@" * 50_000, "a:" * 50_000, "1." * 50_000, "AB12" * 25_000]
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    started = time.process_time()
    redact_text(text, SETTINGS)
    assert time.process_time() - started < 3


def test_annotated_records_lose_their_addresses(shared_data: Path) -> None:
    found = total = 0
    for file in sorted((shared_data / "pii").glob("test_*.jsonl.gz")):
        for line in gzip.decompress(file.read_bytes()).decode().strip().split("\n")[:400]:
            record = json.loads(line)
            clean = redact_text(record["text"], RedactSettings(kinds=("email", "ip")))[0]
            for each in record["annotations"]:
                if each["entity_type"] == "EMAIL_ADDRESS" and re.fullmatch(r"[\w.+-]+@[\w.-]+\.\w+", each["text"]):
                    total += 1
                    found += each["text"] not in clean
                if each["entity_type"] == "IP_ADDRESS" and is_private(each["text"]):
                    assert clean.count(each["text"]) == record["text"].count(each["text"])
    assert total >= 100
    assert found / total >= 0.99


def is_private(text: str) -> bool:
    try:
        return not ipaddress.ip_address(text).is_global
    except ValueError:
        return False
