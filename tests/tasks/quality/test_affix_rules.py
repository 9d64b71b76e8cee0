"""spaCy's expressions as tables: the same tokens as spaCy, in every language that it has."""

import gzip
import pkgutil
import random
import re
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import spacy.lang
from spacy.tokenizer import Tokenizer
from spacy.util import compile_infix_regex, compile_prefix_regex, compile_suffix_regex, get_lang_class
from spacy.vocab import Vocab

from tasks.quality.affix_kernels import ADDRESS, INFIX, PREFIX, SUFFIX, UNCLEAR, cut
from tasks.quality.affix_rules import AffixRules, affix_rules
from tasks.quality.word_rules import _NEEDS_PACKAGES
from tasks.quality.word_tables import StringTable, code_points
from tasks.quality.words import word_splitter

LANGUAGES = sorted(
    each.name for each in pkgutil.iter_modules(spacy.lang.__path__) if each.ispkg and each.name not in _NEEDS_PACKAGES
)
CHARACTERS = "aabcdeghkmtxyzABCSXZ0123456789..,,--''/:()\"$%&+_#@=<>*^"
CHARACTERS += "\u2019\u2013\u2026\u20ac\xb0\xb2\u0430\u0411\u05d0\u0915\u4e2d\u0301"
PIECES = (
    "'s",
    "\u2019s",
    "km",
    "US$",
    "..",
    "...",
    "--",
    "C.",
    "e.g.",
    "http://",
    ".com",
    "a@b.de",
    "1,000.5",
    "\xb0C.",
)


def bare_tokenizer(language: str) -> Any:
    """spaCy's tokeniser without special cases."""
    rules: Any = get_lang_class(language).Defaults
    return Tokenizer(
        Vocab(),
        prefix_search=compile_prefix_regex(rules.prefixes).search,
        suffix_search=compile_suffix_regex(rules.suffixes).search,
        infix_finditer=compile_infix_regex(rules.infixes).finditer,
        token_match=rules.token_match,
        url_match=rules.url_match,
    )


@lru_cache(None)
def table_of(prefixes: str, suffixes: str, infixes: str, matching: str | None = None) -> AffixRules:
    return affix_rules(
        SimpleNamespace(
            prefix_search=re.compile(prefixes).search,
            suffix_search=re.compile(suffixes).search,
            infix_finditer=re.compile(infixes).finditer,
            token_match=re.compile(matching).match if matching else None,
            url_match=None,
        )
    )


