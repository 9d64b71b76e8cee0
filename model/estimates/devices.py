"""Peaks of the devices that models are trained on, by the name that the driver gives them. Nothing here imports torch.

Dense, without sparsity, of the form with the higher clocks (SXM where there is one); from the vendors' data sheets.
"""

from typing import Literal

from infra.software import driver_says

_PEAKS = (
    # Part of the name, bfloat16 TFLOP/s, float32 TFLOP/s; the first that occurs in the name counts.
    ("GB200", 2500.0, 80.0),
    ("B200", 2250.0, 80.0),
    ("GH200", 989.0, 67.0),
    ("H200", 989.0, 67.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100 NVL", 835.0, 60.0),
    ("H100", 989.0, 67.0),
    ("H20", 148.0, 44.0),
    ("H800", 989.0, 67.0),
    ("A100", 312.0, 19.5),
    ("A800", 312.0, 19.5),
    ("L40S", 362.0, 91.6),
    ("A40", 149.7, 37.4),
    ("A10", 125.0, 31.2),
    ("RTX 4090", 165.2, 82.6),
    ("MI300X", 1307.4, 163.4),
)


def peak_flops(
    device: str, dtype: Literal["float32", "bfloat16"], override_tflops: float | None = None
) -> float | None:
    """FLOP/s that a device of this name can reach, or None where it is not known; the override, in TFLOP/s, wins."""
    if override_tflops is not None:
        return override_tflops * 1e12
    for part, bfloat16, float32 in _PEAKS:
        if part.lower() in device.lower():
            return (bfloat16 if dtype == "bfloat16" else float32) * 1e12
    return None


def this_device() -> str | None:
    """Name of this machine's first GPU, as the driver says; None without one."""
    return next(iter(driver_says("name")), None)
