"""Networks by their files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cvops._files import check_regular
from cvops.models.fcn import FCN
from cvops.models.rcnn import FasterRCNN, FastRCNN
from cvops.models.tiny_ssd import TinySSD

_NETWORKS: dict[str, Any] = {x.__name__: x for x in (TinySSD, FCN, FastRCNN, FasterRCNN)}


def load(path: str | Path) -> Any:
    """Return the network that its ``save`` wrote to ``path``, on the CPU.

    The class of the network is in the JSON file next to ``path``: ``TinySSD``, ``FCN``,
    ``FastRCNN`` or ``FasterRCNN``.

    Raises:
        FileNotFoundError: ``path`` or its JSON file is missing.
        ValueError: one of the two is not a file of ``save``.
    """
    description = Path(path).with_suffix(".json")
    if not description.exists():
        raise FileNotFoundError(f"{description}: no such file")
    try:
        check_regular(description)
        network = _NETWORKS[json.loads(description.read_text("utf-8"))["model"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{description}: does not describe a network of cvops") from error
    return network.load(path)
