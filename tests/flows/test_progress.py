"""Progress lines on the terminal."""

import logging
from collections.abc import Iterator

import pytest

from flows import progress


@pytest.fixture
def loggers() -> Iterator[list[logging.Logger]]:
    """Those of our packages, afterwards as they were."""
    ours = [logging.getLogger(name) for name in progress.PACKAGES]
    before = [(each, each.level, list(each.handlers)) for each in ours]
    yield ours
    for each, level, handlers in before:
        each.setLevel(level)
        each.handlers[:] = handlers


def test_commands_that_run_in_one_process_say_each_line_once(
    loggers: list[logging.Logger], capsys: pytest.CaptureFixture[str]
) -> None:
    others = [logging.NullHandler() for _ in loggers]
    for logger, handler in zip(loggers, others, strict=True):
        logger.addHandler(handler)
    progress.to_terminal()
    progress.to_terminal()
    logging.getLogger("infra.store").info("one line")
    assert capsys.readouterr().err.count("one line") == 1
    assert all(handler in logger.handlers for logger, handler in zip(loggers, others, strict=True))
