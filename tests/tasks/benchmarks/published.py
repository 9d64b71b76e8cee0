"""Made-up items in the forms in which benchmarks are published."""

import json
from pathlib import Path
from typing import Any


def _lines(*records: Any) -> str:
    return "".join(json.dumps(each) + "\n" for each in records)


def _ai2(answer: str, letters: str) -> dict[str, Any]:
    choices = [{"text": f"the {letter} mill", "label": letter} for letter in letters]
    return {"id": "1", "question": {"stem": "Which mill grinds?", "choices": choices}, "answerKey": answer}


def _squad() -> str:
    asked = [
        {"id": "1", "question": "What is old?", "answers": [{"text": "The mill", "answer_start": 0}]},
        {"id": "2", "question": "What is new?", "answers": [], "is_impossible": True},
    ]
    article = {"title": "Mills", "paragraphs": [{"context": "The mill is old.", "qas": asked}]}
    return json.dumps({"version": "v2.0", "data": [article]})


_MILLER = {"premise": "The miller slept.", "choice1": "He was tired.", "choice2": "He was hungry.", "question": "cause"}
_ENDINGS = {"activity_label": "Milling", "ctx_a": "A man fills a sack.", "ctx_b": "he", "endings": ["a", "b", "c", "d"]}
_SENTENCE = {"sentence": "The miller told the baker that _ would come.", "option1": "he", "option2": "she"}
_MULTIRC = {"question": "Who?", "answers": [{"text": "He", "label": 1}, {"text": "She", "label": 0}]}
_WSC = {"span1_index": 1, "span1_text": "miller", "span2_index": 5, "span2_text": "he"}
_WIC = {
    "word": "mill",
    "sentence1": "the mill is",
    "sentence2": "a mill",
    "start1": 4,
    "end1": 8,
    "start2": 2,
    "end2": 6,
}
_PAIR = "0\tA mill stands.\tIt stands.\t"

FILES = {
    "ARC/ARC-Easy/ARC-Easy-Test.jsonl": _lines(_ai2("2", "123")),
    "ARC/ARC-Easy/ARC-Easy-Train.jsonl": _lines(_ai2("1", "123"), _ai2("3", "123")),
    "MATH/test/algebra/1.json": json.dumps(
        {"problem": "1+1", "level": "Level 1", "type": "Algebra", "solution": "$\\boxed{2}$"}
    ),
    "MATH/test/algebra/2.json": json.dumps(
        {"problem": "1+2", "level": "Level 1", "type": "Algebra", "solution": "$\\boxed{3}$"}
    ),
    "books/one.txt": "Once upon a time.\n",
    "books/two.txt": "The end.",
    "csqa/dev_rand_split.jsonl": _lines(_ai2("E", "ABCDE")),
    "glue/CoLA/dev.tsv": "gj04\t1\t\tThe miller rode.\ngj04\t0\t*\tMiller the.\n",
    "glue/MNLI/dev_matched.tsv": f"index\tsentence1\tsentence2\tgold_label\n{_PAIR}neutral\n",
    "glue/MNLI/dev_mismatched.tsv": f"index\tsentence1\tsentence2\tgold_label\n{_PAIR}contradiction\n",
    "glue/MRPC/dev.tsv": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tHe said.\tHe told.\n",
    "glue/QNLI/dev.tsv": f"index\tquestion\tsentence\tlabel\n{_PAIR}not_entailment\n",
    "glue/RTE/dev.tsv": f"index\tsentence1\tsentence2\tlabel\n{_PAIR}entailment\n",
    "glue/SST-2/dev.tsv": 'sentence\tlabel\na "fine mill \t1\nbad\t0\n',
    "glue/SST-2/test.tsv": "index\tsentence\n0\tgood\n",
    "gpqa/gpqa_diamond.csv": "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
    + "".join(f"q{number},right,first,second,third\n" for number in range(6)),
    "hellaswag/hellaswag_test.jsonl": _lines(_ENDINGS),
    "hellaswag/hellaswag_val.jsonl": _lines({**_ENDINGS, "label": 3}),
    "siqa/dev-labels.lst": "3\n",
    "siqa/dev.jsonl": _lines({"context": "c", "question": "q", "answerA": "a", "answerB": "b", "answerC": "d"}),
    "squad/dev-v2.0.json": _squad(),
    "superglue/BoolQ/val.jsonl": _lines({"question": "is it", "passage": "It is.", "idx": 0, "label": True}),
    "superglue/CB/val.jsonl": _lines({"premise": "p", "hypothesis": "h", "label": "contradiction", "idx": 0}),
    "superglue/COPA/test.jsonl": _lines(_MILLER),
    "superglue/COPA/val.jsonl": _lines({**_MILLER, "label": 0}),
    "superglue/MultiRC/val.jsonl": _lines({"idx": 0, "passage": {"text": "He came.", "questions": [_MULTIRC]}}),
    "superglue/RTE/val.jsonl": _lines({"premise": "p", "hypothesis": "h", "label": "not_entailment", "idx": 0}),
    "superglue/WSC/val.jsonl": _lines({"text": "The miller told Pete that he left.", "target": _WSC, "label": True}),
    "superglue/WiC/val.jsonl": _lines({**_WIC, "label": False}),
    "triviaqa/web-dev.json": json.dumps(
        {"Data": [{"Question": "Where?", "Answer": {"Aliases": ["Mill", "A mill"], "Value": "Mill"}}]}
    ),
    "winogrande/dev.jsonl": _lines({**_SENTENCE, "answer": "2"}),
    "winogrande/test.jsonl": _lines(_SENTENCE),
}
"""Content by path."""
TASKS = {
    "arc_easy": {"test": 1, "train": 2},
    "hendrycks_math_algebra": {"test": 2},
    "books": {"test": 2},
    "commonsense_qa": {"validation": 1},
    "cola": {"validation": 2},
    "mnli": {"validation_matched": 1},
    "mnli_mismatch": {"validation_mismatched": 1},
    "mrpc": {"validation": 1},
    "qnli": {"validation": 1},
    "rte": {"validation": 1},
    "sst2": {"validation": 2},
    "gpqa_diamond_zeroshot": {"train": 6},
    "hellaswag": {"validation": 1},
    "social_iqa": {"validation": 1},
    "squadv2": {"validation": 2},
    "boolq": {"validation": 1},
    "cb": {"validation": 1},
    "copa": {"validation": 1},
    "multirc": {"validation": 2},
    "sglue_rte": {"validation": 1},
    "wsc": {"validation": 1},
    "wic": {"validation": 1},
    "triviaqa": {"validation": 1},
    "winogrande": {"validation": 1},
}
"""What they make: items by task and split."""


def write_published(folder: Path) -> Path:
    """All of them below a folder."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder
