"""Every flow as people find it in Prefect: its forms, what they are filled in with, schedules and limits.

`gristmill up` registers these, and infra/prefect.yaml is the same list for `prefect deploy`:

    python -m flows.deployments > infra/prefect.yaml

`default` has every setting at its default. The others are presets (`flows.presets`): only what a preset sets is filled
in, so that a default that changes changes them too.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import yaml

from flows import progress
from flows.presets import PRESETS
from flows.servers.automations import HeartbeatSettings

VERSION = version("gristmill")
JOB_VARIABLES: Mapping[str, Any] = {
    "env": {"PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(progress.PACKAGES), **HeartbeatSettings().environment}
}
"""Given to every run: logs of our packages reach the UI, and a run that has died is noticed."""


@dataclass(frozen=True)
class FlowDeployment:
    """A flow with a form of its own in Prefect."""

    entrypoint: str
    """MODULE:FLOW of the installed project, never a path: a path would put flows/ on sys.path."""
    description: str
    """Markdown: what it does, what to fill in, what comes out and where it is."""
    tags: tuple[str, ...]
    name: str = "default"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What the form is filled in with, addresses aside."""
    cron: str | None = None
    """When it starts by itself, in UTC, once a person has switched the schedule on."""
    limit: int | None = None
    """How many runs go on at once; others wait."""

    def load(self) -> Any:
        """The flow; imports its module."""
        module, _, name = self.entrypoint.partition(":")
        return getattr(importlib.import_module(module), name)

    def form(self, environment: Mapping[str, Any]) -> dict[str, Any]:
        """What the form begins with, with addresses where the flow takes them.

        Each other section is an empty object: it means the defaults, and keeps forms from spelling them out.
        """
        sections = {name: {} for name, each in self.load().parameters.properties.items() if "$ref" in each}
        return self.at(environment, {**sections, **self.parameters})

    def at(self, environment: Mapping[str, Any], form: Mapping[str, Any]) -> dict[str, Any]:
        """A form with these addresses in it, if there are any."""
        if environment and "settings" in form:
            return {**form, "settings": {**form["settings"], "environment": environment}}
        return {**form, "environment": environment} if environment else dict(form)

    @staticmethod
    def addresses(form: Mapping[str, Any]) -> dict[str, Any]:
        """The addresses that a form was filled in with."""
        return form.get("settings", form).get("environment", {})

    def as_document(self) -> dict[str, Any]:
        """Its entry in prefect.yaml."""
        document: dict[str, Any] = {
            "name": self.name,
            "entrypoint": self.entrypoint,
            "description": self.description,
            "version": VERSION,
            "tags": list(self.tags),
            "work_pool": {"name": "gristmill", "job_variables": dict(JOB_VARIABLES)},
        }
        if parameters := self.form({}):
            document["parameters"] = parameters
        if self.cron is not None:
            document["schedules"] = [{"cron": self.cron, "timezone": "UTC", "active": False}]
        if self.limit is not None:
            document["concurrency_limit"] = {"limit": self.limit, "collision_strategy": "ENQUEUE"}
        return document


