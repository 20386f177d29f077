"""Small VOC trees."""

import numpy as np
from PIL import Image

from cvops import voc

BIRD, CAT, SHEEP = (voc.VOC_CLASSES.index(name) for name in ("bird", "cat", "sheep"))


def palette_image(index):
    """A label image with VOC's palette."""
    image = Image.fromarray(index.astype(np.uint8)).convert("L")
    image.putpalette(voc.VOC_PALETTE.tobytes())
    return image


def write_tree(folder, pairs, split="train"):
    """Write a VOC tree of (RGB image, label image) pairs with the names 0, 1, ..."""
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, (image, label) in enumerate(pairs):
        Image.fromarray(image).save(folder / "JPEGImages" / f"{i}.jpg", quality=100)
        label.save(folder / "SegmentationClass" / f"{i}.png")
    names = "".join(f"{i}\n" for i in range(len(pairs)))
    (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names)
    return folder


def plain(height, width, gray=0, index=0):
    """An image of one gray level, and its label image of one class."""
    image = np.full((height, width, 3), gray, np.uint8)
    return image, palette_image(np.full((height, width), index))


def write_instances(folder, scenes, split="train"):
    """Write a VOC tree of (RGB image, label of objects, objects) with the names 0, 1, ..."""
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationObject", "Annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, (image, label, objects) in enumerate(scenes):
        Image.fromarray(image).save(folder / "JPEGImages" / f"{i}.jpg", quality=100)
        label.save(folder / "SegmentationObject" / f"{i}.png")
        voc.write_voc_annotation(folder / "Annotations" / f"{i}.xml", image.shape[:2], objects)
    names = "".join(f"{i}\n" for i in range(len(scenes)))
    (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names)
    return folder
