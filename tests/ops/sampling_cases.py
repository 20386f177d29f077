"""Cases that the tests of rpn_target and rcnn_target share."""

import numpy as np


def f32(x):
    return np.array(x, np.float32)


def padded(truths, rows):
    """Return labels (B, rows, 5) of the truths (class, x1, y1, x2, y2) of each image."""
    label = np.full((len(truths), rows, 5), -1, np.float32)
    for image, some in enumerate(truths):
        label[image, : len(some)] = f32(some).reshape(-1, 5)
    return label


def grid_boxes(rng, *shape, special=0.0):
    """Boxes with corners on a grid of 1/8, which gives equal IoUs; some are inverted or special."""
    low = rng.integers(0, 16, (*shape, 2))
    boxes = f32(np.concatenate([low, low + rng.integers(-1, 8, (*shape, 2))], axis=-1)) / 8
    boxes[rng.random(boxes.shape) < special] = rng.choice([np.nan, np.inf, -np.inf, 3e38, -1])
    return f32(boxes)


def random_labels(rng, images, rows, special=0.0, width=5):
    """Labels of grid boxes. The number of truths of each image is random."""
    labels = np.full((images, rows, width), -1, np.float32)
    for image in range(images):
        num = rng.integers(0, rows + 1)
        labels[image, :num, 0] = rng.integers(0, 20, num)
        labels[image, :num, 1:5] = grid_boxes(rng, num, special=special)
    return labels


def random_noise(rng, *shape):
    """Noise with ties, -0, NaN and infinite numbers."""
    noise = rng.integers(-4, 40, shape) / f32(16)
    noise[rng.random(shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf, -0.0])
    return f32(noise)