CRAWL_TO_MODEL = FlowDeployment(
    "flows.end_to_end:crawl_to_model",
    """\
From a crawl to an evaluated model, in one run: it builds a dataset, trains a model on it and measures the model.

**Fill in** *dataset / name*, *corpus / source* (which crawl, how many of its files) and *training / model*. For a first
look take the deployment `demo`, which needs nothing filled in.

**Comes out**: the dataset in `datasets/`, the model in `runs/`, both below the root; a report of both in the run's
folder and in MLflow. The artifacts of the runs that this one starts link there.

What is finished is never done twice: after a failure, run it again with the same values.""",
    ("corpus", "model"),
)
BUILD_CORPUS = FlowDeployment(
    "flows.corpus:build_corpus",
    """\
From a crawl to a published dataset: fetch, extract, filter, deduplicate, redact and tokenize.

**Fill in** *dataset / name* and *corpus / source*: which crawl, and how many of its files (*shards*). `gristmill plan`
says beforehand what that downloads and takes.

**Comes out**: `datasets/NAME/VERSION` below the root, and the artifacts `corpus-funnel` (what each stage kept and
dropped) and the report of the dataset.""",
    ("corpus",),
)
TRAIN_TOKENIZER = FlowDeployment(
    "flows.tokenizer:train_tokenizer",
    """\
Learns a vocabulary from the texts of a published dataset, and measures it on text that it has not seen.

**Fill in** *dataset / name* and *tokenizer / vocabulary size*, and *name*.

**Comes out**: `tokenizers/NAME/VERSION` below the root, with the file that *corpus / tokenizer / path* takes, and the
artifact `tokenizer` with bytes per token in each language.""",
    ("corpus",),
)
REFRESH_CORPUS = FlowDeployment(
    "flows.refresh:refresh_corpus",
    """\
Looks for crawls newer than a dataset's last, takes some files of each, and publishes what is new in them as a new
version with a report of what changed. Where no crawl is new it ends at once and says so.

**Fill in** *refresh / dataset* and *corpus / source / shards*, how many files of each crawl are wanted: ten as long as
you change nothing. *budget* limits what one run takes of them; the next takes the rest, before any newer crawl.
*backfill* takes a range of older crawls. *continuation* trains the champion further on what is new, and promotes what
is better.

**By itself**: it has a schedule, Mondays at 03:00 UTC, that does nothing until you switch it on beside this text. One
refresh runs at a time; others wait.

**Comes out**: `datasets/NAME/VERSION` below the root, and the artifacts `refresh` and the change report.""",
    ("corpus",),
    # A schedule that is only switched on takes no whole crawl, and comes to each new one.
    parameters={"refresh": {"corpus": {"source": {"shards": 10}}}},
    cron="0 3 * * 1",
    limit=1,
)
PRETRAIN = FlowDeployment(
    "flows.pretraining:pretrain",
    """\
Trains a model on a published dataset, or goes on where an interrupted training stopped.

**Fill in** *dataset / name*, *run* (what the model is to be called), *training / model* and *training / duration*.

**Comes out**: `runs/RUN` below the root, with checkpoints; loss and speed while it runs in MLflow, where the artifact
`mlflow-run` links to. Cancelling the run writes a checkpoint first; the same values go on from it.""",
    ("model",),
)
EVALUATE = FlowDeployment(
    "flows.evaluation:evaluate",
    """\
Measures a trained model on held-out text and on benchmarks, and writes samples of what it says.

**Fill in** *run*, the name that the model was trained under; *evaluation* says what is measured.

**Comes out**: tables as the artifact `evaluation`, the same in MLflow, and a page in the run's folder.""",
    ("model",),
)
COMPARE = FlowDeployment(
    "flows.comparison:compare",
    """\
Puts evaluated runs beside the first: tables, figures, and differences with intervals.

**Fill in** *runs*: two or more names, or NAME@STEP for another checkpoint than the last that was evaluated.

**Comes out**: the artifacts `comparison` and `comparison-page`, and a page below the root.""",
    ("model",),
)
PROMOTE = FlowDeployment(
    "flows.promotion:promote",
    """\
Registers an evaluated checkpoint in MLflow, and makes it champion if all conditions hold.

**Fill in** *run*. *promotion* says what is asked of a champion.

**Comes out**: a version of the model in MLflow's registry, with the alias `champion` or `candidate`, and the verdict as
the artifact `promotion`. One promotion is decided at a time.""",
    ("model",),
    limit=1,
)
ABLATE = FlowDeployment(
    "flows.ablation:ablate",
    """\
Builds several variants of a corpus, trains the same small model on each, and says which data is better.

**Fill in** *name*, *base* (the corpus that variants change) and *variants*: for each a name and the settings that
differ, as JSON, such as `{"base": {}, "strict": {"filter": {"language": {"min_score": 0.8}}}}`.

**Comes out**: datasets, runs, and the findings as an artifact and in MLflow.""",
    ("corpus", "model"),
)

RETAIN = FlowDeployment(
    "flows.retention:retain",
    """\
Deletes pages and texts from before redaction once they are old enough, and closes private files that others can read.
Datasets, ledgers and tokenizers stay, as does what tells where each document came from.

**Fill in** *retention / older than days*; *dry run* only says what would go.

**Comes out**: the artifact `retention`, with each stage and its bytes. A dataset whose texts are gone cannot be made
anew from its signals (`dataset.rebuild`); `gristmill show NAME` says so. While a corpus is built it waits, for twelve
hours as long as you change nothing in *retention / wait hours*.""",
    ("corpus",),
    parameters={"retention": {"wait_hours": 12}},
    cron="17 3 * * *",
    limit=1,
)


def _presets(of: FlowDeployment, *sections: str) -> list[FlowDeployment]:
    """A deployment for each preset but the default, filled in with these sections of its settings; all if none."""
    made = []
    for name, make in PRESETS.items():
        if name == of.name:
            continue
        values = make().model_dump(mode="json", exclude_defaults=True)
        chosen = {each: values[each] for each in sections if each in values} if sections else {"settings": values}
        what = " ".join((make.__doc__ or "").split())
        description = f"{of.description}\n\n**Filled in** is the preset `{name}`. {what}"
        made.append(FlowDeployment(of.entrypoint, description, (*of.tags, name), name, chosen))
    return made


def every_deployment() -> Sequence[FlowDeployment]:
    """All of them, presets after the plain one."""
    training = ("dataset", "run", "training")
    return [
        *(CRAWL_TO_MODEL, *_presets(CRAWL_TO_MODEL)),
        *(BUILD_CORPUS, *_presets(BUILD_CORPUS, "corpus", "dataset")),
        *(TRAIN_TOKENIZER, REFRESH_CORPUS),
        *(PRETRAIN, *_presets(PRETRAIN, *training)),
        *(EVALUATE, *_presets(EVALUATE, "run", "evaluation")),
        *(COMPARE, PROMOTE, ABLATE, RETAIN),
    ]


def prefect_yaml() -> str:
    """The text of infra/prefect.yaml."""
    head = (
        "# Every deployment, for `prefect deploy --prefect-file infra/prefect.yaml --all`.\n"
        "# Made by `python -m flows.deployments`, where they are described; do not edit.\n"
    )
    deployments = [each.as_document() for each in every_deployment()]
    document = {"name": "gristmill", "prefect-version": version("prefect"), "pull": [], "deployments": deployments}
    return head + yaml.dump(document, Dumper=_Readable, sort_keys=False, width=118, allow_unicode=True)


class _Readable(yaml.SafeDumper):
    """Texts of several lines as such, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Readable.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


if __name__ == "__main__":
    sys.stdout.write(prefect_yaml())
