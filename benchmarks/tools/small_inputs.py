"""Arrays of a few elements for ``small_calls.py``, and options for them."""

from __future__ import annotations

import numpy as np
from tools.inputs import boxes

import cvops

RNG = np.random.default_rng(0)
ROWS = np.column_stack([np.zeros(4), RNG.random(4), boxes(RNG, 4)]).astype(np.float32)
ANCHORS = boxes(RNG, 4)[None]
ROTATED = np.column_stack([ANCHORS[0], 360 * RNG.random(4)]).astype(np.float32)
ROTATED_ROWS = np.column_stack([ROWS[:, :2], ROTATED])
LABEL = np.float32([[[0, 0.1, 0.1, 0.6, 0.7]]])
SCORES = RNG.random((1, 2, 4), np.float32)
OFFSETS = RNG.random((1, 16), np.float32)
MAPS = RNG.random((1, 1, 4, 4), np.float32)
CELLS = RNG.random((1, 4, 4, 4), np.float32)
ROIS = np.float32([[0, 0, 0, 3, 3]])
RPN = (
    RNG.random((1, 24, 2, 2), np.float32),
    RNG.random((1, 48, 2, 2), np.float32),
    np.float32([[32, 32, 1]]),
)
TRANS = RNG.random((1, 2, 2, 2), np.float32)
DEFORMED = dict(spatial_scale=1.0, output_dim=1, group_size=2, pooled_size=2, trans_std=0.1)
TURNED = np.float32([[0, 2, 2, 3, 3, 30]])
BINS = np.float32(np.ones((1, 1, 2, 2)))
ARGMAX = cvops.roi_pooling(MAPS, ROIS, (2, 2), 1.0, return_argmax=True)[1]
CLASSES = np.int32([[0, 1], [2, 1]])
COLORS = np.uint8([[[0, 0, 0], [128, 0, 0]]])
SAMPLES, MATCHES = np.float32([[1, 0, 1, -1]]), np.float32([[0, -1, 0, 0]])
ENCODED = SAMPLES, MATCHES, ANCHORS, LABEL[..., 1:].copy()
SCALE = np.zeros(4, np.float32), np.float32([0.1, 0.1, 0.2, 0.2])
NOISE = np.float32([[0.1, 0.4, 0.2, 0.3, 0.5]])
SSD = dict(sizes=(0.2, 0.272), ratios=(1, 2, 0.5))
MINING = dict(negative_mining_ratio=3.0, negative_mining_thresh=0.5)
