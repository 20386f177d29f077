"""The time of each stage of a detection."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np

from cvops._mxnet import mxnet
from cvops.demo_rcnn.proposals import MOST, valid
from cvops.models import plain_rcnn
from cvops.models.rcnn import FasterRCNN, FastRCNN, RCNNDetector
from cvops.proposals import selective_search

mx = mxnet()


def _median_ms(work: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> float:
    """Return the median time of ``work`` in milliseconds; the first input is the warm-up."""
    times = []
    for arguments in inputs:
        mx.nd.waitall()
        start = time.perf_counter()
        work(*arguments)
        mx.nd.waitall()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[1:])


def times_of_stages(net: Any, dataset: Any, proposals: Any = None, count: int = 6) -> str:
    """Return a line for each stage of a detection: its median time per image.

    The stages run eagerly, one image at a time. ``proposals`` are those of ``search``.
    """
    numbers = [0, *range(min(count, len(dataset)))]
    scenes = [dataset.scene(number)[0] for number in numbers]
    stages: dict[str, float] = {}
    if proposals is not None:
        stages["proposals: selective search"] = _median_ms(
            lambda scene: selective_search(scene, most=MOST), [(scene,) for scene in scenes]
        )
    if isinstance(net, plain_rcnn.RCNN):
        boxes = [
            valid(proposals[number]) * (scene.shape[1::-1] * 2)
            for number, scene in zip(numbers, scenes)
        ]
        runs = int(np.median([len(found) for found in boxes]))
        cut = [
            (plain_rcnn.crops_of(scene, found, net.side),) for scene, found in zip(scenes, boxes)
        ]
        name = f"features: {runs} runs of the network"
        stages[name] = _median_ms(net.features_of, cut)
        all_of_it = _median_ms(net.predict, list(zip(scenes, boxes)))
        stages["crops, SVMs, regression, NMS"] = max(all_of_it - stages[name], 0)
    else:
        images = [mx.nd.array(dataset[number][0][None]) for number in numbers]
        given = None
        if proposals is not None:
            given = [mx.nd.array(proposals[number][None]) for number in numbers]
        stages |= _times_of_network(net, images, given)
    lines = ["ms per image"]
    lines += [f"  {name:40}{value:8.1f}" for name, value in stages.items()]
    return "\n".join([*lines, f"  {'sum':40}{sum(stages.values()):8.1f}"])


def _times_of_network(net: FastRCNN, images: list[Any], proposals: Any) -> dict[str, float]:
    nd = mx.nd
    maps = [net.backbone(one) for one in images]
    stages = {"features: one run of the backbone": _median_ms(net.backbone, [(x,) for x in images])}
    if isinstance(net, FasterRCNN):
        faster = net  # its type is known in the function below

        def propose(features: Any) -> Any:
            return faster.propose(nd, *faster.regions(nd, features))

        stages["proposals: RPN, NMS"] = _median_ms(propose, [(x,) for x in maps])
        proposals = [propose(x) for x in maps]
    heads = [(nd, *inputs) for inputs in zip(images, maps, proposals)]
    stages["boxes: pooling, dense layers"] = _median_ms(net.heads, heads)
    if net.mask:
        detector = RCNNDetector(net)
        rows = [detector(one)[0] for one in images]
        found = [nd.slice_axis(x, axis=2, begin=2, end=6) for x in rows]
        inputs = [(nd, *one) for one in zip(images, maps, found)]
        stages["masks: pooling, convolutions"] = _median_ms(net.masks, inputs)
    return stages
