"""Small sets of a user: creatures on photographs, in images of two sizes."""

import random

import numpy as np
from PIL import Image

from cvops import data
from cvops.datasets.set_writer import Example, write_set

SIDE = 64


def examples(kind, photos, count, seed):
    """Images of 64 x 64 and 96 x 72 pixels; the last one has no objects, the first a flag."""
    rng = random.Random(seed)
    for number in range(count):
        photo = data.photograph(photos[number % len(photos)])
        image, labels, masks = data.instance_scene(photo, rng, SIDE, 2)
        numbers = (masks * np.arange(1, len(masks) + 1)[:, None, None]).sum(axis=0).astype(np.uint8)
        flags = np.full((len(labels), 1), number == 0, np.float32)
        labels = np.concatenate([labels, flags], axis=1)
        if number == count - 1:
            image, labels, numbers = photo.resize((SIDE, SIDE)), labels[:0], numbers * 0
        if number % 2:
            image = image.resize((96, 72))
            numbers = np.asarray(
                Image.fromarray(numbers).resize((96, 72), Image.Resampling.NEAREST)
            )
        pixels = None if kind == "boxes" else numbers
        yield Example(image, labels, pixels, f"photo {number}.jpg")


def make_set(path, kind="boxes", train=8, val=4):
    """Write a set with two classes."""
    splits = {
        "train": examples(kind, data.TRAIN_PHOTOS, train, 1),
        "val": examples(kind, data.TEST_PHOTOS, val, 2),
    }
    return write_set(path, kind, data.CLASSES, splits)
