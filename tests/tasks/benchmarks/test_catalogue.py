"""Names tell which benchmark a file belongs to, the nearest name first."""

import pytest

from tasks.benchmarks.catalogue import KINDS, find_kind


@pytest.mark.parametrize(
    ("path", "kind", "distance", "split"),
    [
        ("benchmarks/arc/arc_easy.jsonl", "arc", 0, None),
        ("ARC-Challenge/ARC-Challenge-Test.jsonl", "arc", 0, "test"),
        ("benchmarks/math/svamp.jsonl", "math", 1, None),
        ("MATH/test/algebra/1.json", "math", 3, "test"),
        ("x/mmlu/dev/anatomy_dev.csv", "mmlu", 2, "dev"),
        ("x/mmlu/val/anatomy_val.csv", "mmlu", 2, "validation"),
        ("piqa/valid.jsonl", "piqa", 1, "validation"),
        ("blimp/BLiMP.zip/data/causative.jsonl", "blimp", 2, None),
        ("winogrande/winograd_wsc.jsonl", "wsc273", 0, None),
        ("winogrande_1.1/train_xl.jsonl", None, 0, None),
        ("train/gsm8k.jsonl", "gsm8k", 0, "train"),
        ("GLUE/SST-2/dev.tsv", "sst2", 1, "validation"),
        ("squad/dev-v2.0.json", "squadv2", 0, "validation"),
        ("hellaswag/hellaswag_val_full.txt", "hellaswag", 0, "validation"),
        ("wikitext-2-raw/wiki.test.raw", "wikitext", 0, "test"),
        ("text/peps.jsonl", None, 0, None),
    ],
)
def test_paths_name_a_benchmark(path: str, kind: str | None, distance: int, split: str | None) -> None:
    place = find_kind(path)
    if place is None:
        assert kind is None
    else:
        assert (place.kind.name, place.distance, place.split) == (kind, distance, split)


def test_no_name_belongs_to_two_benchmarks() -> None:
    for name in (each.name for each in KINDS):
        assert [each.name for each in KINDS if each.names.fullmatch(name)] == [name]
