"""Multiple-choice benchmarks: from the forms in which they are published to the columns of the hub's data sets.

Three forms are common: that of AI2 (`question.stem`, lettered `choices`, `answerKey`), that of the hub (`question`,
`choices.text`, `choices.label`), and that of llm-foundry, whose `query` is a whole prompt with `choices` and the index
`gold`. Of the last, question and choices are taken out of the prompt again, so that the harness's prompt is the same
whatever form was given.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tasks.benchmarks.files import read, table
from tasks.benchmarks.source import Converted, NoAnswers, Row, Source, index_below, published_labels

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
        labels = published_labels(source, records, "label")
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
    right = "ABCD".index(answer) if isinstance(answer, str) and answer in "ABCD" and answer else index_below(4, answer)
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
    return Question(text, choices, index_below(len(choices), record["gold"]))
