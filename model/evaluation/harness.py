"""The model as lm-evaluation-harness sees it, on rank 0. This module imports `lm_eval`, which takes seconds.

    loglikelihood           contexts and continuations cut as the harness's `TemplateLM` does
    loglikelihood_rolling   whole texts in windows of the model's length, in which each token is predicted once
    generate_until          greedy unless the task samples; up to the first stop string

Every text begins after an end-of-document token; see `model.evaluation.encoding`. The ranks work in groups of
requests, whose answers are kept as they come (`model.evaluation.answers`).
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from lm_eval import evaluator
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from model.benchmarks.task_checks import DEFAULT_NEW_TOKENS, new_tokens
from model.benchmarks.tasks import templates_compiled_once
from model.evaluation.answers import Answers, request_digest
from model.evaluation.crew import Crew
from model.evaluation.encoding import PromptEncoder, Tokens
from model.evaluation.generation import GenerationRequest
from model.evaluation.scoring import Request, Score, groups
from model.settings.benchmarks import BenchmarkSettings

logger = logging.getLogger(__name__)

Asked = TypeVar("Asked")

_GENERATION_GROUP = 4
"""Batches' worth of tokens in each group of prompts, for each replica."""
_SECONDS_BETWEEN_LINES = 10.0


class MegatronLM(TemplateLM):
    """Asks a crew whose works are `score` (`Scorer.score`) and `generate` (`Generator.generate`)."""

    def __init__(
        self,
        encoder: PromptEncoder,
        crew: Crew,
        settings: BenchmarkSettings,
        sequence_length: int,
        answers: Answers | None = None,
        replicas: int = 1,
    ) -> None:
        super().__init__()
        self._encoder, self._crew, self._settings = encoder, crew, settings
        self._answers = Answers() if answers is None else answers
        self._replicas = replicas
        self.max_length = sequence_length

    @property
    def eot_token_id(self) -> int:
        """The end-of-document token, after which every text begins."""
        return self._encoder.end_of_document

    @property
    def tokenizer_name(self) -> str:
        """None is fetched by name."""
        return ""

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text, after an end-of-document token unless that is declined."""
        return self._encoder.encode(string, begins=add_special_tokens is not False)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of each continuation, and whether it is what the model would say."""
        return self._likelihoods(self._encoder.encode_pairs([each.args for each in requests]))

    def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        return self._likelihoods([(tuple(context), tuple(continuation)) for _, context, continuation in requests])

    def _likelihoods(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[tuple[float, bool]]:
        """Of continuations, those that the model cannot read at once in parts, each after the part before."""
        parts = [_parts(*pair, self.max_length) for pair in pairs]
        scores = iter(self._score([part for each in parts for part in each]))
        together = [[next(scores) for _ in each] for each in parts]
        return [(sum(part.log_likelihood for part in each), all(part.greedy for part in each)) for each in together]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood in nats of each text, which may be longer than the model's sequences."""
        windows = [self._windows(each.args[0]) for each in requests]
        scores = iter(self._score([window for each in windows for window in each]))
        return [sum(next(scores).log_likelihood for _ in each) for each in windows]

    def _windows(self, text: str) -> list[Request]:
        tokens = self._encoder.encode(text, begins=False)
        found = get_rolling_token_windows(tokens, self.eot_token_id, self.max_length, context_len=1)
        return [Request(*map(tuple, make_disjoint_window(each))) for each in found]

    def _score(self, requests: list[Request]) -> list[Score]:
        digests = [request_digest("score", *each) for each in requests]
        found = self._ask("score", requests, digests, self._score_groups)
        return [Score(*each) for each in found]

    def _score_groups(self, requests: list[Request]) -> list[list[int]]:
        return groups(requests, self.max_length, self._at_once, self._replicas)

    @property
    def _at_once(self) -> int:
        return self._settings.tokens_at_once

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """A continuation of each prompt, cut before its first stop string."""
        prompts = self._encoder.encode_contexts([each.args[0] for each in requests])
        times: Counter[str] = Counter()
        asked = [self._prompt(prompt, each.args[1], times) for prompt, each in zip(prompts, requests, strict=True)]
        digests = [_generation_digest(each) for each in asked]
        found = self._ask("generate", asked, digests, self._prompt_groups)
        return [self._text(request, added) for request, added in zip(asked, found, strict=True)]

    def _prompt(self, prompt: Sequence[int], wanted: dict[str, Any], times: Counter[str]) -> GenerationRequest:
        """A task's request in our terms. A prompt that is asked several times gets a seed for each time."""
        options: Any = normalize_gen_kwargs(wanted, DEFAULT_NEW_TOKENS)
        room = new_tokens(wanted, self._settings, self.max_length)
        given = tuple(prompt[-(self.max_length - room) :])
        request = GenerationRequest(given, room, tuple(each for each in options["until"] if each))
        if not options["do_sample"]:
            return request
        sampled = request._replace(
            temperature=float(options.get("temperature", 1.0)), top_k=options.get("top_k"), top_p=options.get("top_p")
        )
        key = _generation_digest(sampled)
        times[key] += 1
        seed = request_digest("seed", own=self._settings.seed, of=key, times=times[key])
        return sampled._replace(seed=int(seed[:8], 16))

    def _prompt_groups(self, requests: Sequence[GenerationRequest]) -> list[list[int]]:
        """Groups of prompts, longest first, that take about as long as some batches."""
        found: list[list[int]] = []
        free = 0
        for number in sorted(range(len(requests)), key=lambda each: (-len(requests[each].prompt), each)):
            if free <= 0:
                found.append([])
                free = _GENERATION_GROUP * self._at_once * self._replicas
            free -= len(requests[number].prompt) + requests[number].max_new_tokens
            found[-1].append(number)
        return found

    def _text(self, request: GenerationRequest, added: list[int]) -> str:
        # Decoded together, for the space or the half of a character at the border.
        text = self._encoder.decode([*request.prompt, *added])[len(self._encoder.decode(request.prompt)) :]
        return postprocess_generated_text(text, list(request.stop), None)

    def _ask(
        self,
        work: str,
        requests: list[Asked],
        digests: list[str],
        cut: Callable[[list[Asked]], list[list[int]]],
    ) -> list[Any]:
        """Answers to all requests; equal ones are asked once, and groups that are answered already not at all."""
        unique = dict(zip(digests, requests, strict=True))
        keys, asked = list(unique), list(unique.values())
        progress = _Progress(work, len(keys))
        for group in cut(asked):
            due = any(keys[number] not in self._answers for number in group)
            if due:
                found = self._crew.ask(work, [asked[number] for number in group])
                self._answers.add({keys[number]: each for number, each in zip(group, found, strict=True)})
            progress.add(len(group), due)
        return [self._answers[each] for each in digests]


def _parts(context: Tokens, continuation: Tokens, length: int) -> list[Request]:
    """A continuation in parts of as many tokens as a model reads, most often one."""
    starts = range(0, max(len(continuation), 1), length)
    return [Request((*context, *continuation[:start]), continuation[start : start + length]) for start in starts]


def _generation_digest(request: GenerationRequest) -> str:
    settings = (request.max_new_tokens, request.stop, request.temperature, request.top_k, request.top_p, request.seed)
    return request_digest("generate", request.prompt, settings=settings)


class _Progress:
    """Says now and then how far the ranks are."""

    def __init__(self, work: str, total: int) -> None:
        self._what = {"score": "log-likelihoods", "generate": "continuations"}.get(work, work)
        self._total, self._done, self._new = total, 0, 0
        self._began = self._said = time.monotonic()

    def add(self, count: int, new: bool) -> None:
        """Count what was done, now or in an earlier launch, and say so if the last line is old."""
        self._done += count
        self._new += count * new
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            rate = self._new / (now - self._began)
            logger.info("%s of %s %s, %.1f a second", f"{self._done:,}", f"{self._total:,}", self._what, rate)


def run_tasks(lm: TemplateLM, tasks: dict[str, Any], settings: BenchmarkSettings) -> dict[str, Any]:
    """The harness's results for tasks (`LoadedTasks.task_dict`), with the samples and without intervals.

    Keys are those of `lm_eval.evaluate`: results, samples, versions, n-shot, higher_is_better, groups, ...
    """
    with templates_compiled_once(), _seeded(settings.seed):
        found = evaluator.evaluate(
            lm=lm,
            task_dict=tasks,
            limit=settings.limit,
            bootstrap_iters=0,
            log_samples=True,
            confirm_run_unsafe_code=settings.run_generated_code,
        )
    assert found is not None, "only rank 0 runs the harness"
    return dict(found)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The generators that tasks may draw from, seeded, and afterwards as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
