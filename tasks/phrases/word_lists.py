"""Word lists: how much of a text stands in lists of toxic, adult or other words, as signals.

Nothing is bundled. A list is a file with a term on each line (blank lines and lines that begin with # are left out,
files may be gzipped), or a folder with a file for each language, named by its code (`en`, `en.txt`), as LDNOOBW has
it; a document is then measured by the file of its own language. Terms match whole words and phrases in any case;
where a script sets no spaces they match anywhere.
"""

import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field

from infra.errors import BadInput
from infra.settings import Settings
from tasks.inputs import UserFile, pinned
from tasks.phrases.finder import Hits, Phrases, buffer, find, phrase_hashes, phrases, words_of
from tasks.rules import Rule

MOST_HITS = 1 << 16
"""A text with more occurrences of a list's terms is measured up to there; only hostile ones have so many."""


class WordList(UserFile):
    """One list, or one for each of several languages."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """What its signals are called: `words_<name>` and so on."""


class WordListSettings(Settings):
    """Which word lists texts are measured by."""

    lists: tuple[WordList, ...] = ()
    """The lists; each gives three signals."""


class WordListRules(Settings):
    """Thresholds on word lists."""

    max_ratio: dict[str, float] = Field(default={})
    """By list: documents of which a larger share of words stands in the list are dropped (word_list_<name>). Dolma's
    and Data-Juicer's users take 0.01 to 0.045; lists left out drop nothing."""


@dataclass(frozen=True)
class Terms:
    """The terms of one file, ready for finding."""

    phrases: Phrases
    lengths: np.ndarray
    """int64: words of each term."""
    literal: dict[int, re.Pattern[str]]
    """Terms with more in them than words (`$hit`): what has to be found around a hit."""


def word_list_schema(settings: WordListSettings) -> pa.Schema:
    """For each list: occurrences of its terms, different terms, and the share of the words that stand in a term.

    Null where the list has no file for the document's language.
    """
    return pa.schema(
        field
        for each in settings.lists
        for field in (
            pa.field(f"words_{each.name}", pa.int32()),
            pa.field(f"words_{each.name}_distinct", pa.int32()),
            pa.field(f"words_{each.name}_ratio", pa.float32()),
        )
    )


def pinned_lists(settings: WordListSettings) -> WordListSettings:
    """The settings with the digests of their files; BadInput if one is absent, empty or named twice."""
    names = [each.name for each in settings.lists]
    if len(set(names)) < len(names):
        raise BadInput(f"word lists {', '.join(names)}", "each has a name of its own", "Rename one of them")
    files = tuple(pinned(each) for each in settings.lists)
    for each in files:
        _read_list(each.path, each.sha256)
    return settings.model_copy(update={"lists": files})


def word_list_rules(settings: WordListSettings, rules: WordListRules) -> list[tuple[Rule, float]]:
    """Rules with their thresholds; BadInput if a threshold names no list."""
    known = {each.name for each in settings.lists}
    if unknown := sorted(set(rules.max_ratio) - known):
        raise BadInput(
            f"max_ratio names {', '.join(unknown)}", f"the lists are {', '.join(sorted(known)) or 'none'}", "Correct it"
        )
    return [
        (Rule(f"word_list_{name}", f"words_{name}_ratio", "max", f"max_ratio.{name}", "own"), threshold)
        for name, threshold in sorted(rules.max_ratio.items())
    ]


