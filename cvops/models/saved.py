"""Files of a network: its parameters, and next to them its arguments as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

from cvops._files import check_regular, replacing
from cvops._mxnet import params


def save(net: Any, path: str | Path, about: dict[str, Any]) -> None:
    """Write the parameters to ``path``, and ``about`` next to it (``.json``).

    An error leaves the previous files.
    """
    path = Path(path)
    params.save(net, path)
    with replacing(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(about, indent=2) + "\n", "utf-8")


def describe(path: str | Path, network: str = "a network") -> dict[str, Any]:
    """Return ``about`` of :func:`save`, from the JSON file of the parameters ``path``.

    ``network`` describes the network in an error.

    Raises:
        FileNotFoundError: ``path`` or its JSON file is missing.
        ValueError: the JSON file is not one of :func:`save`.
    """
    path = Path(path)
    description = path.with_suffix(".json")
    if path.is_dir():
        raise ValueError(f"{path}: expected a file of parameters, got a folder")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not description.exists():
        raise FileNotFoundError(f"{description}: no such file; the parameters {path.name} need it")
    try:
        check_regular(description)
        about = json.loads(description.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{description}: does not describe {network}: {error}") from error
    if not isinstance(about, dict):
        raise ValueError(f"{description}: does not describe {network}: expected an object")
    return about


def load(path: str | Path, network: str, make: Callable[[dict[str, Any]], Any]) -> Any:
    """Return the network that ``make`` makes from the JSON file, with the parameters of ``path``.

    ``make`` gets ``about`` of :func:`save`. ``network`` describes the network in an error.

    Raises:
        FileNotFoundError: ``path`` or its JSON file is missing.
        ValueError: one of the two is not a file of :func:`save`.
    """
    path = Path(path)
    about = describe(path, network)
    try:
        net = make(about)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        description = path.with_suffix(".json")
        raise ValueError(f"{description}: does not describe {network}") from error
    params.load(net.load_parameters, path, network)
    return net
