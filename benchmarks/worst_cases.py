"""Times ops on inputs that could make them slow: ``make bench-worst``.

    python benchmarks/worst_cases.py [--table FILE] [--json FILE]

A time is the CPU time of one thread, which other work on the machine changes less than the wall
time: the fastest of several calls, the cases of a size in turns. The table has each time relative
to that of the input "spread" of the same size, and the exponent of the growth between the two
largest sizes, in boxes or in pairs of anchors and ground truths: 1 is linear, 2 is quadratic.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np
from bench_box_nms import clustered, heaps, spread
from tools.inputs import boxes
from tools.machine import about
from tools.text import SECONDS, aligned, scaled

import cvops

#: Sizes of each op: boxes, or anchors and ground truths.
SIZES: dict[str, tuple[tuple[int, ...], ...]] = {
    "box_nms": ((1000,), (5000,), (20000,)),
    "multibox_target": ((2000, 16), (8000, 32), (32000, 64)),
}
#: Seconds of each case, and the minimum number of its calls.
SECONDS_EACH, CALLS = 0.1, 3
ALIKE = np.float32([0.2, 0.3, 0.6, 0.7])


class Case(NamedTuple):
    name: str
    call: Callable[..., Any]


def strips(num: int, vertical: bool) -> np.ndarray:
    """Return disjoint strips across the image, float32 (num, 4)."""
    at, zero = np.arange(num) / num, np.zeros(num)
    low, high = np.stack([at, zero], axis=1), np.stack([at + 0.9 / num, zero + 1], axis=1)
    order = slice(None) if vertical else slice(None, None, -1)
    return np.concatenate([low[:, order], high[:, order]], axis=1).astype(np.float32)


def at_corner(sides: np.ndarray) -> np.ndarray:
    return np.concatenate([0 * sides, sides], axis=1).astype(np.float32)


def with_nan(x: np.ndarray, rng: Any, share: float) -> np.ndarray:
    return np.where(rng.random(x.shape) < share, np.float32(np.nan), x)


def of_nms(num: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield names, boxes and scores."""
    rng = np.random.default_rng(0)
    scores, base = rng.random(num), spread(rng, num)
    side = math.isqrt(num) + 1
    grid = np.stack(np.divmod(rng.permutation(side * side)[:num], side), axis=1)
    one_huge, some_huge, far, tiny = (base.copy() for _ in range(4))
    one_huge[np.argmax(scores)] = -5, -5, 6, 6
    some = rng.permutation(num)[: num // 20]
    some_huge[some] = [-1, -1, 1, 1] * (1 + 1000 * rng.random((len(some), 1)))
    far[::2] += 10_000
    tiny[1::2] *= 0.001
    lengths = 2.0 ** rng.uniform(-12, -1, (num, 1))
    centers = rng.random((num, 2))
    yield "spread", base, scores
    yield "clusters of 25", clustered(rng, num), scores
    yield "heaps of 50", heaps(rng, num), scores
    yield "scores equal", base, np.full(num, 0.5)
    yield "scores NaN, a half", base, with_nan(scores, rng, 0.5)
    yield "all alike", np.tile(ALIKE, (num, 1)), scores
    yield "disjoint in a line", strips(num, True)[rng.permutation(num)], scores
    yield "one corner", at_corner(rng.uniform(0.01, 1, (num, 2))), scores
    yield "one corner, many scales", at_corner(2.0 ** rng.uniform(-20, 20, (num, 2))), scores
    yield "one huge box", one_huge, scores
    yield "a twentieth huge", some_huge, scores
    yield "grid, IoU just below 0.5", np.hstack([0.34 * grid, 0.34 * grid + 1]), scores
    crossed = np.concatenate([strips(num // 2, True), strips(num - num // 2, False)])
    yield "crossed strips", crossed[rng.permutation(num)], scores
    yield "two distant groups", far, scores
    yield "a half tiny", tiny, scores
    many_scales = np.hstack([centers - lengths / 2, centers + lengths / 2])
    yield "many scales", many_scales, scores
    yield "NaN, a twentieth", with_nan(base, rng, 0.05), scores
    yield "NaN, all", with_nan(base, rng, 1), scores


def of_target(num: int, truths: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield names, anchors and ground truths."""
    rng = np.random.default_rng(0)
    anchors, label = boxes(rng, num), boxes(rng, truths)
    huge = label.copy()
    huge[0] = -5, -5, 6, 6
    yield "spread", anchors, label
    yield "ground truths alike", anchors, np.tile(ALIKE, (truths, 1))
    yield "anchors alike", np.tile(ALIKE, (num, 1)), label
    yield "all alike", np.tile(ALIKE, (num, 1)), np.tile(ALIKE, (truths, 1))
    yield "disjoint in a line", strips(num, True), strips(truths, True)
    yield "one corner", at_corner(rng.random((num, 2))), at_corner(rng.random((truths, 2)))
    yield "one huge ground truth", anchors, huge
    yield "crossed strips", strips(num, True), strips(truths, False)
    yield "NaN, a twentieth", with_nan(anchors, rng, 0.05), label
    yield "NaN, all", with_nan(anchors, rng, 1), label


def cases(op: str, size: tuple[int, ...]) -> Iterator[Case]:
    if op == "box_nms":
        for name, corners, scores in of_nms(*size):
            data = np.insert(corners, 0, scores, axis=1).astype(np.float32)
            yield Case(name, functools.partial(cvops.box_nms, data, score_index=0, coord_start=1))
        return
    for name, anchors, truths in of_target(*size):
        label = np.insert(truths, 0, 0, axis=1).astype(np.float32)[None]
        logits = np.random.default_rng(1).standard_normal((1, 21, size[0]), np.float32)
        inputs = anchors.astype(np.float32)[None], label, logits
        call = functools.partial(cvops.multibox_target, *inputs, negative_mining_ratio=3)
        yield Case(name, call)


def measure(op: str, size: tuple[int, ...]) -> dict[str, float]:
    """Return the seconds of each case."""
    named = list(cases(op, size))
    times: dict[str, list[float]] = {case.name: [] for case in named}
    for case in named:
        case.call()
    while any(len(of) < CALLS or sum(of) < SECONDS_EACH for of in times.values()):
        for case in named:
            of = times[case.name]
            if len(of) < CALLS or sum(of) < SECONDS_EACH:
                start = time.thread_time()
                case.call()
                of.append(time.thread_time() - start)
    return {name: min(of) for name, of in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cvops.set_num_threads(1)
    text, rows = [about(), ""], []
    for op, sizes in SIZES.items():
        found = [measure(op, size) for size in sizes]
        names = [" x ".join(map(str, size)) for size in sizes]
        heads = [head for name in names for head in (name, "of spread")]
        lines = [[op, *heads, "exponent"]]
        for name in found[0]:
            seconds = [of[name] for of in found]
            ratios = [of[name] / of["spread"] for of in found]
            larger = math.prod(sizes[-1]) / math.prod(sizes[-2])
            growth = math.log(seconds[-1] / seconds[-2]) / math.log(larger)
            cells = [(scaled(x, SECONDS), f"{r:.2f}") for x, r in zip(seconds, ratios)]
            lines.append([name, *(cell for pair in cells for cell in pair), f"{growth:.2f}"])
            rows.append(dict(op=op, case=name, sizes=sizes, seconds=seconds, exponent=growth))
        text += [*aligned(lines, left=1), ""]
    print("\n".join(text))
    if options.table:
        options.table.write_text("\n".join(text), "utf-8")
    if options.json:
        options.json.write_text(json.dumps(dict(machine=about(), cases=rows), indent=1), "utf-8")


if __name__ == "__main__":
    main()
