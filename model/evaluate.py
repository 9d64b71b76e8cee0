"""A rank of an evaluation: `torchrun --nproc-per-node N -m model.evaluate RUN_DIR [EVALUATION_SETTINGS_JSON]`.

Measures a checkpoint on the dataset's held-out split, under a layout of its own, beside the model as initialised and a
unigram baseline on the same tokens; writes `evaluations/step-00000100.json`. An evaluation that stands there already
with the same settings is not made again.
"""

import logging
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from infra.errors import BadInput
from infra.manifest import DatasetManifest
from infra.store import Store
from infra.tracking import log_file, log_metrics
from infra.vocabulary import load_vocabulary
from model.config import EvaluationSettings, validate_evaluation
from model.run import (
    BitsPerByte,
    EvaluationRecord,
    RunRecord,
    Sample,
    evaluation_path,
    load_launch,
    open_run_folder,
)

if TYPE_CHECKING:
    from model.evaluation.heldout import HeldOut
    from model.parallel import Place
    from model.recovery.checkpoint import CheckpointRecord, Checkpoints

logger = logging.getLogger(__name__)


def main(arguments: list[str]) -> None:
    """Evaluate the run whose folder is given, with the settings in the JSON file that may be given."""
    if len(arguments) not in (1, 2):
        raise BadInput(f"arguments {arguments}", "model.evaluate takes a run's folder and a settings file", "Give both")
    settings = _read_settings(Path(arguments[1])) if len(arguments) == 2 else EvaluationSettings()
    store, run, dataset = open_run_folder(Path(arguments[0]))
    validate_evaluation(settings, run.training.model, run.vocabulary_size)
    evaluate(store, run, dataset, settings)


def _read_settings(path: Path) -> EvaluationSettings:
    try:
        return EvaluationSettings.model_validate_json(path.read_text())
    except (FileNotFoundError, ValidationError) as error:
        raise BadInput(
            f"{path} ({error})", "evaluation settings are the JSON of EvaluationSettings", "Correct the file"
        ) from error


def evaluate(store: Store, run: RunRecord, dataset: DatasetManifest, settings: EvaluationSettings) -> EvaluationRecord:
    """Measure, and write and track the record; every rank calls this and gets it."""
    from model.parallel import parallel
    from model.recovery.checkpoint import Checkpoints

    # Sequence parallelism and overlap help training only, and a single position cannot be shared out.
    layout = settings.parallel.model_copy(update={"sequence_parallel": False, "overlap": False})
    settings = settings.model_copy(update={"parallel": layout})
    with parallel(layout, run.training.seed) as place:
        checkpoints = Checkpoints(store, run, place)
        checkpoint = _find(checkpoints, settings.step, run)
        path = evaluation_path(run, checkpoint.step)
        record = _same_evaluation(store, path, run, settings)
        if record is None:
            record = _measure(store, run, dataset, settings, place, checkpoints, checkpoint)
            if place.is_reporter:
                record.save(store, path)
                _track(store, run, record, store.local_path(path))
        if place.is_reporter:
            _announce(record)
        place.wait_for_all()
    return record


def _find(checkpoints: "Checkpoints", step: int | None, run: RunRecord) -> "CheckpointRecord":
    record = checkpoints.latest(step)
    if record is None or step not in (None, record.step):
        raise BadInput(
            f"{run.folder} has no whole checkpoint {'' if step is None else f'of step {step}'}".rstrip(),
            f"an evaluation needs one; there are those of steps {[each.step for each in checkpoints.complete()]}",
            "Train the run first, or name a step that is there",
        )
    return record


def _same_evaluation(store: Store, path: str, run: RunRecord, settings: EvaluationSettings) -> EvaluationRecord | None:
    if not store.exists(path):
        return None
    found = EvaluationRecord.load(store, path)
    same = found.fingerprint == run.fingerprint and _chosen(found.settings) == _chosen(settings)
    return found if same else None


def _chosen(settings: EvaluationSettings) -> dict[str, Any]:
    """What decides the numbers; the step is in the file's name, however it was chosen."""
    return {**settings.identity(), "step": None}


