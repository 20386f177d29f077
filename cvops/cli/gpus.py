"""The GPUs of this machine, by NVIDIA's driver alone."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

from cvops._mxnet import cuda11


class Device(NamedTuple):
    """Name and compute capability of a GPU, from the driver."""

    name: str
    capability: tuple[int, int]


def driver_version() -> int:
    """Return the driver's CUDA version, 1000 major + 10 minor; 0 without a driver."""
    version = ctypes.c_int()
    try:
        code = ctypes.CDLL(cuda11.DRIVER).cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return 0
    return 0 if code else version.value


def devices() -> list[Device]:
    """Return the GPUs; none without a driver."""
    try:
        driver = ctypes.CDLL(cuda11.DRIVER)
    except OSError:
        return []

    def call(function: str, *args: Any) -> int:
        return int(getattr(driver, function)(*args))

    def attribute(number: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        call("cuDeviceGetAttribute", ctypes.byref(value), number, device)
        return value.value

    count = ctypes.c_int()
    no_device = 100
    code = call("cuInit", 0) or call("cuDeviceGetCount", ctypes.byref(count))
    if code not in (0, no_device):
        raise RuntimeError(f"the NVIDIA driver returns error {code}; run nvidia-smi for details")
    found = []
    for i in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        call("cuDeviceGet", ctypes.byref(device), i)
        call("cuDeviceGetName", name, len(name), device)
        found.append(Device(name.value.decode(), (attribute(75, device), attribute(76, device))))
    return found


def dotted(version: int) -> str:
    """Return a CUDA version as text, such as 12.8."""
    return f"{version // 1000}.{version % 1000 // 10}"


def dotted_capability(device: Device) -> str:
    """Return the compute capability of a GPU as text."""
    return "compute capability {}.{}".format(*device.capability)
