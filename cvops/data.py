"""A small detection data set, made by cvops: drawn creatures on real photographs.

It has the form of the Pikachu set of "Dive into Deep Learning": record files for
``mx.image.ImageDetIter``. The photographs are files of the scikit-image wheel, so nothing is
downloaded. Training and test images have different photographs.

Boxes are (x1, y1, x2, y2), corners, in fractions of the image's width and height.
"""

from cvops.datasets.drawing import TEST_PHOTOS, TRAIN_PHOTOS, paste, photograph
from cvops.datasets.records import RecordDataset, iterator, read_record, write_record
from cvops.datasets.scenes import CLASSES, SIDE, draw, instance_scene, scene

__all__ = [
    "CLASSES",
    "SIDE",
    "TEST_PHOTOS",
    "TRAIN_PHOTOS",
    "RecordDataset",
    "draw",
    "instance_scene",
    "iterator",
    "paste",
    "photograph",
    "read_record",
    "scene",
    "write_record",
]
