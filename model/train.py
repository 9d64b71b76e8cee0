"""A rank of a training run: `torchrun --nproc-per-node N -m model.train RUN_DIR`.

RUN_DIR comes from `model.run.prepare_run`. Training goes on from the latest checkpoint; a finished run returns at once.
SIGTERM makes it write a checkpoint after the step it is in and leave with code 143.
"""

import logging
import sys
from pathlib import Path

from infra.errors import BadInput
from model.run import finished_training, open_run_folder

logger = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Train the run whose folder is given; returns the exit code."""
    if len(arguments) != 1:
        raise BadInput(f"arguments {arguments}", "model.train takes one argument, the run's folder", "Name one folder")
    store, run, dataset = open_run_folder(Path(arguments[0]))
    if (summary := finished_training(store, run)) is not None:
        logger.info("%s is finished after %d steps", run.folder, summary.steps)
        return 0
    from model.loop import train

    return train(store, run, dataset)


if __name__ == "__main__":
    from model.rank import rank_process

    with rank_process():
        sys.exit(main(sys.argv[1:]))
