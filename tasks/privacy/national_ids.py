"""Numbers by which states know a person: tax, insurance and identity numbers, passports, driving licences.

`SHAPED` numbers are written in a way of their own and mostly carry a date or two check digits: shape and checksum
decide. `NAMED` ones look like any other number, so that a label must stand before; what the label promises is then
checked as strictly as the country allows. Checks are python-stdnum's.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from stdnum.ar import cuit
from stdnum.at import tin as at_tin
from stdnum.at import vnr
from stdnum.au import tfn
from stdnum.be import nn
from stdnum.bg import egn
from stdnum.br import cnpj, cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cl import rut
from stdnum.cn import ric
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.do import cedula
from stdnum.ec import ci
from stdnum.ee import ik
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nif as fr_nif
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.gr import amka
from stdnum.hr import oib
from stdnum.id import nik
from stdnum.ie import pps
from stdnum.il import idnr as il_idnr
from stdnum.in_ import aadhaar
from stdnum.is_ import kennitala
from stdnum.it import codicefiscale
from stdnum.jp import in_ as my_number
from stdnum.kr import rrn
from stdnum.lt import asmens
from stdnum.mx import curp
from stdnum.my import nric
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.nz import ird
from stdnum.pl import pesel
from stdnum.pt import nif as pt_nif
from stdnum.ro import cnp
from stdnum.ru import inn
from stdnum.se import personnummer
from stdnum.si import emso
from stdnum.th import pin
from stdnum.tr import tckimlik
from stdnum.ua import rntrc
from stdnum.us import itin, ssn
from stdnum.za import idnr as za_idnr

from tasks.privacy.spans import Detector, Span, compact, in_order

Check = Callable[[str], bool]


@dataclass(frozen=True)
class Shaped:
    """A number that its shape and checksum tell."""

    shape: str
    """How it is written, in the syntax that RE2 and Python share; begins with a digit or a capital."""
    check: Check
    """Whether such a text is one."""


@dataclass(frozen=True)
class Named:
    """A number that is told by the words before it."""

    label: str
    """The words, case-sensitive where they are capitals alone."""
    shape: str
    """How the number may be written."""
    check: Check
    """Whether such a text is one."""
    near: bool = False
    """Whether other words may stand between label and number."""


def _any_of(*checks: Check) -> Check:
    return lambda text: any(check(text) for check in checks)


def _always(_: str) -> bool:
    return True


def _undated(check: Check) -> Check:
    """A check that also refuses eight digits that are a date of our times (20240131Z is a moment)."""
    date = re.compile(r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:[0-2][0-9]|3[01])")
    return lambda text: date.match(text) is None and check(text)


def _snils(text: str) -> bool:
    """Check of a Russian pension number: weights 9 to 1, modulo 101."""
    digits = [int(character) for character in text if character.isdigit()]
    total = sum(weight * digit for weight, digit in zip(range(9, 0, -1), digits[:9], strict=True)) % 101 % 100
    return total == 10 * digits[9] + digits[10]


def _nino(text: str) -> bool:
    """Prefix rules of a British National Insurance number (HMRC NIM39110)."""
    return compact(text)[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def _singapore(text: str) -> bool:
    """Check letter of a Singaporean NRIC or FIN number."""
    weighted = sum(weight * int(digit) for weight, digit in zip((2, 7, 6, 5, 4, 3, 2), text[1:8], strict=True))
    letters = "JZIHGFEDCBA" if text[0] in "ST" else "XWUTRQPNMLK"
    return letters[(weighted + (4 if text[0] in "TG" else 0)) % 11] == text[8]


def _has_digits(fewest: int) -> Check:
    return lambda text: sum(map(str.isdigit, text)) >= fewest


_NINO = r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
_TRIPLES = r"[0-9]{3}[ .-]?[0-9]{3}[ .-]?[0-9]{3}"


def _spaced(expression: str) -> str:
    """An expression whose spaces may be no-break spaces; a class with a space has it first."""
    return expression.replace("[ ", "[\0").replace(" ", "[ \u00a0]").replace("[\0", "[ \u00a0")


SHAPED = (
    Shaped(r"[0-9]{3}-[0-9]{2}-[0-9]{4}", _any_of(ssn.is_valid, itin.is_valid)),
    Shaped(r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", cpf.is_valid),
    Shaped(r"[0-9]{2}\.[0-9]{3}\.[0-9]{3}/[0-9]{4}-[0-9]{2}", cnpj.is_valid),
    Shaped(r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}\.[0-9]{2}", nn.is_valid),
    Shaped(r"756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}", ahv.is_valid),
    Shaped(r"[0-9]{6}-[1-8][0-9]{6}", rrn.is_valid),
    Shaped(r"[0-9]{6}[+-][0-9]{4}", _any_of(personnummer.is_valid, kennitala.is_valid)),
    Shaped(r"(?:19[0-9]|200)[0-9]{5}-[0-9]{4}", personnummer.is_valid),
    Shaped(r"[0-9]{6}/[0-9]{4}", rc.is_valid),
    Shaped(r"[0-9]{6}[A-FU-Y+-][0-9]{3}[0-9A-FHJ-NPR-Y]", hetu.is_valid),
    Shaped(r"[0-9]{6} ?[0-9]{5}", fodselsnummer.is_valid),
    Shaped(r"[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]", codicefiscale.is_valid),
    Shaped(r"[A-Z]{4}[0-9]{6}[HMX][A-Z]{5}[0-9A-Z][0-9]", curp.is_valid),
    Shaped(r"[0-9]{8}-?[A-HJ-NP-TV-Z]", _undated(dni.is_valid)),
    Shaped(r"[0-9]{2}\.[0-9]{3}\.[0-9]{3}-?[A-HJ-NP-TV-Z]", dni.is_valid),
    Shaped(r"[XYZ]-?[0-9]{7}-?[A-HJ-NP-TV-Z]", nie.is_valid),
    Shaped(_NINO + r" [0-9]{2} [0-9]{2} [0-9]{2} ?[A-D]", _nino),
    Shaped(r"[1-9][0-9]{5} ?(?:18|19|20)[0-9]{2}[01][0-9][0-3][0-9] ?[0-9]{3}[0-9X]", ric.is_valid),
    Shaped(r"[12] ?[0-9]{2} ?[0-9]{2} ?[0-9][0-9AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", nir.is_valid),
    Shaped(r"[0-9]-[0-9]{4}-[0-9]{5}-[0-9]{2}-[0-9]", pin.is_valid),
    Shaped(r"[STFG][0-9]{7}[A-Z]", _singapore),
    Shaped(r"[0-9]{6}-[0-9]{2}-[0-9]{4}", nric.is_valid),
    Shaped(r"[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}-[0-9Kk]", rut.is_valid),
    Shaped(r"[0-9]{2}-[0-9]{8}-[0-9]", cuit.is_valid),
    Shaped(r"[0-9]{3}-[0-9]{7}-[0-9]", cedula.is_valid),
    Shaped(r"[0-9]{3}-[0-9]{3}-[0-9]{3} [0-9]{2}", _snils),
)

NAMED = (
    Named(r"SSN|[Ss]ocial [Ss]ecurity|SOCIAL SECURITY|ssn", r"[0-9]{3}[ .]?[0-9]{2}[ .]?[0-9]{4}", _always),
    Named(r"SSN|[Ss]ocial [Ss]ecurity|SOCIAL SECURITY|ssn", r"[0-9]{3}-[0-9]{2}-[0-9]{4}", _always, near=True),
    # As scanners misread it.
    Named(r"SSN", r"[0-9OIlSBZ]{3}-[0-9OIlSBZ]{2}-[0-9OIlSBZ]{4}", _has_digits(6)),
    Named(r"(?:ID|[Ii]dentification) [Nn]umber|[Tt]ax ID", r"[0-9]{3}-[0-9]{2}-[0-9]{4}", _always),
    Named(r"ITIN", r"9[0-9]{2}[ -]?[0-9]{2}[ -]?[0-9]{4}", itin.is_valid),
    Named(r"NINO|[Nn]ational [Ii]nsurance|NI [Nn]umber", _NINO + r"[ -]?(?:[0-9]{2}[ -]?){3}[A-D]", _nino),
    Named(r"NHS", r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}", nhs.is_valid),
    Named(
        r"IdNr|Steuer-?(?:ID|IdNr)|[Ii]dentifikationsnummer|TIN",
        r"[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}",
        idnr.is_valid,
    ),
    Named(r"[Nn]uméro fiscal|SPI|NIF", r"[0-3][0-9](?: ?[0-9]){11}", fr_nif.is_valid),
    Named(r"BSN|[Bb]urgerservicenummer|[Ss]ofinummer", r"[0-9]{4}[ .]?[0-9]{2}[ .]?[0-9]{3}|[0-9]{9}", bsn.is_valid),
    Named(r"PESEL|pesel", r"[0-9]{11}", pesel.is_valid),
    Named(r"[Pp]ersonnummer|[Pp]ersnr", r"(?:[0-9]{2})?[0-9]{6}[+-]?[0-9]{4}", personnummer.is_valid),
    Named(r"CPR|cpr|[Pp]ersonnummer", r"[0-9]{6}[ -]?[0-9]{4}", cpr.is_valid),
    Named(r"[Ff]ødselsnummer|[Pp]ersonnummer|D-nummer", r"[0-9]{6} ?[0-9]{5}", fodselsnummer.is_valid),
    Named(r"[Rr]ijksregister(?:nummer)?|NISS|INSZ|[Rr]egistre [Nn]ational", r"[0-9]{2}(?:[ .-]?[0-9]){9}", nn.is_valid),
    Named(r"NIF|[Cc]ontribuinte", r"[0-9]{3}[ .]?[0-9]{3}[ .]?[0-9]{3}", pt_nif.is_valid),
    Named(r"DNI|NIF|NIE", r"[XYZ]?[0-9]{7,8}[ -]?[A-Z]", _any_of(dni.is_valid, nie.is_valid)),
    Named(r"DNI", r"[0-9]{2}\.[0-9]{3}\.[0-9]{3}", _always),
    Named(r"CPF", r"[0-9]{3}[ .]?[0-9]{3}[ .]?[0-9]{3}[ -]?[0-9]{2}", cpf.is_valid),
    Named(r"[Aa]adhaa?r|UIDAI|आधार", r"[2-9][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}", aadhaar.is_valid),
    Named(r"PAN|[Pp]ermanent [Aa]ccount", r"[A-Z]{3}[ABCFGHJLPT][A-Z][0-9]{4}[A-Z]", _always),
    Named(r"주민(?:등록)?번호|RRN", r"[0-9]{6}-?[1-8][0-9]{6}", _always),
    Named(r"SIN|NAS|[Ss]ocial [Ii]nsurance|[Aa]ssurance sociale", _TRIPLES, sin.is_valid),
    Named(r"TFN|[Tt]ax [Ff]ile", r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{2,3}", tfn.is_valid),
    Named(r"T\.?C\.? ?[Kk]imlik|TCKN|T\.C\.|[Kk]imlik", r"[1-9][0-9]{10}", tckimlik.is_valid),
    Named(r"(?:SA|RSA|South African) ID|ID [Nn]umber|[Ii]dentity [Nn]umber", r"[0-9]{13}", za_idnr.is_valid),
    Named(r"CURP|RFC", r"[A-Z]{4}[0-9]{6}[HMX][A-Z]{5}[0-9A-Z][0-9]", _always),
    Named(r"CNP|[Cc]od [Nn]umeric [Pp]ersonal", r"[1-9][0-9]{12}", cnp.is_valid),
    Named(r"ЕГН|EGN", r"[0-9]{10}", egn.is_valid),
    Named(r"RČ|[Rr]odné číslo|[Rr]\. ?č\.", r"[0-9]{6} ?/? ?[0-9]{3,4}", rc.is_valid),
    Named(r"OIB", r"[0-9]{11}", oib.is_valid),
    Named(r"[Ii]sikukood|[Aa]smens kodas|a\. ?k\.", r"[1-8][0-9]{10}", _any_of(ik.is_valid, asmens.is_valid)),
    Named(r"EMŠO|JMBG|ЈМБГ|ЕМБГ|EMBG", r"[0-9]{13}", emso.is_valid),
    Named(r"PPSN?|[Pp]ersonal [Pp]ublic [Ss]ervice", r"[0-9]{7}[A-W][ABHW]?", pps.is_valid),
    Named(r"תעודת זהות|ת\.ז\.?|[Tt]eudat [Zz]ehut|מספר זהות", r"[0-9]{9}", il_idnr.is_valid),
    Named(r"AMKA|ΑΜΚΑ", r"[0-9]{11}", amka.is_valid),  # noqa: RUF001
    Named(r"РНОКПП|ІПН|RNTRC", r"[0-9]{10}", rntrc.is_valid),
    Named(r"ИНН|INN", r"[0-9]{12}", inn.is_valid),
    Named(r"СНИЛС|SNILS", r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{2}", _snils),
    Named(r"[Kk]ennitala|kt\.", r"[0-9]{6}[ -]?[0-9]{4}", kennitala.is_valid),
    Named(r"AHV|AVS|[Ss]ozialversicherungsnummer", r"756[ .]?[0-9]{4}[ .]?[0-9]{4}[ .]?[0-9]{2}", ahv.is_valid),
    Named(r"SVNR|SV-?N(?:umme)?r|[Ss]ozialversicherungsnummer", r"[1-9][0-9]{3} ?[0-9]{6}", vnr.is_valid),
    Named(r"[Aa]bgabenkontonummer|[Ss]teuernummer", r"[0-9]{2}[ -]?[0-9]{3}/?[0-9]{4}", at_tin.is_valid),
    Named(r"IRD", r"[0-9]{2,3}[ -]?[0-9]{3}[ -]?[0-9]{3}", ird.is_valid),
    Named(r"[Cc]édula|C\.?I\.?", r"[0-9]{9}-?[0-9]", ci.is_valid),
    Named(r"[Cc]édula", r"[0-9]{1,3}(?:\.[0-9]{3}){2,3}", _always),
    Named(r"NIK|KTP", r"[0-9]{16}", nik.is_valid),
    Named(r"マイナンバー|個人番号|[Mm]y [Nn]umber", r"[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}", my_number.is_valid),
    Named(r"身份证(?:号码?|號碼?)?|居民身份证", r"[1-9][0-9]{16}[0-9X]", _always),
    Named(r"NIR|[Ss]écurité [Ss]ociale|INSEE", r"[12](?: ?[0-9]){4} ?[0-9][0-9AB](?: ?[0-9]){6,8}", nir.is_valid),
    Named(
        r"(?:[Nn]ational|NATIONAL)[ -](?:ID|[Ii]d(?:entity|entification)?)(?: [Cc]ard)?"
        r"|(?:ID|[Ii]dentity|[Ii]dentification|IDENTITY)[ -](?:[Cc]ard|CARD)|[Tt]ax(?:payer)? ID"
        r"|[Ii]dentity [Dd]ocument"
        r"|[Pp]ersonalausweis(?:nummer)?|[Cc]arte (?:nationale )?d'identité|[Cc]arta d'identità|[Dd]owód osobisty",
        r"[A-Z]{0,4}[ -]?[0-9][ 0-9A-Z-]{4,18}[0-9A-Z]",
        _has_digits(5),
    ),
    Named(
        r"[Pp]assports?|PASSPORT|[Pp]asseport|[Rr]eisepass|[Pp]assnummer|[Pp]asaporte|[Pp]assaporto|[Pp]aspoort|[Pp]aszport"
        r"|[Pp]assaporte|[Pp]asaport|[Пп]аспорт|护照号?码?|旅券番号|여권번호",
        r"[A-Z]{0,3}[0-9][0-9A-Z]{5,10}",
        _has_digits(6),
    ),
    Named(
        r"(?:[Dd]river|[Dd]riving|DRIVER|DRIVING)'?[Ss]?'? [Ll][Ii][Cc][Ee][Nn][CcSs][Ee]|[Ff]ührerschein(?:nummer)?"
        r"|[Pp]ermis de conduire|[Pp]ermiso de conducir|[Pp]atente di guida|[Rr]ijbewijs",
        r"[A-Z]{0,5}[ -]?[0-9][0-9A-Z-]{4,18}[0-9A-Z]",
        _has_digits(5),
    ),
    # Of a notary, a physician, a driver: those of software have other shapes.
    Named(r"[Ll]icen[cs]e", r"[A-Z]{1,3}[ -]?[0-9]{5,9}", _always),
)

_BETWEEN = (
    r"(?:(?: ?(?:[Nn]umber|NUMBER|[Nn]ummer|[Nn]umero|[Nn]úmero|[Nn]uméro|[Nn]umer|[Nn]o|NO|[Nn]r|NR|[Nn][°º]|#|ID"
    r"|[Cc]ode)(?![A-Za-z])\.?|[\s:=.#(\"'°º，：-]|(?:is|are|ist|est|es|è|é|de|del|di|do|der)(?![A-Za-z])){0,8}+)"  # noqa: RUF001
)
_WIDELY = r"[^0-9]{0,60}?(?<![0-9A-Za-z-])"
_AFTER = r"(?![0-9A-Za-z_]|[-/+][0-9A-Za-z]|[.,][0-9])"
_START = re.compile(r"[0-9A-Z](?<![0-9A-Za-z_./#+-][0-9A-Z])(?<![0-9],[0-9A-Z])(?=(?:[ \u00a0./+-]?[0-9A-Z]){7})")
"""Where eight digits and capitals or more begin: most texts have few such places."""
_SHAPED = re.compile(
    "(?:" + "|".join(f"(?P<s{i}>{_spaced(each.shape)})" for i, each in enumerate(SHAPED)) + ")" + _AFTER
)
_LABELS = re.compile("(?<![A-Za-z])(?:" + "|".join(_spaced(each.label) for each in NAMED) + ")s?(?![A-Za-z])")
_NAMED = tuple(
    re.compile(
        rf"(?:{_spaced(each.label)})s?(?![A-Za-z]){_WIDELY if each.near else _BETWEEN}"
        rf"(?P<value>{_spaced(each.shape)})(?![0-9A-Za-z])"
    )
    for each in NAMED
)
_NUMBER = re.compile(r"[0-9](?:[ \u00a0./-]?[0-9]){3,}+")
_REACH = 80
"""Characters before a number in which its label begins."""

_GATE = (
    "(?:^|[^0-9A-Za-z])(?:" + "|".join(_spaced(each.shape) for each in SHAPED) + ")(?:$|[^0-9A-Za-z])|"
    "(?:^|[^A-Za-z])(?:" + "|".join(_spaced(each.label) for each in NAMED) + ")s?(?:[^A-Za-z0-9][^0-9]{0,60})?[0-9]"
)


def find_ids(text: str) -> list[Span]:
    """Spans of national identity, tax and insurance numbers, and of passports and driving licences that are named."""
    shaped = [_shaped(text, match.start()) for match in _START.finditer(text)]
    return in_order([*filter(None, shaped), *_find_named(text)])


def _shaped(text: str, start: int) -> Span | None:
    """The number of its own shape that begins at a place."""
    match = _SHAPED.match(text, start)
    return match.span() if match and SHAPED[int((match.lastgroup or "s0")[1:])].check(match.group()) else None


def _find_named(text: str) -> list[Span]:
    """Numbers that follow a label: only the surroundings of numbers are searched for labels, each once."""
    spans: list[Span] = []
    searched = 0
    for number in _NUMBER.finditer(text):
        begin = max(searched, number.start() - _REACH)
        for label in _LABELS.finditer(text, begin, number.start()):
            spans += [span for each in range(len(NAMED)) if (span := _named(text, label.start(), each))][:1]
        searched = number.start()
    return spans


def _named(text: str, start: int, index: int) -> Span | None:
    """The number of one kind that a label at a place announces."""
    match = _NAMED[index].match(text, start)
    return match.span("value") if match and NAMED[index].check(match["value"]) else None


NATIONAL_ID = Detector("national_id", _GATE, find_ids)
