"""Small record files of detection data."""

import io

from PIL import Image

from cvops._mxnet import mxnet

mx = mxnet()
#: Side of the images in pixels: a sixteenth of the pixels of the default.
SIDE = 64
#: A class and its box, in fractions of the image.
BEE, FROG = (0, 0.1, 0.2, 0.5, 0.6), (1, 0.25, 0.25, 1, 0.75)


def write_records(path, labels, encoded=None, index=True):
    """Write a record file with these labels, unchanged, and gray images or ``encoded``."""
    if encoded is None:
        content = io.BytesIO()
        Image.new("RGB", (SIDE, SIDE), "gray").save(content, "PNG")
        encoded = content.getvalue()
    record = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "w")
    for number, label in enumerate(labels):
        header = mx.recordio.IRHeader(0, label, number, 0)
        record.write_idx(number, mx.recordio.pack(header, encoded))
    record.close()
    if not index:
        path.with_suffix(".idx").unlink()
    return path
