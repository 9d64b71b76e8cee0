"""Multiple-choice benchmarks: from the forms in which they are published to the columns of the hub's data sets.

Three forms are common: that of AI2 (`question.stem`, lettered `choices`, `answerKey`), that of the hub (`question`,
`choices.text`, `choices.label`), and that of llm-foundry, whose `query` is a whole prompt with `choices` and the index
`gold`. Of the last, question and choices are taken out of the prompt again, so that the harness's prompt is the same
whatever form was given.
"""

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NamedTuple

from infra.errors import BadInput
from tasks.benchmarks.files import read, table
from tasks.benchmarks.source import Converted, NoAnswers, Row, Source

_LETTERED = re.compile(r"^([A-Z])\. (.*)$", re.MULTILINE)


class Question(NamedTuple):
    """A question, its choices, and the index of the right one."""

    text: str
    choices: list[str]
    right: int


def arc(source: Source) -> Iterator[Converted]:
    """ARC, easy or challenge by the name of the file."""
    task = "arc_easy" if "easy" in source.name.lower() else "arc_challenge"
    yield Converted(f"arc/{task}.yaml", source.rows(lambda record: _lettered(record, "question")))


def openbookqa(source: Source) -> Iterator[Converted]:
    """OpenBookQA."""
    yield Converted("openbookqa/openbookqa.yaml", source.rows(lambda record: _lettered(record, "question_stem")))


def commonsense_qa(source: Source) -> Iterator[Converted]:
    """CommonsenseQA; llm-foundry has four of its five choices, and the prompt has as many letters as there are."""
    records = source.records()
    if records and "answerKey" not in records[0] and "gold" not in records[0]:
        raise NoAnswers
    rows = source.rows(lambda record: _lettered(record, "question"), records)
    yield _with_fewer_choices(Converted("commonsense_qa/default.yaml", rows), 5)


def _with_fewer_choices(converted: Converted, usual: int) -> Converted:
    number = min((len(row["choices"]["text"]) for row in converted.rows), default=usual)
    if number == usual:
        return converted
    letters = "ABCDE"[:number]
    lines = "".join(f"{letter}. {{{{choices['text'][{at}]}}}}\n" for at, letter in enumerate(letters))
    text = f"Question: {{{{ question.strip() }}}}\n{lines}Answer:"
    changes = {"doc_to_text": text, "doc_to_choice": list(letters)}
    return Converted(
        converted.yaml,
        converted.rows,
        changes=changes,
        note=f"{number} of {usual} choices: guessing is right more often",
    )


def social_iqa(source: Source) -> Iterator[Converted]:
    """Social IQA: AI2's with a file of labels (1 to 3) beside it, the hub's, or llm-foundry's with two choices."""
    records = source.records()
    if records and "query" in records[0]:
        rows = source.rows(_social_question, records)
        if all(not row["answerC"] for row in rows):
            changes = {"doc_to_choice": "{{[answerA, answerB]}}"}
            note = "2 of 3 choices: guessing is right more often"
            yield Converted("siqa/siqa.yaml", rows, changes=changes, note=note)
            return
    else:
        labels = _labels(source, records, "label")
        columns = ("context", "question", "answerA", "answerB", "answerC")
        rows = source.rows(
            lambda pair: {**{name: str(pair[0][name]) for name in columns}, "label": str(int(pair[1]))},
            zip(records, labels, strict=True),
        )
    yield Converted("siqa/siqa.yaml", rows)


def _social_question(record: Any) -> Row:
    question = _question(record)
    context, _, text = question.text.removeprefix("Context: ").rpartition("\nQuestion: ")
    answers = {f"answer{letter}": text for letter, text in zip("ABC", [*question.choices, ""], strict=False)}
    return {"context": context, "question": text, **answers, "label": str(question.right + 1)}


def piqa(source: Source) -> Iterator[Converted]:
    """PIQA: items with labels beside them in `NAME-labels.lst`, or in them."""
    records = source.records()
    labels = _labels(source, records, "label")
    rows = source.rows(
        lambda pair: {**{name: str(pair[0][name]) for name in ("goal", "sol1", "sol2")}, "label": _below(2, pair[1])},
        zip(records, labels, strict=True),
    )
    yield Converted("piqa/piqa.yaml", rows)


