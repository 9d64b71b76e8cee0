"""Answers on disk."""

import logging
import math

import pytest

from infra.store import Store
from model.evaluation.answers import Answers, request_digest


def test_answers_are_read_again_to_the_bit(tmp_path) -> None:
    store = Store(str(tmp_path))
    answers = Answers(store, "answers")
    answers.add({"one": [math.pi * -1e-7, True], "two": [4, 5, 6]})
    answers.add({"three": [-math.inf, False]})
    again = Answers(store, "answers")
    assert len(again) == 3
    assert again["one"] == [math.pi * -1e-7, True]
    assert again["two"] == [4, 5, 6]
    assert again["three"] == [-math.inf, False]
    assert "four" not in again


@pytest.mark.parametrize("damage", [b"", b"{", b'{"one": [0.0, true]}'])
def test_damaged_file_is_left_out(tmp_path, caplog, damage: bytes) -> None:
    store = Store(str(tmp_path))
    Answers(store, "answers").add({"one": [-1.0, True]})
    Answers(store, "answers").add({"two": [-2.0, True]})
    name = next(each for each in store.names("answers") if b"one" in store.read_bytes(f"answers/{each}"))
    store.write_bytes(f"answers/{name}", damage)
    with caplog.at_level(logging.WARNING):
        again = Answers(store, "answers")
    assert "is damaged" in caplog.text
    assert "one" not in again
    assert again["two"] == [-2.0, True]
    assert len(Answers(store, "answers")) == 1


def test_digest_tells_requests_apart() -> None:
    same = request_digest("score", (1, 2), (3,))
    assert same == request_digest("score", [1, 2], [3])
    others = [
        request_digest("score", (1,), (2, 3)),
        request_digest("score", (1, 2, 3), ()),
        request_digest("generate", (1, 2), (3,)),
        request_digest("score", (1, 2), (3,), seed=1),
    ]
    assert len({same, *others}) == 5


def test_without_a_folder_answers_live_in_memory() -> None:
    answers = Answers()
    answers.add({"one": [1]})
    assert answers["one"] == [1]
