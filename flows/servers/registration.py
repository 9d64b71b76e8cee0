"""Registers every deployment with a Prefect server. What people have changed there stays."""

import copy
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, takewhile
from typing import Any, NamedTuple

from flows.deployments import JOB_VARIABLES, VERSION, FlowDeployment, every_deployment
from flows.servers.automations import HeartbeatSettings, register_automations
from flows.servers.server import reach_prefect_server
from infra.address import is_relative
from infra.environment import Environment
from infra.errors import BadInput
from infra.forms import typed_as_json, words_of
from infra.store import Store

logger = logging.getLogger(__name__)


def register(environment: Environment, pool: str, heartbeats: HeartbeatSettings = HeartbeatSettings()) -> list[str]:
    """Register every flow with these addresses in its form; returns FLOW/NAME of each deployment.

    One that is there already gets today's form and description, and keeps its schedules, whether it is paused, how many
    of its runs may go on at once and its work queue: those a person may have set. It also keeps the addresses that are
    not stated now, and all parameters if a person has saved others than were registered (`fill_again`), on a schedule
    too. BadInput where there is no server, or a form would have no root; nothing is registered then.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    _require_server()
    addresses = _stated(environment)
    with get_client(sync_client=True) as client:
        known = [_known(client, each) for each in every_deployment()]
        require_root(addresses, [each.parameters if each is not None else {} for each in known])
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        register_automations(client, heartbeats)
        job = {**JOB_VARIABLES, "env": {**JOB_VARIABLES["env"], **heartbeats.environment}}
        pairs = zip(every_deployment(), known, strict=True)
        return [_register(client, each, before, addresses, pool, job) for each, before in pairs]


def make_queues(pool: str, names: Iterable[str]) -> None:
    """Have a pool's work queues; those that are there stay. A worker that asks for one that is not gets no runs."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        for name in names:
            with suppress(ObjectAlreadyExists):
                client.create_work_queue(name=name, work_pool_name=pool)


def _require_server() -> None:
    if not reach_prefect_server():
        raise BadInput(
            "no Prefect server is named",
            "flows are registered with one that stays",
            "Set PREFECT_API_URL, or give the --root of a `gristmill up` that runs",
        )


def _stated(environment: Environment) -> dict[str, Any]:
    """The addresses that are stated, a folder as it is seen from here: flow runs have other working folders."""
    stated = environment.model_dump(mode="json", exclude_unset=True)
    if "root" in stated and is_relative(environment.root):
        stated["root"] = Store(environment.root).full_path("")
    return stated


