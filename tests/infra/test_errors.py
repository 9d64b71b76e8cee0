"""Errors: what a person reads, and that they survive the way from a worker."""

import pickle

import pytest

from infra.errors import BadInput, DamagedData, DiskFull, GristmillError, RunFailed


@pytest.mark.parametrize(("kind", "code"), [(BadInput, 2), (RunFailed, 1), (DiskFull, 1), (DamagedData, 1)])
def test_an_error_says_value_rule_and_remedy_in_any_process(kind: type[GristmillError], code: int) -> None:
    error = pickle.loads(pickle.dumps(kind("x=3", "x is at most 2", "Lower it")))
    assert type(error) is kind
    assert str(error) == "x=3: x is at most 2. Lower it."
    assert (error.value, error.rule, error.remedy, error.exit_code) == ("x=3", "x is at most 2", "Lower it", code)


def test_what_happens_while_running_is_a_failed_run_and_bad_input_is_not() -> None:
    assert issubclass(DiskFull, RunFailed)
    assert issubclass(DamagedData, RunFailed)
    assert not issubclass(BadInput, RunFailed)
