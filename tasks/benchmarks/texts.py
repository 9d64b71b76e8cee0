"""Benchmarks whose answer is text: last words, numbers, programs, names, parts of a passage, and whole books."""

import re
from collections.abc import Iterator
from typing import Any

from tasks.benchmarks.source import Converted, Row, Source

_MATH_SUBJECTS = {
    "counting_and_probability": "counting_and_prob",
    "number_theory": "num_theory",
    "precalculus": "precalc",
}
"""What the harness calls subjects of MATH where it shortens their names."""
BOOKS = {
    "task": "books",
    "output_type": "loglikelihood_rolling",
    "test_split": "test",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    "metadata": {"version": 1.0},
}
"""The only task that the harness lacks; it is measured as its `wikitext` is."""


def lambada(source: Source) -> Iterator[Converted]:
    """LAMBADA: OpenAI's JSON lines, or the plain text of its authors."""
    if source.ending == "txt":
        lines = source.data.decode("utf-8", "replace").splitlines()
        yield Converted("lambada/lambada_standard.yaml", [{"text": line} for line in lines if line.strip()])
        return
    yield Converted("lambada/lambada_openai.yaml", source.rows(_passage))


def _passage(record: Any) -> Row:
    if len(record["text"].split(" ")) < 2:
        raise ValueError("a passage of at least two words is needed")
    return {"text": record["text"]}


def gsm8k(source: Source) -> Iterator[Converted]:
    """GSM8K."""
    yield Converted("gsm8k/gsm8k.yaml", source.rows(lambda record: _texts(record, "question", "answer")))


def triviaqa(source: Source) -> Iterator[Converted]:
    """TriviaQA: its own JSON, the hub's columns, or llm-foundry's prompts."""
    yield Converted("triviaqa/default.yaml", source.rows(_trivia_row))


def _trivia_row(record: Any) -> Row:
    if "context" in record:
        question = record["context"].removeprefix("Question: ").removesuffix("\nAnswer:")
        value, aliases = record["answer"], record["aliases"]
    else:
        question = record["Question"] if "Question" in record else record["question"]
        answer = record["Answer"] if "Answer" in record else record["answer"]
        value = answer["Value"] if "Value" in answer else answer["value"]
        aliases = answer["Aliases"] if "Aliases" in answer else answer["aliases"]
    if not aliases:
        raise ValueError("an answer is needed")
    return {"question": question, "answer": {"value": str(value), "aliases": list(map(str, aliases))}}


def humaneval(source: Source) -> Iterator[Converted]:
    """HumanEval; its programs run in the project's sandbox instead of by code from the hub."""
    columns = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
    yield Converted("humaneval/humaneval.yaml", source.rows(lambda record: _texts(record, *columns)))


def math(source: Source) -> Iterator[Converted]:
    """MATH by subject: its own columns, those of llm-foundry, or MATH-500."""
    rows = source.rows(_math_row)
    if any(row["unique_id"] for row in rows):
        yield Converted("hendrycks_math/hendrycks_math500.yaml", [_without(row, "unique_id") for row in rows], "test")
        return
    for subject in sorted({row["type"] for row in rows}):
        name = f"hendrycks_math/hendrycks_math_{_MATH_SUBJECTS.get(subject, subject)}.yaml"
        yield Converted(name, [_without(row, "unique_id") for row in rows if row["type"] == subject])


def _math_row(record: Any) -> Row:
    problem = record["problem"] if "problem" in record else record["context"]
    solution = record["solution"] if "solution" in record else record["chain_of_thought"]
    subject = next(record[name] for name in ("type", "subject", "category") if name in record or name == "category")
    if "\\boxed" not in solution and "\\fbox" not in solution:
        if not record.get("answer"):
            raise ValueError("the answer is not in a box")
        solution = f"{solution} $\\boxed{{{record['answer']}}}$"
    return {
        "problem": problem,
        "solution": solution,
        "type": re.sub(r"[^a-z]+", "_", subject.lower().replace("&", "and")),
        "level": str(record.get("level", "")),
        "unique_id": str(record.get("unique_id", "")),
    }


def _without(row: Row, column: str) -> Row:
    return {name: value for name, value in row.items() if name != column}


def squad(source: Source) -> Iterator[Converted]:
    """SQuAD 1.1 and 2.0, as the harness's `squadv2`."""
    rows = [row for rows in source.rows(lambda article: {"rows": list(_squad_rows(article))}) for row in rows["rows"]]
    yield Converted("squadv2/squadv2.yaml", rows, source.split or "validation")


def _squad_rows(article: Any) -> Iterator[Row]:
    for paragraph in article["paragraphs"]:
        for question in paragraph["qas"]:
            answers = [] if question.get("is_impossible") else question["answers"]
            if not answers and not question.get("is_impossible"):
                raise ValueError(f"question {question['id']} has no answer")
            yield {
                "id": str(question["id"]),
                "title": article["title"],
                "context": paragraph["context"],
                "question": question["question"],
                "answers": {
                    "text": [str(each["text"]) for each in answers],
                    "answer_start": [int(each["answer_start"]) for each in answers],
                },
            }


def wikitext(source: Source) -> Iterator[Converted]:
    """WikiText-2 by article, which begins with a heading of the first level."""
    pages: list[list[str]] = [[]]
    for line in source.data.decode("utf-8", "replace").split("\n"):
        if re.fullmatch(r"= (?!=).*(?<!=) =", line.replace("= = =", "===").replace("= =", "==").strip()):
            pages.append([])
        pages[-1].append(line)
    rows = [{"page": page} for page in ("\n".join(lines) for lines in pages) if page.strip()]
    yield Converted("wikitext/wikitext.yaml", rows)


def books(source: Source) -> Iterator[Converted]:
    """Texts whose likelihood is measured: each file of text, or each line of JSON with `text`, is one."""
    if source.ending == "txt":
        rows = [{"text": source.data.decode("utf-8", "replace")}]
    else:
        rows = source.rows(lambda record: _texts(record, "text"))
    yield Converted("books", [row for row in rows if row["text"].strip()], "test")


def _texts(record: Any, *columns: str) -> Row:
    for name in columns:
        if not isinstance(record[name], str):
            raise TypeError(f"{name} must be text")
    return {name: record[name] for name in columns}
