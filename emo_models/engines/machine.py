"""What of this machine an artefact depends on: platform, extensions of the CPU, GPU."""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

from emo_models.engines.manifest import Machine

#: Extensions that kernels of inference libraries are written for, as Linux spells them.
EXTENSIONS: Final = (
    "sse4_1", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8",
    "asimd", "asimddp", "bf16", "i8mm", "sve",
)  # fmt: skip


@cache
def this_machine() -> Machine:
    """This machine."""
    gpu, capability, driver = _gpu()
    system = f"{sys.platform}-{platform.machine().lower()}"
    return Machine(system, _extensions(), gpu, capability, driver)


def _extensions(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ()
    flags = next(
        (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))), []
    )
    return tuple(name for name in EXTENSIONS if name in flags)


def _gpu() -> tuple[str, str, str]:
    """Name, compute capability and CUDA version of the driver of the first GPU, by the driver itself; empty without."""
    try:
        cuda: Any = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "", "", ""
    device, count, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "", "", ""
    cuda.cuDeviceGet(ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(128)
    cuda.cuDeviceGetName(name, len(name), device)
    numbers = []
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        number = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        numbers.append(number.value)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return name.value.decode(), f"{numbers[0]}.{numbers[1]}", driver
