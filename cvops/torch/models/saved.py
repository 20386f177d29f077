"""Files of the Gluon networks, for modules of PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import torch
from torch import nn

from cvops._files import check_regular
from cvops._mxnet import params

#: Gluon's names of parameters that PyTorch names otherwise.
_NAMES = {"gamma": "weight", "beta": "bias"}


def load_parameters(net: nn.Module, path: str | Path) -> None:
    """Load a file of ``save_parameters`` of Gluon into a module of the same structure.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of parameters, or is one of another network. The message
            begins with the path, and names the parameters.
    """
    path = Path(path)
    found = {}
    for name, x in params.arrays(path).items():
        owner, _, last = name.rpartition(".")
        found[f"{owner}.{_NAMES.get(last, last)}"] = torch.from_numpy(x)
    wanted = {name: x for name, x in net.state_dict().items() if not name.endswith("_tracked")}
    for what, names in (("missing", wanted.keys() - found), ("unknown", found.keys() - wanted)):
        if names:
            raise ValueError(f"{path}: parameters of another network: {what}: {sorted(names)[:3]}")
    for name, x in wanted.items():
        if found[name].shape != x.shape or found[name].dtype != x.dtype:
            raise ValueError(
                f"{path}: {name}: expected {x.dtype} {tuple(x.shape)}, got {found[name].dtype} "
                f"{tuple(found[name].shape)}"
            )
    net.load_state_dict(found, strict=False)


def load(path: str | Path, model: str, make: Callable[[dict[str, Any]], Any]) -> Any:
    """Return the network that ``make`` makes from the JSON file, with the parameters of ``path``.

    ``make`` gets the content of the JSON file, which ``save`` of the Gluon network wrote.

    Raises:
        FileNotFoundError: ``path`` or its JSON file is missing.
        ValueError: one of the two is not a file of ``save`` of the Gluon network ``model``.
    """
    description = Path(path).with_suffix(".json")
    try:
        check_regular(description)
        about = json.loads(description.read_text("utf-8"))
        if about["model"] != model:
            raise ValueError(about["model"])
        net = make(about)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{description}: does not describe a {model}") from error
    load_parameters(net, path)
    return net
