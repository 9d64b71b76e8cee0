"""Registers every deployment with a Prefect server. What people have changed there stays."""

import copy
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain, takewhile
from typing import Any, NamedTuple

from flows.deployments import JOB_VARIABLES, VERSION, FlowDeployment, every_deployment
from flows.servers.automations import HeartbeatSettings, register_automations
from infra.environment import Environment
from infra.forms import words_of

logger = logging.getLogger(__name__)


def register(environment: Environment, pool: str, heartbeats: HeartbeatSettings = HeartbeatSettings()) -> list[str]:
    """Register every flow with these addresses in its form; returns FLOW/NAME of each deployment.

    One that is there already gets today's form and description, and keeps its schedules, whether it is paused, how many
    of its runs may go on at once and its work queue: those a person may have set. It also keeps the addresses that are
    not stated now, and all parameters if a person has saved others than were registered (`fill_again`).
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    addresses = environment.model_dump(mode="json", exclude_unset=True)
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        register_automations(client, heartbeats)
        job = {**JOB_VARIABLES, "env": {**JOB_VARIABLES["env"], **heartbeats.environment}}
        return [_register(client, each, addresses, pool, job) for each in every_deployment()]


def make_queues(pool: str, names: Iterable[str]) -> None:
    """Have a pool's work queues; those that are there stay. A worker that asks for one that is not gets no runs."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        for name in names:
            with suppress(ObjectAlreadyExists):
                client.create_work_queue(name=name, work_pool_name=pool)


def _register(
    client: Any, deployment: FlowDeployment, addresses: Mapping[str, Any], pool: str, job: Mapping[str, Any]
) -> str:
    from prefect.client.schemas.actions import DeploymentUpdate
    from prefect.exceptions import ObjectNotFound

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
    try:
        known = client.read_deployment_by_name(name)
    except ObjectNotFound:
        own, filled = client.create_flow_from_name(flow.name), deployment.form(addresses)
        values |= {"version": VERSION + _mark(filled), "parameters": filled}
        client.create_deployment(own, deployment.name, **values, **_once(deployment))
    else:
        if known.work_pool_name == pool:  # Prefect would put it back to the pool's default queue
            del values["work_pool_name"]
        filling = fill_again(deployment, known.parameters, known.version or "", addresses, form)
        if filling.dropped:
            gone = ", ".join(filling.dropped)
            logger.warning("%s: dropped from its saved parameters, because it takes no such: %s", name, gone)
        values |= {"version": filling.version, "parameters": filling.parameters}
        client.update_deployment(known.id, DeploymentUpdate(**values))
    return name


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
