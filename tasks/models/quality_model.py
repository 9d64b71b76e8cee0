"""Model-based quality: scores of documents by classifiers that are given as files.

A model is a fastText file (.bin or .ftz), published or trained here; its score is the probability of one label.
Published: DCLM's oh-eli5 (label __label__hq, kept at 0.018112 and above; Li et al. 2024), models in the manner of
FineWeb-Edu. Files without subwords and quantisation are scored in bulk, the others by fasttext-predict.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import fasttext
import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from infra.errors import BadInput
from infra.settings import Settings
from infra.store import Store
from tasks.inputs import UserFile
from tasks.models.fasttext_file import LOG_GUARD, LinearModel, is_fasttext, probabilities, read_linear
from tasks.models.preparation import Preparation, Prepared, prepare


class ScoreModel(UserFile):
    """A classifier and what its score means."""

    name: str = Field(default="quality", pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the score: a column of the signals. Models of different languages may share one."""
    label: str = Field(default="__label__hq", min_length=1)
    """Label whose probability is the score (DCLM: __label__hq)."""
    languages: tuple[str, ...] | None = None
    """Languages that the model knows; documents of others get no score. Unset scores every document."""
    preparation: Preparation = "plain"
    """What the model was trained on: plain text, lower case, or words as models trained here see them."""
    max_characters: int | None = Field(default=100_000, ge=1)
    """Longer documents are judged by their beginning; unset reads them whole."""


class QualityModelSettings(Settings):
    """Which classifiers score the documents."""

    models: tuple[ScoreModel, ...] = ()
    """The classifiers; none by default."""

    @model_validator(mode="after")
    def _one_model_for_a_language(self) -> "QualityModelSettings":
        check_languages([(model.name, model.languages) for model in self.models])
        return self


def check_languages(models: Sequence[tuple[str, tuple[str, ...] | None]]) -> None:
    """ValueError if two models of one name would score the same document."""
    seen: dict[str, set[str | None]] = {}
    for name, languages in models:
        known, new = seen.setdefault(name, set()), set(languages or (None,))
        if known and (None in known | new or known & new):
            raise ValueError(f"two models named {name!r} know the same language: give them other names or languages")
        known |= new


def resolve_models(settings: QualityModelSettings, store: Store) -> QualityModelSettings:
    """The settings with absolute paths and digests. BadInput for a missing file, no model, or a label it lacks."""
    resolved = tuple(model.resolved(store) for model in settings.models)
    for model in resolved:
        load(model)
    return settings.model_copy(update={"models": resolved})


def score_schema(settings: QualityModelSettings) -> pa.Schema:
    """One float column for each name of a model."""
    return pa.schema([pa.field(name, pa.float32()) for name in dict.fromkeys(model.name for model in settings.models)])


def score(texts: Sequence[str], languages: Sequence[str | None], settings: QualityModelSettings) -> pa.Table:
    """Scores of documents by all models: null where no model of that name knows the language, or nothing is read."""
    columns = {name: np.full(len(texts), np.nan) for name in score_schema(settings).names}
    for model in settings.models:
        chosen = known_rows(languages, model.languages)
        columns[model.name][chosen] = scores_of([texts[row] for row in chosen], model)
    return pa.table(
        [pa.array(values, pa.float32(), from_pandas=True) for values in columns.values()],
        schema=score_schema(settings),
    )


def known_rows(languages: Sequence[str | None], known: tuple[str, ...] | None) -> list[int]:
    """Indices of the documents whose language is among the known ones; all where these are unset."""
    if known is None:
        return list(range(len(languages)))
    return [row for row, language in enumerate(languages) if language in known]


def scores_of(texts: Sequence[str], model: ScoreModel) -> np.ndarray:
    """float64 (texts,): the probability of the model's label, NaN where the text holds nothing that it knows."""
    prepared = prepare(texts, model.preparation, model.max_characters)
    loaded = load(model)
    if isinstance(loaded, LinearModel):
        return probabilities(loaded, prepared, loaded.labels.index(model.label))
    return _predicted(loaded, prepared, model.label)


def load(model: ScoreModel) -> Any:
    """A LinearModel or fasttext-predict's model, read once in each process. BadInput if it cannot score."""
    return _load(model.path, model.sha256, model.label)


@lru_cache(maxsize=8)
def _load(path: str, sha256: str | None, label: str) -> Any:
    with UserFile(path=path, sha256=sha256).local() as local:
        if not is_fasttext(local):
            raise _unusable(path, "it is no fastText model")
        try:
            loaded: Any = read_linear(np.memmap(local, np.uint8, "r"))
            if loaded is None:
                loaded = fasttext.load_model(str(local))
            labels = loaded.labels if isinstance(loaded, LinearModel) else loaded.predict("a", k=-1)[0]
        except (ValueError, MemoryError, RuntimeError) as error:
            raise _unusable(path, str(error)) from error
    if labels and label not in labels:
        raise _unusable(path, f"its labels are {', '.join(sorted(labels)[:10])}; there is no {label}")
    return loaded


def _unusable(path: str, why: str) -> BadInput:
    return BadInput(
        f"model {path} ({why})",
        "a score needs a supervised fastText model (.bin or .ftz) and one of its labels",
        "Correct the path or the label",
    )


def _predicted(loaded: Any, prepared: Prepared, label: str) -> np.ndarray:
    """Scores by fasttext-predict, one text after the other."""
    scores = np.full(len(prepared), np.nan)
    for index in range(len(prepared)):
        labels, found = loaded.predict(prepared.text(index).replace("\n", " "), k=-1)
        if labels:
            scores[index] = min(dict(zip(labels, found, strict=True)).get(label, LOG_GUARD), 1.0)
    return scores
