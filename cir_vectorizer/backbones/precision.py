"""Precision of a backbone's weights: the names that users give, and the one that suits a device.

On a CPU, half precision is only faster if the processor computes in it; elsewhere PyTorch emulates it, up to ten times
slower than float32. Imports no torch.
"""

import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bfloat16", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

CPU_INFO = Path("/proc/cpuinfo")
_CPU_FLAGS = {"bfloat16": {"avx512_bf16", "amx_bf16"}, "float16": {"avx512_fp16", "amx_fp16"}}
_NAMED = {"bfloat16": "AVX512-BF16 or AMX", "float16": "AVX512-FP16 or AMX-FP16"}
_FIRST_BF16_GPU = (8, 0)
"""Compute capability of the first CUDA devices with bfloat16."""


def is_native(precision: str, device: "torch.device") -> bool:
    """Tell whether a device computes in `precision` itself: always for float32, by its flags for a CPU."""
    import torch

    if precision == "float32":
        return True
    if device.type == "cpu":
        return bool(_CPU_FLAGS[precision] & _cpu_flags(CPU_INFO))
    if device.type == "cuda" and precision == "bfloat16":
        return torch.cuda.get_device_capability(device) >= _FIRST_BF16_GPU
    return True


def resolve(precision: str, device: "torch.device") -> "torch.dtype":
    """Return the data type of the weights on a device, for a precision other than int8.

    `auto` is bfloat16 on a CPU or CUDA device that computes in it, else float32. A precision that a CPU emulates is
    used as asked, and a warning is logged.
    """
    import torch

    if precision == "auto":
        fast = device.type in ("cpu", "cuda") and is_native("bfloat16", device)
        return torch.bfloat16 if fast else torch.float32
    if device.type == "cpu" and not is_native(precision, device):
        log.warning(
            "this processor has no %s, so %s is emulated here, many times slower than float32; give --precision auto",
            _NAMED[precision],
            precision,
        )
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


@cache
def _cpu_flags(path: Path) -> frozenset[str]:
    """Return the processor's flags as Linux lists them; none on other systems."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())
