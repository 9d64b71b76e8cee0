"""Progress lines of all our packages, for the terminal and for Prefect."""

import logging
import sys
from typing import TextIO

PACKAGES = ("flows", "tasks", "model", "infra")


def let_through() -> None:
    """Let INFO lines of our packages pass: Prefect attaches its handlers to them but leaves their level alone."""
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.INFO)


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
