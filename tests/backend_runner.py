"""Runs an op on a backend with NumPy arrays."""

import numpy as np
import pytest

from cvops import _imports
from cvops.backends.registry import BACKENDS

#: Pairs of device and backend. A test is skipped if its backend cannot run on this machine; the
#: report gives the reason.
DEVICE_BACKENDS = [
    ("cpu", "numpy"),
    ("cpu", "native"),
    ("cpu", "emulated"),
    ("cuda", "cupy"),
    ("cuda", "native"),
]


def runner(device, name):
    """Return run(op, *arrays, **options), which runs ``op`` on a backend with NumPy arrays."""
    missing = BACKENDS[device, name].missing()
    if missing is not None:
        pytest.skip(f"{name} on {device} {missing}")

    def run(op, *args, **options):
        def move(x):
            return _to_device(x) if device == "cuda" and isinstance(x, np.ndarray) else x

        arrays = [x for x in (*args, *options.values()) if isinstance(x, np.ndarray)]
        if device == "cuda" and not arrays:
            options["like"] = np.zeros(0, np.float32)  # selects the device for an op without arrays
        out = op(*map(move, args), **{k: move(v) for k, v in options.items()}, backend=name)
        return tuple(map(_to_numpy, out)) if isinstance(out, tuple) else _to_numpy(out)

    return run


def _to_device(x):
    try:
        import cupy
    except ImportError:
        import torch

        return torch.from_numpy(x).cuda()
    _imports.load_nvrtc()  # CuPy compiles a kernel for an array without axes
    return cupy.asarray(x)


def _to_numpy(y):
    if y is None or isinstance(y, np.ndarray):
        return y
    return y.get() if hasattr(y, "get") else y.cpu().numpy()
