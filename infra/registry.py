"""MLflow's model registry: checkpoints as versions of a named model, and the aliases by which others ask for them.

    candidate   the version that was judged last and is not the champion
    champion    the version to use
    previous    the champion before it, for a rollback

A version belongs to one checkpoint, told by its digest: registering it again finds the same version. The registry
holds what a later judgement needs (the evaluation, small files), and says where the weights are; it holds no weights
unless they are given as files. `models:/NAME@champion` names the champion in MLflow.

Each alias is moved by one transaction of MLflow; there is none over several. So `previous` is set before `champion`
moves, and a process that is killed between the two is repeated without harm.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from infra.errors import BadInput, RunFailed
from infra.settings import Settings
from infra.tracked_models import CHECKPOINT, Checkpoint, log_checkpoint
from infra.tracking import TrackedRun, open_client, refuse_password, run_url, tracking_errors

Alias = Literal["candidate", "champion", "previous"]
_MODEL = "model_id"
_TAKEN_BACK = "taken_back"


class ModelVersion(Settings):
    """A version of a registered model."""

    model: str
    version: int
    model_id: str
    """MLflow's own name of what was registered: its page in the experiment, its files and figures."""
    run_id: str | None
    aliases: tuple[str, ...]
    tags: dict[str, str]

    @property
    def name(self) -> str:
        """As people say it."""
        return f"version {self.version} of {self.model}"

    @property
    def was_taken_back(self) -> bool:
        """Whether it was champion and a rollback took it back."""
        return _TAKEN_BACK in self.tags


