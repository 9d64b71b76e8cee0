"""Everything that an evaluation asks for, measured of a model: held-out text, benchmarks, samples.

What can be known without weights is done when a `Measuring` is made: data is checked, tasks are loaded, their prompts
built and found to fit. Then any number of models of the same run can be measured, such as that of a training run at
several steps. Rank 0 alone runs the harness and writes files; see `model.findings.records` for these.
"""

import logging
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from infra.errors import BadInput
from infra.manifest import DatasetManifest
from infra.store import Store
from infra.vocabulary import load_vocabulary
from model.config import EvaluationSettings
from model.data.documents import Documents
from model.data.objectives import Objective
from model.data.shards import verify_shards
from model.evaluation.answers import Answers
from model.evaluation.crew import Crew
from model.evaluation.encoding import PromptEncoder
from model.evaluation.further import further_datasets, further_likelihoods
from model.evaluation.generation import Generator, continue_prompts
from model.evaluation.heldout import DocumentNats, HeldOut, choose, document_nats, unigram_nats
from model.evaluation.interruption import Interruption
from model.evaluation.perplexity import HeldOutLikelihood, held_out_text
from model.evaluation.scoring import Scorer
from model.findings.records import SCORES, TaskResult
from model.parallel import Place
from model.run import BitsPerByte, EvaluationRecord, RunRecord, evaluation_folder

if TYPE_CHECKING:
    from model.benchmarks.items import Collected
    from model.benchmarks.tasks import LoadedTasks

logger = logging.getLogger(__name__)


