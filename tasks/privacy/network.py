"""Addresses of machines: IPv4, IPv6 and MAC.

Public addresses name a household or a person's machine; private, loopback, documentation (RFC 5737, RFC 3849) and
multicast ones name nobody. Four small numbers with dots between are a version or a section far more often.
"""

import ipaddress
import re
from typing import Literal

from tasks.privacy.spans import Detector, Span, in_order, labelled

Scope = Literal["public", "all"]

_IPV4 = re.compile(r"[0-9](?<![\w.][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?!\w|\.\w)")
_IPV4_GATE = r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"
_FEWEST_DIGITS = 6
"""Quads of fewer digits are addresses only where their surroundings say so."""
_IPV4_LABEL = re.compile(
    r"(?:\b(?:(?:log(?:ged|in)|access|connect(?:ed|ion|ing)?|requests?) (?:in )?(?:from|to)|client|ipv?4?|addr(?:ess)?|host|server|ping|dns|nameserver|gateway|ssh|proxy)\b[\s:=('\"is]{0,6}|://|@)$",
    re.IGNORECASE,
)
_VERSION_LABEL = re.compile(
    r"(?:\b(?:versions?|vers?|v|releases?|rel|build|firmware|driver|revision|rev|sections?|sec|chapter|clause|table|"
    r"figure|rule|paragraph|appendix|update|patch|kernel|oid|upgrade to|update to)\b[\s:.=#-]{0,3}|§\s?|"
    r"[A-Za-z][-_][vV]?|(?:^|[\s(;,\"'])[A-Za-z][\w.+]*/[vV]?)$",
    re.IGNORECASE,
)
_PACKAGE_TAIL = re.compile(r"[-_+~](?!(?:[0-9]{1,3}\.){3})\w")

_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IPV6 = re.compile(r"(?:[0-9A-Fa-f]{0,4}:){2,7}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f]{0,4})(?![\w:]|\.\d)")
_IPV6_GATE = r"::|(?:[0-9A-Fa-f]{1,4}:){7}"
_HEX_REVERSED = re.compile(r"[0-9A-Fa-f]{0,4}")

_MAC = re.compile(
    r"[:-](?<![0-9A-Za-z:.-][0-9A-Fa-f][0-9A-Fa-f][:-])(?<=[0-9A-Fa-f]{2}[:-])"
    r"[0-9A-Fa-f]{2}(?P<sign>[:-])(?:[0-9A-Fa-f]{2}(?P=sign)){3}[0-9A-Fa-f]{2}(?![0-9A-Za-z]|[:-][0-9A-Fa-f])"
)
_MAC_DOTTED = re.compile(
    r"\.(?<![\w.:-][0-9A-Fa-f]{4}\.)(?<=[0-9A-Fa-f]{4}\.)[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![\w:-]|\.\w)"
)
_MAC_GATE = (
    r"[0-9A-Fa-f]{2}[:-](?:[0-9A-Fa-f]{2}[:-]){4}[0-9A-Fa-f]{2}|\b[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\b"
)
_MAC_LABEL = re.compile(r"\b(?:mac|hwaddr|ether|lladdr|b?ssid|physical address|ethernet)\b", re.IGNORECASE)
_GROUP_MACS = ("01005E", "3333", "0180C2", "00005E", "01000C")
"""Beginnings of addresses that protocols and documentation share (RFC 7042, IEEE 802.1)."""
_EXAMPLE_MACS = ("001122334455", "0123456789AB", "123456789ABC", "112233445566", "AABBCCDDEEFF", "DEADBEEF")


def find_ips(text: str, scope: Scope) -> list[Span]:
    """Spans of IPv4 and IPv6 addresses: public ones, or all that could be a machine's."""
    spans = [match.span() for match in _IPV4.finditer(text) if _is_ipv4(text, match, scope)]
    return in_order([*spans, *_find_ipv6(text, scope)])


def _is_ipv4(text: str, match: re.Match[str], scope: Scope) -> bool:
    start, end = match.span()
    if not _in_scope(match.group(), scope):
        return False
    if text[start - 3 : start] == "://" or labelled(_IPV4_LABEL, text, start):
        return True
    if text.endswith(".0", start, end):
        return False  # a network, not a machine
    few = end - start - 3 < _FEWEST_DIGITS
    return not (few or labelled(_VERSION_LABEL, text, start, 24) or _PACKAGE_TAIL.match(text, end))


def _find_ipv6(text: str, scope: Scope) -> list[Span]:
    spans: list[Span] = []
    end = 0
    for colons in _COLONS.finditer(text):
        if colons.start() < end:
            continue
        ahead = _HEX_REVERSED.match(text[max(0, colons.start() - 4) : colons.start()][::-1])
        start = colons.start() - (ahead.end() if ahead else 0)
        match = _IPV6.match(text, start)
        # A name and :: before the first group is a path of some programming language.
        if match is None or (start and (text[start - 1].isalnum() or text[start - 1] in "_:.")):
            continue
        end = match.end()
        if len(match.group().replace(":", " ").split()) >= 3 and _in_scope(match.group(), scope):
            spans.append(match.span())
    return spans


def _in_scope(candidate: str, scope: Scope) -> bool:
    try:
        address = ipaddress.ip_address(candidate)
    except ValueError:
        return False
    if address.is_unspecified or address.is_multicast or address.is_reserved:
        return False
    if scope == "all":
        return True
    # Of IPv6 only 2000::/3 is handed out to networks.
    return address.is_global and (address.version == 4 or int(address) >> 125 == 1)


def find_macs(text: str) -> list[Span]:
    """Spans of MAC addresses of single devices, with colons, hyphens or in Cisco's three groups."""
    spans = [(match.start() - 2, match.end()) for match in _MAC.finditer(text) if match[0][0] == match["sign"]]
    spans += [(match.start() - 4, match.end()) for match in _MAC_DOTTED.finditer(text)]
    return in_order([span for span in spans if _is_device(text, span)])


def _is_device(text: str, span: Span) -> bool:
    digits = "".join(filter(str.isalnum, text[slice(*span)])).upper()
    if digits.startswith(_GROUP_MACS) or digits.startswith(_EXAMPLE_MACS) or len(set(digits)) <= 2:
        return False
    mixed = not digits.isdecimal() and not digits.isalpha()
    return mixed or labelled(_MAC_LABEL, text, span[0])


MAC = Detector("mac", _MAC_GATE, find_macs)


def ip_detector(scope: Scope) -> Detector:
    """The detector of IP addresses of a scope."""
    return Detector("ip", f"{_IPV4_GATE}|{_IPV6_GATE}", lambda text: find_ips(text, scope))
