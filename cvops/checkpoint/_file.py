"""The file of a checkpoint: a zip of plain arrays and a JSON object."""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cvops._files import check_regular, replacing


class CheckpointError(ValueError):
    """A file is damaged, is not a checkpoint, or does not fit the network or the trainer."""


FORMAT = "cvops checkpoint 1"
_JSON = "checkpoint.json"


def write(path: Path, content: str, arrays: dict[str, np.ndarray]) -> None:
    """Write the text of the JSON object and the arrays, atomically."""
    with replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
        archive.writestr(_JSON, content)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


#: The entries of the JSON object, and their types.
_TYPES = {
    "state": dict,
    "optimizer": str,
    "optimizer numbers": dict,
    "optimizer counts": dict,
    "optimizer states": dict,
    "schedule": str,
    "schedule state": dict,
    "random": list,
    "numpy.random": list,
}


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the JSON object and the arrays. A damaged file raises a CheckpointError."""
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                # ``save`` does not compress, so the content is not larger than the file.
                if info.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{info.filename}: expected no compression")
            content = _content(archive.read(_JSON))
            names = [name for name in archive.namelist() if name != _JSON]
            # A complete read compares the checksum.
            arrays = {name[: -len(".npy")]: _plain_array(archive.read(name)) for name in names}
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # the readers raise many kinds for damaged files
        raise CheckpointError(f"{path}: damaged, or not a checkpoint: {error}") from error
    return content, arrays


def _content(text: bytes) -> dict[str, Any]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"{_JSON}: expected an object")
    if content.get("format") != FORMAT:
        raise ValueError(f"format: expected {FORMAT!r}, got {content.get('format')!r}")
    for name, kind in _TYPES.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(f"{name}: expected a {kind.__name__}, got {content.get(name)!r}")
    return content


def _plain_array(data: bytes) -> np.ndarray:
    """Return the array in the bytes of a ``.npy`` file, whose header cannot ask for more memory."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"expected .npy of version (1, 0), got {version}")
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or size != len(data) - file.tell():
        raise ValueError(f"expected {len(data) - file.tell()} bytes, got {dtype} {shape}")
    array = np.frombuffer(data, dtype, offset=file.tell())
    return array.reshape(shape[::-1]).T if in_columns else array.reshape(shape)
