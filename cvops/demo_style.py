"""Transfer the style of one image to another: ``cvops demo-style``."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from cvops import plot, weights
from cvops._mxnet import mxnet
from cvops._pillow import Image
from cvops.datasets.drawing import photograph, stained_glass
from cvops.images import as_numpy, read_image
from cvops.models.style import LAYERS, Layers, StyleFeatures, StyleLoss, preprocess, transfer
from cvops.training import progress_bar

mx = mxnet()

#: Weights of content, style and total variation, for relative losses.
WEIGHTS = (1.0, 10.0, 3.0)
NAMES = ("content", "style", "total variation")


def run(
    folder: Path,
    content: Path | None = None,
    style: Path | None = None,
    network: str = "squeezenet1_1",
    source: bool | str | Path = True,
    size: tuple[int, int] = (192, 192),
    steps: int = 100,
    optimizer: str = "adam",
    is_large: bool = False,
) -> float:
    """Make an image with the content of one image and the style of another, and measure it.

    Writes ``result.png``, ``style.png`` (content, style and result) and ``losses.png`` (the curves
    of the three losses) into ``folder``. Prints the losses of the content image, the style image,
    the result, and a result without the total variation loss.

    Args:
        folder: an existing folder.
        content, style: image files; a photograph of an astronaut and drawn stained glass by
            default.
        network: a name in ``LAYERS`` of ``cvops.models.style``.
        source: the network's weights, a source of ``cvops.weights``.
        size: height and width of the result.
        steps: number of steps.
        optimizer: "adam" or "lbfgs".
        is_large: True adds ``large.png``, of twice the size, in half as many steps from the result.

    Returns:
        The ratio of the style losses of the content image and of the result.
    """
    net = weights.pretrained(network, source, classifier=False)
    images = (
        photograph("astronaut.png") if content is None else read_image(content),
        stained_glass(*size) if style is None else read_image(style),
    )

    def make(title: str, shape: tuple[int, int], steps: int, **more: Any) -> tuple[Any, Any]:
        # The learning rate falls twice.
        options = {"rate": 0.1, "decay": 0.3, "decay_steps": max(1, steps * 2 // 5), **more}
        options = {"weights": WEIGHTS, "relative": True, "optimizer": optimizer, **options}
        start = time.perf_counter()
        with progress_bar(steps, "step") as bar:
            report = lambda step, losses: bar.update()  # noqa: E731
            image, history = transfer(
                *images, net, LAYERS[network], shape, steps=steps, report=report, **options
            )
        print(f"{title}: {len(history) - 1} steps in {time.perf_counter() - start:.0f} s")
        return image, history

    image, history = make("result", size, steps)
    rough, _ = make("without total variation loss", size, steps, weights=(*WEIGHTS[:2], 0))
    Image.fromarray(image).save(folder / "result.png")
    shown = [as_numpy(picture.resize(size[::-1])) for picture in images]
    plot.grid([Image.fromarray(x) for x in (*shown, image)], 3).save(folder / "style.png")
    plot.curves(history, NAMES).figure.savefig(folder / "losses.png")
    if is_large:
        large, _ = make("large", (2 * size[0], 2 * size[1]), max(1, steps // 2), init=image)
        Image.fromarray(large).save(folder / "large.png")

    columns = np.transpose(losses_of(net, LAYERS[network], size, images, (*images, image, rough)))
    print(f"\n{'weighted loss':16}{'content':>9}{'style':>9}{'result':>9}  without total variation")
    for name, row in zip(NAMES, columns):
        print(f"{name:16}" + "".join(f"{loss:9.3f}" for loss in row))
    before, _, after, _ = columns[1].tolist()
    ratio: float = before / after if after > 0 else math.inf
    print(f"style loss: {ratio:.1f} times lower than that of the content")
    return ratio


def losses_of(
    net: Any, layers: Layers, size: tuple[int, int], targets: tuple[Any, Any], images: Any
) -> np.ndarray:
    """Return the weighted losses (n, 3) of n images for the content and the style ``targets``."""
    content, style = (preprocess(image, size) for image in targets)
    loss_of = StyleLoss(StyleFeatures(net, *layers), content, style, WEIGHTS, relative=True)
    return np.array(
        [[loss.asscalar() for loss in loss_of(preprocess(image, size))] for image in images]
    )
