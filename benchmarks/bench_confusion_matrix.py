"""confusion_matrix of 21 classes, with nine of ten pixels correct.

The peer is MXNet's bincount of the indices of the pairs.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.jobs import Job, Peer

import cvops

CLASSES = 21


@lru_cache(maxsize=1)
def job(images):
    rng = np.random.default_rng(0)
    # 16 x 16 pixels have one class.
    label = np.int32(rng.integers(0, CLASSES, (images, 20, 30)))
    label = label.repeat(16, axis=1).repeat(16, axis=2)
    guess = np.int32(rng.integers(0, CLASSES, label.shape))
    prediction = np.where(rng.random(label.shape) < 0.9, label, guess)

    def mxnet(mx, array):
        predictions, labels = array(prediction, dtype="int32"), array(label, dtype="int32")

        def count():
            cells = (labels * CLASSES + predictions).reshape(-1).as_np_ndarray()
            return mx.np.bincount(cells, minlength=CLASSES**2).reshape(CLASSES, CLASSES)

        return count

    return Job(
        "confusion_matrix",
        f"{images} x 320 x 480",
        partial(cvops.confusion_matrix, num_classes=CLASSES),
        (prediction, label),
        work=(label.size, "pixels"),
        written=8 * CLASSES**2,
        peers=dict(
            mxnet=Peer(
                mxnet, lambda ours, theirs: np.testing.assert_array_equal(ours[0], theirs[0])
            )
        ),
    )


@pytest.mark.parametrize("images", [1, 32], ids=["small", "model"])
def bench_confusion_matrix(time_job, images):
    time_job(job(images))
