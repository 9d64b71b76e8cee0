"""Quality: four families of published rules, measured once and judged as often as one likes.

*Measuring* (`measure`) reads the texts, lets C4's line rules edit them, and gives one row of signals for each, whether
or not a rule would drop it. *Judging* (`rules`, `verdicts`) compares signals with thresholds, so that other thresholds
need the signals only. Ratios are float64, as they are compared; judged again from a file, they give the same verdict.
With the default settings and `rules_language="en"`, verdict and first reason are those of datatrove 0.10.1's chain of
GopherRepetition, GopherQuality, C4Quality (as in its FineWeb recipe) and FineWebQuality.

By default a document is judged by the rules of its own language: words and sentences by spaCy's rules for it, stop
words from spaCy's list (Gopher's for English), and thresholds of FineWeb-2 where English ones would be wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from infra.settings import Settings
from tasks.quality import c4 as c4_rules
from tasks.quality import fineweb as fineweb_rules
from tasks.quality import gopher, repetition
from tasks.quality.c4 import C4Editing, C4Settings
from tasks.quality.fineweb import FineWebSettings
from tasks.quality.gopher import GopherQualitySettings
from tasks.quality.repetition import RepetitionSettings
from tasks.quality.word_rules import UNSPACED
from tasks.quality.words import word_splitter
from tasks.rules import Rule, Verdicts, judge

RULES = (*repetition.RULES, *gopher.RULES, *c4_rules.RULES, *fineweb_rules.RULES)
"""All rules, in datatrove's order: the first that fails gives the reason."""
QUALITY_SIGNALS = pa.schema(
    [
        pa.field("rules_language", pa.string()),
        pa.field("characters", pa.int64()),
        pa.field("words", pa.int64()),
        pa.field("lines", pa.int64()),
        pa.field("sentences", pa.int64()),
        *repetition.SIGNALS,
        *gopher.SIGNALS,
        *c4_rules.SIGNALS,
        *fineweb_rules.SIGNALS,
    ]
)
"""One row for each text: the language whose rules it was measured by (null: any), characters, words (symbols too),
lines and sentences before editing, and what the rules need; null where a value is not defined."""
OTHERS = "*"
ENGLISH = "en"
_AT_ONCE = 1 << 20  # characters that are worked on together


class QualitySignalSettings(Settings):
    """What is measured, and how the text is edited: the choices that are not thresholds."""

    rules_language: str | None = Field(default=None, min_length=2)
    """Measure every document by the rules of this language (ISO 639 code); unset means each by those of its own."""
    languages_with_rules: tuple[str, ...] | None = None
    """Languages whose own rules are loaded (a third of a CPU second each, in every worker); documents of others are
    measured by the rules for any language. Unset loads those of every language that occurs."""
    c4: C4Editing = C4Editing()
    """C4's line rules, which edit the text."""
    stop_words: Mapping[str, tuple[str, ...]] = {ENGLISH: gopher.ENGLISH_STOP_WORDS}
    """Stop words by language, as written in text; other languages have spaCy's. Source of the default: Gopher."""
    short_line_length: int = Field(default=30, ge=0)
    """Lines of at most so many characters are short (FineWeb)."""

    def language_of_rules(self, language: str | None) -> str | None:
        """The language by whose rules a document of some language is measured; None for those of any language."""
        if self.rules_language is not None:
            return self.rules_language
        own = self.languages_with_rules
        return language if own is None or language in own or language in UNSPACED else None


def published_overrides() -> dict[str, dict[str, float | None]]:
    """Thresholds for languages other than English.

    Word lengths, letters and the rules switched off are FineWeb-2's (huggingface/fineweb-2, configs and pipeline).
    Where words have no spaces between them the unit is a character: five to nine of them are no long n-gram, and ten
    are about five words, for which FineWeb-2's share holds. Where sentences have no marks, none can be asked for.
    """
    lengths = {"de": (0, 15), "fr": (2, 11), "ru": (3, 11), "fi": (4, 13), "ar": (2, 9), "hi": (2, 21), "vi": (3, 11)}
    letters = {"de": 0.774, "fr": 0.812, "ru": 0.713, "fi": 0.755, "ar": 0.787, "hi": 0.837, "vi": 0.803, "ta": 0.779}
    lengths |= {"ta": (5, 37)}
    overrides: dict[str, dict[str, float | None]] = {
        OTHERS: {
            "gopher_quality.min_mean_word_length": None,
            "gopher_quality.max_mean_word_length": None,
            "fineweb.max_short_lines": None,
            "fineweb.max_duplicate_characters": 0.1,
        }
    }
    for language, (shortest, longest) in lengths.items():
        overrides[language] = {
            "gopher_quality.min_mean_word_length": shortest,
            "gopher_quality.max_mean_word_length": longest,
            "gopher_quality.min_alphabetic_words": letters[language],
        }
    ten = {"ja": 0.307, "th": 0.185, "lo": 0.185, "my": 0.197, "km": 0.197, "bo": 0.197, "dz": 0.197}
    for language in sorted(UNSPACED):
        overrides[language] = {
            **{f"gopher_repetition.max_duplicate_{n}_grams": None for n in range(5, 10)},
            "gopher_repetition.max_duplicate_10_grams": ten.get(language, 0.198),
            "gopher_quality.min_alphabetic_words": 0.7,
        }
    for language in ("th", "lo", "bo", "dz"):
        overrides[language] |= {"c4.min_sentences": None, "fineweb.min_terminal_lines": None}
    return overrides


