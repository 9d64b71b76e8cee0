"""Progress lines of all our packages, for the terminal and for Prefect."""

import logging
import os
import select
import stat
import sys
import threading
from typing import TextIO

from flows.outliving import end_when_asked

PACKAGES = ("flows", "tasks", "model", "infra")
_WATCH = "reader of our output"


def let_through() -> None:
    """Let INFO lines of our packages pass: Prefect attaches its handlers to them but leaves their level alone.

    Every flow begins with this. One that a worker has started does not end when the worker does, and sees from then on
    by itself whether it is cancelled.
    """
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.INFO)
    if "PREFECT__FLOW_RUN_ID" in os.environ and _WATCH not in [each.name for each in threading.enumerate()]:
        threading.Thread(target=_outlive_reader, name=_WATCH, daemon=True).start()


def _outlive_reader() -> None:
    """Write to nowhere once nobody reads our output: the console that Prefect logs to exits on a broken pipe."""
    pipes, watched = select.poll(), {number for number in (1, 2) if stat.S_ISFIFO(os.fstat(number).st_mode)}
    has_reader = bool(watched)
    for number in watched:
        pipes.register(number, 0)  # errors are always told, and the end of the reader is one
    while watched:
        for number, _ in pipes.poll():
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
            pipes.unregister(number)
            watched.remove(number)
    if has_reader:
        end_when_asked()


class _Terminal(logging.StreamHandler[TextIO]):
    """Our handler, told from those of others by its class."""


def to_terminal() -> None:
    """Write them to standard error as well, each once however often a process prepares itself."""
    let_through()
    handler = _Terminal(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    for name in PACKAGES:
        logger = logging.getLogger(name)
        for earlier in [each for each in logger.handlers if isinstance(each, _Terminal)]:
            logger.removeHandler(earlier)
        logger.addHandler(handler)
