"""Fills a run's model from an imported one and saves it: `-m tests.model.interchange_rank RUN MODEL`."""

import sys
from pathlib import Path

from model.run import open_run_folder


def main(run_folder: str, imported: str) -> None:
    from model.architectures.build import build_model
    from model.interchange.start import load_start
    from model.parallel import parallel
    from model.recovery.checkpoint import Checkpoints
    from model.updates.distribution import distribute
    from model.updates.optimizer import build_optimizer

    store, run, _ = open_run_folder(Path(run_folder))
    training = run.training
    with parallel(training.parallel, training.seed) as place:
        chunks = build_model(training, training.parallel, place, run.vocabulary_size)
        load_start(chunks, store, imported, place, training.model)
        wrapped = distribute(chunks, training.parallel)
        checkpoints = Checkpoints(store, run, place)
        checkpoints.clean()
        checkpoints.save(wrapped, build_optimizer(wrapped, training), step=1, consumed_samples=8, seconds=1.0)
        checkpoints.finish()


if __name__ == "__main__":
    from model.rank import rank_process

    with rank_process():
        main(*sys.argv[1:])
