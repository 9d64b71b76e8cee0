"""What is refused before anything starts: trainings that cannot work or do not fit, jobs that cannot be handed in."""

import base64
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.ablations.settings import AblationSettings, check_training
from flows.config import DatasetSettings, PipelineSettings
from flows.end_to_end import crawl_to_model
from flows.jobs import require_disk, require_launchable, require_trainable
from flows.pretraining import pretrain
from infra.environment import Environment
from infra.errors import BadInput
from infra.store import Store
from model.config import CheckpointSettings, Duration, ModelSettings, TrainingSettings
from model.estimates.flops import parameters
from model.run import named_run
from tests.model.made_runs import made_dataset

ELSEWHERE = Environment.model_validate({"launcher": {"kind": "slurm"}})
RANKS = "".join(f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
LARGE = {"model": {"size": "8b"}, "duration": {"tokens": 100_000}, "parallel": {"device_memory_gib": 40}}


@pytest.mark.parametrize("environment", [Environment(), ELSEWHERE])
def test_a_model_that_cannot_be_is_refused(environment: Environment):
    odd = TrainingSettings(model=ModelSettings(hidden_size=100, num_attention_heads=3, num_query_groups=3))
    with pytest.raises(BadInput, match="hidden_size"):
        require_trainable(odd, 512, "corpus", environment)


def test_what_other_machines_have_installed_is_theirs_to_say():
    require_trainable(TrainingSettings(fp8="hybrid"), 512, "corpus", ELSEWHERE)
    with pytest.raises(BadInput, match="fp8"):
        require_trainable(TrainingSettings(fp8="hybrid"), 512, "corpus", Environment())


@pytest.mark.parametrize("path", [None, "tokenizer.tiktoken"])
def test_what_does_not_fit_is_refused_before_a_corpus_is_built(tmp_path: Path, path: str | None):
    (tmp_path / "tokenizer.tiktoken").write_text(RANKS)
    existing = {"pattern": "gpt2", "special_tokens": {"<|endoftext|>": 256}}
    corpus = {"source": {"base_url": str(tmp_path / "none")}, "tokenizer": {"path": path, "existing": existing}}
    given: dict[str, Any] = {"environment": {"root": str(tmp_path)}, "training": LARGE}
    with pytest.raises(BadInput, match="a device of 40 GiB"):
        crawl_to_model.fn(PipelineSettings.model_validate({**given, "corpus": corpus}))
    variants = {"all": {}, "some": {"filter": {"language": {"min_score": 0.9}}}}
    with pytest.raises(BadInput, match="a device of 40 GiB"):
        check_training(AblationSettings.model_validate({**given, "base": corpus, "variants": variants}))


def test_a_root_that_no_training_can_use_is_refused_before_a_corpus_is_built():
    with pytest.raises(BadInput, match="needs a folder of this machine"):
        crawl_to_model.fn(PipelineSettings.model_validate({"environment": {"root": "memory://mill"}}))


def test_checkpoints_that_do_not_fit_on_the_disk_are_refused_before_a_training(tmp_path: Path):
    store, free = Store(str(tmp_path)), shutil.disk_usage(tmp_path).free
    training = TrainingSettings.model_validate(
        {"model": {"size": "150m"}, "duration": {"steps": 10**6}, "checkpoint": {"every_steps": 1, "keep": None}}
    )
    dataset = made_dataset(store, "corpus", 10_000, 100)
    record = named_run(store, dataset, "model", training)
    assert 14 * parameters(training.model, 400) * record.steps > free, "a disk of petabytes"
    environment = Environment(root=str(tmp_path))
    with pytest.raises(BadInput, match=r"are needed under .* for checkpoints of model"):
        pretrain.fn(DatasetSettings(name="corpus"), "model", training, environment)
    few = {"checkpoint": CheckpointSettings(every_steps=1000, keep=1), "duration": Duration(steps=1)}
    require_disk(
        store, named_run(store, dataset, "model", TrainingSettings(model=ModelSettings(hidden_size=64), **few))
    )


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        ({"kind": "slurm"}, "environment.launcher.kind = slurm"),
        ({"kind": "slurm", "processes_per_node": 4, "max_nodes": 2}, "full nodes"),
        ({"kind": "kubernetes", "image": "mill", "volume_claim": "mill", "mount_path": "/other"}, "mount_path"),
    ],
)
def test_jobs_that_no_cluster_takes_are_refused(
    tmp_path: Path, launcher: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    environment = Environment.model_validate({"root": str(tmp_path), "launcher": launcher})
    training = TrainingSettings.model_validate({"parallel": {"processes": 6}})
    with pytest.raises(BadInput, match=said):
        require_launchable(environment, training, 6)
    require_launchable(Environment(root=str(tmp_path)), training, 6)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of that name, which nobody runs."""
    for name in ("sbatch", "srun", "squeue", "scancel"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("slurm")
def test_a_job_without_time_for_its_checkpoint_is_refused_before_a_corpus_is_built(tmp_path: Path):
    launcher = {"kind": "slurm", "warning_seconds": 60}
    settings = {"environment": {"root": str(tmp_path), "launcher": launcher}}
    with pytest.raises(BadInput, match="warning_seconds = 60"):
        crawl_to_model.fn(PipelineSettings.model_validate(settings))


@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize(
    ("uri", "warned"), [(None, True), ("http://mlflow.localhost:5000", True), ("http://mlflow.example:5000", False)]
)
def test_an_address_that_nodes_cannot_reach_is_told(
    tmp_path: Path, uri: str | None, warned: bool, caplog: pytest.LogCaptureFixture
):
    given = {"root": str(tmp_path), "mlflow_tracking_uri": uri, "launcher": {"kind": "slurm"}}
    require_launchable(Environment.model_validate(given), TrainingSettings(), 1)
    assert ("ranks on other machines" in caplog.text) == warned
