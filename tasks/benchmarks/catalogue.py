"""Which benchmark a file belongs to, told by the names on its path, and which of its splits."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from tasks.benchmarks import choices, completions, glue, texts
from tasks.benchmarks.source import Converted, Source


class Kind(NamedTuple):
    """A benchmark that is known."""

    name: str
    names: re.Pattern[str]
    """What a file or one of its folders is called, in small letters, words joined by _, without names of splits."""
    convert: Callable[[Source], Iterable[Converted]]
    many: bool = False
    """Whether several files make one split."""


def _kind(name: str, pattern: str, convert: Callable[[Source], Iterable[Converted]], *, many: bool = False) -> Kind:
    return Kind(name, re.compile(pattern), convert, many)


KINDS = (
    _kind("hellaswag", r"hellaswag(_full)?", completions.hellaswag),
    _kind("arc", r"(ai2_)?arc(_(easy|challenge|e|c))?", choices.arc),
    _kind("mmlu", r"mmlu|hendrycks_?test", choices.mmlu),
    _kind("truthfulqa", r"truthful_?qa|mc_task", choices.truthfulqa),
    _kind("lambada", r"lambada(_plain_text|_openai)?", texts.lambada),
    _kind("piqa", r"piqa|physicaliqa", completions.piqa),
    _kind("winogrande", r"wino_?grande(_(xs|s|m|l|xl|debiased))?", completions.winogrande),
    _kind("wsc273", r"winograd(_wsc)?|wsc_?273", completions.wsc273),
    _kind("openbookqa", r"open_?book_?qa(_main)?|obqa", choices.openbookqa),
    _kind("commonsense_qa", r"commonsense_?qa|csqa", choices.commonsense_qa),
    _kind("social_iqa", r"social_?i_?qa|siqa", choices.social_iqa),
    _kind("gsm8k", r"gsm_?8k|grade_school_math", texts.gsm8k),
    _kind("blimp", r"blimp", completions.blimp),
    _kind("triviaqa", r"trivia_?qa(_sm_sub)?|(unfiltered_)?(web|wikipedia)", texts.triviaqa),
    _kind("humaneval", r"human_?eval", texts.humaneval),
    _kind("math", r"(hendrycks_)?math(_?500)?", texts.math, many=True),
    _kind("squadv2", r"squad(_?v?[12](_[01])?)?|v(1_1|2_0)", texts.squad),
    _kind("gpqa", r"gpqa(_(main|diamond|extended))?", choices.gpqa),
    _kind("boolq", r"bool_?q", glue.boolq),
    _kind("cb", r"cb|commitment_?bank", glue.cb),
    _kind("copa", r"copa", glue.copa),
    _kind("multirc", r"multi_?rc", glue.multirc),
    _kind("rte", r"rte", glue.rte),
    _kind("wic", r"wic", glue.wic),
    _kind("wsc", r"wsc", glue.wsc),
    _kind("cola", r"cola", glue.cola),
    *(
        _kind(task, task.replace("sst2", "sst_?2"), partial(glue.glue, task))
        for task in ("sst2", "mrpc", "qqp", "qnli")
    ),
    *(_kind(task, f"{task}(_(mis)?matched)?", partial(glue.glue, task)) for task in ("wnli", "mnli")),
    _kind("wikitext", r"wiki(text)?(_?2)?(_raw)?(_v1)?", texts.wikitext),
    _kind("books", r"books?|pg_?19|gutenberg", texts.books, many=True),
)
_SPLITS = {
    "train": "train",
    "dev": "validation",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "tests": "test",
}


class Place(NamedTuple):
    """Where a file belongs."""

    kind: Kind
    distance: int
    """0 if the file itself is called so, 1 for its folder, and so on: the nearer name is the surer one."""
    split: str | None


def find_kind(path: str) -> Place | None:
    """The benchmark that a path names, nearest to the file first; none where nothing is known."""
    parts = path.lower().split("/")
    split: str | None = None
    for distance, part in enumerate(reversed(parts)):
        words = re.findall(r"[a-z0-9]+", re.sub(r"\.[a-z]\w*$", "", part))
        named = next((word for word in words if word in _SPLITS), None)
        split = split or named
        name = "_".join(word for word in words if word not in _SPLITS)
        for kind in KINDS:
            if kind.names.fullmatch(name):
                return Place(kind, distance, _split(kind, split or next(_above(parts, distance), None)))
    return None


def _above(parts: list[str], distance: int) -> Iterator[str]:
    """A name of a split on the folders above, for `train/gsm8k.jsonl`."""
    return (part for part in reversed(parts[: len(parts) - distance - 1]) if part in _SPLITS)


def _split(kind: Kind, word: str | None) -> str | None:
    if kind.name == "mmlu" and word == "dev":  # its examples; its validation is called val
        return "dev"
    return _SPLITS.get(word) if word is not None else None
