"""Prices: what is used and has one is in the sum, nothing else."""

import pytest

from infra.cost import Cost, CostSettings


def test_only_what_has_a_price_is_in_the_sum():
    used = Cost(gpu_hours=10, core_hours=100, stored_bytes=2e12, downloaded_bytes=5e9)
    assert used.money(CostSettings()) is None
    assert used.money(CostSettings(gpu_hour=2.5)) == pytest.approx(25)
    whole = CostSettings(gpu_hour=2.5, core_hour=0.04, gigabyte_month=0.02, gigabyte_download=0.1)
    assert used.money(whole) == pytest.approx(25 + 4 + 40 + 0.5)
    assert Cost(core_hours=1).money(CostSettings(gpu_hour=2.5)) is None


def test_costs_add_up():
    total = Cost(gpu_hours=1, stored_bytes=10) + Cost(gpu_hours=2, core_hours=3)
    assert total == Cost(gpu_hours=3, core_hours=3, stored_bytes=10)