def measure_word_lists(texts: pa.ChunkedArray, languages: pa.ChunkedArray, settings: WordListSettings) -> pa.Table:
    """The signals of `word_list_schema` of documents, given their texts and language codes."""
    schema = word_list_schema(settings)
    columns = [column for each in settings.lists for column in _measured(texts, languages, each)]
    arrays = [pa.array(column).cast(kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pa.table(arrays, schema=schema) if arrays else pa.table({})


def _measured(texts: pa.ChunkedArray, languages: pa.ChunkedArray, each: WordList) -> list[np.ma.MaskedArray]:
    """Occurrences, different terms and share of one list, masked where it has no file for the language."""
    matches, distinct, ratio = (np.ma.masked_all(len(texts)) for _ in range(3))
    for language, terms in _read_list(each.path, each.sha256).items():
        chosen = np.arange(len(texts))
        if language is not None:
            chosen = np.flatnonzero([code == language for code in languages.to_pylist()])
        part = texts if language is None else texts.take(pa.array(chosen))
        hits = _literal_only(find(part, terms.phrases, MOST_HITS), part, terms)
        matches[chosen] = np.bincount(hits.text, minlength=len(chosen))
        pairs = np.unique(np.stack([hits.text, hits.phrase]), axis=1)
        distinct[chosen] = np.bincount(pairs[0], minlength=len(chosen))
        ratio[chosen] = _covered(hits, terms) / np.maximum(hits.words, 1)
    return [matches, distinct, ratio]


def _covered(hits: Hits, terms: Terms) -> np.ndarray:
    """Words of each text that stand in a term, each counted once."""
    longest = int(terms.lengths.max(initial=1))
    inside = np.arange(longest)[None, :] < terms.lengths[hits.phrase][:, None]
    places = (hits.word[:, None] + np.arange(longest)[None, :])[inside]
    documents = np.broadcast_to(hits.text[:, None], inside.shape)[inside]
    covered = np.unique(np.stack([documents, places]), axis=1)
    return np.bincount(covered[0], minlength=len(hits.words))


def _literal_only(hits: Hits, texts: pa.ChunkedArray, terms: Terms) -> Hits:
    """Hits without those of terms with signs in them where the text has the words but not the signs."""
    if not terms.literal:
        return hits
    kept = np.ones(len(hits.text), bool)
    data, offsets = buffer(texts)
    for index in np.flatnonzero(np.isin(hits.phrase, list(terms.literal))).tolist():
        pattern = terms.literal[int(hits.phrase[index])]
        first, after = offsets[hits.text[index]], offsets[hits.text[index] + 1]
        begin = max(first, first + hits.start[index] - len(pattern.pattern))
        window = data[begin : min(after, first + hits.end[index] + len(pattern.pattern))].tobytes()
        kept[index] = pattern.search(window.decode(errors="ignore").lower()) is not None
    text, phrase, word, start, end = (column[kept] for column in hits[:5])
    return Hits(text, phrase, word, start, end, hits.words)


@lru_cache(maxsize=32)
def _read_list(path: str, sha256: str | None) -> dict[str | None, Terms]:
    """Terms by language, read once in each process; None is for all languages. The digest only names the content."""
    place = Path(path)
    if not place.is_dir():
        return {None: _terms(_lines(place))}
    files = [each for each in sorted(place.iterdir()) if re.fullmatch(r"[a-z]{2,3}(\.txt)?(\.gz)?", each.name)]
    found: dict[str | None, Terms] = {each.name.partition(".")[0]: _terms(_lines(each)) for each in files}
    if not found:
        raise BadInput(
            f"{path} has no word list in it",
            "a folder of lists has a file for each language, such as en or en.txt",
            "Rename the files, or name one file",
        )
    return found


def _lines(path: Path) -> list[str]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig", "replace")
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _terms(lines: Sequence[str]) -> Terms:
    """Terms made ready: those of the same words become one; those without any word are left out."""
    words = words_of(lines)
    counts = np.diff(words.offsets)
    spelled: dict[bytes, list[int]] = {}
    for line in np.flatnonzero(counts).tolist():
        first, last = words.offsets[line], words.offsets[line + 1] - 1
        spelled.setdefault(words.data[words.starts[first] : words.ends[last]].tobytes(), []).append(line)
    chosen = np.array([same[0] for same in spelled.values()], np.int64)
    hashes = phrase_hashes(words, words.offsets[chosen], counts[chosen])
    order = np.argsort(hashes, kind="stable")
    chosen = chosen[order]
    firsts, lasts = words.offsets[chosen], words.offsets[chosen + 1] - 1
    ready = phrases(words.data, hashes[order], words.starts[firsts], words.ends[lasts], np.unique(counts[chosen]))
    groups = list(spelled.values())
    literal = {
        row: pattern
        for row, index in enumerate(order.tolist())
        if (pattern := _literal([lines[int(line)].lower() for line in groups[index]])) is not None
    }
    return Terms(ready, counts[chosen], literal)


def _literal(terms: Sequence[str]) -> re.Pattern[str] | None:
    """What must be found where terms of the same words have signs in them; None where one of them is plain words."""
    if any(re.fullmatch(r"[\w\s'\u2019-]+", term) and "_" not in term for term in terms):
        return None
    return re.compile("|".join(rf"(?<!\w){re.escape(term)}(?!\w)" for term in sorted(terms)))
