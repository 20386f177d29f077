"""Sets of a user's own images: from annotations of any tool to the data of a training.

``cvops data SOURCE OUT`` is :func:`make_set`. A set is a folder that :func:`read_set` opens: see
``cvops.datasets.sets`` for its files. The formats of annotations, with their rules for corners:

- "voc": XML files of VOC or LabelImg. 1-based, inclusive: x1 = xmin - 1, x2 = xmax.
- "coco": COCO JSON. Pixels (x, y, width, height); polygons and run-length codes.
- "yolo": YOLO text. Fractions (center x, center y, width, height), or polygons.
- "labelme": LabelMe JSON. Pixels: rectangles, polygons, circles and masks, in groups.
- "csv": a table (file, class, x1, y1, x2, y2). Pixels; x2 and y2 are exclusive.

In a set corners are (x1, y1, x2, y2) in fractions of the upright image, see ``cvops.images``.
"""

from cvops.datasets.annotations import (
    PROBLEMS,
    AnnotatedImage,
    Annotations,
    Object,
    Problem,
    find_format,
    read_annotations,
)
from cvops.datasets.convert import DataError, Report, make_set
from cvops.datasets.set_writer import Example, write_set
from cvops.datasets.sets import Scene, Set, Split, read_set

__all__ = [
    "PROBLEMS",
    "AnnotatedImage",
    "Annotations",
    "DataError",
    "Example",
    "Object",
    "Problem",
    "Report",
    "Scene",
    "Set",
    "Split",
    "find_format",
    "make_set",
    "read_annotations",
    "read_set",
    "write_set",
]
