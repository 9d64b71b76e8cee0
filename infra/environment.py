"""Where and at what price the work is done: the section `environment` of every flow."""

from pydantic import field_validator

from infra.address import Address
from infra.cost import CostSettings
from infra.dask_settings import DaskSettings, LocalDask
from infra.launching.launcher_settings import LauncherSettings, LocalSettings
from infra.settings import Settings, operational


class Environment(Settings):
    """Where the work is done. Nothing here changes any output, so nothing here enters a fingerprint."""

    root: Address = operational("gristmill-data")
    """Folder or fsspec URL under which stages, datasets and runs are kept."""
    workers: int | None = operational(None, ge=1, le=4096)
    """Dask worker processes on this machine; unset means one for each core."""
    scheduler: str | None = operational(None, pattern=r"^(tcp|tls|ucx|ws|wss|inproc)://[^@]*$")
    """Address of a running Dask scheduler, such as tcp://10.0.0.5:8786; unset starts a cluster on this machine."""
    dask: DaskSettings = operational(LocalDask())
    """Where Dask workers run if no scheduler is named: on this machine, as jobs of a batch system, or as pods."""
    scheduler_patience_seconds: float = operational(300.0, ge=0)
    """How long a stage waits for a scheduler that has died to be there again, in seconds."""
    worker_memory: str = operational("auto")
    """Memory limit of each local Dask worker, such as 4GiB; auto shares this machine's memory among them."""
    shard_retries: int = operational(2, ge=0, le=20)
    """How often a shard is tried again after its worker died or its function failed."""
    max_failed_shards: int = operational(100, ge=1)
    """A stage stops early when so many of its shards have failed; fewer failures stop it when all others are done."""
    mlflow_tracking_uri: Address | None = operational(None)
    """Address of an MLflow server; unset records into SQLite under the root."""
    mlflow_experiment: str = operational("gristmill", min_length=1)
    """First part of the names of MLflow's experiments, one for each purpose, such as gristmill/pretraining."""
    launcher: LauncherSettings = operational(LocalSettings())
    """Where training and evaluation run: on this machine, as a job of Slurm, or as a TrainJob of Kubernetes."""
    cost: CostSettings = operational(CostSettings())
    """What machines cost, for plans and for what runs are said to have cost."""

    @field_validator("worker_memory")
    @classmethod
    def _require_bytes(cls, stated: str) -> str:
        if stated != "auto":
            from dask.utils import parse_bytes

            parse_bytes(stated)
        return stated

    @property
    def ranks_elsewhere(self) -> bool:
        """Whether training and evaluation run on other machines than this one, which then says nothing of them."""
        return self.launcher.kind != "local"
