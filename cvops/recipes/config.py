"""Configuration files of a training: TOML, a key for each option of the command line."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvops._files import check_regular, replacing
from cvops._imports import optional


def read_config(path: str | Path, known: Sequence[str]) -> dict[str, Any]:
    """Read a configuration file, whose keys are some of ``known``.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: Python is older than 3.11 and tomli is not installed.
        ValueError: it is not TOML, or has another key. The message begins with the path.
    """
    path = Path(path)
    reader = _toml()
    try:
        check_regular(path)
        values: dict[str, Any] = reader.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except ValueError as error:  # that of the reader, too
        raise ValueError(f"{path}: not a configuration in TOML: {error}") from error
    for name in values:
        if name not in known:
            raise ValueError(f"{path}: expected keys of {sorted(known)}, got {name!r}")
    return values


def _toml() -> Any:
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    with optional("for --config"):
        return importlib.import_module(name)


def write_config(path: Path, values: Mapping[str, Any]) -> None:
    """Write a configuration file. A key whose value is None or an empty list is left out."""
    lines = [f"{name} = {_literal(value)}" for name, value in values.items() if _has(value)]
    with replacing(path) as part:
        part.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _has(value: Any) -> bool:
    return value is not None and not (isinstance(value, (list, tuple)) and not value)


def _literal(value: Any) -> str:
    """Return a text, a number, a flag or a list as TOML has it, which is as in JSON."""
    listed = list(value) if isinstance(value, tuple) else value
    return json.dumps(listed, ensure_ascii=False).replace("\x7f", "\\u007f")
