"""Readers of weights in the formats of other libraries. No reader executes code of a file.

| suffix | content | reader |
| --- | --- | --- |
| ``.pth``, ``.pt`` | state dict of PyTorch | ``torch.load(weights_only=True)`` |
| ``.safetensors`` | arrays by name | the package ``safetensors`` |
| ``.pkl`` | dict from a layer's name to a list of NumPy arrays | ``cvops._pickles`` |
| ``.h5`` | groups of Keras with arrays | the package ``h5py`` |

Pickles and files of Keras have no names of arrays: the name is that of the layer, ``/``, and the
index of the array in the layer.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable

import numpy as np

from cvops import _pickles
from cvops._files import check_regular
from cvops._imports import optional

#: The first version of PyTorch whose ``weights_only`` refuses all code: CVE-2025-32434.
_SAFE_TORCH = (2, 6)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Mapping[str, Any]]:
    """Give the arrays of a file by their names: arrays of NumPy, or of h5py, which are not read.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: the package that reads the format is not installed.
        ValueError: the suffix has no reader, or the file has another format or other objects. The
            message begins with the path.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: expected one of the suffixes .params, {', '.join(READERS)}")
    try:
        check_regular(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with contextlib.ExitStack() as stack:
        try:
            arrays = read(path, stack)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # the readers raise many types for damaged files
            text = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{path}: cannot be read as weights: {text}") from error
        yield arrays


def _package(name: str) -> Any:
    with optional():
        return importlib.import_module(name)


# --- PyTorch, safetensors, HDF5 -------------------------------------------------------------------


def _read_torch(path: Path, _: contextlib.ExitStack) -> Mapping[str, Any]:
    torch = _package("torch")
    version = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
    if version < _SAFE_TORCH:
        raise ValueError(
            f"expected PyTorch 2.6 or newer, got {torch.__version__}: earlier versions may execute "
            "code of a file"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping):
        raise ValueError(f"expected a state dict, got {type(state).__name__}")
    arrays = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(f"expected tensors by name, got {type(tensor).__name__} at {name!r}")
        tensor = tensor.detach()
        arrays[name] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return arrays


def _read_safetensors(path: Path, _: contextlib.ExitStack) -> Mapping[str, Any]:
    arrays: dict[str, Any] = _package("safetensors.numpy").load_file(path)
    return arrays


def _read_hdf5(path: Path, stack: contextlib.ExitStack) -> Mapping[str, Any]:
    h5py = _package("h5py")
    file = stack.enter_context(h5py.File(path, "r"))
    arrays = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise ValueError(f"expected arrays in this file, got others at {name!r}")
            arrays[name.replace("/vars/", "/")] = item

    file.visititems(add)  # follows no link to another file
    return arrays


def _read_pickle(path: Path, _: contextlib.ExitStack) -> Mapping[str, Any]:
    layers = _pickles.loads(path.read_bytes())
    if not isinstance(layers, dict):
        raise ValueError(f"expected a dict, got {type(layers).__name__}")
    arrays: dict[str, np.ndarray] = {}
    for layer, values in layers.items():
        if not isinstance(values, list) or not all(isinstance(x, np.ndarray) for x in values):
            raise ValueError(f"expected lists of arrays, got {type(values).__name__} at {layer!r}")
        arrays |= {f"{layer}/{i}": value for i, value in enumerate(values)}
    return arrays


#: The reader of each suffix.
READERS: dict[str, Callable[[Path, contextlib.ExitStack], Mapping[str, Any]]] = {
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".safetensors": _read_safetensors,
    ".pkl": _read_pickle,
    ".h5": _read_hdf5,
}
