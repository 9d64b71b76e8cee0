"""What is asked of a Kubernetes cluster: TrainJobs, their pods and their lines."""

import http
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import urllib3

from infra.errors import BadInput
from infra.launching.train_job import API_GROUP, API_VERSION, NODE, PLURAL


def connect() -> Any:
    """A client of the cluster that a kubeconfig file, or the service account of the pod that this runs in, names.

    BadInput where neither is there; whether the cluster answers shows when it is asked.
    """
    if importlib.util.find_spec("kubernetes") is None:
        raise BadInput(
            "a launcher or Dask cluster of kind kubernetes",
            "it needs the kubernetes client",
            "Install it: pip install 'gristmill[kubernetes]'",
        )
    from kubernetes import client, config

    configuration = client.Configuration()
    named = {"config_file": os.environ["KUBECONFIG"]} if os.environ.get("KUBECONFIG") else {}
    try:
        config.load_config(client_configuration=configuration, **named)
    except config.ConfigException as error:
        raise BadInput(
            f"there is no way to a Kubernetes cluster ({error})",
            "a kubeconfig file or a service account says where the cluster is",
            "Set KUBECONFIG, or run in a pod of the cluster",
        ) from error
    return client.ApiClient(configuration)


class TrainJobs:
    """The TrainJobs of a namespace and their pods, with errors that a person can act on."""

    def __init__(self, namespace: str) -> None:
        asked = connect()
        from kubernetes import client

        self._jobs, self._pods = client.CustomObjectsApi(asked), client.CoreV1Api(asked)
        self._place: dict[str, Any] = {
            "group": API_GROUP,
            "version": API_VERSION,
            "namespace": namespace,
            "plural": PLURAL,
        }
        self._namespace = namespace

    def get(self, name: str) -> dict[str, Any] | None:
        """The TrainJob as it is; None if there is none. BadInput where the cluster does not answer."""
        with _explained(self._namespace):
            found = _unless_absent(lambda: self._jobs.get_namespaced_custom_object(**self._place, name=name))
        if found is None:
            self._require_trainer()
        return found

    def _require_trainer(self) -> None:
        """BadInput where the cluster knows no TrainJobs: it says "not found" as of one TrainJob."""
        with _explained(self._namespace):
            if _unless_absent(lambda: self._jobs.list_namespaced_custom_object(**self._place, limit=1)) is None:
                raise BadInput(
                    f"the cluster has no {PLURAL}.{API_GROUP}/{API_VERSION}",
                    "jobs of ranks are TrainJobs",
                    "Install Kubeflow Trainer 2.3 or later on the cluster",
                )

    def create(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        """Create it, and return what the cluster made of it; None if there is one of this name.

        BadInput where the cluster refuses it.
        """
        from kubernetes.client import ApiException

        with _explained(self._namespace):
            try:
                created: Any = self._jobs.create_namespaced_custom_object(**self._place, body=manifest)
            except ApiException as error:
                if error.status != http.HTTPStatus.CONFLICT:
                    raise
                return None
        return created

    def delete(self, name: str) -> None:
        """Delete it and, before it is gone, its pods, which have their grace period."""
        with _explained(self._namespace):
            _unless_absent(
                lambda: self._jobs.delete_namespaced_custom_object(
                    **self._place, name=name, propagation_policy="Foreground"
                )
            )

    def pods(self, name: str) -> list[str]:
        """Names of the pods of its ranks that have started."""
        chosen = f"jobset.sigs.k8s.io/jobset-name={name},jobset.sigs.k8s.io/replicatedjob-name={NODE}"
        found: Any = self._pods.list_namespaced_pod(self._namespace, label_selector=chosen)
        return sorted(pod.metadata.name for pod in found.items if pod.status.phase != "Pending")

    def log(self, pod: str, seconds: int | None) -> str:
        """Lines of a pod's ranks, each after its time; of so many seconds, or all. Empty where the pod is gone."""
        return (
            _unless_absent(
                lambda: self._pods.read_namespaced_pod_log(
                    pod, self._namespace, container=NODE, timestamps=True, since_seconds=seconds
                )
            )
            or ""
        )


def _unless_absent(ask: Callable[[], Any]) -> Any:
    """What was asked for, or None where the cluster says that it is not there."""
    from kubernetes.client import ApiException

    try:
        return ask()
    except ApiException as error:
        if error.status != http.HTTPStatus.NOT_FOUND:
            raise
        return None


@contextmanager
def _explained(namespace: str) -> Iterator[None]:
    from kubernetes.client import ApiException

    try:
        yield
    except (ApiException, urllib3.exceptions.HTTPError) as error:
        raise BadInput(
            f"the Kubernetes cluster answers: {reason(error)}",
            f"TrainJobs of namespace {namespace} must be readable and writable",
            "Ask for these rights, correct environment.launcher, or look after the cluster",
        ) from error


def reason(error: Exception) -> str:
    """What the cluster says of an error, in a few words."""
    body: Any = getattr(error, "body", None)
    try:
        return str(json.loads(body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(getattr(error, "reason", None) or error)
