"""Redact: personal data becomes a fixed tag, and what looks like it but fails its checksum stays.

Every kind has a detector (a module of this folder). Detectors run in one order of priority over the
original text; what one has claimed, the next ones do not see, so that the digits of a card are never also a telephone
number. Tags are the same for every find, so a document's bytes never depend on what its worker saw before. Arrow tries
each detector's gate over a whole batch first, because most documents hold nothing to find.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Any, Literal, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute
from pydantic import Field

from infra.settings import Settings
from tasks.inputs import UserFile, pinned
from tasks.privacy.birth_dates import BIRTH_DATE
from tasks.privacy.emails import EMAIL
from tasks.privacy.names import load_names, name_detector
from tasks.privacy.national_ids import NATIONAL_ID
from tasks.privacy.network import MAC, Scope, ip_detector
from tasks.privacy.payments import CARD, IBAN, WALLET
from tasks.privacy.phones import phone_detector
from tasks.privacy.places import COORDINATES
from tasks.privacy.secrets import SECRETS
from tasks.privacy.spans import Detector, Span
from tasks.stage import Split, Stage, replace_columns, split_by_reason

compute: Any = pyarrow.compute  # its functions are made when it is imported; type checkers see none

REDACT = Stage(
    "redact", 2, libraries=("pyarrow", "phonenumbers", "python-stdnum", "tldextract", "spacy"), private=False
)
Kind = Literal[
    "secret",
    "email",
    "iban",
    "card",
    "national_id",
    "coordinates",
    "wallet",
    "ip",
    "mac",
    "birth_date",
    "phone",
    "name",
]
PRIORITY: tuple[Kind, ...] = get_args(Kind)
"""Which kind a text is where two could be found in it: the earlier."""

SELDOM = frozenset({"iban", "card", "coordinates", "wallet", "ip", "mac"})
"""Kinds whose gates one automaton holds without growing slow."""


class RedactSettings(Settings):
    """Which kinds of personal data are replaced, and what is left alone."""

    kinds: tuple[Kind, ...] = (
        "secret",
        "email",
        "iban",
        "card",
        "national_id",
        "coordinates",
        "wallet",
        "ip",
        "mac",
        "phone",
        "name",
    )
    """Kinds to replace, each by its tag such as <EMAIL>: keys and passwords; e-mail addresses; IBANs; payment cards;
    national ids with passports and driving licences; street-level coordinates; Bitcoin addresses; IP and MAC addresses;
    dates of birth that are named so; telephone numbers; names, for which name_model must be set."""
    phone_regions: tuple[str, ...] = ("US",)
    """Regions whose numbers are found without a country code; numbers that start with + are always found."""
    language_regions: dict[str, tuple[str, ...]] = Field(
        default={
            "ar": ("EG", "SA", "AE"), "bg": ("BG",), "cs": ("CZ",), "da": ("DK",), "de": ("DE", "AT", "CH"),
            "el": ("GR",), "en": ("GB",), "es": ("ES", "MX", "AR"), "fi": ("FI",), "fr": ("FR", "BE", "CH"),
            "he": ("IL",), "hi": ("IN",), "hr": ("HR",), "hu": ("HU",), "id": ("ID",), "it": ("IT",), "ja": ("JP",),
            "ko": ("KR",), "lt": ("LT",), "nl": ("NL", "BE"), "no": ("NO",), "pl": ("PL",), "pt": ("BR", "PT"),
            "ro": ("RO",), "ru": ("RU",), "sk": ("SK",), "sl": ("SI",), "sv": ("SE",), "tr": ("TR",), "uk": ("UA",),
            "vi": ("VN",), "zh": ("CN", "TW", "HK"),
        }
    )  # fmt: skip
    """Further regions for documents of a language."""
    ip_scope: Scope = "public"
    """Whether only public IP addresses are replaced, or private and documentation ones too."""
    name_model: UserFile | None = None
    """Folder with a spaCy pipeline that finds names; unset finds none."""
    name_labels: tuple[str, ...] = ("PERSON", "PER")
    """Entity labels of the name model that are names of persons."""
    allow: dict[Kind, tuple[str, ...]] = Field(default={})
    """Finds that stay, by kind, as patterns with * and ? in any case: {"email": ["*@example.com"]}."""
    max_redactions: int | None = Field(default=None, ge=0)
    """Documents with more finds are dropped as too_much_personal_data (dolma drops above 5); unset drops none."""


def pinned_names(settings: RedactSettings) -> RedactSettings:
    """The settings with the digest of their name model; BadInput if it is absent or no pipeline that finds entities."""
    if settings.name_model is None:
        return settings
    model = pinned(settings.name_model)
    load_names(model.path, model.sha256)
    return settings.model_copy(update={"name_model": model})


def redact(table: pa.Table, settings: RedactSettings) -> Split:
    """Replace personal data in each text, and drop the documents that hold more of it than the settings allow.

    Dropped documents are redacted too. Counters: redacted_<kind> and redacted_documents of all documents, and the
    text_bytes of those that are kept.
    """
    counts: Counter[str] = Counter(redacted_documents=0)
    totals = [0] * table.num_rows
    rows, clean_texts = [], []
    for row, text, detectors in _suspects(table, settings):
        clean, found = _replace(text, detectors, settings)
        if found:
            rows.append(row)
            clean_texts.append(clean)
            totals[row] = sum(found.values())
            counts["redacted_documents"] += 1
            counts.update({f"redacted_{kind}": number for kind, number in found.items()})
    if rows:
        mask = np.zeros(table.num_rows, bool)
        mask[rows] = True
        text = _column(table)
        table = replace_columns(
            table, {"text": compute.replace_with_mask(text, pa.array(mask), pa.array(clean_texts, text.type))}
        )
    most = settings.max_redactions
    reasons = ["too_much_personal_data" if most is not None and total > most else None for total in totals]
    kept, dropped = split_by_reason(table, REDACT.name, reasons, [float(total) for total in totals])
    counts["text_bytes"] += compute.sum(compute.binary_length(kept["text"])).as_py() or 0
    return Split(kept, dropped, counters=counts)


def redact_text(text: str, settings: RedactSettings, language: str | None = None) -> tuple[str, dict[str, int]]:
    """A text with tags in place of personal data, and how many of each kind were replaced.

    Args:
        text: the text.
        settings: what is replaced.
        language: ISO 639 code of the text's language, which suggests regions of telephone numbers.

    """
    return _replace(text, _detectors(settings, language), settings)


def find_personal_data(text: str, settings: RedactSettings, language: str | None = None) -> list[tuple[Span, Kind]]:
    """Spans of personal data with their kinds, in order, that do not overlap."""
    return _find(text, _detectors(settings, language), settings)


def _suspects(table: pa.Table, settings: RedactSettings) -> Iterator[tuple[int, str, list[Detector]]]:
    """Rows whose text passes a gate, with the text and the detectors of the gates that it passes."""
    column = _column(table)
    passed = _gates(column, _detectors(settings))
    for row in np.flatnonzero(passed.any(axis=0)).tolist():
        detectors = _detectors(settings, table["language"][row].as_py())
        yield row, column[row].as_py(), [each for each, open_ in zip(detectors, passed[:, row], strict=True) if open_]


def _column(table: pa.Table) -> pa.Array:
    """The texts as one array, without a copy where they are one already."""
    column = table["text"]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _gates(column: pa.Array, detectors: Sequence[Detector]) -> np.ndarray:
    """Which gates (rows) each text (columns) passes. Those that few texts pass are tried as one first."""
    passed = np.zeros((len(detectors), len(column)), bool)
    together = [index for index, each in enumerate(detectors) if each.kind in SELDOM]
    union = "|".join(f"(?:{detectors[index].gate})" for index in together)
    some = np.flatnonzero(_matches(column, union)) if together else np.zeros(0, np.int64)
    fewer = column.take(pa.array(some))
    for index, each in enumerate(detectors):
        if index in together:
            passed[index, some] = _matches(fewer, each.gate)
        else:
            passed[index] = _matches(column, each.gate)
    return passed


def _matches(column: pa.Array, expression: str) -> np.ndarray:
    return compute.match_substring_regex(column, expression).to_numpy(zero_copy_only=False).astype(bool)


def _replace(text: str, detectors: Sequence[Detector], settings: RedactSettings) -> tuple[str, dict[str, int]]:
    parts: list[str] = []
    end = 0
    found: Counter[str] = Counter()
    for (start, stop), kind in _find(text, detectors, settings):
        parts += [text[end:start], f"<{kind.upper()}>"]
        end = stop
        found[kind] += 1
    return ("".join([*parts, text[end:]]) if found else text), dict(found)


def _find(text: str, detectors: Sequence[Detector], settings: RedactSettings) -> list[tuple[Span, Kind]]:
    """Finds of each detector in what the earlier ones have left; what they claimed reads as line ends."""
    finds: list[tuple[Span, Kind]] = []
    left = text
    for detector in detectors:
        kind: Kind = cast("Any", detector.kind)
        spans = detector.find(left)
        left = _without(left, spans)
        allowed = _patterns(settings.allow.get(kind, ()))
        finds.extend((span, kind) for span in spans if not (allowed and allowed.fullmatch(text, *span)))
    return sorted(finds)


def _without(text: str, spans: list[Span]) -> str:
    """A text of the same length with line ends in place of some spans."""
    parts: list[str] = []
    end = 0
    for start, stop in spans:
        parts += [text[end:start], "\n" * (stop - start)]
        end = stop
    return "".join([*parts, text[end:]]) if spans else text


@lru_cache(maxsize=64)
def _patterns(globs: tuple[str, ...]) -> re.Pattern[str] | None:
    """One expression for patterns with * and ?; None for none."""
    return re.compile("|".join(map(translate, globs)), re.IGNORECASE) if globs else None


def _detectors(settings: RedactSettings, language: str | None = None) -> tuple[Detector, ...]:
    """Detectors of the chosen kinds, in order of priority, for documents of a language."""
    kinds = tuple(kind for kind in PRIORITY if kind in settings.kinds)
    regions = dict.fromkeys((*settings.phone_regions, *settings.language_regions.get(language or "", ())))
    model = settings.name_model
    named = (model.path, model.sha256, settings.name_labels) if model else None
    return _detectors_of(kinds, tuple(regions), settings.ip_scope, named)


@lru_cache(maxsize=128)
def _detectors_of(
    kinds: tuple[Kind, ...],
    regions: tuple[str, ...],
    scope: Scope,
    names: tuple[str, str | None, tuple[str, ...]] | None,
) -> tuple[Detector, ...]:
    every = [*SECRETS, EMAIL, IBAN, CARD, NATIONAL_ID, COORDINATES, WALLET, ip_detector(scope), MAC, BIRTH_DATE]
    every.append(phone_detector(regions))
    if names is not None and "name" in kinds:
        every.append(name_detector(*names))
    return tuple(each for kind in kinds for each in every if each.kind == kind)
