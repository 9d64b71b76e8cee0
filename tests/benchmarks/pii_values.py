"""Personal numbers made by chance that pass their checks, in sentences, and the same with a wrong character.

For the kinds that the annotated records lack. A template gives `#` for a digit and `@` for a capital; what it yields is
drawn until the check holds.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stdnum import iban, luhn
from stdnum.au import tfn
from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cl import rut
from stdnum.cn import ric
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.hr import oib
from stdnum.in_ import aadhaar
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.pt import nif
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.tr import tckimlik
from stdnum.us import ssn
from stdnum.za import idnr as za_idnr


@dataclass(frozen=True)
class Made:
    """One sort of value."""

    kind: str
    name: str
    template: str
    check: Callable[[str], bool]
    label: str = ""
    weak: bool = False
    """Whether a wrong character still leaves what the label alone makes personal."""


def _iban(text: str) -> bool:
    return iban.is_valid(text, check_country=False)


SORTS = (
    Made("card", "Visa", "4### #### #### ####", luhn.is_valid),
    Made("card", "Mastercard", "53##############", luhn.is_valid),
    Made("card", "American Express", "37## ###### #####", luhn.is_valid),
    Made("card", "Discover", "6011-####-####-####", luhn.is_valid),
    Made("iban", "DE", "DE## #### #### #### #### ##", _iban),
    Made("iban", "GB", "GB##@@@@##############", _iban),
    Made("iban", "FR", "FR## #### #### #### #### #### ###", _iban),
    Made("iban", "NL", "NL##@@@@##########", _iban),
    Made("iban", "NO", "NO## #### #### ###", _iban),
    Made("national_id", "US SSN", "###-##-####", ssn.is_valid, weak=True),
    Made("national_id", "GB NHS", "### ### ####", nhs.is_valid, "NHS number"),
    Made("national_id", "DE IdNr", "###########", idnr.is_valid, "Steuer-ID"),
    Made("national_id", "FR NIR", "2 8# 0# 7# ### ### ##", nir.is_valid),
    Made("national_id", "ES DNI", "########@", dni.is_valid),
    Made("national_id", "ES NIE", "X#######@", nie.is_valid),
    Made("national_id", "IT codice fiscale", "@@@@@@##A##@###@", codicefiscale.is_valid),
    Made("national_id", "NL BSN", "#########", bsn.is_valid, "BSN"),
    Made("national_id", "PL PESEL", "##0#1######", pesel.is_valid, "PESEL"),
    Made("national_id", "SE personnummer", "##0#1#-####", personnummer.is_valid),
    Made("national_id", "DK CPR", "1#0###-####", cpr.is_valid, "CPR", weak=True),
    Made("national_id", "FI hetu", "1#0###-###@", hetu.is_valid),
    Made("national_id", "NO fødselsnummer", "1#0########", fodselsnummer.is_valid),
    Made("national_id", "BE NN", "##.0#.1#-###.##", nn.is_valid),
    Made("national_id", "PT NIF", "2########", nif.is_valid, "NIF"),
    Made("national_id", "BR CPF", "###.###.###-##", cpf.is_valid),
    Made("national_id", "IN Aadhaar", "#### #### ####", aadhaar.is_valid, "Aadhaar"),
    Made("national_id", "CN resident id", "11010519800512####", ric.is_valid),
    Made("national_id", "KR RRN", "##0#1#-1######", rrn.is_valid),
    Made("national_id", "CA SIN", "### ### ###", sin.is_valid, "SIN"),
    Made("national_id", "AU TFN", "### ### ###", tfn.is_valid, "TFN"),
    Made("national_id", "TR kimlik", "###########", tckimlik.is_valid, "T.C. Kimlik No"),
    Made("national_id", "ZA id", "##0#1########", za_idnr.is_valid, "ID number"),
    Made("national_id", "RO CNP", "1##0#1#######", cnp.is_valid, "CNP"),
    Made("national_id", "HR OIB", "###########", oib.is_valid, "OIB"),
    Made("national_id", "CZ rodné číslo", "##0#1#/####", rc.is_valid),
    Made("national_id", "CL RUT", "1#.###.###-#", rut.is_valid),
    Made("national_id", "CH AHV", "756.####.####.##", ahv.is_valid),
)
SENTENCES = ("It was {} in the file.", "Bitte senden Sie {}, danke.", "({})", "Datos: {}\nGracias", "{}; 12 March 2024")


def make(number: int, seed: int = 0) -> Iterator[tuple[Made, str, str, str | None]]:
    """Values of each sort: the sort, the value, a text with it, and a text with a wrong value where that must stay."""
    chance = random.Random(seed)
    for sort in SORTS:
        for index in range(number):
            value = draw(sort, chance, right=True)
            wrong = None if sort.weak else sentence(sort, draw(sort, chance, right=False), index)
            yield sort, value, sentence(sort, value, index), wrong


def draw(sort: Made, chance: random.Random, right: bool) -> str:
    """A value of the template that passes the check, or one that does not."""
    while True:
        value = "".join(
            chance.choice("0123456789")
            if sign == "#"
            else chance.choice("ABCDEFGHJKLMNPQRSTUVWXYZ")
            if sign == "@"
            else sign
            for sign in sort.template
        )
        if sort.check(value.replace(" ", "").replace("-", "") if sort.kind == "card" else value) == right:
            return value


def sentence(sort: Made, value: str, index: int) -> str:
    """A sentence with a value after its label."""
    return SENTENCES[index % len(SENTENCES)].format(f"{sort.label}: {value}" if sort.label else value)
