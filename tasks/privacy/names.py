"""Names of persons by a spaCy pipeline that the user brings: the only finder here that knows language.

A folder as `nlp.to_disk` writes it; whatever in it sets entities will do (a trained recogniser or ruler patterns), but
for components that need torch.
Long texts are read in pieces that end at a line's end, so that memory stays bounded.
"""

from collections.abc import Collection
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import BadInput
from tasks.inputs import content_digest
from tasks.privacy.spans import Detector, Span, in_order
from tasks.quality.spacy_library import spacy

if TYPE_CHECKING:
    from spacy.language import Language

_PIECE = 50_000
"""Characters that the pipeline sees at once at most; trained ones take about a gigabyte for a million."""


def find_names(text: str, nlp: "Language", labels: Collection[str]) -> list[Span]:
    """Spans of entities with one of the labels, without white space around them."""
    spans: list[Span] = []
    begin = 0
    while begin < len(text):
        end = _piece_end(text, begin)
        for entity in nlp(text[begin:end]).ents:
            name = entity.text
            start = begin + entity.start_char + len(name) - len(name.lstrip())
            if entity.label_ in labels and name.strip():
                spans.append((start, start + len(name.strip())))
        begin = end
    return in_order(spans)


def _piece_end(text: str, begin: int) -> int:
    """Where a piece that begins at a place ends: after the last newline or space within reach, or at the reach."""
    end = begin + _PIECE
    if end >= len(text):
        return len(text)
    for sign in ("\n", " "):
        found = text.rfind(sign, begin + 1, end)
        if found > begin:
            return found + 1
    return end


@lru_cache(maxsize=2)
def load_names(path: str, sha256: str | None) -> "Language":
    """The pipeline in a folder, loaded once in each process; BadInput if it is none or sets no entities."""
    if sha256 is not None and content_digest(path) != sha256:
        raise BadInput(path, f"its content must have the sha256 {sha256}", "Put the folder back, or start again")
    try:
        nlp: Any = spacy().load(Path(path))
    except Exception as error:  # whatever spaCy makes of a folder that is no pipeline
        raise BadInput(
            f"{path} ({type(error).__name__}: {str(error)[:200]})",
            "a name model must be a folder with a spaCy pipeline",
            "Give a folder that spacy.load can open with the installed spaCy",
        ) from error
    if not any(
        nlp.get_pipe_meta(name).assigns and "doc.ents" in nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names
    ):
        raise BadInput(
            f"{path} (components: {', '.join(nlp.pipe_names) or 'none'})",
            "a name model must hold a component that sets entities",
            "Give a pipeline with an entity recogniser or an entity ruler",
        )
    nlp.max_length = max(nlp.max_length, _PIECE)
    return nlp


def name_detector(path: str, sha256: str | None, labels: Collection[str]) -> Detector:
    """The detector of names by the pipeline in a folder."""
    nlp = load_names(path, sha256)
    return Detector("name", r"\pL", partial(find_names, nlp=nlp, labels=frozenset(labels)))
