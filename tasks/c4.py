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
from tasks.rules import Rule
from tasks.word_kernels import CURLY_LINE, SQUARE_LINE
from tasks.words import Words, WordSplitter

SOURCE = "Raffel et al. 2020, section 2.2; datatrove: {}"
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_LOREM, _SCRIPT = "lorem ipsum", "javascript"
_LINE_ENDS = (".", "?", "!", '"', "'")
COUNTS = ("long_word", "unterminated", "short", "lorem", "lorem_first", "script", "curly", "policy", "kept")
SIGNALS = (
    pa.field("c4_sentences", pa.int64()),
    pa.field("c4_lorem_ipsum_first", pa.int64()),
    pa.field("c4_lorem_ipsum_lines", pa.int64()),
    pa.field("c4_curly_bracket_lines", pa.int64()),
    pa.field("c4_long_word_lines", pa.int64()),
    pa.field("c4_unterminated_lines", pa.int64()),
    pa.field("c4_short_lines", pa.int64()),
    pa.field("c4_javascript_lines", pa.int64()),
    pa.field("c4_policy_lines", pa.int64()),
    pa.field("c4_kept_lines", pa.int64()),
)
"""Sentences in the lines kept; lines that condemn the document; lines dropped by each line rule; lines kept."""


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
    """One text after the line rules."""

    kept: list[int]
    """Lines kept, as indices into Words."""
    changed: dict[int, str] = field(default_factory=dict)
    """Those among them that lost citations."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))


def measure(
    texts: Sequence[str], words: Words, splitter: WordSplitter, settings: C4Editing
) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    """Edited texts, their numbers of words (symbols too), and SIGNALS by name, float64.

    `words` are those of the same texts, by the same splitter.
    """
    edits = [_edit(text, number, words, settings) for number, text in enumerate(texts)]
    changed = [line for edit in edits for line in edit.changed.values()]
    again = splitter.split(changed, whole=True) if changed else None
    sizes, sentences = np.diff(words.line_tokens), words.sentences.copy()
    if again is not None:
        where = [index for edit in edits for index in edit.changed]
        sizes[where], sentences[where] = np.diff(again.line_tokens), again.sentences
    edited = [_join(edit, words) for edit in edits] if settings.edit else list(texts)
    kept_words = np.array([sizes[edit.kept].sum() for edit in edits], np.int64)
    signals = {
        "c4_sentences": np.array([sentences[edit.kept].sum() for edit in edits], np.float64),
        **{
            name: np.array([edit.counts[count] for edit in edits], np.float64)
            for name, count in (
                ("c4_lorem_ipsum_first", "lorem_first"),
                ("c4_lorem_ipsum_lines", "lorem"),
                ("c4_curly_bracket_lines", "curly"),
                ("c4_long_word_lines", "long_word"),
                ("c4_unterminated_lines", "unterminated"),
                ("c4_short_lines", "short"),
                ("c4_javascript_lines", "script"),
                ("c4_policy_lines", "policy"),
                ("c4_kept_lines", "kept"),
            )
        },
    }
    return edited, kept_words if settings.edit else np.diff(words.text_tokens), signals


def _edit(text: str, number: int, words: Words, settings: C4Editing) -> Edit:
    """The lines of a text that stay. Most texts need no look at any single line."""
    first, last = int(words.text_lines[number]), int(words.text_lines[number + 1])
    flags = int(np.bitwise_or.reduce(words.line_flags[first:last], initial=0))
    lowered = text.lower()
    special = (
        settings.require_terminal_mark
        or flags & CURLY_LINE
        or _LOREM in lowered
        or (settings.remove_javascript and _SCRIPT in lowered)
        or any(phrase in lowered for phrase in settings.policy_phrases)
        or (settings.remove_citations and flags & SQUARE_LINE and _CITATION.search(text))
    )
    if special:
        return _edit_lines(range(first, last), words, settings)
    long_word = words.longest[first:last] > (np.inf if settings.max_word_length is None else settings.max_word_length)
    short = ~long_word & (words.line_words[first:last] < (settings.min_words or 0))
    edit = Edit((np.flatnonzero(~(long_word | short)) + first).tolist())
    edit.counts |= {"long_word": int(long_word.sum()), "short": int(short.sum()), "kept": len(edit.kept)}
    return edit


def _edit_lines(lines: range, words: Words, settings: C4Editing) -> Edit:
    edit = Edit([])
    counts = edit.counts
    for index in lines:
        line, dropped = _edit_line(index, words, settings, counts)
        counts[dropped or "kept"] += 1
        if dropped is None:
            edit.kept.append(index)
            if line is not None:
                edit.changed[index] = line
    return edit


def _edit_line(index: int, words: Words, settings: C4Editing, counts: dict[str, int]) -> tuple[str | None, str | None]:
    """The line if it lost citations, and which rule drops it. Counts lines that condemn the document."""
    if settings.max_word_length is not None and words.longest[index] > settings.max_word_length:
        return None, "long_word"
    line = original = words.text[words.line_begins[index] : words.line_ends[index]]
    if settings.remove_citations and words.line_flags[index] & SQUARE_LINE:
        line = _CITATION.sub("", line)
    if settings.require_terminal_mark and (not line.endswith(_LINE_ENDS) or line.endswith("...")):
        return None, "unterminated"
    if words.line_words[index] < (settings.min_words or 0):
        return None, "short"
    lowered = line.lower()
    if _LOREM in lowered:
        counts["lorem"] += 1
        counts["lorem_first"] += not counts["curly"]
    if settings.remove_javascript and _SCRIPT in lowered:
        return None, "script"
    counts["curly"] += "{" in line
    if any(phrase in lowered for phrase in settings.policy_phrases):
        return None, "policy"
    return (line if line != original else None), None


def _join(edit: Edit, words: Words) -> str:
    begins, ends = words.line_begins[edit.kept].tolist(), words.line_ends[edit.kept].tolist()
    bounds = zip(edit.kept, begins, ends, strict=True)
    if not edit.changed:
        return "\n".join([words.text[begin:end] for _, begin, end in bounds]).strip()
    return "\n".join([edit.changed.get(index, words.text[begin:end]) for index, begin, end in bounds]).strip()
