"""What is held for unhealthy, on numbers alone."""

import math

import pytest

from model.recovery.health import Health, Unhealthy, slow_ranks, spike_limit
from model.settings.safety import HealthSettings

WINDOW = [3.0 + 0.05 * (-1) ** n + 0.01 * (n % 5) for n in range(32)]


def watcher(**changes) -> Health:
    return Health(HealthSettings(**{"window": 32, "spike_after": 0, "spike": "skip", **changes}), WINDOW)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_found_at_any_step(loss) -> None:
    with pytest.raises(Unhealthy, match="loss not finite") as found:
        Health(HealthSettings(non_finite="rollback")).check_loss(1, loss)
    assert found.value.policy == "rollback"


def test_a_norm_that_is_no_number_is_found() -> None:
    watcher().check_norm(1e30)
    with pytest.raises(Unhealthy, match="gradient norm not finite"):
        watcher().check_norm(math.inf)


def test_spikes_are_losses_far_above_the_window() -> None:
    limit = spike_limit(WINDOW, 6.0, 0.1)
    assert 3.2 < limit < 3.6
    watcher().check_loss(100, limit)
    watcher().check_loss(100, 0.1)  # low losses are welcome
    with pytest.raises(Unhealthy, match="loss spike") as found:
        watcher().check_loss(100, limit + 0.01)
    assert (found.value.limit, found.value.policy) == (limit, "skip")


def test_one_spike_in_the_window_does_not_hide_the_next() -> None:
    assert spike_limit([*WINDOW[1:], 30.0], 6.0, 0.1) == pytest.approx(spike_limit(WINDOW, 6.0, 0.1), abs=0.1)


def test_equal_losses_still_leave_room() -> None:
    assert spike_limit([2.0] * 20, 6.0, 0.1) == 2.1


def test_no_spikes_early_or_with_little_behind() -> None:
    watcher(spike_after=100).check_loss(100, 50.0)
    with pytest.raises(Unhealthy):
        watcher(spike_after=100).check_loss(101, 50.0)
    Health(HealthSettings(window=32, spike_after=0, spike="skip"), WINDOW[:15]).check_loss(100, 50.0)


def test_reported_spikes_do_not_interrupt() -> None:
    health = watcher(spike="report")
    health.check_loss(100, 50.0)
    assert health.reported is not None
    health.check_loss(101, 3.0)
    assert health.reported is None


def test_the_window_forgets_and_can_be_restored() -> None:
    health = watcher()
    for _ in range(32):
        health.accept(1.0)
    assert health.losses == (1.0,) * 32
    health.restart(WINDOW)
    assert health.losses == tuple(WINDOW)


def test_slow_ranks_are_slower_than_the_median() -> None:
    assert slow_ranks([1.0, 1.1, 0.9, 2.0], 1.5) == ({3}, 1.5)
    assert slow_ranks([1.0, 1.6], 1.5) == ({1}, 1.5)
    assert slow_ranks([1.0], 1.5) == (set(), 1.5)
