"""A plan for people: a table of the stages, the sums, and what to make of them."""

from collections.abc import Iterator

from flows.plans.estimates import Estimate
from flows.plans.planning import Plan

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def render(plan: Plan) -> str:
    """The plan as text for a terminal of 110 columns."""
    if not plan.stages:
        return f"All {len(plan.there)} stages are there already under {plan.root}: nothing is left to do"
    parts = (_sources, _network, _stages, _there, _sums, _notes)
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part(plan))))


def _sources(plan: Plan) -> Iterator[str]:
    for source in plan.sources:
        yield f"{source.name}: {source.shards:,} shards, {size(source.bytes)} to read"
        for each in source.sampled:
            yield f"  measured on {each.shard}: {each.records:,} records, {size(each.bytes_read)} of {size(each.bytes)}"


def _network(plan: Plan) -> Iterator[str]:
    net = plan.network
    if net.requests == 0:
        yield "Network: nothing is downloaded"
        return
    yield f"Network: {size(net.bytes)} in {net.requests:,.0f} requests, {net.expected_retries:,.0f} of them retries"
    speed = "unknown" if net.bytes_per_second is None else f"{size(net.bytes_per_second)}/s a stream"
    yield f"  {time(net.seconds_at_speed)} at the measured speed ({speed}), "
    yield f"  {time(net.seconds_at_limits)} at least under the limits of requests and bytes per second"


def _stages(plan: Plan) -> Iterator[str]:
    yield (
        f"{'stage':<14}{'in':>14}{'out':>14}{'disk':>10}{'CPU':>9}{'start-up':>10}{'workers':>9}{'time':>10}"
        f"{'peak memory':>13}"
    )
    for each in plan.stages:
        yield (
            f"{each.stage:<14}{count(each.documents_in):>14}{count(each.documents_out):>14}{size(each.disk_bytes):>10}"
            f"{time(each.cpu_seconds):>9}{time(each.startup_seconds):>10}{each.workers:>9,}{time(each.seconds):>10}{size(each.peak_worker_bytes):>13}"
        )


def _there(plan: Plan) -> Iterator[str]:
    done = [each.stage for each in plan.there if each.done]
    if done:
        yield f"Done already: {', '.join(done)}"
    for each in plan.there:
        if each.shards_done and not each.done:
            yield f"Done in part: {each.stage}, {each.shards_done:,} of {each.shards:,} shards"


def _sums(plan: Plan) -> Iterator[str]:
    totals = plan.totals
    free = "" if plan.free_bytes is None else f", {size(plan.free_bytes)} are free under {plan.root}"
    yield f"Disk: {size(totals.disk_bytes)}{free}"
    yield f"Time: {time(totals.seconds)} with {plan.workers:,} workers, {time(totals.cpu_seconds)} of processor time"
    yield f"Memory: {size(totals.peak_worker_bytes)} for each worker"
    for name, tokens in (("training", plan.tokens_train), ("evaluation", plan.tokens_heldout)):
        if tokens is None:
            yield f"Tokens for {name}: unknown"
        else:
            yield f"Tokens for {name}: {tokens.expected:,.0f} ({tokens.low:,.0f} to {tokens.high:,.0f})"


def _notes(plan: Plan) -> Iterator[str]:
    yield "Assumed:"
    yield from (f"  - {each}" for each in plan.assumptions)
    if plan.warnings:
        yield "Warnings:"
        yield from (f"  - {each}" for each in plan.warnings)


def count(estimate: Estimate | None) -> str:
    """A number of documents."""
    return "" if estimate is None else f"{estimate.expected:,.0f}"


def size(value: float) -> str:
    """Bytes with three digits: 1.23 GB."""
    power = 0
    while value >= 999.5 and power < len(_UNITS) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.{0 if power == 0 else max(0, 2 - len(str(int(value))) + 1)}f} {_UNITS[power]}"


def time(seconds: float) -> str:
    """Seconds as people say them: 12 s, 3.5 min, 2.1 h, 14 d."""
    for limit, unit, name in ((90, 1, "s"), (90 * 60, 60, "min"), (72 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds / 86400:.1f} d"
