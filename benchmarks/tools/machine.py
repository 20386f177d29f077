"""Describes the machine, the versions and the numbers of threads, for the head of a table."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from datetime import date
from importlib import metadata

import cvops
from cvops.backends.registry import BACKENDS


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_name() -> str | None:
    cupy = sys.modules.get("cupy")
    if cupy is None or BACKENDS["cuda", "cupy"].missing() is not None:
        return None
    with contextlib.suppress(Exception):  # an error of a kernel may have made the GPU unusable
        return cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return "a GPU"


def cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def os_name() -> str:
    with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8") as file:
        for line in file:
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip().strip('"')
    return platform.platform()


def versions() -> dict[str, str]:
    """Return the versions of Python, cvops and the imported libraries."""
    try:
        own = metadata.version("cvops")
    except metadata.PackageNotFoundError:
        own = "from a checkout"
    names = "numpy", "mxnet", "cupy", "torch", "torchvision", "onnxruntime", "openvino", "cv2"
    modules = {name: sys.modules.get(name) for name in names}
    found = {n: str(m.__version__) for n, m in modules.items() if hasattr(m, "__version__")}
    return {"python": platform.python_version(), **found, "cvops": own}


def threads() -> dict[str, str]:
    """Return the number of threads of each imported library."""
    found = {"cvops": str(cvops.get_num_threads())}
    if "mxnet" in sys.modules:
        found["mxnet"] = os.environ.get("OMP_NUM_THREADS", "its default (OMP_NUM_THREADS not set)")
    if "torch" in sys.modules:
        found["torch"] = str(sys.modules["torch"].get_num_threads())
    if "cv2" in sys.modules:
        found["cv2"] = str(sys.modules["cv2"].getNumThreads())
    for name in ("onnxruntime", "openvino", "powerboxes"):
        if name in sys.modules:
            found[name] = "its default, one for each core"
    return found


def about() -> str:
    """Return the machine, its software and the date in a line."""
    machine = f"{cpu_name()}, {cores()} cores; {gpu_name() or 'no GPU'}"
    software = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{machine}; {os_name()}; {software}; {date.today()}."
