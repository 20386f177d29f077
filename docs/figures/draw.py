"""The drawings of ``how-it-works.md``, from results of the ops.

``python docs/figures/draw.py [FOLDER]`` writes them to the folder of this file, or to FOLDER.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.patches import Circle, Rectangle

import cvops

matplotlib.use("Agg")
from matplotlib import pyplot

BLUE, ORANGE, GRAY = "#4477aa", "#ee7733", "#bbbbbb"
#: The same text in each run: no date, and ids from a fixed salt.
STYLE = {"svg.hashsalt": "cvops", "svg.fonttype": "none", "font.size": 9}


def nms() -> Any:
    """The pairs of boxes that NMS compares, with a chunk of 8 boxes."""
    count, chunk, threshold = 32, 8, 0.3
    rng = np.random.default_rng(1)
    low = rng.random((count, 2)).astype(np.float32) * 2
    scores = np.sort(rng.random(count).astype(np.float32))[::-1]
    rows = np.concatenate([scores[:, None], low, low + 1], axis=1)
    _, index = cvops.box_nms(rows, threshold, score_index=0, coord_start=1, return_index=True)
    kept = np.isin(np.arange(count), index)
    suppresses = (cvops.box_iou(rows[:, 1:], rows[:, 1:]) > threshold) & kept[:, None]

    figure, axes = pyplot.subplots(figsize=(6.4, 5.2))
    numbers = {BLUE: 0, ORANGE: 0}
    for i in range(count):
        for j in range(i + 1, count):
            color = BLUE if i // chunk == j // chunk else ORANGE
            # The boxes of the chunks before the previous one are resolved.
            resolved = (i // chunk - (color == BLUE)) * chunk
            if (color == ORANGE and not kept[i]) or suppresses[: max(resolved, 0), j].any():
                continue
            numbers[color] += 1
            axes.add_patch(Rectangle((j, i), 0.9, 0.9, color=color))
    for i in range(count):
        axes.add_patch(Rectangle((i, i), 0.9, 0.9, color="black" if kept[i] else GRAY))
    for edge in range(0, count + 1, chunk):
        axes.plot([edge, edge], [0, edge], color=GRAY, linewidth=0.7)
        axes.plot([edge, count], [edge, edge], color=GRAY, linewidth=0.7)
    pairs = count * (count - 1) // 2
    labels = [
        (BLUE, f"pairs within a chunk: {numbers[BLUE]}"),
        (ORANGE, f"kept boxes with later boxes: {numbers[ORANGE]}"),
        ("white", f"never compared: {pairs - sum(numbers.values())}"),
        ("black", f"kept boxes: {kept.sum()}"),
        (GRAY, f"suppressed boxes: {count - kept.sum()}"),
    ]
    handles = [Rectangle((0, 0), 1, 1, facecolor=c, edgecolor=GRAY, label=x) for c, x in labels]
    axes.legend(handles=handles, loc="lower left", frameon=False)
    axes.set(xlim=(0, count), ylim=(count, 0), aspect="equal")
    axes.set(xlabel="later box, in score order", ylabel="earlier box, in score order")
    return figure


def targets() -> Any:
    """The two stages of the assignment of three ground truths to eight anchors."""
    truths = np.float32([[0.05, 0.1, 0.45, 0.5], [0.2, 0.15, 0.6, 0.55], [0.75, 0.7, 0.95, 0.95]])
    anchors = np.float32(
        [
            [0.0, 0.1, 0.4, 0.5],
            [0.1, 0.1, 0.5, 0.5],
            [0.2, 0.1, 0.6, 0.5],
            [0.25, 0.2, 0.6, 0.6],
            [0.6, 0.5, 0.9, 0.9],
            [0.6, 0.1, 0.9, 0.4],
            [0.1, 0.6, 0.4, 0.9],
            [0.3, 0.6, 0.6, 0.9],
        ]
    )
    threshold, count = 0.5, len(anchors)
    iou = cvops.box_iou(anchors, truths)
    anchor_of = cvops.bipartite_matching(iou, threshold=1e-6)[1].astype(int)
    labels = np.concatenate([np.arange(3, dtype=np.float32)[:, None], truths], axis=1)[None]
    classes = cvops.multibox_target(
        anchors[None], labels, np.zeros((1, 4, count), np.float32), threshold
    )[2][0].astype(int)
    order = np.argsort([-iou[a, g] for g, a in enumerate(anchor_of)])

    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(7.6, 3.8), gridspec_kw={"width_ratios": [1.15, 1]}
    )
    for i, (x1, y1, x2, y2) in enumerate(anchors):
        color = BLUE if classes[i] else GRAY
        left.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color))
        left.text(x1 + 0.01, y2 - 0.015, str(i), color=color, fontsize=8)
    for g, (x1, y1, x2, y2) in enumerate(truths):
        box = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=ORANGE, linewidth=2)
        left.add_patch(box)
        left.text(x2 - 0.01, y1 + 0.05, "ABC"[g], color=ORANGE, ha="right", weight="bold")
    left.set(xlim=(-0.03, 1), ylim=(1, 0), aspect="equal", xticks=[], yticks=[])
    left.set_xlabel("ground truths A to C, anchors 0 to 7")

    right.imshow(iou, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
    for (i, g), value in np.ndenumerate(iou):
        right.text(g, i, f"{value:.2f}", ha="center", va="center")
    for step, g in enumerate(order, 1):
        place = (int(g), int(anchor_of[g]))
        right.plot(*place, "o", markersize=24, fillstyle="none", color=ORANGE)
        right.text(place[0] + 0.33, place[1] - 0.2, str(step), color=ORANGE, weight="bold")
    for i in set(np.flatnonzero(classes)) - set(anchor_of):
        right.plot(classes[i] - 1, i, "s", markersize=22, fillstyle="none", color=BLUE)
    right.set(xticks=range(3), xticklabels="ABC", yticks=range(count), ylabel="anchor")
    right.set_xlabel("IoU with each ground truth")
    return figure


def roi() -> Any:
    """The bins of RoI pooling and the samples of RoIAlign, for a grid of 2 x 2 bins."""
    side, box = 9, np.float32([0, 0.6, 1.4, 6.7, 6.3])
    data = np.random.default_rng(4).random((1, 1, side, side)).astype(np.float32)
    pooled, argmax = cvops.roi_pooling(data, box[None], (2, 2), 1.0, return_argmax=True)
    aligned = cvops.roi_align(data, box[None], (2, 2), 1.0, sample_ratio=2)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.6, 4))
    # A pixel's value is at its integer position.
    for axes in (left, right):
        axes.imshow(data[0, 0], cmap="Greys", vmin=0, vmax=1.8)
        axes.set(xticks=[], yticks=[])
    x1, y1, x2, y2 = np.floor(box[1:] + 0.5)
    width, height = (x2 - x1 + 1) / 2, (y2 - y1 + 1) / 2
    for row in range(2):
        for column in range(2):
            first = np.floor([y1 + row * height, x1 + column * width])
            last = np.ceil([y1 + (row + 1) * height, x1 + (column + 1) * width])
            corner = (first[1] - 0.42 + 0.06 * column, first[0] - 0.42 + 0.06 * row)
            size = last - first - 0.22
            color = [BLUE, ORANGE, ORANGE, BLUE][2 * row + column]
            left.add_patch(Rectangle(corner, size[1], size[0], fill=False, edgecolor=color, lw=2))
            y, x = divmod(int(argmax[0, 0, row, column]), side)
            left.add_patch(
                Circle((x, y), 0.36 - 0.1 * column, fill=False, edgecolor=color, linewidth=2)
            )
    left.set_xlabel("roi_pooling: " + ", ".join(f"{x:.2f}" for x in pooled.ravel()))

    x1, y1, x2, y2 = box[1:]
    width, height = (x2 - x1) / 2, (y2 - y1) / 2
    for row in range(2):
        for column in range(2):
            corner = (x1 + column * width, y1 + row * height)
            right.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=BLUE, lw=2))
            for sample in np.ndindex(2, 2):
                x = corner[0] + (sample[1] + 0.5) * width / 2
                y = corner[1] + (sample[0] + 0.5) * height / 2
                right.plot(x, y, "o", color=ORANGE, markersize=5)
    right.set_xlabel("roi_align: " + ", ".join(f"{x:.2f}" for x in aligned.ravel()))
    return figure


def main(folder: Path) -> None:
    """Write a file for each drawing."""
    with pyplot.rc_context(STYLE):
        for draw in (nms, targets, roi):
            figure = draw()
            figure.tight_layout()
            figure.savefig(folder / f"{draw.__name__}.svg", metadata={"Date": None})
            pyplot.close(figure)


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]) if sys.argv[1:] else Path(__file__).parent)