def _labels(source: Source, records: list[Any], column: str) -> list[Any]:
    """Right answers from the items or the file beside them; NoAnswers where there are none."""
    if records and column in records[0]:
        return [record.get(column) if isinstance(record, dict) else None for record in records]
    beside = source.beside(f"{source.stem}-labels.lst")
    if beside is None:
        raise NoAnswers
    labels = beside.decode("ascii", "replace").split()
    if len(labels) != len(records):
        raise BadInput(
            f"{source.name} has {len(records)} items and {source.stem}-labels.lst {len(labels)} labels",
            "each item must have its label",
            "Give both files as they were published",
        )
    return labels


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
    return {**columns, "endings": endings, "label": str(_below(len(endings), record["label"]))}


def _preprocessed_row(lines: list[str]) -> Row:
    query, right, *choices = lines
    gold = _below(4, right)
    if len(choices) != 4:
        raise ValueError(f"{len(lines)} lines instead of 6")
    return {"query": _begun_sentence(query), "choices": choices, "label": str(gold), "gold": gold}


def _begun_sentence(query: str) -> str:
    """The context with the sentence that the endings end as `str.capitalize` gives it, which the harness does.

    The text form has lost where that sentence begins. It is a part without an end whose first letter is small, after
    the last end of a sentence; contexts that end with a sentence have none.
    """
    found = re.search(r"(?<=[.!?:\"'] )(?:[a-z0-9\"][^.!?]*+)$", query.rstrip())
    if found is None or query.rstrip()[-1:] in ".!?\"')":
        return query
    return query[: found.start()] + found[0].capitalize()


def winogrande(source: Source) -> Iterator[Converted]:
    """WinoGrande: its own JSON lines, or llm-foundry's with both contexts written out."""
    records = source.records()
    if records and "context_options" not in records[0] and not records[0].get("answer"):
        raise NoAnswers
    yield Converted("winogrande/default.yaml", source.rows(_winogrande_row, records))


def _winogrande_row(record: Any) -> Row:
    if "context_options" not in record:
        answer = str(_below(2, int(record["answer"]) - 1) + 1)
        return {**{name: str(record[name]) for name in ("sentence", "option1", "option2")}, "answer": answer}
    start, options = _blank(record)
    return {
        "sentence": f"{start}_ {record['continuation']}",
        **{"option1": options[0], "option2": options[1]},
        "answer": str(_below(2, record["gold"]) + 1),
    }


def wsc273(source: Source) -> Iterator[Converted]:
    """The Winograd Schema Challenge as llm-foundry has it."""

    def row(record: Any) -> Row:
        start, options = _blank(record)
        text, right = f"{start}_ {record['continuation']}", _below(2, record["gold"])
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


def truthfulqa(source: Source) -> Iterator[Converted]:
    """TruthfulQA: the CSV of its authors, their `mc_task.json`, or the hub's columns; as mc1 and mc2."""
    rows = source.rows(_truthful_row)
    yield Converted("truthfulqa/truthfulqa_mc1.yaml", rows)
    yield Converted("truthfulqa/truthfulqa_mc2.yaml", rows)


def _truthful_row(record: Any) -> Row:
    if "mc1_targets" in record:
        return {"question": str(record["question"]), **{k: _targets(record[k]) for k in ("mc1_targets", "mc2_targets")}}
    right, wrong = _answers(record["Correct Answers"]), _answers(record["Incorrect Answers"])
    best = record["Best Answer"].strip()
    if not best or not wrong:
        raise ValueError("a best and an incorrect answer are needed")
    every = right if best in right else [best, *right]
    return {
        "question": record["Question"].strip(),
        "mc1_targets": {"choices": [best, *wrong], "labels": [1] + [0] * len(wrong)},
        "mc2_targets": {"choices": [*every, *wrong], "labels": [1] * len(every) + [0] * len(wrong)},
    }


def _targets(found: Any) -> Row:
    if "choices" in found:
        return {"choices": list(map(str, found["choices"])), "labels": list(map(int, found["labels"]))}
    pairs = sorted(found.items(), key=lambda pair: -int(pair[1]))  # the right one first, as the hub has it
    return {"choices": [text for text, _ in pairs], "labels": [int(label) for _, label in pairs]}


