"""C4's line rules (Raffel et al. 2020), which edit the text, and its rules on documents.

As datatrove applies them, line after line, in this order: a word that is too long drops the line; citation marks are
cut out; a line without a terminal mark is dropped (off in FineWeb's recipe), then one of too few words; "lorem ipsum"
condemns the document; "javascript" drops the line; a curly bracket condemns the document; a policy phrase drops the
line. Lines that condemn the document stay in the text, because the rule that condemns can be switched off later.

datatrove's reason is that of the line that comes first. So the rules count: lines of lorem ipsum up to the first curly
bracket, then curly brackets, then all lines of lorem ipsum.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pydantic import Field

from infra.settings import Settings
from tasks.quality.word_kernels import CURLY_LINE, SQUARE_LINE
from tasks.quality.words import Words, WordSplitter
from tasks.rules import Rule

SOURCE = "Raffel et al. 2020, section 2.2; datatrove: {}"
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_LOREM, _SCRIPT = "lorem ipsum", "javascript"
_LINE_ENDS = (".", "?", "!", '"', "'")
COUNTS = (
    *("lorem_ipsum_first", "lorem_ipsum_lines", "curly_bracket_lines", "long_word_lines", "unterminated_lines"),
    *("short_lines", "javascript_lines", "policy_lines", "kept_lines"),
)
SIGNALS = (pa.field("c4_sentences", pa.int64()), *(pa.field(f"c4_{name}", pa.int64()) for name in COUNTS))
"""Sentences in the lines kept; lines that condemn the document; lines, not blank, dropped by each rule; lines kept."""


class C4Editing(Settings):
    """The line rules. They change the text and what is measured on it, so another choice means to measure again."""

    edit: bool = True
    """Edit the text. If not, all is counted as if it were edited, but text and FineWeb's signals are the whole's."""
    max_word_length: int | None = Field(default=1000, ge=1)
    """Lines with a longer word are dropped."""
    remove_citations: bool = True
    """Cut [1], [edit] and [citation needed] out of lines."""
    require_terminal_mark: bool = False
    """Drop lines that do not end in . ? ! " or ', or end in three dots. On in C4, off in FineWeb."""
    min_words: int | None = Field(default=3, ge=0)
    """Lines of fewer words are dropped."""
    remove_javascript: bool = True
    """Drop lines that speak of JavaScript."""
    policy_phrases: tuple[str, ...] = (
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    )
    """Drop lines that hold one of these, in lower case; none switches the rule off."""


class C4Settings(Settings):
    """Thresholds of the C4 rules on documents; an unset threshold switches its rule off."""

    max_lorem_ipsum_lines: int | None = Field(default=0, ge=0)
    """More lines with lorem ipsum: lorem_ipsum."""
    max_curly_bracket_lines: int | None = Field(default=0, ge=0)
    """More lines with a curly bracket: curly_bracket."""
    min_sentences: int | None = Field(default=5, ge=0)
    """Fewer sentences in the lines kept: too_few_sentences."""


def _rule(reason: str, signal: str, setting: str) -> Rule:
    bound = "min" if setting.startswith("min_") else "max"
    return Rule(reason, signal, bound, f"c4.{setting}", SOURCE.format(reason))


RULES = (
    _rule("lorem_ipsum", "c4_lorem_ipsum_first", "max_lorem_ipsum_lines"),
    _rule("curly_bracket", "c4_curly_bracket_lines", "max_curly_bracket_lines"),
    _rule("lorem_ipsum", "c4_lorem_ipsum_lines", "max_lorem_ipsum_lines"),
    _rule("too_few_sentences", "c4_sentences", "min_sentences"),
)


