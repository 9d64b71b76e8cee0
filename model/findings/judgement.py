"""Whether a checkpoint may take the champion's place: every condition with its figures, in words, and the verdict.

A candidate is held against the champion on what both were measured on, item by item: held-out documents of the same
dataset, and benchmarks of the same version with as many examples. `harm` is by how much the candidate is worse,
whichever way the metric points; its interval is the paired bootstrap's (see intervals). A group of tasks, such as
MMLU, is judged as a whole and not by its members, because of dozens of small tasks some fall by chance.
"""

from collections.abc import Iterator

from model.findings.contender import (
    BITS_PER_BYTE,
    Contender,
    Difference,
    altered_items,
    bits_per_byte,
    common_held_out,
    leaves,
    lower_is_better,
    main_figure,
    paired_scores,
    top_tasks,
    unpaired_figures,
    with_own_name,
)
from model.findings.records import Estimate, TaskResult
from model.findings.verdict import Condition, PromotionSettings, Verdict
from model.run import EvaluationRecord


def judge(candidate: Contender, champion: Contender | None, settings: PromotionSettings) -> Verdict:
    """The verdict on a candidate; without a champion it is promoted if it reaches what is asked of it alone."""
    conditions = [*_own(candidate, settings)]
    if champion is not None:
        conditions += _against(candidate, champion, settings)
    return Verdict(
        model=settings.model,
        candidate=candidate.name,
        candidate_version=candidate.version,
        champion=champion.name if champion else None,
        champion_version=champion.version if champion else None,
        promoted=all(each.passed for each in conditions),
        conditions=tuple(conditions),
        settings=settings,
    )


def _own(candidate: Contender, settings: PromotionSettings) -> Iterator[Condition]:
    """What is asked of the candidate alone."""
    if candidate.was_taken_back and not settings.readmit:
        says = "this version was champion and was taken back; promotion.readmit lets it return"
        yield Condition(name="not taken back", passed=False, says=says)
    if (bound := settings.max_bits_per_byte) is not None:
        found = bits_per_byte(candidate.record)
        yield _reached("held-out bits per byte", BITS_PER_BYTE, found and found[0], bound)
    measured = {task.task: task for task in candidate.record.tasks}
    if missing := sorted(set(settings.required_tasks) - measured.keys()):
        yield Condition(name="required benchmarks", passed=False, says=f"not measured: {', '.join(missing)}")
    elif settings.required_tasks:
        says = f"all measured: {', '.join(settings.required_tasks)}"
        yield Condition(name="required benchmarks", passed=True, says=says)
    for name, bound in sorted(settings.floors.items()):
        task = measured.get(name)
        metric = task.main_metric if task else ""
        yield _reached(f"{name} {metric}".rstrip(), metric, task and main_figure(task, settings), bound)
    if settings.contamination == "required":
        yield _contamination_known(candidate.record)


def _reached(name: str, metric: str, found: Estimate | None, bound: float) -> Condition:
    """A figure at or beyond a bound, whatever its interval."""
    if found is None:
        return Condition(name=name, passed=False, says="not measured", bound=bound)
    lower = lower_is_better(metric)
    passed = found.value <= bound if lower else found.value >= bound
    says = f"{found.value:.4f}, {'at most' if lower else 'at least'} {bound:g} is asked"
    return Condition(name=name, passed=passed, says=says, candidate=found.value, bound=bound)


def _contamination_known(record: EvaluationRecord) -> Condition:
    unknown = [task.task for task in record.tasks if task.contaminated is None]
    hits = sum(task.contaminated or 0 for task in top_tasks(record))
    says = f"not looked for in {', '.join(unknown)}" if unknown else f"{hits:,} items occur in the training text"
    return Condition(name="contamination is known", passed=not unknown, says=says)


def _against(candidate: Contender, champion: Contender, settings: PromotionSettings) -> list[Condition]:
    """What is asked beside the champion."""
    candidate, champion = with_own_name(candidate), with_own_name(champion)
    ours = {task.task: task for task in candidate.record.tasks}
    theirs = top_tasks(champion.record)
    missing = [task.task for task in theirs if task.task not in ours]
    says = f"not measured: {', '.join(missing)}" if missing else f"{len(theirs)} of {len(theirs)} measured"
    conditions = [Condition(name="the champion's benchmarks", passed=not missing, says=says)] if theirs else []
    benchmarks = [
        _benchmark(candidate, champion, ours[task.task], task, settings) for task in theirs if task.task in ours
    ]
    held_out = [_held_out(candidate, champion, each, settings) for each in common_held_out(candidate, champion)]
    if not held_out and not benchmarks:
        says = "trained on other datasets, and measured on no common benchmark and no common held-out text"
        conditions.append(Condition(name="something to compare", passed=False, says=says))
    return [*conditions, *held_out, *benchmarks]


