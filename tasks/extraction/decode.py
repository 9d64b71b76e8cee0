"""Decode: the bytes of a page to text, as a browser would.

The order is that of the HTML standard: byte order mark, HTTP header, meta element, detection from the bytes.
"""

import codecs
from functools import lru_cache

from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def decode(payload: bytes, charset: str | None) -> str:
    """Bytes of a page to text, by the encoding that a browser would choose. Never fails: bad bytes become U+FFFD.

    `charset` is what the HTTP header states; a name that the WHATWG Encoding standard does not know counts as none.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if payload.startswith(mark):
            return payload[len(mark) :].decode(encoding, "replace")
    known = (_known_encoding(charset) if charset else None) or detect_encoding(payload, from_html_meta=True) or "utf-8"
    # Without fallbacks: one bad byte must not turn a whole UTF-8 page into Windows-1252.
    return bytes_to_str(payload, known, errors="replace", fallback_encodings=())


@lru_cache(maxsize=256)
def _known_encoding(charset: str) -> str | None:
    """The WHATWG encoding that a header names, if there is one; looking it up costs as much as decoding a page."""
    return map_encoding_to_html5(charset.strip("\"' "), False)
