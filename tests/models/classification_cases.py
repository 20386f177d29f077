"""Small data sets for classification."""

import pickle

import numpy as np
from PIL import Image

BINARY = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def random_images(seed, count=2):
    """Images, uint8 (count, 32, 32, 3), and classes below 10."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count)


def write_cifar10(folder, binary=True, count=2):
    """Write five batches of ``random_images``, with the seeds 0 to 4, and test images of seed 5."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(BINARY):
        images, labels = random_images(seed, count)
        pixels = images.transpose(0, 3, 1, 2).reshape(count, -1)
        if binary:
            records = np.column_stack([labels.astype(np.uint8), pixels])
            (folder / name).write_bytes(records.tobytes())
        else:
            content = {b"data": pixels, b"labels": labels.tolist(), b"batch_label": b"a batch"}
            (folder / name[: -len(".bin")]).write_bytes(pickle.dumps(content, 2))
    return folder


def write_folders(root, images):
    """Write images by their paths below ``root``."""
    for name, image in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name)
    return root


def gray(level, size=(40, 30)):
    return Image.new("RGB", size, (level,) * 3)
