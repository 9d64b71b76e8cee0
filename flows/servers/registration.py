"""Registers every deployment with a Prefect server. What people have changed there stays."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from flows.deployments import JOB_VARIABLES, VERSION, FlowDeployment, every_deployment
from flows.servers.automations import HeartbeatSettings, register_automations
from infra.environment import Environment
from infra.forms import words_of


def register(environment: Environment, pool: str, heartbeats: HeartbeatSettings = HeartbeatSettings()) -> list[str]:
    """Register every flow with these addresses in its form; returns FLOW/NAME of each deployment.

    One that is there already gets today's form, description and parameters, and keeps its schedules, whether it is
    paused, and how many of its runs may go on at once: those a person may have set. It also keeps the addresses that
    are not stated now.
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
    name = f"{flow.name}/{deployment.name}"
    values = {
        "version": VERSION,
        "description": deployment.description,
        "tags": list(deployment.tags),
        "entrypoint": deployment.entrypoint.replace(":", "."),
        "parameters": deployment.form(addresses),
        "parameter_openapi_schema": _form(flow),
        "enforce_parameter_schema": True,
        "work_pool_name": pool,
        "job_variables": dict(job),
        "pull_steps": [],
    }
    try:
        known = client.read_deployment_by_name(name)
    except ObjectNotFound:
        own = client.create_flow_from_name(flow.name)
        client.create_deployment(own, deployment.name, **values, **_once(deployment))
    else:
        values["parameters"] = deployment.form({**deployment.addresses(known.parameters), **addresses})
        client.update_deployment(known.id, DeploymentUpdate(**values))
    return name


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
