"""Keys, tokens and passwords: what opens an account for whoever reads it.

Services give their keys a beginning and a length of their own (as published by them and by GitHub's secret scanning);
assignments to a name such as `password` count where the value looks random. What is evidently a placeholder
(`sk-xxxxxxxxxxxxxxxxxxxx`, `password="your-password"`) stays.
"""

import re

from tasks.privacy.spans import Detector, Span, in_order

_W, _B = "[0-9A-Za-z]", "[0-9A-Za-z_-]"
SERVICES = {
    "aws": r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}",
    "github": rf"gh[pousr]_{_W}{{36,255}}|github_pat_[0-9A-Za-z_]{{22,255}}",
    "gitlab": rf"gl(?:pat|dt|rt|ptt|cbt|soat|ft|imt|agent|oas)-{_B}{{20,60}}",
    "slack": rf"xox[abeoprs]-(?:[0-9A-Za-z]{{1,60}}-){{0,4}}{_W}{{10,80}}|xapp-[0-9]-{_B}{{20,120}}",
    "slack webhook": rf"hooks\.slack\.com/services/T{_W}{{6,12}}/B{_W}{{6,12}}/{_W}{{20,30}}",
    "google": rf"AIza{_B}{{35}}|ya29\.{_B}{{30,500}}|GOCSPX-{_B}{{28}}",
    "stripe": rf"(?:sk|rk)_(?:live|test)_{_W}{{16,200}}|whsec_{_W}{{24,64}}",
    "anthropic": rf"sk-ant-{_B}{{24,200}}",
    "openai and alike": rf"sk-(?:proj-|svcacct-|admin-|or-v1-|lf-)?{_B}{{20,200}}",
    "hugging face": r"hf_[A-Za-z]{30,40}|api_org_[A-Za-z]{30,40}",
    "npm": rf"npm_{_W}{{36}}",
    "pypi": rf"pypi-AgE{_B}{{50,300}}",
    "sendgrid": rf"SG\.{_B}{{16,32}}\.{_B}{{32,64}}",
    "twilio": r"(?:AC|SK)[0-9a-f]{32}",
    "mailgun": r"key-[0-9a-f]{32}",
    "mailchimp": r"[0-9a-f]{32}-us[0-9]{1,2}",
    "telegram": rf"[0-9]{{8,10}}:AA{_B}{{33}}",
    "discord": rf"[MNO]{_W}{{23,27}}\.{_B}{{6}}\.{_B}{{27,40}}",
    "digitalocean": r"do[opr]_v1_[0-9a-f]{64}",
    "shopify": r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    "square": rf"sq0(?:atp|csp)-{_B}{{22,43}}|EAAA{_B}{{60}}",
    "databricks": r"dapi[0-9a-f]{32}",
    "atlassian": rf"ATATT3{_B}{{50,200}}",
    "linear, replicate, groq, xai": rf"(?:lin_api_|r8_|gsk_|xai-){_W}{{32,80}}",
    "azure storage": r"AccountKey=[0-9A-Za-z+/]{86}==",
    "json web token": rf"eyJ{_B}{{10,2000}}\.eyJ{_B}{{10,4000}}\.{_B}{{10,1000}}",
}
"""How the keys of each service look, in the syntax that RE2 and Python share."""

