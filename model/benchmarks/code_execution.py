r"""Whether programs that a model wrote pass their tests: HumanEval's measure (arXiv:2107.03374).

Stands in for the metric `code_eval` of the package `evaluate`, which is code fetched from the Hugging Face hub and runs
programs with the rights of the evaluation. A task's YAML names the functions:

    unsafe_code: true
    doc_to_text: "{{prompt}}"
    doc_to_target: "{{test}}\ncheck({{entry_point}})"
    metric_list:
      - {metric: !function model.benchmarks.code_execution.pass_at_k, aggregation: mean, higher_is_better: true, k: [1]}
    filter_list:
      - name: create_test
        filter: [{function: custom, filter_fn: !function model.benchmarks.code_execution.build_predictions}]

and has everything else as in the harness's own `humaneval.yaml`. With `unsafe_code` the harness runs a task only if it
is called with `confirm_run_unsafe_code`, which is our setting `run_generated_code`. The functions import neither torch
nor lm_eval.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import comb

from infra.sandbox import SandboxLimits, run_python


@dataclass(frozen=True)
class Verdict:
    """What became of one program and its tests."""

    passed: bool
    reason: str
    """finished, or what went wrong: `infra.sandbox.Outcome.reason`."""


def build_predictions(resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """The harness's filter: the programs that a model's continuations make of each item's prompt.

    The names of the arguments are the harness's.
    """
    return [[doc["prompt"] + continuation for continuation in own] for own, doc in zip(resps, docs, strict=True)]


def build_predictions_instruct(resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """The same for answers in a block of code that the question has opened: what comes after its end is left out."""
    return build_predictions([[answer.partition("```")[0] for answer in own] for own in resps], docs)


def pass_at_k(
    references: Sequence[str], predictions: Sequence[Sequence[str]], k: int | Sequence[int] = (1,)
) -> dict[str, float]:
    """The harness's metric: the mean over items of pass@k, as {"pass@1": ...}.

    `references` has the tests of each item and `predictions` its programs. Each k takes the items that have at least k
    programs, and is left out where none has.
    """
    verdicts = run_tests(list(zip(references, predictions, strict=True)))
    counts = [(len(each), sum(verdict.passed for verdict in each)) for each in verdicts]
    found: dict[str, float] = {}
    for draws in [k] if isinstance(k, int) else k:
        estimates = [estimate_pass_at_k(number, passed, draws) for number, passed in counts if number >= draws]
        if estimates:
            found[f"pass@{draws}"] = sum(estimates) / len(estimates)
    return found


def estimate_pass_at_k(programs: int, passed: int, k: int) -> float:
    """Unbiased estimate of the chance that of k programs one passes, from those that did: 1 - C(n - c, k) / C(n, k)."""
    return 1.0 - comb(programs - passed, k) / comb(programs, k)


def run_tests(items: Sequence[tuple[str, Sequence[str]]], limits: SandboxLimits | None = None) -> list[list[Verdict]]:
    """Run each item's tests (first) on each of its programs, some at once; verdicts in the order of the programs.

    BadInput where the sandbox cannot work.
    """
    programs = [f"{program}\n{tests}\n" for tests, own in items for program in own]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = iter(pool.map(lambda program: run_python(program, limits), programs))
        verdicts = (Verdict(outcome.finished, outcome.reason) for outcome in outcomes)
        return [[next(verdicts) for _ in own] for _, own in items]
