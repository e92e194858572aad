"""Memory and speed of GPUs by their makers' data sheets."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from slm_plugin.errors import DataError, suggest


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        name: Its name.
        memory_gb: Memory in 10^9 bytes.
        tera_operations: Dense bf16 operations per second, in 10^12.
    """

    name: str
    memory_gb: float
    tera_operations: float


DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Device files of the drivers of NVIDIA, AMD and, below WSL, Windows."""

KNOWN = (
    Gpu("B200", 180, 2250),
    Gpu("H200", 141, 989),
    Gpu("H100", 80, 989),
    Gpu("A100", 80, 312),
    Gpu("A100-40GB", 40, 312),
    Gpu("L40S", 48, 362),
    Gpu("A6000", 48, 155),
    Gpu("RTX 4090", 24, 165),
    Gpu("A10", 24, 125),
    Gpu("L4", 24, 121),
    Gpu("RTX 3090", 24, 71),
)


def find_gpu(name: str) -> Gpu:
    """Return a GPU by name, with or without its maker's name around it.

    Raises:
        DataError: It is not known.
    """
    wanted = _parts(name)
    # whole parts of a name, the most of them first: an L40 is no L4, an A100-SXM4-40GB is one of 40 GB
    found = [gpu for gpu in sorted(KNOWN, key=lambda gpu: -len(_parts(gpu.name))) if _parts(gpu.name) <= wanted]
    if not found:
        raise DataError(f"no GPU is called {name!r} here. {suggest(name, [gpu.name for gpu in KNOWN], 'Known')}")
    return found[0]


def has_driver() -> bool:
    """Return whether a GPU driver is there: of NVIDIA, of AMD, or of Windows below WSL."""
    return any(Path(device).exists() for device in DEVICES) or shutil.which("nvidia-smi") is not None


def this_gpu() -> Gpu | None:
    """Return this machine's first GPU; None where there is none, or none that is known."""
    if not has_driver():
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    device = torch.cuda.get_device_properties(0)
    try:
        known = find_gpu(device.name)
    except DataError:
        return None
    return Gpu(device.name, device.total_memory / 1e9, known.tera_operations)


def _parts(name: str) -> set[str]:
    return set(re.findall(r"[A-Z0-9]+", name.upper()))
