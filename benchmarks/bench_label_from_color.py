"""label_from_color: segmentation masks of 21 colors, as in Pascal VOC.

The peer is the book's code, which reads a table of all 2**24 colors with MXNet. The time to make
the table is not included.
"""

from functools import lru_cache

import numpy as np
import pytest
from tools.jobs import Job, Peer

import cvops


@lru_cache(maxsize=1)
def job(images):
    rng = np.random.default_rng(0)
    colormap = np.uint8(rng.integers(1, 256, (21, 3)))
    # 16 x 16 pixels have one color.
    blocks = rng.integers(0, 21, (images, 20, 30))
    image = colormap[blocks.repeat(16, axis=1).repeat(16, axis=2)]
    pixels = image.size // 3

    def mxnet(mx, array):
        table = np.zeros(256**3, np.int32)
        red, green, blue = colormap.astype(np.int32).T
        table[(red * 256 + green) * 256 + blue] = range(21)
        table, masks = array(table, dtype="int32"), array(image, dtype="uint8")

        def take():
            x = masks.astype("int32")
            index = (x[:, :, :, 0] * 256 + x[:, :, :, 1]) * 256 + x[:, :, :, 2]
            return mx.nd.take(table, index)

        return take

    return Job(
        "label_from_color",
        f"{images} x 320 x 480",
        cvops.label_from_color,
        (image, colormap),
        work=(pixels, "pixels"),
        written=4 * pixels,
        peers=dict(mxnet=Peer(mxnet)),
    )


@pytest.mark.parametrize("images", [1, 32], ids=["small", "model"])
def bench_label_from_color(time_job, images):
    time_job(job(images))