class Registry:
    """The versions of one registered model; BadInput where the server does not answer."""

    def __init__(self, tracking_uri: str, model: str) -> None:
        refuse_password(tracking_uri)
        self.model, self.tracking_uri = model, tracking_uri
        self._client: Any = open_client(tracking_uri)

    def register(self, run: TrackedRun, checkpoint: Checkpoint, files: Mapping[str, bytes]) -> ModelVersion:
        """The version of a checkpoint that a run has made; a new one if there is none yet.

        Tags and files, by their paths, are written anew: an evaluation may have been made again.
        """
        with _Asked(self.tracking_uri):
            self._make_model()
            model_id = log_checkpoint(self._client, run, checkpoint)
            with tempfile.TemporaryDirectory() as folder:
                for path, content in files.items():
                    (file := Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
                self._client.log_model_artifacts(model_id, folder)
            found = self.of_checkpoint(checkpoint.digest)
            version = found.version if found else self._make_version(run, checkpoint, model_id)
        self.annotate(version, checkpoint.tags)
        return self.version(version)

    def _make_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self.model, description="Checkpoints that `gristmill promote` judged.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _make_version(self, run: TrackedRun, checkpoint: Checkpoint, model_id: str) -> int:
        # `models:/ID` would be looked for in MLflow's global address, and `runs:/` is refused beside a model's id.
        source = self._client.get_logged_model(model_id).artifact_location
        made = self._client.create_model_version(
            self.model,
            source,
            run.run_id,
            tags={**checkpoint.tags, CHECKPOINT: checkpoint.digest, _MODEL: model_id},  # the UI keeps their order
            run_link=run_url(run),
            model_id=model_id,
            await_creation_for=0,
        )
        # By this tag the UI goes from the model to its version; a server sets it, MLflow's own SQLite client does not.
        versions = json.dumps([{"name": self.model, "version": int(made.version)}])
        self._client.set_logged_model_tags(model_id, {"mlflow.modelVersions": versions})
        return int(made.version)

    def of_checkpoint(self, digest: str) -> ModelVersion | None:
        """The version of a checkpoint, if it is registered."""
        with _Asked(self.tracking_uri):
            found = self._client.search_model_versions(f"name = '{self.model}' AND tags.{CHECKPOINT} = '{digest}'")
        return min((self._read(each) for each in found), key=lambda each: each.version, default=None)

    def version(self, version: int) -> ModelVersion:
        """A version by its number."""
        with _Asked(self.tracking_uri):
            return self._read(self._client.get_model_version(self.model, str(version)))

    def _read(self, found: Any) -> ModelVersion:
        return ModelVersion(
            model=self.model,
            version=int(found.version),
            model_id=found.tags.get(_MODEL, ""),  # MLflow's SQL store forgets its own field
            run_id=found.run_id or None,
            aliases=tuple(sorted(found.aliases)),
            tags=dict(found.tags),
        )

    def at(self, alias: Alias) -> ModelVersion | None:
        """The version that an alias stands for, if it stands for one."""
        from mlflow.exceptions import MlflowException

        with _Asked(self.tracking_uri):
            try:
                found = self._client.get_model_version_by_alias(self.model, alias)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                return None
            return self.version(int(found.version))

    def read(self, version: ModelVersion, path: str) -> bytes | None:
        """A file that was registered with a version; None if there is no such file."""
        from mlflow.artifacts import download_artifacts

        with _Asked(self.tracking_uri), tempfile.TemporaryDirectory() as folder:
            if path not in [each.path for each in self._client.list_logged_model_artifacts(version.model_id)]:
                return None
            location = self._client.get_logged_model(version.model_id).artifact_location
            uri = f"{location.rstrip('/')}/{path}"
            return Path(download_artifacts(uri, dst_path=folder, tracking_uri=self.tracking_uri)).read_bytes()

    def annotate(self, version: int, tags: Mapping[str, str], description: str | None = None) -> None:
        """Set tags of a version, and its description in Markdown."""
        with _Asked(self.tracking_uri):
            for key, value in tags.items():
                self._client.set_model_version_tag(self.model, str(version), key, value)
            if description is not None:
                self._client.update_model_version(self.model, str(version), description)

    def nominate(self, version: ModelVersion) -> None:
        """Let `candidate` stand for a version."""
        with _Asked(self.tracking_uri):
            self._client.set_registered_model_alias(self.model, "candidate", str(version.version))

    def promote(self, version: ModelVersion, champion: ModelVersion | None) -> None:
        """Let `champion` stand for a version, and `previous` for the champion that it was judged against.

        RunFailed if another has become champion meanwhile.
        """
        now = self.at("champion")
        if (now and now.version) == version.version:
            return
        if (now and now.version) != (champion and champion.version):
            raise RunFailed(
                f"the champion of {self.model} is now {now.name if now else 'none'}",
                f"{version.name} was judged against {champion.name if champion else 'none'}",
                "Promote it again",
            )
        with _Asked(self.tracking_uri):
            if champion is not None:
                self._client.set_registered_model_alias(self.model, "previous", str(champion.version))
            self._client.set_registered_model_alias(self.model, "champion", str(version.version))
            if version.was_taken_back:
                self._client.delete_model_version_tag(self.model, str(version.version), _TAKEN_BACK)
        self.drop("candidate", version)

    def drop(self, alias: Alias, version: ModelVersion) -> None:
        """Take an alias away from a version, if it has it."""
        if (found := self.at(alias)) is not None and found.version == version.version:
            with _Asked(self.tracking_uri):
                self._client.delete_registered_model_alias(self.model, alias)

    def take_back(self, reason: str) -> tuple[ModelVersion, ModelVersion]:
        """Let `champion` stand for the previous one again: the version that is champion now, and the one before.

        The version that is taken back is marked with the reason. BadInput where there is no previous champion.
        """
        champion, previous = self.at("champion"), self.at("previous")
        if champion is None or previous is None or champion.version == previous.version:
            raise BadInput(
                f"{self.model} has {'no champion' if champion is None else 'no champion before ' + champion.name}",
                "a rollback goes back to the champion before, by one step",
                "Promote another checkpoint instead",
            )
        self.annotate(champion.version, {_TAKEN_BACK: reason})
        with _Asked(self.tracking_uri):
            self._client.set_registered_model_alias(self.model, "champion", str(previous.version))
            self._client.delete_registered_model_alias(self.model, "previous")
        return self.version(previous.version), self.version(champion.version)


class _Asked:
    """Turns errors of the server into BadInput: a registry that does not answer has no champion to tell of."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None and isinstance(error, tracking_errors()):
            raise BadInput(
                f"MLflow's registry at {self._uri} ({(str(error).splitlines() or [type(error).__name__])[0][:200]})",
                "it must answer and take what is registered",
                "Start the server, or correct mlflow_tracking_uri and promotion.model",
            ) from error
