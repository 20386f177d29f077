"""The data set of semantic segmentation, its crops, and the drawn set in the layout of VOC."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import random

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL")

from PIL import Image
from voc_cases import BIRD, CAT, SHEEP, palette_image, plain, write_tree

from cvops import voc
from cvops._mxnet import mxnet
from cvops.datasets import drawing, transforms

mx = mxnet()

# --- crops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_mxnet", [False, True], ids=["numpy", "mxnet"])
def test_image_and_label_are_cropped_at_the_same_place(as_mxnet):
    place = np.arange(7 * 9)
    image, label = np.stack([place] * 3, -1).reshape(7, 9, 3), place.reshape(7, 9)
    if as_mxnet:
        image, label = mx.nd.array(image), mx.nd.array(label)
    corners = set()
    for _ in range(300):
        part, part_label = voc.voc_rand_crop(image, label, 5, 4)
        assert type(part) is type(image)
        assert part.shape == (5, 4, 3)
        if as_mxnet:
            part, part_label = part.asnumpy(), part_label.asnumpy()
        np.testing.assert_array_equal(part[:, :, 1], part_label)
        corners.add(int(part_label[0, 0]))
    # Each place occurs: rows 0 to 2, columns 0 to 5.
    assert corners == {9 * y + x for y in range(3) for x in range(6)}


def test_crop_of_the_size_of_the_image_is_the_image():
    image, label = np.random.default_rng(0).random((7, 9, 3)), np.zeros((7, 9))
    part, part_label = voc.voc_rand_crop(image, label, 7, 9)
    np.testing.assert_array_equal(part, image)
    assert part_label.shape == (7, 9)


@pytest.mark.parametrize(
    ("height", "width"),
    [(8, 9), (7, 10), (0, 9), (7, -1)],
    ids=["too high", "too wide", "height 0", "width -1"],
)
def test_crop_that_does_not_fit_is_rejected(height, width):
    image = np.zeros((7, 9, 3))
    with pytest.raises(
        ValueError, match=f"height, width: expected .* 7 x 9, got {height} x {width}"
    ):
        voc.voc_rand_crop(image, image, height, width)
    with pytest.raises(
        ValueError, match=r"label: expected the image's size \(7, 9\), got \(9, 7\)"
    ):
        voc.voc_rand_crop(image, image.transpose(1, 0, 2), 1, 1)


def test_normalize_image_equals_the_values_by_hand():
    """Red 0 becomes (0 - 0.485) / 0.229, red 255 becomes (1 - 0.485) / 0.229."""
    pixels = voc.normalize_image(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(
        pixels[0], [(-2.117904, -2.035714, -1.804444), (2.248908, 2.428571, 2.64)], rtol=1e-6
    )
    image = mx.nd.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    normalized = voc.normalize_image(image)
    assert isinstance(normalized, mx.nd.NDArray)
    np.testing.assert_array_equal(normalized.asnumpy(), pixels)


# --- the data set ---------------------------------------------------------------------------------


def test_data_set_gives_normalized_images_and_class_indices(tmp_path, capsys):
    index = np.zeros((6, 8), int)
    index[:, 4:] = BIRD
    index[:, 3] = voc.VOC_VOID
    gray = np.repeat(np.where(index == BIRD, 250, 20)[:, :, None], 3, 2).astype(np.uint8)
    write_tree(tmp_path, [(gray, palette_image(index))])
    dataset = voc.VOCSegDataset(True, (6, 8), tmp_path)
    assert isinstance(dataset, mx.gluon.data.Dataset)
    assert capsys.readouterr().out == "read 1 examples\n"
    pixels, label = dataset[0]
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    assert label.dtype == np.int32
    read = dataset.image(0)[0]
    np.testing.assert_array_equal(pixels, voc.normalize_image(read).transpose(2, 0, 1))
    np.testing.assert_array_equal(label, np.where(index == voc.VOC_VOID, 0, index))
    kept = voc.VOCSegDataset(True, (6, 8), tmp_path, void=voc.VOC_VOID)
    np.testing.assert_array_equal(kept[0][1], index)
    np.testing.assert_array_equal(kept.image(0)[1], index)


def test_images_smaller_than_a_crop_are_left_out(tmp_path, capsys):
    sizes = [(6, 8), (5, 8), (6, 7), (9, 9)]
    write_tree(tmp_path, [plain(*size, 20 * i, i) for i, size in enumerate(sizes)])
    dataset = voc.VOCSegDataset(True, (6, 8), tmp_path)
    assert capsys.readouterr().out == "read 2 examples, left out 2 smaller than 6 x 8\n"
    assert len(dataset) == 2
    assert dataset.dropped == 2
    assert [item[1].max() for item in dataset] == [0, 3]
    with pytest.raises(
        ValueError, match="expected an image of 10 x 8 or more, got 4 images, 4 smaller"
    ):
        voc.VOCSegDataset(True, (10, 8), tmp_path)


def test_crops_of_equal_seeds_are_equal(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    dataset = voc.VOCSegDataset(True, (8, 8), write_tree(tmp_path, [(noise, plain(32, 32)[1])]))

    def crops(seed):
        random.seed(seed)
        return np.stack([dataset[0][0] for _ in range(4)])

    np.testing.assert_array_equal(crops(1), crops(1))
    assert (crops(1) != crops(2)).any()


@pytest.mark.parametrize(
    ("crop_size", "message"),
    [
        (8, r"crop_size: expected \(height, width\), got 8"),
        ((8, 8, 3), r"crop_size: expected \(height, width\), got \(8, 8, 3\)"),
        ((8, 0), "crop_size: expected an integer in .*, got 0"),
        ((8.5, 8), "crop_size: expected an integer, got 8.5"),
    ],
    ids=["one number", "three numbers", "width 0", "height 8.5"],
)
def test_bad_crop_size_is_rejected(tmp_path, crop_size, message):
    with pytest.raises((TypeError, ValueError), match=message):
        voc.VOCSegDataset(True, crop_size, tmp_path)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize(
    "workers",
    [{}, {"num_workers": 2}, {"num_workers": 2, "thread_pool": True}],
    ids=["no workers", "processes", "threads"],
)
def test_data_loader_keeps_image_and_label_together(tmp_path, workers):
    """Two batches of 3 have 6 of the 7 images."""
    write_tree(tmp_path, [plain(12, 14, 30 * i, i) for i in range(7)])
    dataset = voc.VOCSegDataset(True, (8, 8), tmp_path)
    loader = mx.gluon.data.DataLoader(
        dataset, batch_size=3, shuffle=True, last_batch="discard", **workers
    )
    assert len(loader) == 2
    for _ in range(2):
        seen = []
        for pixels, label in loader:
            assert pixels.shape == (3, 3, 8, 8)
            assert label.shape == (3, 8, 8)
            assert pixels.dtype == np.float32
            assert label.dtype == np.int32
            red = (pixels.asnumpy()[:, 0] * transforms.STD[0] + transforms.MEAN[0]) * 255 / 30
            np.testing.assert_allclose(red, label.asnumpy(), atol=0.1)
            seen.extend(label.asnumpy()[:, 0, 0])
        assert len(seen) == len(set(seen)) == 6


# --- the drawn set --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return voc.make_voc(tmp_path_factory.mktemp("drawn"), train=6, val=3, seed=1, size=(60, 80))


def test_drawn_set_has_the_layout_of_voc(drawn):
    assert drawn.parts[-2:] == ("VOCdevkit", "VOC2012")
    train, val, both = (
        (drawn / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
        for split in ("train", "val", "trainval")
    )
    assert (len(train), len(val)) == (6, 3)
    assert both == train + val
    assert len(set(both)) == 9
    for name in both:
        with Image.open(drawn / "JPEGImages" / f"{name}.jpg") as image:
            assert image.mode == "RGB"
            assert image.size in ((80, 60), (60, 80))
        with Image.open(drawn / "SegmentationClass" / f"{name}.png") as label:
            assert label.mode == "P"
            np.testing.assert_array_equal(np.reshape(label.getpalette(), (256, 3)), voc.VOC_PALETTE)


def test_drawn_set_has_figures_of_its_classes(drawn):
    dataset = voc.VOCSegDataset(True, (60, 60), drawn, void=voc.VOC_VOID, split="trainval")
    assert len(dataset) == 9
    labels = [dataset.image(i)[1] for i in range(9)]
    present = set(np.concatenate([np.unique(label) for label in labels]))
    assert present <= {0, BIRD, CAT, SHEEP, voc.VOC_VOID}
    assert {0, voc.VOC_VOID} < present
    figures = np.isin(np.concatenate([label.ravel() for label in labels]), (BIRD, CAT, SHEEP))
    assert 0.05 < figures.mean() < 0.6


def test_boundary_separates_figures_from_background(drawn):
    """No pixel of a figure is adjacent to one of the background."""
    dataset = voc.VOCSegDataset(True, (60, 60), drawn, void=voc.VOC_VOID)
    for i in range(len(dataset)):
        label = dataset.image(i)[1]
        for one, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
            figure = np.isin(one, (BIRD, CAT, SHEEP)), np.isin(other, (BIRD, CAT, SHEEP))
            assert not (figure[0] & (other == 0)).any()
            assert not (figure[1] & (one == 0)).any()


def test_drawn_sets_of_equal_seeds_have_equal_bytes(drawn, tmp_path):
    again = voc.make_voc(tmp_path, train=6, val=3, seed=1, size=(60, 80))
    files = sorted(path.relative_to(drawn) for path in drawn.rglob("*.*"))
    assert len(files) == 3 + 4 * 9
    for file in files:
        assert (drawn / file).read_bytes() == (again / file).read_bytes()


@pytest.mark.parametrize("name", voc.FIGURES)
def test_figure_fills_its_square(name):
    pen = drawing.Pen(200)
    voc.FIGURES[name](pen)
    opaque = np.asarray(pen.image.getchannel("A")) > 127
    assert 0.3 < opaque.mean() < 0.9