_STARTS = (
    r"AKIA[0-9A-Z]{16}|A(?:SI|BI|CC)A[0-9A-Z]{16}|gh[pousr]_[0-9A-Za-z]{20}|github_pat_|gl[a-z]{2,5}-[\w-]{20}|xox[abeoprs]-|"
    r"xapp-|hooks\.slack|AIza|ya29\.|GOCSPX-|[sr]k_(?:live|test)_|whsec_|sk-[\w-]{20}|hf_[A-Za-z]{30}|api_org_|"
    r"npm_[0-9A-Za-z]{20}|pypi-AgE|SG\.[\w-]{16}|(?:AC|SK)[0-9a-f]{32}|key-[0-9a-f]{32}|[0-9a-f]{32}-us|:AA[\w-]{33}|"
    r"[MNO][0-9A-Za-z]{23,27}\.[\w-]{6}\.|do[opr]_v1_|shp[a-z]{2}_|sq0|EAAA[\w-]{20}|dapi[0-9a-f]{32}|ATATT3|lin_api_|r8_|"
    r"gsk_|xai-|AccountKey=|eyJ[\w-]{10}"
)
_KEY_NAME = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[ _-]?key|apikey|access[ _-]?key|auth[ _-]?key|"
    r"private[ _-]?key|client[ _-]?secret|credentials?|passwort|kennwort|contraseña|mot de passe)"
)
_SIGN = r"[\"'\]]{0,2} ?(?:=>|:=|=|:|\bis\b) ?"
_ASSIGNED_GATE = rf"(?i:{_KEY_NAME}){_SIGN}(?:[\"'`][^\s\"'`<>{{}}]{{6}}|[^\s\"'`<>{{}}()\[\],;&|0-9]{{0,200}}[0-9])"
_CARRIED_GATE = (
    r"-----BEGIN|://[^\s/@:]{0,64}:[^\s/@]{1,128}@|(?i:identified by [\"']|\b(?:bearer|basic) [0-9A-Za-z+/._~-]{16})"
)
_SERVICE = re.compile(
    r"(?<![0-9A-Za-z_])(?:" + "|".join(f"(?:{each})" for each in SERVICES.values()) + r")(?![0-9A-Za-z_])"
)
_PEM = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----(?P<body>[^-]{40,20000}?"
    r"(?:-----END [A-Z0-9 ]{4,50}-----|\Z)"
    r"|[0-9A-Za-z+/=\s\\]{40,20000})"
)
_USER_INFO = re.compile(r"://(?P<value>[^\s/@:<>\"'{}$\[\]]{0,64}:(?P<password>[^\s/@:<>\"'{}$\[\]]{1,128}))@")
_ASSIGNED = re.compile(rf"{_KEY_NAME}{_SIGN}", re.IGNORECASE)
_VALUE = re.compile(
    r"(?P<quote>[\"'`])(?P<quoted>[^\s\"'`<>{}]{6,200})(?P=quote)|(?P<bare>[^\s\"'`<>{}()\[\],;&|]{8,200})(?![(\[{<])"
)
_BARE = re.compile(r"(?=[^a-z]*[a-z])(?=[^0-9]*[0-9])(?=[^A-Z!@#$%^&*?]*[A-Z!@#$%^&*?])")
"""What a value without quotes has, so that dates and versions are none: a small letter, a digit, a capital or sign."""
_SQL = re.compile(r"\bIDENTIFIED BY (?P<quote>[\"'])(?P<value>[^\s\"']{6,200})(?P=quote)", re.IGNORECASE)
_HTTP = re.compile(r"\b(?:Bearer|Basic) (?P<value>[0-9A-Za-z+/._~-]{16,2000}={0,2})", re.IGNORECASE)
_BLANK = re.compile(r"xxxx|\*\*\*|\.\.\.|your|placeholder", re.IGNORECASE)
"""What stands where a key is to be filled in."""
_PLACEHOLDER = re.compile(
    r"example|sample|placeholder|your|xxxx|\*\*\*|\.\.\.|changeme|dummy|redacted|insert|replace|<|>|\$\{|%\(|%s(?![A-Za-z0-9])|"
    r"0123456789|1234567|abcdef|test[-_]?(?:key|token|secret)|secret[-_]?key|os\.environ|process\.env",
    re.IGNORECASE,
)
_NO_PASSWORD = re.compile(rf"{_PLACEHOLDER.pattern}|^{_KEY_NAME}$|^pw$", re.IGNORECASE)
_PIECES = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+|[^A-Za-z0-9]+")
_LONGEST_PIECE = 3.0
"""Mean length of the runs of one sort of character up to which a value looks random: words and names have longer."""
_FEWEST_CHARACTERS = 8
"""Different characters that a key has at least; `sk-aaaaaaaaaaaaaaaaaaaaaaaa` has fewer."""


def find_keys(text: str) -> list[Span]:
    """Spans of keys and tokens that have the form of some service's."""
    return in_order([match.span() for match in _SERVICE.finditer(text) if _is_key(match.group())])


def find_carried(text: str) -> list[Span]:
    """Spans of private keys, of user and password in URLs, of passwords in SQL and tokens in HTTP headers."""
    spans = [match.span("body") for match in _PEM.finditer(text)]
    spans += [match.span("value") for match in _USER_INFO.finditer(text) if not _NO_PASSWORD.search(match["password"])]
    for pattern in (_SQL, _HTTP):
        spans += [match.span("value") for match in pattern.finditer(text) if looks_random(match["value"])]
    return in_order(spans)


def find_assigned(text: str) -> list[Span]:
    """Spans of values that look random and follow a name such as `password` or `api_key`."""
    spans: list[Span] = []
    for name in _ASSIGNED.finditer(text):
        value = _VALUE.match(text, name.end())
        if value is None:
            continue
        group = "quoted" if value["quoted"] else "bare"
        found = value[group].rstrip(".") if group == "bare" else value[group]
        if looks_random(found) and (group == "quoted" or _BARE.match(found)):
            spans.append((value.start(group), value.start(group) + len(found)))
    return spans


def _is_key(candidate: str) -> bool:
    """Whether a token with a service's beginning is more than a placeholder or some words with hyphens."""
    body = re.split(r"[-_.]", candidate, maxsplit=1)[-1]
    mixed = any(map(str.isdigit, body)) or (not body.islower() and not body.isupper())
    return mixed and len(set(body)) >= _FEWEST_CHARACTERS and _BLANK.search(candidate) is None


def looks_random(value: str) -> bool:
    """Whether a value mixes sorts of characters as generated ones do and no word, name or path does."""
    pieces = _PIECES.findall(value)
    sorts = len({("digit" if p[0].isdigit() else "letter" if p[0].isalpha() else "sign") for p in pieces})
    if sorts < 2 and (value.islower() or value.isupper() or value.isdigit()):
        return False
    return len(value) / len(pieces) <= _LONGEST_PIECE and len(set(value)) >= 5 and not _PLACEHOLDER.search(value)


SECRETS = (
    Detector("secret", _STARTS, find_keys),
    Detector("secret", _CARRIED_GATE, find_carried),
    Detector("secret", _ASSIGNED_GATE, find_assigned),
)
