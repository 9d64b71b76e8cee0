"""Under what conditions a checkpoint becomes champion, and what became of each: in figures and in words."""

from typing import Literal

from pydantic import Field

from infra.manifest import Manifest
from infra.settings import Settings


class PromotionSettings(Settings):
    """When a checkpoint takes the champion's place."""

    model: str = Field(default="gristmill", pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Name of the model in MLflow's registry."""
    step: int | None = Field(default=None, ge=1)
    """Evaluated step of the run to judge; unset takes the newest."""
    max_bits_per_byte_rise: float = Field(default=0.0, ge=0)
    """Most by which bits per byte of the same held-out documents may rise."""
    max_fall: float = Field(default=0.02, ge=0)
    """Most by which a benchmark may be worse in its main metric: 0.02 is two points of accuracy; of a perplexity, its
    logarithm counts."""
    doubt: Literal["promotes", "refuses"] = "promotes"
    """What an interval means that holds the bound: promotes refuses only a candidate that is surely worse by more, all
    of the interval beyond the bound; refuses asks that the candidate surely be no worse, none of it beyond."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Part of intervals that are to contain the true difference."""
    min_items: int = Field(default=30, ge=2)
    """Items that both were measured on, below which a comparison says nothing and fails."""
    required_tasks: tuple[str, ...] = ()
    """Benchmarks that must have been measured, besides those of the champion."""
    floors: dict[str, float] = Field(default_factory=dict)
    """By task, the least that its main metric must reach (the most, of metrics where lower is better)."""
    max_bits_per_byte: float | None = Field(default=None, gt=0)
    """Most bits per byte of the held-out split; unset asks for nothing."""
    contamination: Literal["ignored", "excluded", "required"] = "excluded"
    """Items whose text occurs in the training text of either: ignored counts them as others; excluded leaves out those
    that are known; required does so and refuses a candidate of which it is not known for each benchmark."""
    readmit: bool = False
    """Whether a version that was champion and was taken back may be promoted again."""
    bootstrap_draws: int = Field(default=1_000, ge=100)
    """Resamplings behind each interval."""
    seed: int = Field(default=1234, ge=0, lt=2**31)
    """Seed of the resampling."""


class Condition(Settings):
    """Something that must hold, and whether it does."""

    name: str
    passed: bool
    says: str
    """In words, with all figures."""
    candidate: float | None = None
    champion: float | None = None
    harm: float | None = None
    """By how much the candidate is worse."""
    low: float | None = None
    """Lower end of the harm's interval."""
    high: float | None = None
    bound: float | None = None
    """Most harm that is allowed, or what the figure must reach."""
    items: int | None = None


class Verdict(Manifest):
    """Whether the candidate becomes champion, and why."""

    model: str
    candidate: str
    candidate_version: int | None
    champion: str | None
    champion_version: int | None
    promoted: bool
    conditions: tuple[Condition, ...]
    settings: PromotionSettings

    @property
    def reason(self) -> str:
        """In a line: which conditions failed, or that all hold."""
        failed = [each.name for each in self.conditions if not each.passed]
        against = f"against {self.champion}" if self.champion else "with no champion yet"
        if failed:
            return f"refused {against}: {', '.join(failed)}"
        held = f"all {len(self.conditions)} conditions hold" if self.conditions else "nothing was asked of it"
        return f"promoted {against}: {held}"

    def text(self) -> str:
        """The same for people, a line for each condition."""
        lines = [f"{'holds' if each.passed else 'FAILS'}  {each.name}: {each.says}" for each in self.conditions]
        return "\n".join([self.candidate, *lines, self.reason])

    def markdown(self) -> str:
        """As a page; its first line is what MLflow's list of versions shows of it."""
        number = "" if self.candidate_version is None else f", version {self.candidate_version} of {self.model}"
        rows = [
            f"| {'holds' if each.passed else '**FAILS**'} | {each.name} | {_figure(each.candidate)} "
            f"| {_figure(each.champion)} | {each.says.replace('|', chr(92) + '|')} |"
            for each in self.conditions
        ]
        head = ["| | Condition | Candidate | Champion | In words |", "|---|---|---|---|---|"] if rows else []
        said = [f"{self.reason[0].upper()}{self.reason[1:]}.", "", f"Candidate: {self.candidate}{number}"]
        return "\n".join([*said, "", f"Champion: {self.champion or 'none yet'}", "", *head, *rows, ""])


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