def require_root(addresses: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> None:
    """BadInput if some deployment would have no root, given the addresses that are stated and all known parameters."""
    roots = [{**FlowDeployment.addresses(each), **addresses}.get("root", Environment().root) for each in known]
    if any(map(is_relative, roots)):
        raise BadInput(
            "environment.root is not stated",
            "every form is filled in with an absolute root or a URL; files of a run would be deleted with its folder",
            "Give it: gristmill register --root /FOLDER",
        )


def _known(client: Any, deployment: FlowDeployment) -> Any:
    """What the server knows of a deployment; None where it is new."""
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(f"{deployment.load().name}/{deployment.name}")
    except ObjectNotFound:
        return None


def _register(
    client: Any,
    deployment: FlowDeployment,
    known: Any,
    addresses: Mapping[str, Any],
    pool: str,
    job: Mapping[str, Any],
) -> str:
    from prefect.client.schemas.actions import DeploymentUpdate

    flow = deployment.load()
    name, form = f"{flow.name}/{deployment.name}", _form(flow)
    values = {
        "description": deployment.description,
        "tags": list(deployment.tags),
        "entrypoint": deployment.entrypoint.replace(":", "."),
        "parameter_openapi_schema": form,
        "enforce_parameter_schema": True,
        "work_pool_name": pool,
        "job_variables": dict(job),
        "pull_steps": [],
    }
    if known is None:
        own, filled = client.create_flow_from_name(flow.name), deployment.form(addresses)
        values |= {"version": VERSION + _mark(filled), "parameters": filled}
        client.create_deployment(own, deployment.name, **values, **_once(deployment))
    else:
        if known.work_pool_name == pool:  # Prefect would put it back to the pool's default queue
            del values["work_pool_name"]
        filling = fill_again(deployment, known.parameters, known.version or "", addresses, form)
        _tell(name, filling.dropped)
        values |= {"version": filling.version, "parameters": filling.parameters}
        client.update_deployment(known.id, DeploymentUpdate(**values))
        for schedule in known.schedules:
            kept, dropped = still_taken(schedule.parameters, form)
            _tell(f"a schedule of {name}", dropped)
            if kept != schedule.parameters:
                client.update_deployment_schedule(known.id, schedule.id, parameters=kept)
    return name


def _tell(whose: str, dropped: Sequence[str]) -> None:
    if dropped:
        gone = ", ".join(dropped)
        logger.warning("%s: dropped from its saved parameters, because it takes no such: %s", whose, gone)


class Filling(NamedTuple):
    """What a deployment is filled in with when it is registered again."""

    parameters: dict[str, Any]
    version: str
    dropped: list[str]
    """Paths of values that its form does not take any more."""


def fill_again(
    deployment: FlowDeployment,
    known: Mapping[str, Any],
    version: str,
    addresses: Mapping[str, Any],
    form: Mapping[str, Any],
) -> Filling:
    """The known parameters and version of a deployment, brought up to date.

    Parameters that are as they were registered with that version, so that nobody has changed them, become today's.
    Others stay, but for what the form does not take any more; today's are added for parameters that are new.
    """
    given = {**deployment.addresses(known), **addresses}
    today, unchanged = deployment.form(given), version.endswith(_mark(known))
    kept = copy.deepcopy(today if unchanged else deployment.at(given, {**today, **known}))
    dropped = list(_drop_refused(kept, form))
    return Filling(kept, VERSION + (_mark(kept) if unchanged or kept == today else ""), dropped)


def still_taken(saved: Mapping[str, Any], form: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Parameters saved on a schedule without what the form does not take any more, and the paths of that.

    JSON text, which the server keeps there as it was typed, is read. What cannot be read stays: its runs fail.
    """
    kept = None
    with suppress(json.JSONDecodeError):
        kept = _read(dict(saved))
    if not isinstance(kept, dict):
        return dict(saved), []
    return kept, list(_drop_refused(kept, form))


def _read(values: Any) -> Any:
    """The same with all JSON text read."""
    values = typed_as_json(values)
    if isinstance(values, dict):
        return {name: _read(each) for name, each in values.items()}
    return [_read(each) for each in values] if isinstance(values, list) else values


def _mark(parameters: Mapping[str, Any]) -> str:
    """The end of a version, by which parameters are known to be as they were registered."""
    return "+form." + hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]


def _drop_refused(parameters: dict[str, Any], form: Mapping[str, Any]) -> Iterator[str]:
    """Take away what Prefect's server would refuse or the flow does not know; gives the path of each."""
    from prefect.utilities.schema_tools.validation import validate

    for name in [each for each in parameters if each not in form["properties"]]:
        del parameters[name]
        yield name
    while errors := validate(parameters, dict(form), ignore_required=True):
        *folders, name = max((path for each in errors for path in _paths(each)), key=len)
        inner = parameters
        for folder in folders:
            inner = inner[folder]
        del inner[name]
        yield ".".join([*folders, name])


def _paths(error: Any) -> Iterator[list[str]]:
    """The values that an error is about: a whole list for one of its items, a whole section where kinds may differ."""
    path = list(takewhile(lambda each: isinstance(each, str), error.absolute_path))
    if len(path) == len(error.absolute_path) and error.validator == "additionalProperties":
        yield from ([*path, name] for name in error.instance if name not in error.schema.get("properties", {}))
        return
    yield path
    if error.validator == "anyOf":
        valued = [number for number, each in enumerate(error.validator_value) if each.get("type") != "null"]
        if len(valued) == 1:
            yield from chain(*(_paths(each) for each in error.context if each.schema_path[0] == valued[0]))


def _form(flow: Any) -> dict[str, Any]:
    """The schema of a flow's parameters; Prefect takes their bare names as titles."""
    from prefect.utilities.callables import parameter_schema

    schema = parameter_schema(flow).model_dump(exclude_unset=True)
    for name, parameter in schema["properties"].items():
        parameter["title"] = words_of(name)
    return schema


def _once(deployment: FlowDeployment) -> dict[str, Any]:
    """What a new deployment begins with, and people may change."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.client.schemas.schedules import CronSchedule

    found: dict[str, Any] = {}
    if deployment.cron is not None:
        schedule = CronSchedule(cron=deployment.cron, timezone="UTC")
        found["schedules"] = [DeploymentScheduleCreate(schedule=schedule, active=False)]
    if deployment.limit is not None:
        found["concurrency_limit"] = deployment.limit
        found["concurrency_options"] = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    return found