@dataclass
class Edit:
    """A text whose lines were looked at one by one."""

    kept: list[int] = field(default_factory=list)
    """Lines kept, as indices into Words."""
    changed: dict[int, str] = field(default_factory=dict)
    """Those among them that lost citations."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))


@dataclass(frozen=True)
class Look:
    """What a text holds, in lower case, so that its lines are worth looking at."""

    lorem: bool
    script: bool
    policy: bool

    @property
    def any(self) -> bool:
        """Whether it holds any of them."""
        return self.lorem or self.script or self.policy


def measure(
    texts: Sequence[str], words: Words, splitter: WordSplitter, settings: C4Editing
) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    """Edited texts, their numbers of words (symbols too), and SIGNALS by name, float64.

    `words` are those of the same texts, by the same splitter. Most texts need no look at any single line.
    """
    long_word = words.longest > (np.inf if settings.max_word_length is None else settings.max_word_length)
    short = ~long_word & (words.line_words < (settings.min_words or 0))
    kept, filled = ~(long_word | short), words.line_ends > words.line_begins
    counts = {name: np.zeros(len(texts), np.int64) for name in COUNTS}
    counts["long_word_lines"], counts["short_lines"] = words.by_text(long_word), words.by_text(short & filled)
    counts["kept_lines"] = words.by_text(kept)
    edits = _edit_special(texts, words, settings)
    for number, edit in edits.items():
        kept[words.text_lines[number] : words.text_lines[number + 1]] = False
        kept[edit.kept] = True
        for name, count in edit.counts.items():
            counts[name][number] = count
    changed = {index: line for edit in edits.values() for index, line in edit.changed.items()}
    sizes, sentences = np.diff(words.line_tokens), words.sentences
    if changed:
        again, where = splitter.split(list(changed.values()), whole=True), list(changed)
        sentences = sentences.copy()
        sizes[where], sentences[where] = np.diff(again.line_tokens), again.sentences
    signals = {
        "c4_sentences": words.by_text(sentences * kept),
        **{f"c4_{name}": values for name, values in counts.items()},
    }
    if not settings.edit:
        return list(texts), np.diff(words.text_tokens), signals
    return _join(words, kept, changed), words.by_text(sizes * kept), signals


def _edit_special(texts: Sequence[str], words: Words, settings: C4Editing) -> dict[int, Edit]:
    """The texts, by number, that hold something for which lines are dropped or changed, or that condemns them."""
    curly = words.by_text(words.line_flags & CURLY_LINE != 0).tolist()
    square = words.by_text(words.line_flags & SQUARE_LINE != 0).tolist()
    starts = words.text_lines.tolist()
    edits: dict[int, Edit] = {}
    for number, text in enumerate(texts):
        look = _look(text, settings)
        cited = settings.remove_citations and square[number] and _CITATION.search(text)
        if look.any or curly[number] or cited or settings.require_terminal_mark:
            edits[number] = edit = Edit()
            for index in range(starts[number], starts[number + 1]):
                dropped = _edit_line(index, words, settings, look, edit)
                if dropped is None:
                    edit.kept.append(index)
                else:
                    edit.changed.pop(index, None)
                if dropped is None or words.line_ends[index] > words.line_begins[index]:
                    edit.counts[dropped or "kept_lines"] += 1
    return edits


def _look(text: str, settings: C4Editing) -> Look:
    lowered = text.lower()
    policy = False
    for phrase in settings.policy_phrases:
        policy = policy or phrase in lowered
    return Look(_LOREM in lowered, settings.remove_javascript and _SCRIPT in lowered, policy)


def _edit_line(index: int, words: Words, settings: C4Editing, look: Look, edit: Edit) -> str | None:
    """Which rule drops a line, None if it stays. Notes its change and what condemns the document."""
    if settings.max_word_length is not None and words.longest[index] > settings.max_word_length:
        return "long_word_lines"
    flags = words.line_flags[index]
    if not (settings.require_terminal_mark or look.any or flags):
        return "short_lines" if words.line_words[index] < (settings.min_words or 0) else None
    line = words.text[words.line_begins[index] : words.line_ends[index]]
    if settings.remove_citations and flags & SQUARE_LINE:
        cut = _CITATION.sub("", line)
        if cut != line:
            edit.changed[index] = line = cut
    if settings.require_terminal_mark and (not line.endswith(_LINE_ENDS) or line.endswith("...")):
        return "unterminated_lines"
    if words.line_words[index] < (settings.min_words or 0):
        return "short_lines"
    lowered = line.lower() if look.any or index in edit.changed else ""  # a citation may have stood in a phrase
    if _LOREM in lowered:
        edit.counts["lorem_ipsum_lines"] += 1
        edit.counts["lorem_ipsum_first"] += not edit.counts["curly_bracket_lines"]
    if settings.remove_javascript and _SCRIPT in lowered:
        return "javascript_lines"
    edit.counts["curly_bracket_lines"] += bool(flags & CURLY_LINE)
    if lowered and any(phrase in lowered for phrase in settings.policy_phrases):
        return "policy_lines"
    return None


def _join(words: Words, kept: np.ndarray, changed: dict[int, str]) -> list[str]:
    """The kept lines of each text, a newline between them."""
    lines = np.flatnonzero(kept)
    bounds = zip(words.line_begins[lines].tolist(), words.line_ends[lines].tolist(), strict=True)
    kept_lines = [words.text[begin:end] for begin, end in bounds]
    if changed:
        kept_lines = [changed.get(index, line) for index, line in zip(lines.tolist(), kept_lines, strict=True)]
    ends = np.cumsum(words.by_text(kept)).tolist()
    return ["\n".join(kept_lines[begin:end]).strip() for begin, end in zip([0, *ends], ends, strict=False)]
