"""Segmentation data of Pascal VOC2012, of classes and of objects, and small sets in its layout.

The layout is that of the VOC2012 archive. ``voc_dir`` is the folder that it unpacks to:

    VOCdevkit/VOC2012/
        ImageSets/Segmentation/{train,val,trainval}.txt   names, one per line
        JPEGImages/<name>.jpg
        SegmentationClass/<name>.png                      the class of each pixel, as a color
        SegmentationObject/<name>.png                     the object of each pixel, as a color
        Annotations/<name>.xml                            class, box and flags of each object

Functions have the names of "Dive into Deep Learning". Images are (height, width, 3), RGB, read by
the rules of ``cvops.images``. Sizes are (height, width).

Label files have either colors (a palette or RGB) or class indices (one channel of 8 or 16 bits
without a palette). Colors must be VOC's; the order of the file's palette does not matter. Class
indices must be 0 to 20 or 255. All other labels raise an error that names the file.
"""

from cvops.datasets.downloads import download_voc_pascal
from cvops.datasets.make_voc import FIGURES, make_voc, make_voc_creatures
from cvops.datasets.transforms import normalize_image
from cvops.datasets.voc import VOCSegDataset, read_voc_images, voc_rand_crop
from cvops.datasets.voc_annotations import (
    VOCObject,
    read_voc_annotation,
    write_voc_annotation,
)
from cvops.datasets.voc_instances import (
    VOCInstanceDataset,
    crop_instances,
    mirror_instances,
    rand_crop_instances,
    read_instance_label,
)
from cvops.datasets.voc_labels import (
    VOC_CLASSES,
    VOC_COLORMAP,
    VOC_PALETTE,
    VOC_VOID,
    label2image,
    voc_label_indices,
)

__all__ = [
    "FIGURES",
    "VOC_CLASSES",
    "VOC_COLORMAP",
    "VOC_PALETTE",
    "VOC_VOID",
    "VOCInstanceDataset",
    "VOCObject",
    "VOCSegDataset",
    "crop_instances",
    "download_voc_pascal",
    "label2image",
    "make_voc",
    "make_voc_creatures",
    "mirror_instances",
    "normalize_image",
    "rand_crop_instances",
    "read_instance_label",
    "read_voc_annotation",
    "read_voc_images",
    "voc_label_indices",
    "voc_rand_crop",
    "write_voc_annotation",
]
