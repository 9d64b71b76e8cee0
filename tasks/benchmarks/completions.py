"""Benchmarks whose choices complete a text or stand alone, as published, in the columns of the hub's data sets."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from tasks.benchmarks.source import Converted, NoAnswers, Row, Source, index_below, published_labels

_SENTENCE_ENDS = tuple(f"{end}{quote} " for end in ".!?" for quote in ("", '"', "'"))


def hellaswag(source: Source) -> Iterator[Converted]:
    """HellaSwag: its own JSON lines, or llama.cpp's text of six lines an item, which is preprocessed."""
    if source.ending != "txt":
        records = source.records()
        if records and records[0].get("label", "") == "":
            raise NoAnswers
        yield Converted("hellaswag/hellaswag.yaml", source.rows(_hellaswag_row, records))
        return
    lines = [line.rstrip("\r") for line in source.data.decode("utf-8", "replace").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    rows = source.rows(_preprocessed_row, [lines[at : at + 6] for at in range(0, len(lines), 6)])
    yield Converted("hellaswag/hellaswag.yaml", rows, changes={"process_docs": None}, note="text is preprocessed")


def _hellaswag_row(record: Any) -> Row:
    columns = {name: str(record[name]) for name in ("activity_label", "ctx_a", "ctx_b")}
    endings = [str(each) for each in record["endings"]]
    return {**columns, "endings": endings, "label": str(index_below(len(endings), record["label"]))}


def _preprocessed_row(lines: list[str]) -> Row:
    query, right, *choices = lines
    gold = index_below(4, right)
    if len(choices) != 4:
        raise ValueError(f"{len(lines)} lines instead of 6")
    return {"query": _begun_sentence(query), "choices": choices, "label": str(gold), "gold": gold}


def _begun_sentence(query: str) -> str:
    """The context with the sentence that the endings end as `str.capitalize` gives it, which the harness does.

    The text form has lost where that sentence begins. It is taken to be what follows the last end of a sentence, if
    that begins with a small letter, a figure or a quotation mark and has no end itself: so in 3,236 of the 10,042 items
    of validation, of which about 3,240 end within a sentence.
    """
    begin = max((query.rfind(end) + len(end) for end in _SENTENCE_ENDS if end in query), default=0)
    rest = query[begin:]
    if not begin or not (rest[:1].islower() or rest[:1].isdigit() or rest[:1] == '"') or set(rest) & set(".!?"):
        return query
    return query[:begin] + rest.capitalize()


def piqa(source: Source) -> Iterator[Converted]:
    """PIQA: items with labels beside them in `NAME-labels.lst`, or in them."""
    records = source.records()
    labels = published_labels(source, records, "label")
    rows = source.rows(
        lambda pair: {
            **{name: str(pair[0][name]) for name in ("goal", "sol1", "sol2")},
            "label": index_below(2, pair[1]),
        },
        zip(records, labels, strict=True),
    )
    yield Converted("piqa/piqa.yaml", rows)


def winogrande(source: Source) -> Iterator[Converted]:
    """WinoGrande: its own JSON lines, or llm-foundry's with both contexts written out."""
    records = source.records()
    if records and "context_options" not in records[0] and not records[0].get("answer"):
        raise NoAnswers
    yield Converted("winogrande/default.yaml", source.rows(_winogrande_row, records))


def _winogrande_row(record: Any) -> Row:
    if "context_options" not in record:
        answer = str(index_below(2, int(record["answer"]) - 1) + 1)
        return {**{name: str(record[name]) for name in ("sentence", "option1", "option2")}, "answer": answer}
    start, options = _blank(record)
    return {
        "sentence": f"{start}_ {record['continuation']}",
        **{"option1": options[0], "option2": options[1]},
        "answer": str(index_below(2, record["gold"]) + 1),
    }


def wsc273(source: Source) -> Iterator[Converted]:
    """The Winograd Schema Challenge as llm-foundry has it."""

    def row(record: Any) -> Row:
        start, options = _blank(record)
        text, right = f"{start}_ {record['continuation']}", index_below(2, record["gold"])
        return {"text": text, "pronoun": "_", "pronoun_loc": len(start), "options": options, "label": right}

    yield Converted("wsc273/default.yaml", source.rows(row))


def _blank(record: Any) -> tuple[str, list[str]]:
    """What both contexts begin with, to the last whole word, and how they go on."""
    contexts = [str(each) for each in record["context_options"]]
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*contexts, strict=False)))
    start = contexts[0][: contexts[0].rfind(" ", 0, same) + 1]
    if len(contexts) != 2 or "_" in start:
        raise ValueError("two contexts without _ are needed")
    return start, [context[len(start) :] for context in contexts]


def blimp(source: Source) -> Iterator[Converted]:
    """BLiMP: a file of minimal pairs for each paradigm."""
    columns = ("sentence_good", "sentence_bad")
    rows = source.rows(lambda record: {name: str(record[name]) for name in columns})
    yield Converted(f"blimp/{source.stem}.yaml", rows)
