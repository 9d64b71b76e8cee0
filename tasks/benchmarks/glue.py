"""GLUE (tab-separated) and SuperGLUE (JSON lines) as they are published, in the columns and labels of the hub."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from tasks.benchmarks.files import read, table, table_items
from tasks.benchmarks.source import Converted, NoAnswers, Row, Source

_ENTAILMENT = {"entailment": 0, "not_entailment": 1}
_NO_YES = {"0": 0, "1": 1}


class _Member(NamedTuple):
    """A task of GLUE."""

    columns: Mapping[str, str]
    """Column of the hub -> column of the file."""
    label: str
    labels: Mapping[str, int]


_PAIR = {"sentence1": "sentence1", "sentence2": "sentence2"}
_MEMBERS = {
    "sst2": _Member({"sentence": "sentence"}, "label", _NO_YES),
    "mrpc": _Member({"sentence1": "#1 String", "sentence2": "#2 String"}, "Quality", _NO_YES),
    "qqp": _Member({"question1": "question1", "question2": "question2"}, "is_duplicate", _NO_YES),
    "qnli": _Member({"question": "question", "sentence": "sentence"}, "label", _ENTAILMENT),
    "rte": _Member(_PAIR, "label", _ENTAILMENT),
    "wnli": _Member(_PAIR, "label", _NO_YES),
    "mnli": _Member(
        {"premise": "sentence1", "hypothesis": "sentence2"},
        "gold_label",
        {"entailment": 0, "neutral": 1, "contradiction": 2},
    ),
}


def glue(task: str, source: Source) -> Iterator[Converted]:
    """One of GLUE's tasks but CoLA, whose file names no columns."""
    records = read(source.name, source.data, partial(table_items, delimiter="\t", quoted=False))
    member = _MEMBERS[task]
    if records and member.label not in records[0] and set(member.columns.values()) <= set(records[0]):
        raise NoAnswers

    def row(record: Any) -> Row:
        texts = {name: _text(record[column]) for name, column in member.columns.items()}
        return {**texts, "label": member.labels[record[member.label]]}

    rows = source.rows(row, records)
    if task != "mnli" or source.split != "validation":
        yield Converted(f"glue/{task}/default.yaml", rows)
    elif "mismatched" in source.stem:
        yield Converted("glue/mnli/mismatch.yaml", rows, "validation_mismatched")
    else:
        yield Converted("glue/mnli/default.yaml", rows, "validation_matched")


def cola(source: Source) -> Iterator[Converted]:
    """CoLA: source, label, mark of the original, sentence."""
    cells = read(source.name, source.data, partial(table, delimiter="\t", quoted=False))
    if cells and cells[0] == ["index", "sentence"]:
        raise NoAnswers
    rows = source.rows(lambda row: {"sentence": row[3], "label": _NO_YES[row[1]]}, cells)
    yield Converted("glue/cola/default.yaml", rows)


def rte(source: Source) -> Iterator[Converted]:
    """RTE of GLUE or of SuperGLUE, which differ in the file's form."""
    if source.ending == "tsv":
        yield from glue("rte", source)
        return
    yield Converted("super_glue/rte/default.yaml", _labelled(source, ("premise", "hypothesis"), _ENTAILMENT))


def cb(source: Source) -> Iterator[Converted]:
    """CommitmentBank."""
    labels = {"entailment": 0, "contradiction": 1, "neutral": 2}
    yield Converted("super_glue/cb/default.yaml", _labelled(source, ("premise", "hypothesis"), labels))


def wic(source: Source) -> Iterator[Converted]:
    """Words in Context."""
    texts, places = ("word", "sentence1", "sentence2"), ("start1", "start2", "end1", "end2")
    rows = _labelled(source, texts, _NO_YES, lambda record: {name: int(record[name]) for name in places})
    yield Converted("super_glue/wic/default.yaml", rows)


def wsc(source: Source) -> Iterator[Converted]:
    """The Winograd Schema Challenge of SuperGLUE."""

    def spans(record: Any) -> Row:
        target = record["target"]
        return {
            **{name: int(target[name]) for name in ("span1_index", "span2_index")},
            **{name: _text(target[name]) for name in ("span1_text", "span2_text")},
        }

    yield Converted("super_glue/wsc/default.yaml", _labelled(source, ("text",), _NO_YES, spans))


def copa(source: Source) -> Iterator[Converted]:
    """COPA: SuperGLUE's, or llm-foundry's prompts, whose premise ends in because or therefore."""
    records = source.records()
    if records and "query" in records[0]:
        yield Converted("super_glue/copa/default.yaml", source.rows(_copa_row, records))
        return
    rows = _labelled(source, ("premise", "choice1", "choice2", "question"), _NO_YES)
    yield Converted("super_glue/copa/default.yaml", rows)


def _copa_row(record: Any) -> Row:
    premise, _, connective = record["query"].strip().rpartition(" ")
    choices = [each[:1].upper() + each[1:] for each in record["choices"]]
    question = {"because": "cause", "therefore": "effect"}[connective]
    columns = {"premise": premise.rstrip(", .") + ".", "choice1": choices[0], "choice2": choices[1]}
    return {**columns, "question": question, "label": _NO_YES[str(record["gold"])]}


def boolq(source: Source) -> Iterator[Converted]:
    """BoolQ: SuperGLUE's, its authors', or llm-foundry's prompts."""
    records = source.records()
    if records and "query" in records[0]:
        rows = source.rows(_boolq_row, records)
    elif records and "answer" in records[0]:
        rows = source.rows(lambda record: {**_passage(record), "label": int(bool(record["answer"]))}, records)
    else:
        rows = _labelled(source, ("question", "passage"), _NO_YES)
    yield Converted("super_glue/boolq/default.yaml", rows)


def _passage(record: Any) -> Row:
    return {"question": _text(record["question"]), "passage": _text(record["passage"])}


def _boolq_row(record: Any) -> Row:
    passage, asked, question = record["query"].removesuffix("\nAnswer:").rpartition("\nQuestion: ")
    if not asked or record["choices"] != ["no", "yes"]:
        raise ValueError("a passage, a question and the choices no and yes are needed")
    return {
        "question": question.removesuffix("?"),
        "passage": passage.removeprefix("Passage: "),
        "label": _NO_YES[str(record["gold"])],
    }


def multirc(source: Source) -> Iterator[Converted]:
    """MultiRC: each answer to each question of a passage is an item."""
    rows = source.rows(lambda record: {"rows": list(_multirc_rows(record))})
    yield Converted("super_glue/multirc/default.yaml", [row for each in rows for row in each["rows"]])


def _multirc_rows(record: Any) -> Iterator[Row]:
    for question in record["passage"]["questions"]:
        for answer in question["answers"]:
            if "label" not in answer:
                raise NoAnswers
            texts = {"paragraph": record["passage"]["text"], "question": question["question"], "answer": answer["text"]}
            yield {**texts, "label": _NO_YES[str(int(answer["label"]))]}


def _labelled(
    source: Source, texts: tuple[str, ...], labels: Mapping[str, int], more: Any = lambda record: {}
) -> list[Row]:
    """Rows of SuperGLUE's JSON lines, whose labels are words, truth values or numbers."""
    records = source.records()
    if records and isinstance(records[0], dict) and "label" not in records[0]:
        raise NoAnswers

    def row(record: Any) -> Row:
        given = record["label"]
        label = str(int(given)) if isinstance(given, bool | int) else given
        return {**{name: _text(record[name]) for name in texts}, **more(record), "label": labels[label]}

    return source.rows(row, records)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text is needed")
    return value
