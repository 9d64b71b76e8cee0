"""Decode: every encoding that a browser knows, by header, meta element, mark or detection; no bytes that fail."""

import codecs
from encodings.aliases import aliases

import pytest
from resiliparse.parse.encoding import map_encoding_to_html5

from tasks.extraction.decode import decode

SAMPLE = "Grüße aus Łódź, Привет мир, Θεός, これは日本語, 这是汉字, 한국어 텍스트, עברית, العربية, ไทย"


def codec_names() -> list[str]:
    """Every text encoding of Python."""
    names = []
    for name in sorted(set(aliases.values())):
        try:
            "a".encode(name)
        except LookupError:  # bytes to bytes, or of another system
            continue
        names.append(name)
    return names


def encodable(encoding: str) -> str:
    """What of the sample an encoding can say."""
    kept = []
    for character in SAMPLE:
        encoded = character.encode(encoding, "ignore")
        if encoded and encoded.decode(encoding) == character:
            kept.append(character)
    return "".join(kept)


@pytest.mark.parametrize("encoding", codec_names())
def test_every_encoding_of_python_is_decoded_or_at_least_breaks_nothing(encoding: str) -> None:
    text = encodable(encoding)
    payload = text.encode(encoding)
    for name in (encoding, encoding.replace("_", "-").upper()):
        decoded = decode(payload, name)
        decoded.encode()
        if map_encoding_to_html5(name, False):  # browsers know it
            assert decoded == text
    decode(payload, None).encode()
    head = f'<meta charset="{encoding}">'
    if map_encoding_to_html5(encoding, False) and not encoding.startswith("utf_16"):  # a browser reads UTF-8 there
        assert decode(f"{head}{text}".encode(encoding), None) == f"{head}{text}"


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")],
)
def test_a_byte_order_mark_overrules_all(mark: bytes, encoding: str) -> None:
    assert decode(mark + SAMPLE.encode(encoding), "windows-1252") == SAMPLE


@pytest.mark.parametrize("payload", [b"", b"\xff\xfe", b"\xef\xbb\xbf", b"\xff\xfe\x00", b"\xd8\x00" * 9, b"\x00" * 99])
@pytest.mark.parametrize("charset", [None, "utf-16", "utf-8", "shift_jis"])
def test_fragments_and_lone_surrogates_become_text(payload: bytes, charset: str | None) -> None:
    decode(payload, charset).encode()


@pytest.mark.parametrize("charset", ["utf-8", None])
def test_one_bad_byte_costs_one_character(charset: str | None) -> None:
    assert decode("Größe und schöner Spaß".encode() + b"\xff mehr", charset) == "Größe und schöner Spaß\ufffd mehr"


@pytest.mark.parametrize("charset", ["nonsense", "", "\xff", "x-user-defined"])
def test_an_unknown_encoding_is_as_good_as_none(charset: str) -> None:
    assert decode("Grüße aus Köln und Düsseldorf".encode(), charset) == "Grüße aus Köln und Düsseldorf"
