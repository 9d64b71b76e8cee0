from typing import Literal

Planned = Literal[
    "crawl_to_model",
    "build_corpus",
    "refresh_corpus",
    "train_tokenizer",
    "pretrain",
    "evaluate",
    "ablate",
    "compare",
    "promote",
    "retain",
]
"""Flows that are planned: all that there are."""