def _answers(text: str) -> list[str]:
    return [each.strip() for each in text.split(";") if each.strip()]


def mmlu(source: Source) -> Iterator[Converted]:
    """MMLU: a CSV file for each subject, with names of columns and indices or without and with letters."""
    subject = re.sub(r"_(dev|val|validation|test)$", "", source.stem.lower())
    rows = source.rows(_mmlu_row, _mmlu_records(source))
    yield Converted(f"mmlu/default/mmlu_{subject}.yaml", [{**row, "subject": subject} for row in rows])


def _mmlu_records(source: Source) -> list[Any]:
    if source.ending != "csv":
        return source.records()
    cells = read(source.name, source.data, table)
    if cells and cells[0][:1] == ["question"]:
        return [dict(zip(cells[0], row, strict=False)) for row in cells[1:]]
    return cells


def _mmlu_row(record: Any) -> Row:
    if isinstance(record, list):
        question, *choices, answer = record
    else:
        question, answer = record["question"], record["answer"]
        choices = record.get("choices") or [record[f"choice{number}"] for number in range(4)]
    if len(choices) != 4:
        raise ValueError("four choices are needed")
    right = "ABCD".index(answer) if isinstance(answer, str) and answer in "ABCD" and answer else _below(4, answer)
    return {"question": str(question), "choices": list(map(str, choices)), "answer": right}


def gpqa(source: Source) -> Iterator[Converted]:
    """GPQA's CSV, by its part: main, diamond or extended."""
    columns = ("Question", "Correct Answer", *(f"Incorrect Answer {number}" for number in (1, 2, 3)))
    part = next((each for each in ("diamond", "extended") if each in source.stem.lower()), "main")
    yield Converted(
        f"gpqa/zeroshot/gpqa_{part}_zeroshot.yaml",
        source.rows(lambda record: {name: str(record[name]) for name in columns if _present(record[name])}),
    )


def _present(value: Any) -> bool:
    if value is None or not str(value).strip():
        raise ValueError("an answer is missing")
    return True


def blimp(source: Source) -> Iterator[Converted]:
    """BLiMP: a file of minimal pairs for each paradigm."""
    columns = ("sentence_good", "sentence_bad")
    rows = source.rows(lambda record: {name: str(record[name]) for name in columns})
    yield Converted(f"blimp/{source.stem}.yaml", rows)


def _lettered(record: Any, column: str) -> Row:
    """The columns of ARC, OpenBookQA and CommonsenseQA on the hub."""
    question = _question(record)
    letters = _labels_of(record) or [chr(ord("A") + at) for at in range(len(question.choices))]
    choices = {"text": question.choices, "label": letters}
    return {column: question.text, "choices": choices, "answerKey": letters[question.right]}


def _labels_of(record: Any) -> list[str]:
    choices = record["question"]["choices"] if isinstance(record.get("question"), dict) else record["choices"]
    if isinstance(choices, dict):
        return list(map(str, choices["label"]))
    return [str(each["label"]) for each in choices if isinstance(each, dict)]


def _question(record: Any) -> Question:
    """Any of the three forms."""
    if "query" in record:
        return _foundry_question(record)
    whole = record.get("question", record.get("question_stem"))
    text = whole["stem"] if isinstance(whole, dict) else whole
    choices = whole["choices"] if isinstance(whole, dict) else record["choices"]
    texts = choices["text"] if isinstance(choices, dict) else [each["text"] for each in choices]
    return Question(str(text), list(map(str, texts)), _labels_of(record).index(str(record["answerKey"]).strip()))


def _foundry_question(record: Any) -> Question:
    """A question and its choices out of a prompt."""
    text = record["query"].removesuffix("\nAnswer:").removeprefix("Question: ")
    choices = list(map(str, record["choices"]))
    stem, listed, lettered = text.partition("\nChoices:\n")
    if listed:
        found = dict(_LETTERED.findall(lettered))
        text, choices = stem, [found[letter] for letter in choices]
    return Question(text, choices, _below(len(choices), record["gold"]))


def _below(number: int, value: Any) -> int:
    """An index of a choice."""
    if not 0 <= int(value) < number:
        raise ValueError(f"the right choice is {value} of {number}, counted from 0")
    return int(value)
