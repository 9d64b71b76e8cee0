"""How many shards fit into a budget."""

import pytest

from flows.refreshes.budget import Amount, Rate, choose
from flows.refreshes.settings import RefreshBudget
from infra.errors import BadInput, RunFailed

NOTHING = Amount()
SIZES = {"a": 100, "b": 300, "c": 50, "d": 500}


def chosen(spent: Amount = NOTHING, rate: Rate | None = None, **limits: int) -> Amount:
    return choose(list(SIZES), RefreshBudget(**limits), spent, SIZES.get, rate)


def test_shards_are_taken_in_order_while_they_fit():
    assert chosen(shards=3).shards == 3
    assert chosen(shards=9).shards == 4
    assert chosen(bytes=449) == Amount(2, 400), "a later one that would fit does not come before its turn"
    assert chosen(bytes=450) == Amount(3, 450)
    assert chosen(Amount(1, 60), shards=4, bytes=450).shards == 1


def test_tokens_are_estimated_by_bytes_or_else_by_shards():
    assert chosen(rate=Rate(tokens=50, shards=2, bytes=100), tokens=210) == Amount(2, 400, 200)
    assert chosen(rate=Rate(tokens=50, shards=2, bytes=None), tokens=75) == Amount(3, 450, 75)


def test_sizes_are_asked_for_only_where_they_count():
    def never(path: str) -> int:
        raise AssertionError(path)

    assert choose(["a"], RefreshBudget(shards=1), Amount(), never, None) == Amount(1)
    assert choose(["a"], RefreshBudget(), Amount(9, 9, 9), never, None) == Amount(1)


def test_no_shard_fits():
    assert chosen(Amount(1, 400), bytes=450) == Amount()
    with pytest.raises(BadInput, match=r"a has 100 bytes: refresh\.budget must hold one shard at least"):
        chosen(bytes=99)
    with pytest.raises(BadInput, match="for a dataset without a version"):
        chosen(tokens=5)
    with pytest.raises(RunFailed, match="does not say how large"):
        choose(["x"], RefreshBudget(bytes=5), Amount(), SIZES.get, None)