def cut_chunks(rules: AffixRules, chunks: list[str]) -> list[list[str]]:
    """The tokens of chunks, none where spaCy has to be asked, without special cases."""
    text, ends = "".join(chunks), np.cumsum([0, *map(len, chunks)])
    begins, ends, counts = cut(code_points(text), ends[:-1], ends[1:], rules.arrays, StringTable().arrays, 0)
    tokens = [text[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return [tokens[first:last] for first, last in pairwise(np.cumsum([0, *counts]))]


def characters_of_atoms(rules: AffixRules, rng: random.Random) -> list[str]:
    """One of the characters of each atom."""
    codes = [code for code in range(len(rules.atoms)) if not 0xD800 <= code < 0xE000]  # spaCy takes no surrogates
    found = {int(rules.atoms[code]): chr(code) for code in rng.sample(codes, len(codes))}
    return [each for each in found.values() if not each.isspace()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_random_chunks_are_cut_as_spacy_cuts_them(language: str) -> None:
    rng = random.Random(language)
    tokenizer = bare_tokenizer(language)
    rules = affix_rules(tokenizer)
    every = characters_of_atoms(rules, rng)
    chunks = []
    for _ in range(1200):
        some = [rng.choice(every if rng.random() < 0.3 else CHARACTERS) for _ in range(rng.randint(1, 9))]
        chunks.append("".join(chain(some[:4], [rng.choice(PIECES)] * (rng.random() < 0.15), some[4:])))
    found = cut_chunks(rules, chunks)
    assert sum(map(bool, found)) > 50
    for chunk, tokens in zip(chunks, found, strict=True):
        assert not tokens or tokens == [token.text for token in tokenizer(chunk)], chunk


@pytest.mark.parametrize("language", ["de", "en", "es", "ru"])
def test_few_random_chunks_are_left_to_spacy(language: str) -> None:
    rng = random.Random(1)
    chunks = ["".join(rng.choices(CHARACTERS.replace(".", ""), k=rng.randint(1, 9))) for _ in range(500)]
    assert all(cut_chunks(affix_rules(bare_tokenizer(language)), chunks))


def test_real_chunks_are_cut_as_spacy_cuts_them(shared_data: Path) -> None:
    """With special cases, by rules for any language and for English."""
    files = sorted((shared_data / "langid" / "sentences").iterdir())
    lines = [line for file in files for line in gzip.decompress(file.read_bytes()).decode().splitlines()[:12]]
    chunks = sorted(set(chain.from_iterable(line.split() for line in lines)))
    assert len(chunks) > 5000
    for language in ("en", "xx"):
        words = word_splitter(language).split(chunks)
        names = list(words.table.ids)
        tokenizer: Any = spacy.blank(language).tokenizer
        for chunk, (first, last) in zip(chunks, pairwise(words.text_tokens), strict=True):
            assert [names[token] for token in words.tokens[first:last]] == [each.text for each in tokenizer(chunk)]


@pytest.mark.parametrize(
    ("prefixes", "suffixes", "infixes", "chunk", "tokens"),
    [
        ("^[(]|^a+", "[)]$", "-", "(aab-c)", ["(", "aa", "b", "-", "c", ")"]),
        ("^ab|^a", "c$|bc$", "-", "abxbc", ["ab", "x", "bc"]),
        ("^a(?!b)", r"(?<=x)\.$", "-", "ab.", ["ab."]),
        ("^a(?!b)", r"(?<=x)\.$", "-", "ax.", ["a", "x", "."]),
        ("^z", r"\.\.+$", "(?<=[a-c])(?=[d-f])", "abde..", ["ab", "de", ".."]),
        ("^z", "z$", "(?<=^d)'(?=[a-z])", "d'un-d'un", ["d", "'", "un-d'un"]),
        ("^z", "z$", r"--|-|\.\.+", "-a--b-c...d", ["-a", "--", "b", "-", "c", "...", "d"]),
        ("^z", "z$", "(?:ab?|x{2})", "qabaxxq", ["q", "ab", "a", "xx", "q"]),
        ("^[^a-y(]", "z$", "-", "!az", ["!", "a", "z"]),
    ],
)
def test_ways_of_matching_are_written_out(
    prefixes: str, suffixes: str, infixes: str, chunk: str, tokens: list[str]
) -> None:
    assert cut_chunks(table_of(prefixes, suffixes, infixes), [chunk]) == [tokens]
    tokenizer = Tokenizer(
        Vocab(),
        prefix_search=re.compile(prefixes).search,
        suffix_search=re.compile(suffixes).search,
        infix_finditer=re.compile(infixes).finditer,
    )
    assert [token.text for token in tokenizer(chunk)] == tokens


@pytest.mark.parametrize(
    ("infixes", "matching", "left"),
    [
        ("<[^>]+>", None, "<"),  # what repeats is no single character
        ("-(?!ab)", None, "-"),
        ("(?:[+#]|[=])x*y", None, "#+="),
        ("-", "(?i)[a-z]+[0-9]", "0123456789"),
    ],
)
def test_what_cannot_be_written_out_is_left_to_spacy(infixes: str, matching: str | None, left: str) -> None:
    rules = table_of("^\\(", "\\)$", infixes, matching)
    codes = [code for code in range(33, 127) if rules.flags[rules.atoms[code]] & UNCLEAR]
    assert "".join(map(chr, codes)) == left


def test_flags_tell_what_an_atom_can_do() -> None:
    rules = affix_rules(bare_tokenizer("en"))
    flags = {each: int(rules.flags[rules.atoms[ord(each)]]) for each in "q(.-s)"}
    assert flags == {"q": 0, "(": PREFIX | SUFFIX, ".": ADDRESS | PREFIX | SUFFIX | INFIX, "-": INFIX, "s": SUFFIX} | {
        ")": PREFIX | SUFFIX
    }
