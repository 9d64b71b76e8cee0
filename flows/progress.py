"""Progress lines of all our packages, for the terminal and for Prefect."""

import logging
import sys

PACKAGES = ("flows", "tasks", "model", "infra")


def let_through() -> None:
    """Let INFO lines of our packages pass: Prefect attaches its handlers to them but leaves their level alone."""
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.INFO)


def to_terminal() -> None:
    """Write them to standard error as well."""
    let_through()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    for name in PACKAGES:
        logging.getLogger(name).addHandler(handler)
