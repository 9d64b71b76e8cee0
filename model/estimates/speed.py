"""How fast a training is: tokens and model FLOP per second of a device, and what a whole run took."""

from collections.abc import Sequence
from dataclasses import dataclass

from infra.settings import Settings
from model.config import TrainingSettings
from model.estimates.devices import peak_flops
from model.estimates.flops import flops_per_token


class SpeedSummary(Settings):
    """Of the steps that count: what a killed launch did after its last checkpoint, and starting, is left out."""

    device: str
    """Name of the device of the process that finished the run."""
    device_hours: float
    """Hours of the loop, checkpoints included, times devices: GPU-hours where they are GPUs."""
    tokens_per_second_per_device: float
    flops_per_token: float
    """See model.estimates.flops."""
    tflops_per_device: float
    """Model TFLOP/s."""
    peak_tflops: float | None
    """Of the device; None where it is not known."""
    mfu: float | None
    """Model TFLOP/s divided by the peak."""
    memory_gib: float
    """Most memory of any process of the launch that finished the run."""
    seconds: dict[str, float]
    """Time of the loop as the reporting process saw it, by kind (see model.timing), and the rest of it as other."""


@dataclass(frozen=True)
class SpeedOf:
    """What turns a number of tokens in some time into FLOP/s and MFU."""

    flops_per_token: float
    peak: float | None
    """FLOP/s of one device."""

    @classmethod
    def run(cls, training: TrainingSettings, vocabulary_size: int, device: str) -> "SpeedOf":
        """Of a run on devices of a name."""
        peak = peak_flops(device, training.dtype, training.peak_tflops)
        return cls(flops_per_token(training.model, vocabulary_size), peak)

    def metrics(self, tokens: float, device_seconds: float) -> dict[str, float]:
        """Tokens, model TFLOP and, where the peak is known, MFU of each device."""
        rate = tokens / max(device_seconds, 1e-9)
        flops = rate * self.flops_per_token
        known = {} if self.peak is None else {"mfu": flops / self.peak}
        return {"tokens_per_second_per_device": rate, "tflops_per_device": flops / 1e12, **known}

    def summary(
        self, rows: Sequence[dict[str, float]], kinds: Sequence[str], device: str, memory: float
    ) -> SpeedSummary:
        """Add up the rows of a run's journal."""
        total = sum(row["seconds"] for row in rows)
        spent = {kind: sum(row.get(f"{kind}_seconds", 0.0) for row in rows) for kind in kinds}
        device_seconds = sum(row["seconds"] * row["devices"] for row in rows)
        metrics = self.metrics(rows[-1]["tokens"], device_seconds)
        return SpeedSummary(
            device=device,
            device_hours=device_seconds / 3600,
            tokens_per_second_per_device=metrics["tokens_per_second_per_device"],
            flops_per_token=self.flops_per_token,
            tflops_per_device=metrics["tflops_per_device"],
            peak_tflops=None if self.peak is None else self.peak / 1e12,
            mfu=metrics.get("mfu"),
            memory_gib=memory,
            seconds={**spent, "other": max(0.0, total - sum(spent.values()))},
        )


def progress_line(row: dict[str, float], steps: int, seconds_left: float) -> str:
    """Tell of a step in one line, with its speed and the time that is left."""
    parts = [
        f"step {int(row['step'])}/{steps}",
        f"loss {row['loss']:.4f}",
        f"lr {row['learning_rate']:.2e}",
        f"norm {row['gradient_norm']:.2f}",
        f"{row['tokens_per_second_per_device']:,.0f} tokens/s/device",
        f"{row['tflops_per_device']:.3g} TFLOP/s",
        *([f"MFU {row['mfu']:.1%}"] if "mfu" in row else []),
        f"{row['memory_gib']:.1f} GiB",
        f"{_clock_time(seconds_left)} left",
    ]
    return "  ".join(parts)


def summary_lines(speed: SpeedSummary, devices: int) -> list[str]:
    """Tell how fast a run was, in a few lines."""
    total = max(sum(speed.seconds.values()), 1e-9)
    of_peak = "" if speed.mfu is None else f", MFU {speed.mfu:.1%} of {speed.peak_tflops:,.0f}"
    shares = ", ".join(f"{kind} {seconds / total:.1%}" for kind, seconds in speed.seconds.items())
    return [
        f"{devices} x {speed.device}: {speed.device_hours:.2f} device-hours, {speed.memory_gib:.1f} GiB at most",
        f"{speed.tokens_per_second_per_device:,.0f} tokens/s and {speed.tflops_per_device:.3g} model TFLOP/s "
        f"on each device ({speed.flops_per_token:.3g} FLOP for a token{of_peak})",
        f"time: {shares}",
    ]


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