def _held_out(candidate: Contender, champion: Contender, group: str, settings: PromotionSettings) -> Condition:
    name = "held-out bits per byte" + ("" if group == "all" else f" of {group.removesuffix('/all')}")
    ours, theirs = bits_per_byte(candidate.record, group), bits_per_byte(champion.record, group)
    if ours is None or theirs is None:
        return Condition(name=name, passed=False, says="a model that gives text no likelihood has none")
    figures, bound = (ours[0], theirs[0]), settings.max_bits_per_byte_rise
    less = _fewer("documents", ours[1], theirs[1])
    found = paired_scores(candidate, champion, (f"heldout/{group}",), BITS_PER_BYTE, settings)
    if less is None and found is not None:
        return _no_harm(name, BITS_PER_BYTE, figures, found, bound, settings, "documents")
    return Condition(
        name=name,
        passed=False,
        says=less or "the same documents were not measured one by one by both; evaluate again",
        candidate=figures[0].value,
        champion=figures[1].value,
        bound=bound,
    )


def _benchmark(
    candidate: Contender, champion: Contender, ours: TaskResult, theirs: TaskResult, settings: PromotionSettings
) -> Condition:
    name = f"{theirs.task} {theirs.main_metric}"
    if different := _different(ours, theirs):
        return Condition(name=name, passed=False, says=f"measured otherwise than the champion: {different}")
    if (less := _fewer("items", ours.items, theirs.items)) is not None:
        return Condition(name=name, passed=False, says=less)
    tasks = leaves(theirs, champion.record)
    if altered := altered_items(candidate, champion, tasks):
        return Condition(name=name, passed=False, says=f"{altered:,} items differ from the champion's")
    figures = (main_figure(ours, settings), main_figure(theirs, settings))
    found = paired_scores(candidate, champion, tasks, theirs.main_metric, settings) or unpaired_figures(
        *figures, ours, settings
    )
    if found is None:
        return Condition(name=name, passed=False, says="neither scores by item nor standard errors; evaluate again")
    return _no_harm(name, theirs.main_metric, figures, found, settings.max_fall, settings, "items")


def _fewer(unit: str, ours: int, theirs: int) -> str | None:
    """A candidate is not measured on less than the champion: on few items little can be shown against it."""
    return f"measured on {ours:,} {unit}, the champion on {theirs:,}" if ours < theirs else None


def _different(ours: TaskResult, theirs: TaskResult) -> str:
    """What of two measurements of a task must agree and does not."""
    fields = ("version", "few_shot", "main_metric")
    values = [(name, getattr(ours, name), getattr(theirs, name)) for name in fields]
    return ", ".join(f"{name} {one} instead of {other}" for name, one, other in values if one != other)


def _no_harm(
    name: str,
    metric: str,
    figures: tuple[Estimate, Estimate],
    found: Difference,
    bound: float,
    settings: PromotionSettings,
    unit: str,
) -> Condition:
    """The candidate is not worse by more than the bound; `settings.doubt` says how an interval around it counts."""
    sign = 1 if lower_is_better(metric) else -1
    harm = sign * found.value
    low, high = sorted((sign * found.low, sign * found.high))
    enough = found.items >= settings.min_items
    passed = enough and (low <= bound if settings.doubt == "promotes" else high <= bound)
    ours, theirs = figures
    says = f"{ours.value:.4f} against {theirs.value:.4f}, {_words(harm, low, high, settings)} on {found.items:,} {unit}"
    says += _conclusion(low, high, bound) if enough else f": fewer than {settings.min_items}"
    return Condition(
        name=name,
        passed=passed,
        says=says,
        candidate=ours.value,
        champion=theirs.value,
        harm=harm,
        low=low,
        high=high,
        bound=bound,
        items=found.items,
    )


def _words(harm: float, low: float, high: float, settings: PromotionSettings) -> str:
    ends = (-high, -low) if harm < 0 else (low, high)
    side = f"better by {-harm:.4f}" if harm < 0 else f"worse by {harm:.4f}" if harm > 0 else "no difference"
    return f"{side} ({settings.confidence:.0%} interval {ends[0]:+.4f} to {ends[1]:+.4f})"


def _conclusion(low: float, high: float, bound: float) -> str:
    worse = f"worse by more than {bound:g}" if bound else "worse"
    if low > bound:
        return f": surely {worse}"
    return f": surely not {worse}" if high <= bound else f": whether it is {worse} is open"
