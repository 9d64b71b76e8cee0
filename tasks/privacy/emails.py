"""E-mail addresses, as they are, percent-encoded, or spelt out against harvesters.

What counts ends in a top-level domain that exists (the public suffix list that tldextract carries, RFC 2606's
reserved names, or any in another script), so that `icon@2x.png` stays. An address spelt with the bare word `at` counts
only where more than the word speaks for it: angle brackets, a header such as `From:`, a mail provider's name.
"""

import re
from functools import cache

import tldextract

from tasks.privacy.spans import Detector, Span, in_order

EMAIL_GATE = r"[@＠]|%40|[\[({<] ?(?i:at) ?[\])}>]|(?i: at [\w-]+(?: dot |\.\w))"  # noqa: RUF001 - the sign as it is typed
_LOCAL_REVERSED = re.compile(r"[\w+-](?:[\w.+-]|'(?=[oO]\b)){0,63}")
_DOMAIN = re.compile(r"\w[\w-]{0,62}(?:\.\w[\w-]{0,62}){1,8}")
_SPELT_DOMAIN = re.compile(
    r"\w[\w-]{0,62}(?:(?:\.| {0,2}[\[({<] ?(?:dot|\.) ?[\])}>] {0,2}| dot )\w[\w-]{0,62}){1,8}", re.IGNORECASE
)
_DOT = re.compile(r" {0,2}[\[({<] ?(?:dot|\.) ?[\])}>] {0,2}| dot |\.", re.IGNORECASE)
_SIGNS = tuple(map(re.compile, ("@", "＠", "%40")))  # noqa: RUF001 - one by one: a literal is searched for fastest
_SPELT_SIGN = re.compile(r"[\[({<] ?(?:at|AT|[@＠]) ?[\])}>] {0,2}")  # noqa: RUF001
_WORD_SIGNS = (re.compile(r" at (?=[\w-]{1,63}(?: dot |\.\w))"), re.compile(r" AT (?=[\w-]{1,63}(?: DOT |\.\w))"))
_HEADER = re.compile(
    r"(?:^|[\n(<,;|])[ \t]*(?:from|to|cc|bcc|reply-to|sender|authors?|maintainers?|author-email|e-?mail|contact)"
    r"[ \t]*:[^\n:]{0,80}$",
    re.IGNORECASE,
)
_PROVIDERS = re.compile(
    r"(?:gmail|googlemail|yahoo|ymail|hotmail|outlook|live|msn|icloud|aol|protonmail|proton|gmx|fastmail|zoho|"
    r"yandex|mail|web|qq|163|126|rediffmail|comcast|verizon|t-online|orange|wanadoo|laposte|libero)\.[a-z.]{2,6}",
    re.IGNORECASE,
)
_LETTERS = re.compile(r"[^\W\d_]{2,63}")
_RESERVED = ("example", "test", "invalid", "localhost", "local", "onion", "internal", "lan")


@cache
def _top_level_domains() -> frozenset[str]:
    extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # the list that is installed; asks no one
    return frozenset(suffix.rpartition(".")[2] for suffix in extract.tlds) | frozenset(_RESERVED)


def find_emails(text: str) -> list[Span]:
    """Spans of e-mail addresses."""
    signs = [sign for pattern in _SIGNS for sign in pattern.finditer(text)]
    spans = [_address(text, sign.start(), sign.end(), _DOMAIN) for sign in signs]
    for sign in _SPELT_SIGN.finditer(text):
        spaces = 2 - len(text[max(0, sign.start() - 2) : sign.start()].rstrip(" ")) if sign.start() > 1 else 0
        spans.append(_address(text, sign.start() - spaces, sign.end(), _SPELT_DOMAIN))
    words = [sign for pattern in _WORD_SIGNS for sign in pattern.finditer(text)]
    spans += [_in_words(text, sign.start(), sign.end()) for sign in words]
    return in_order([span for span in spans if span])


def _address(text: str, sign: int, after: int, domain: re.Pattern[str]) -> Span | None:
    """The address around an @ at text[sign:after], if what stands there can be one."""
    start, found = _local_start(text, sign), domain.match(text, after)
    if start is None or found is None:
        return None
    length = _host_length(found.group())
    return (start, after + length) if length else None


def _local_start(text: str, sign: int) -> int | None:
    """Where the part before the @ begins; read backwards, so that each sign costs at most 65 characters."""
    before = text[max(0, sign - 65) : sign][::-1]
    found = _LOCAL_REVERSED.match(before)
    if found is None:
        return None
    local = found.group().rstrip(".-+'")
    start = sign - len(local)
    # git@host:path names a service, and what follows :// is the user of a host.
    if not local or local == "tig" or _after_scheme(text, start):
        return None
    return start


def _after_scheme(text: str, start: int) -> bool:
    return text.endswith("://", 0, start) and not text.endswith("mailto://", 0, start)


def _host_length(candidate: str) -> int:
    """How much of a candidate, from its begin, is a host name under a top-level domain; 0 if nothing is."""
    pieces = _DOT.split(candidate)
    dots = [match.end() for match in _DOT.finditer(candidate)]
    for index in range(len(pieces) - 1, 0, -1):
        letters = _LETTERS.match(pieces[index])
        ending = pieces[index] if pieces[index].lower().startswith("xn--") else letters.group() if letters else ""
        follows = pieces[index][len(ending) : len(ending) + 1]
        if ending and follows in ("", "-", "_") and _is_top_level(ending.lower()):
            return dots[index - 1] + len(ending)
    return 0


def _is_top_level(ending: str) -> bool:
    # One in another script may imitate a Latin one (com with a Cyrillic c), as people write who hide.
    return not ending.isascii() or ending.startswith("xn--") or ending in _top_level_domains()


def _in_words(text: str, sign: int, after: int) -> Span | None:
    """An address with a bare `at`, which must be surrounded by signs that it is one."""
    span = _address(text, sign, after, _SPELT_DOMAIN)
    if span is None:
        return None
    start, end = span
    bracketed = text[start - 1 : start] == "<" and text[end : end + 1] == ">"
    domain = _DOT.sub(".", text[after:end])
    spelt = "." not in text[after:end] and (_PROVIDERS.fullmatch(domain) or not text[start:sign].isalpha())
    header = _HEADER.search(text, max(0, start - 100), start)
    return span if bracketed or spelt or header else None


EMAIL = Detector("email", EMAIL_GATE, find_emails)