class Measuring:
    """See the module docstring; every rank makes one and calls its methods together with the others."""

    def __init__(
        self,
        store: Store,
        run: RunRecord,
        dataset: DatasetManifest,
        settings: EvaluationSettings,
        place: Place,
        interruption: Interruption | None = None,
    ) -> None:
        self._interruption = interruption or Interruption(place)
        self._store, self._run, self._dataset, self._settings, self._place = store, run, dataset, settings, place
        self._vocabulary = load_vocabulary(store, dataset.tokenizer)
        self._encoder = PromptEncoder(self._vocabulary, dataset.tokenizer.end_of_document)
        self._tasks, self._truncated = self._load_tasks() if place.rank == 0 else (None, {})
        self.items_digest: str | None = place.share(self._tasks.digest if self._tasks else None)
        """What benchmarks ask; none if there are none."""
        self._further = further_datasets(store, dataset, settings.held_out)
        self._held_out = _open_held_out(store, dataset, settings, place)
        self._text = held_out_text(store, dataset, self._held_out, settings.groups, place)
        self._unigram: float | None = None
        self._untrained: DocumentNats | None = None

    def _load_tasks(self) -> "tuple[LoadedTasks | None, dict[str, int]]":
        """Tasks whose prompts fit, and how many of each were cut."""
        from model.benchmarks.task_checks import check_lengths
        from model.benchmarks.tasks import load_tasks

        wanted = self._settings.benchmarks
        if not wanted.tasks:
            return None, {}
        tasks = load_tasks(wanted)
        self._require_generation(tasks)
        length = self._run.training.model.sequence_length
        truncated = check_lengths(tasks, self._encoder, length, wanted)
        asked = sum(len(task.instances) for task in tasks.tasks.values())
        logger.info("%d tasks, %s requests", len(tasks.tasks), f"{asked:,}")
        return tasks, truncated

    def _require_generation(self, tasks: "LoadedTasks") -> None:
        written = [name for name, task in tasks.tasks.items() if task.OUTPUT_TYPE == "generate_until"]
        if written and self._place.layout.context > 1:
            raise BadInput(
                f"parallel.context = {self._place.layout.context} with {', '.join(written)}",
                "text is generated token by token, and one position cannot be shared out",
                "Set parallel.context to 1 for this evaluation, or leave these tasks out",
            )

    def measure_baselines(self, chunks: Sequence[Any]) -> None:
        """Measure the model as initialised, and token frequencies, to be reported beside what is trained."""
        self._untrained = self._nats(chunks, self._held_out)
        own = self._dataset.split("train")[self._place.rank :: self._place.processes]
        verify_shards(self._store, self._dataset, own, content=self._settings.verify_shards)
        counts = Documents(self._store, own).frequencies(self._dataset.tokenizer.vocabulary_size)
        total = self._place.sum_counts(torch.from_numpy(counts))
        self._unigram = unigram_nats(total.numpy(), self._held_out)

    def measure(self, chunks: Sequence[Any], step: int) -> EvaluationRecord:
        """Measure the model of a step, and write the files beside the record, which the caller saves on rank 0.

        Raises Interrupted, having written nothing but answers to go on from, where the interruption says so.
        """
        started = time.monotonic()
        trained = self._nats(chunks, self._held_out)
        texts = self._likelihoods(chunks, trained)
        generator = self._generator(chunks)
        collected = self._benchmarks(chunks, generator, step)
        samples = ()
        if generator is not None and self._settings.prompts:
            length = self._run.training.model.sequence_length
            samples = continue_prompts(generator, self._vocabulary, self._dataset.tokenizer, self._settings, length)
        self._interruption.check()
        if self._place.rank == 0:
            self._write(step, texts, collected)
        tasks: tuple[TaskResult, ...] = self._place.share(collected.tasks if collected else ())
        held_out, untrained = self._held_out, self._untrained
        return EvaluationRecord(
            fingerprint=self._run.fingerprint,
            step=step,
            layout=self._place.layout,
            settings=self._settings,
            items_digest=self.items_digest,
            documents=held_out.count,
            tokens=int(trained.tokens.sum()),
            text_bytes=held_out.text_bytes,
            loss=trained.loss,
            untrained_loss=None if untrained is None else untrained.loss,
            perplexity=math.exp(trained.loss),
            bits_per_byte=self._bits_per_byte(trained),
            groups=tuple(group for text in texts for group in text.groups(self._settings.benchmarks)),
            tasks=tasks,
            samples=samples,
            seconds=time.monotonic() - started,
        )

    def _nats(self, chunks: Sequence[Any], held_out: HeldOut) -> DocumentNats:
        training = self._run.training
        options: dict[str, Any] = {"across": training.data.attend_across_documents, "check": self._interruption.check}
        if not training.model.predicts_next_token:
            end, seed = self._dataset.tokenizer.end_of_document, training.seed
            options["objective"] = Objective(training.model, self._run.vocabulary_size, end, seed, held_out=True)
        length, micro = training.model.sequence_length, self._settings.micro_batch_size
        return document_nats(chunks, held_out, length, micro, self._place, **options)

    def _likelihoods(self, chunks: Sequence[Any], trained: DocumentNats) -> list[HeldOutLikelihood]:
        """Of the run's own held-out text by groups, and of that of further datasets."""
        every, place = self._run.training.model.predicts_next_token, self._place
        own = self._text.likelihood(trained, every_token=every)
        further = further_likelihoods(
            self._store, self._further, partial(self._nats, chunks), self._settings, place, every_token=every
        )
        return [own, *further]

    def _bits_per_byte(self, trained: DocumentNats) -> BitsPerByte | None:
        if not self._run.training.model.predicts_next_token:  # others give a text no likelihood
            return None
        bits, untrained = math.log(2) * self._held_out.text_bytes, self._untrained
        return BitsPerByte(
            trained=float(trained.nats.sum()) / bits,
            untrained=None if untrained is None else float(untrained.nats.sum()) / bits,
            unigram=None if self._unigram is None else self._unigram / bits,
        )

    def _generator(self, chunks: Sequence[Any]) -> Generator | None:
        layout, training = self._place.layout, self._run.training
        if layout.context > 1 or not training.model.predicts_next_token:
            return None
        record, at_once = self._dataset.tokenizer, self._settings.benchmarks.tokens_at_once
        length = training.model.sequence_length
        return Generator(chunks, self._place, length, record, self._vocabulary, at_once, self._interruption)

    def _benchmarks(self, chunks: Sequence[Any], generator: Generator | None, step: int) -> "Collected | None":
        """What the harness says, on rank 0."""
        if self.items_digest is None:
            return None
        wanted, training = self._settings.benchmarks, self._run.training
        length = training.model.sequence_length
        scorer = Scorer(chunks, self._place, wanted, length, self._run.vocabulary_size)
        works: dict[str, Any] = {"score": scorer.score}
        if generator is not None:
            works["generate"] = generator.generate
        with Crew(self._place, works, self._interruption) as crew:
            if self._place.rank > 0:
                crew.follow()
                return None
            return self._ask(crew, step)

    def _ask(self, crew: Crew, step: int) -> "Collected":
        from model.benchmarks.items import collect
        from model.evaluation.harness import MegatronLM, run_tasks

        tasks, wanted = self._tasks, self._settings.benchmarks
        assert tasks is not None, "rank 0 has loaded them"
        answers = Answers(self._store, f"{evaluation_folder(self._run, step)}/answers")
        length, replicas = self._run.training.model.sequence_length, self._place.layout.data
        lm = MegatronLM(self._encoder, crew, wanted, length, answers, replicas)
        found = collect(run_tasks(lm, tasks.task_dict(), wanted), tasks.tasks, tasks.groups, wanted)
        results = tuple(
            each.model_copy(
                update={"truncated": sum(self._truncated.get(name, 0) for name in each.members or (each.task,))}
            )
            for each in found.tasks
        )
        return found._replace(tasks=results)

    def _write(self, step: int, texts: Sequence[HeldOutLikelihood], collected: "Collected | None") -> None:
        folder = evaluation_folder(self._run, step)
        scores = [each.scores() for each in texts]
        if collected is not None:
            _write_parquet(self._store, f"{folder}/items.parquet", collected.items)
            scores.append(collected.scores)
        _write_parquet(self._store, f"{folder}/scores.parquet", pa.concat_tables(scores).cast(SCORES))

    def forget_answers(self, step: int) -> None:
        """Remove what an interrupted evaluation would go on from; rank 0 calls it when the record is saved."""
        self._store.remove(f"{evaluation_folder(self._run, step)}/answers")


def _open_held_out(store: Store, dataset: DatasetManifest, settings: EvaluationSettings, place: Place) -> HeldOut:
    """The held-out split of a dataset, whose shards the ranks check together."""
    if not dataset.tokens("heldout"):
        raise BadInput(
            f"dataset {dataset.name}/{dataset.version} has no held-out tokens",
            "an evaluation measures on text that was not trained on",
            "Build the dataset with a held-out split",
        )
    own = dataset.split("heldout")[place.rank :: place.processes]
    verify_shards(store, dataset, own, content=settings.verify_shards)
    place.wait_for_all()
    documents = Documents(store, dataset.split("heldout"))
    return choose(documents, settings.max_tokens, dataset.tokenizer.end_of_document)


def _write_parquet(store: Store, path: str, table: pa.Table) -> None:
    with store.create(path) as out:
        pq.write_table(table, out, compression="zstd")
