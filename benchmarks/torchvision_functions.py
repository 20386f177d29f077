"""Times torchvision on its own functions and on those of cvops: ``make bench-torch``.

    python benchmarks/torchvision_functions.py [--table FILE] [--json FILE]

It needs a torchvision whose compiled operators can be loaded: ``pip install -e ".[peers]"``. Both
sides run in turns in one process, on the same CPU tensors; the time is the median. The results are
compared first. The detection models have random weights, and the image has 320 x 400 pixels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any, Callable

import torch
import torchvision
from tools.machine import cores, cpu_name, versions
from tools.text import SECONDS, aligned, scaled

import cvops.torch as ours

#: Seconds of each side, and the least number of its rounds.
SECONDS_EACH, ROUNDS = 2.0, 5
MODELS = (
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "ssd300_vgg16",
)
Case = tuple[str, Callable[[], Any], Callable[[], Any]]


def boxes(num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return boxes in an image of 1000 x 1000 pixels, and scores without ties."""
    corners = torch.rand(num, 2) * 1000
    scores = torch.randperm(num).float() / num
    return torch.cat([corners, corners + torch.rand(num, 2) * 80 + 5], dim=1), scores


def pair(name: str, *args: Any, **options: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    theirs, own = getattr(torchvision.ops, name), getattr(ours, name)
    return lambda: theirs(*args, **options), lambda: own(*args, **options)


def with_gradient(call: Callable[[], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    (grad,) = torch.autograd.grad(call().sum(), x)
    return grad


def functions() -> list[Case]:
    cases: list[Case] = []
    for num in (100, 1000, 5000, 20000):
        data, scores = boxes(num)
        classes = torch.randint(0, 20, (num,))
        cases.append((f"nms, {num} boxes", *pair("nms", data, scores, 0.5)))
        batched = pair("batched_nms", data, scores, classes, 0.5)
        cases.append((f"batched_nms, {num} boxes, 20 classes", *batched))
    cases.append(("box_iou, 24564 x 100", *pair("box_iou", boxes(24564)[0], boxes(100)[0])))
    x = torch.rand(2, 256, 50, 68, requires_grad=True)
    rois = torch.cat([torch.randint(0, 2, (500, 1)).float(), boxes(500)[0]], dim=1)
    for name, options in (("roi_align", {"sampling_ratio": 2}), ("roi_pool", {})):
        plain = pair(name, x.detach(), rois, 7, 1 / 16, **options)
        cases.append((f"{name}, 500 rois, 256 x 50 x 68", *plain))
        graph = pair(name, x, rois, 7, 1 / 16, **options)
        cases.append(
            (f"{name} and its gradient", *(lambda f=f: with_gradient(f, x) for f in graph))
        )
    return cases


def detectors() -> list[Case]:
    cases: list[Case] = []
    for name in MODELS:
        torch.manual_seed(0)
        options: dict[str, Any] = {"box_score_thresh" if "rcnn" in name else "score_thresh": 0.0}
        if name != "ssd300_vgg16":
            options["min_size"] = 320
        make = getattr(torchvision.models.detection, name)
        net = make(weights=None, weights_backbone=None, num_classes=21, **options).eval()
        images = [torch.rand(3, 320, 400)]

        def run(net: Any = net, images: Any = images) -> torch.Tensor:
            with torch.no_grad():
                return net(images)[0]["boxes"]

        def run_installed(run: Any = run) -> torch.Tensor:
            with ours.installed():
                return run()

        cases.append((name, run, run_installed))
    return cases


def seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measure(case: Case) -> dict[str, Any]:
    name, theirs, own = case
    a, b = theirs(), own()
    # The order of the sums of a gradient differs.
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
    times: tuple[list[float], list[float]] = ([], [])
    while len(times[0]) < ROUNDS or sum(times[0]) < SECONDS_EACH:
        for call, of_side in zip((theirs, own), times):
            of_side.append(seconds(call))
    medians = [statistics.median(of_side) for of_side in times]
    return {
        "case": name,
        "same bits": torch.equal(a, b),
        "torchvision": medians[0],
        "cvops": medians[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(cores())
    rows = []
    lines = [["case", "same bits", "torchvision", "cvops", "times faster"]]
    for case in functions() + detectors():
        row = measure(case)
        rows.append(row)
        times = [scaled(row[side], SECONDS) for side in ("torchvision", "cvops")]
        ratio = f"{row['torchvision'] / row['cvops']:.2f}"
        lines.append([row["case"], "yes" if row["same bits"] else "no", *times, ratio])
        print(*lines[-1], sep="  ", flush=True)
    about = {"cpu": cpu_name(), "cores": str(cores()), **versions()}
    head = ", ".join(f"{key} {value}" for key, value in about.items())
    text = "\n".join([f"{head}; median times", "", *aligned(lines), ""])
    print(text)
    if options.table:
        options.table.write_text(text, "utf-8")
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "cases": rows}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