def _measure(
    store: Store,
    run: RunRecord,
    dataset: DatasetManifest,
    settings: EvaluationSettings,
    place: "Place",
    checkpoints: "Checkpoints",
    checkpoint: "CheckpointRecord",
) -> EvaluationRecord:
    from model.architectures.build import build_model
    from model.data.objectives import Objective
    from model.evaluation.heldout import model_nats

    started = time.monotonic()
    held_out, unigram = _open_data(store, dataset, settings, place)
    length, micro = run.training.model.sequence_length, settings.micro_batch_size
    chunks = build_model(run.training, settings.parallel, place, run.vocabulary_size)
    options: dict[str, Any] = {"across": run.training.data.attend_across_documents}
    if not run.training.model.predicts_next_token:
        end, seed = dataset.tokenizer.end_of_document, run.training.seed
        options["objective"] = Objective(run.training.model, run.vocabulary_size, end, seed, held_out=True)
    untrained, _ = model_nats(chunks, held_out, length, micro, place, **options)
    checkpoints.load(checkpoint, chunks)
    trained, tokens = model_nats(chunks, held_out, length, micro, place, **options)
    samples = _samples(store, run, dataset, settings, chunks[0], place) if settings.prompts else ()
    bits = math.log(2) * held_out.text_bytes
    per_byte = BitsPerByte(trained=trained / bits, untrained=untrained / bits, unigram=unigram / bits)
    return EvaluationRecord(
        fingerprint=run.fingerprint,
        step=checkpoint.step,
        layout=place.layout,
        settings=settings,
        documents=held_out.count,
        tokens=tokens,
        text_bytes=held_out.text_bytes,
        loss=trained / tokens,
        untrained_loss=untrained / tokens,
        perplexity=math.exp(trained / tokens),
        bits_per_byte=per_byte if run.training.model.predicts_next_token else None,
        samples=samples,
        seconds=time.monotonic() - started,
    )


def _open_data(
    store: Store, dataset: DatasetManifest, settings: EvaluationSettings, place: "Place"
) -> tuple["HeldOut", float]:
    """The held-out text, and its likelihood by token frequencies, for which the ranks share the counting."""
    import torch

    from model.data.documents import Documents
    from model.data.shards import verify_shards
    from model.evaluation.heldout import choose, unigram_nats

    if not dataset.tokens("heldout"):
        raise BadInput(
            f"dataset {dataset.name}/{dataset.version} has no held-out tokens",
            "an evaluation measures on text that was not trained on",
            "Build the dataset with a held-out split",
        )
    own = dataset.shards[place.rank :: place.processes]
    verify_shards(store, dataset, own, content=settings.verify_shards)
    place.wait_for_all()
    tokenizer = dataset.tokenizer
    held_out = choose(Documents(store, dataset.split("heldout")), settings.max_tokens, tokenizer.end_of_document)
    own_training = [shard for shard in own if shard.split == "train"]
    counts = Documents(store, own_training).frequencies(tokenizer.vocabulary_size)
    return held_out, unigram_nats(place.sum_counts(torch.from_numpy(counts)).numpy(), held_out)


def _samples(
    store: Store,
    run: RunRecord,
    dataset: DatasetManifest,
    settings: EvaluationSettings,
    model: Any,
    place: "Place",
) -> tuple[Sample, ...]:
    from model.generate import continue_prompts

    vocabulary = load_vocabulary(store, dataset.tokenizer)
    length = run.training.model.sequence_length
    return continue_prompts(model, vocabulary, dataset.tokenizer, settings, length, place.device)


def _track(store: Store, run: RunRecord, record: EvaluationRecord, path: Path) -> None:
    tracked = load_launch(store, run).tracked
    if tracked is None:
        return
    metrics = {
        "heldout_loss": record.loss,
        "heldout_perplexity": record.perplexity,
        "heldout_loss_untrained": record.untrained_loss,
    }
    if (bits := record.bits_per_byte) is not None:
        metrics["heldout_bits_per_byte"] = bits.trained
        metrics["heldout_bits_per_byte_untrained"] = bits.untrained
        metrics["heldout_bits_per_byte_unigram"] = bits.unigram
    log_metrics(tracked, record.step, metrics)
    log_file(tracked, path, "evaluations")


def _announce(record: EvaluationRecord) -> None:
    logger.info(
        "step %d on %s held-out tokens: loss %.4f (untrained %.4f), perplexity %.2f",
        record.step,
        f"{record.tokens:,}",
        record.loss,
        record.untrained_loss,
        record.perplexity,
    )
    if (bits := record.bits_per_byte) is not None:
        numbers = (bits.trained, bits.unigram, bits.untrained)
        logger.info("bits per byte %.3f (unigram %.3f, untrained %.3f)", *numbers)


if __name__ == "__main__":
    from model.rank import rank_process

    with rank_process():
        main(sys.argv[1:])
