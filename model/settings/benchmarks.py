"""Settings of benchmarks: which tasks of lm-evaluation-harness, on how many items, how sure the figures are."""

from pydantic import Field

from infra.settings import Settings, operational


class BenchmarkSettings(Settings):
    """Tasks of lm-evaluation-harness, run on the model itself."""

    tasks: tuple[str, ...] = ()
    """Names of tasks, groups or tags of lm-evaluation-harness, or of `tasks_dir`; none measures no benchmark."""
    tasks_dir: str | None = operational(None)
    """Folder of the harness's own YAML files, with data beside them (`gristmill benchmarks` makes one); its tasks come
    before those that the harness brings, which are fetched from the Hugging Face hub."""
    limit: int | None = Field(default=None, ge=1)
    """Items of each task, from its first on; unset takes all."""
    few_shot: int | None = Field(default=None, ge=0)
    """Examples before each question; unset takes what the task itself says."""
    truncate_long_prompts: bool = False
    """Whether prompts longer than the model's context are cut from the left and counted, as the harness does without a
    word; they are refused otherwise."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of a generated answer, whatever the task says; unset leaves it to the task (256 by default)."""
    run_generated_code: bool = False
    """Whether programs that the model writes (HumanEval) are run, each in a process of its own without network, with
    limits of time and memory; a task that needs it is refused otherwise."""
    tokens_at_once: int = operational(16_384, ge=1)
    """Tokens, padding included, that go through the layers at once in one process."""
    bootstrap_draws: int = Field(default=1_000, ge=100)
    """Resamplings of the items behind each interval."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Part of intervals that are to contain the true value."""
    seed: int = Field(default=1234, ge=0, lt=2**31)
    """Seed of the resampling and of the choice of examples."""