class QualitySettings(Settings):
    """Thresholds by family; the defaults are datatrove's FineWeb recipe. A new verdict needs the signals only."""

    gopher_repetition: RepetitionSettings = RepetitionSettings()
    """Repeated paragraphs, lines and n-grams."""
    gopher_quality: GopherQualitySettings = GopherQualitySettings()
    """Words, symbols and lines."""
    c4: C4Settings = C4Settings()
    """Documents that the C4 rules drop."""
    fineweb: FineWebSettings = FineWebSettings()
    """Lines after editing."""
    by_language: dict[str, dict[str, float | None]] = Field(default_factory=published_overrides)
    """Other thresholds for some languages, such as {"de": {"gopher_quality.max_mean_word_length": 15}}; null switches
    a rule off. Those of * hold for all languages but English, and for a language's own they are the base. What is
    set here takes the place of the default as a whole."""

    @field_validator("by_language")
    @classmethod
    def _known_thresholds(cls, value: dict[str, dict[str, float | None]]) -> dict[str, dict[str, float | None]]:
        known = {rule.setting for rule in RULES}
        for language, thresholds in value.items():
            for name in thresholds:
                if name not in known:
                    raise ValueError(f"{language}.{name} is no threshold; known are {', '.join(sorted(known))}")
        return value

    def threshold(self, setting: str, language: str | None) -> float | None:
        """A threshold for documents of a language; None switches its rule off."""
        names = [language] if language == ENGLISH else [language, OTHERS]
        for name in names:
            if name is not None and setting in (own := self.by_language.get(name, {})):
                return own[setting]
        family, _, name = setting.partition(".")
        return getattr(getattr(self, family), name)


def measure(
    texts: Sequence[str], languages: Sequence[str | None], settings: QualitySignalSettings
) -> tuple[list[str], pa.Table]:
    """Edited texts, and a row of QUALITY_SIGNALS for each; `languages` are the documents' own, None if unknown."""
    chosen = [settings.language_of_rules(language) for language in languages]
    edited = [""] * len(texts)
    columns: dict[str, np.ndarray] = {name: np.full(len(texts), np.nan) for name in QUALITY_SIGNALS.names[1:]}
    for rows in _batches(texts, chosen):
        edits, signals = _measure_batch([texts[row] for row in rows], chosen[rows[0]], settings)
        for row, text in zip(rows, edits, strict=True):
            edited[row] = text
        for name, values in signals.items():
            columns[name][rows] = values
    arrays = [
        pa.array(columns[each.name], pa.float64(), from_pandas=True).cast(each.type)
        for each in list(QUALITY_SIGNALS)[1:]
    ]
    return edited, pa.table([pa.array(chosen, pa.string()), *arrays], schema=QUALITY_SIGNALS)


def _batches(texts: Sequence[str], languages: Sequence[str | None]) -> list[list[int]]:
    """Rows of one language each, in order, together not much longer than _AT_ONCE."""
    batches: list[list[int]] = []
    open_batches: dict[str | None, tuple[list[int], int]] = {}
    for row, (text, language) in enumerate(zip(texts, languages, strict=True)):
        rows, size = open_batches.get(language, ([], _AT_ONCE))
        if size >= _AT_ONCE:
            batches.append(rows := [])
            size = 0
        rows.append(row)
        open_batches[language] = rows, size + len(text)
    return batches


def _measure_batch(
    texts: list[str], language: str | None, settings: QualitySignalSettings
) -> tuple[list[str], dict[str, np.ndarray]]:
    splitter = word_splitter(language)
    words = splitter.split(texts)
    filled = words.line_ends > words.line_begins
    signals = {
        "characters": np.array([len(text) for text in texts], np.float64),
        "words": np.diff(words.text_tokens),
        "lines": words.by_text(filled),
        "sentences": words.by_text(words.sentences * filled),
        **repetition.measure(texts, words),
        **gopher.measure(texts, words, language, settings.stop_words),
    }
    edited, edited_words, line_signals = c4_rules.measure(texts, words, splitter, settings.c4)
    return edited, signals | line_signals | fineweb_rules.measure(edited, edited_words, settings.short_line_length)


def rules(settings: QualitySettings, languages: Sequence[str | None]) -> list[tuple[Rule, Any]]:
    """All rules with their thresholds: a number, None if off, or an array with one for each document (NaN if off).

    `languages` are the rules' languages by document: the column `rules_language` of the signals.
    """
    known = sorted(set(languages), key=lambda language: language or "")
    place = {language: index for index, language in enumerate(known)}
    where = np.array([place[language] for language in languages], np.int64)
    judged: list[tuple[Rule, Any]] = []
    for rule in RULES:
        thresholds = [settings.threshold(rule.setting, language) for language in known]
        if len(set(thresholds)) == 1:
            judged.append((rule, thresholds[0]))
        else:
            judged.append((rule, np.array([np.nan if each is None else each for each in thresholds])[where]))
    return judged


def verdicts(signals: pa.Table, settings: QualitySettings) -> Verdicts:
    """Reason and value of the first rule that each document fails, from QUALITY_SIGNALS alone."""
    return judge(signals, rules(settings, signals["rules_language"].to_pylist()))
