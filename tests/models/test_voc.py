"""The data set of semantic segmentation, and the small one made on the spot."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import importlib.util
import random

import numpy as np
import pytest

MISSING = [n for n in ("mxnet", "skimage", "PIL") if importlib.util.find_spec(n) is None]
if MISSING:
    pytest.skip(f"no {', '.join(MISSING)} here", allow_module_level=True)

from PIL import Image

from cvops import voc
from cvops._mxnet import mxnet
from cvops.datasets import drawing, transforms

mx = mxnet()
BIRD, CAT, SHEEP = (voc.VOC_CLASSES.index(name) for name in ("bird", "cat", "sheep"))


def palette_image(index):
    image = Image.fromarray(index.astype(np.uint8)).convert("L")
    image.putpalette(voc.VOC_PALETTE.tobytes())
    return image


def write_tree(folder, pairs, split="train"):
    """A VOC tree of (RGB image, label image) pairs, named 0, 1, ..."""
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, (image, label) in enumerate(pairs):
        Image.fromarray(image).save(folder / "JPEGImages" / f"{i}.jpg", quality=100)
        label.save(folder / "SegmentationClass" / f"{i}.png")
    names = "".join(f"{i}\n" for i in range(len(pairs)))
    (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names)
    return folder


def plain(height, width, grey=0, index=0):
    image = np.full((height, width, 3), grey, np.uint8)
    return image, palette_image(np.full((height, width), index))


# --- colours --------------------------------------------------------------------------------------


def test_colours_are_vocs():
    assert len(voc.VOC_CLASSES) == len(voc.VOC_COLORMAP) == 21
    for name, colour in [
        ("background", (0, 0, 0)),
        ("aeroplane", (128, 0, 0)),
        ("cat", (64, 0, 0)),
        ("person", (192, 128, 128)),
        ("tv/monitor", (0, 64, 128)),
    ]:
        assert tuple(voc.VOC_COLORMAP[voc.VOC_CLASSES.index(name)]) == colour
    assert tuple(voc.VOC_PALETTE[voc.VOC_VOID]) == (224, 224, 192)
    assert len({tuple(colour) for colour in voc.VOC_PALETTE}) == 256


@pytest.mark.parametrize("void", [0, 255])
def test_label_indices(void):
    colours = np.array([[(0, 0, 0), (128, 0, 0)], [(224, 224, 192), (0, 64, 128)]], np.uint8)
    label = voc.voc_label_indices(colours, void=void)
    assert label.dtype == np.int32
    np.testing.assert_array_equal(label, [[0, 1], [void, 20]])
    again = voc.voc_label_indices(mx.nd.array(colours, dtype=np.uint8), void=void)
    assert again.dtype == np.int32
    np.testing.assert_array_equal(again.asnumpy(), label)


def test_label2image_is_the_way_back():
    label = np.random.default_rng(0).permutation([*range(21), voc.VOC_VOID]).reshape(2, 11)
    colours = voc.label2image(label)
    assert colours.dtype == np.uint8
    np.testing.assert_array_equal(voc.voc_label_indices(colours, void=voc.VOC_VOID), label)
    np.testing.assert_array_equal(voc.label2image(mx.nd.array(label)), colours)


@pytest.mark.parametrize("index", [-1, 21, 254, 256, 0.5])
def test_label2image_refuses(index):
    with pytest.raises(ValueError, match=f"label: expected class indices.*got {index}"):
        voc.label2image(np.array([0, index]))


# --- reading --------------------------------------------------------------------------------------


def every_class():
    index = np.arange(22).reshape(2, 11)
    index[1, 10] = voc.VOC_VOID
    return index


def reordered_palette(index):
    """Indices in the order of their first use, as image optimizers write them."""
    colors = Image.fromarray(voc.label2image(index))
    return colors.quantize(22, dither=Image.Dither.NONE)


LABELS = {
    "palette": palette_image,
    "reordered palette": reordered_palette,
    "rgb": lambda index: Image.fromarray(voc.label2image(index)),
    "rgba": lambda index: Image.fromarray(voc.label2image(index)).convert("RGBA"),
    "8-bit index": lambda index: Image.fromarray(index.astype(np.uint8)),
    "16-bit index": lambda index: Image.fromarray(index.astype(np.uint16)),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_read_from_colors_and_from_indices(tmp_path, kind):
    index = every_class()
    write_tree(tmp_path, [(np.zeros((2, 11, 3), np.uint8), LABELS[kind](index))])
    (image,), (colors,) = voc.read_voc_images(tmp_path)
    assert image.shape == colors.shape == (2, 11, 3)
    assert image.dtype == colors.dtype == np.uint8
    np.testing.assert_array_equal(voc.label2image(index), colors.asnumpy())
    dataset = voc.VOCSegDataset(True, (2, 11), tmp_path, void=voc.VOC_VOID)
    np.testing.assert_array_equal(dataset[0][1], index)


def other_palette():
    image = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8)).convert("L")
    image.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    return image


def transparent():
    return Image.new("RGBA", (4, 1), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (other_palette, r"expected VOC's colors, got \(1, 1, 1\) in 3 pixels"),
        # Linear interpolation between background and person.
        (
            lambda: Image.fromarray(
                np.array([[(0, 0, 0), (96, 64, 64), (192, 128, 128), (0, 0, 0)]], np.uint8)
            ),
            r"expected VOC's colors, got \(96, 64, 64\) in 1 pixels",
        ),
        (
            lambda: Image.fromarray(np.array([[0, 20, 255, 21]], np.uint8)),
            "expected VOC's class indices, 0 to 20 or 255, got 21 in 1 pixels",
        ),
        (
            lambda: Image.fromarray(np.array([[0, 300, 0, 0]], np.uint16)),
            "expected VOC's class indices, 0 to 20 or 255, got 300 in 1 pixels",
        ),
        (transparent, r"expected VOC's colors, got \(255, 255, 255\) in 4 pixels"),
        (lambda: Image.new("1", (4, 1)), "expected a label of .*, got mode 1"),
        (lambda: Image.new("LA", (4, 1)), "expected a label of .*, got mode LA"),
    ],
    ids=["palette", "antialiased", "index 21", "index 300", "transparent", "1-bit", "LA"],
)
def test_labels_without_vocs_colors_are_refused(tmp_path, label, message):
    write_tree(tmp_path, [(np.zeros((1, 4, 3), np.uint8), label())])
    dataset = voc.VOCSegDataset(True, (1, 4), tmp_path)
    for read in (
        lambda: dataset[0],
        lambda: dataset.image(0),
        lambda: voc.read_voc_images(tmp_path),
    ):
        with pytest.raises(ValueError, match=f"0.png: {message}"):
            read()


def write_on_its_side(path, image):
    """Write ``image`` with its pixels turned and the EXIF orientation that turns them back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=100)


def test_exif_orientation_of_images_is_honored(tmp_path):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, 16:] = 255
    index = np.zeros((16, 32), int)
    index[:, 16:] = CAT
    write_tree(tmp_path, [(image, palette_image(index))])
    write_on_its_side(tmp_path / "JPEGImages" / "0.jpg", Image.fromarray(image))
    dataset = voc.VOCSegDataset(True, (16, 32), tmp_path)
    pixels, label = dataset.image(0)
    np.testing.assert_array_equal(pixels[:, :, 0] > 127, label == CAT)
    np.testing.assert_array_equal(pixels, voc.read_voc_images(tmp_path)[0][0].asnumpy())
    palette_image(index.T).save(tmp_path / "SegmentationClass" / "0.png")
    with pytest.raises(ValueError, match=r"0.png: expected .* 16 x 32, got 32 x 16"):
        voc.VOCSegDataset(True, (16, 16), tmp_path)
    with pytest.raises(ValueError, match=r"0.png: expected .* 16 x 32, got 32 x 16"):
        voc.read_voc_images(tmp_path)


# --- the book's table -----------------------------------------------------------------------------


def table(colormap):
    """The book's, as NumPy array: the class of each of 2**24 colors."""
    colormap2label = np.zeros(256**3)
    for i, color in enumerate(colormap):
        colormap2label[(color[0] * 256 + color[1]) * 256 + color[2]] = i
    return colormap2label


def test_table_of_vocs_colors_gives_the_same_labels(tmp_path):
    index = every_class()
    colors, book = voc.label2image(index), table(voc.VOC_COLORMAP)
    expected = np.where(index == voc.VOC_VOID, 0, index)
    for given in (colors, colors.astype(np.int32)):
        np.testing.assert_array_equal(voc.voc_label_indices(given, book), expected)
    label = voc.voc_label_indices(mx.nd.array(colors, dtype=np.uint8), mx.nd.array(book))
    assert isinstance(label, mx.nd.NDArray)
    assert label.dtype == np.int32
    np.testing.assert_array_equal(label.asnumpy(), expected)
    write_tree(tmp_path, [(colors, palette_image(index))])
    for void in (0, voc.VOC_VOID):
        dataset = voc.VOCSegDataset(True, (2, 11), tmp_path, mx.nd.array(book), void=void)
        plain_set = voc.VOCSegDataset(True, (2, 11), tmp_path, void=void)
        np.testing.assert_array_equal(dataset[0][1], plain_set[0][1])
    other_palette().resize((11, 2)).save(tmp_path / "SegmentationClass" / "0.png")
    with pytest.raises(ValueError, match=r"0.png: expected VOC's colors, got \(1, 1, 1\)"):
        dataset[0]


def test_table_of_other_colors_decides(tmp_path):
    colors = np.array([[(255, 255, 255), (9, 8, 7), (0, 0, 1), (3, 3, 3)]], np.uint8)
    own = table(colors[0, :3])
    write_tree(tmp_path, [(colors, Image.fromarray(colors))])
    dataset = voc.VOCSegDataset(True, (1, 4), tmp_path, own)
    np.testing.assert_array_equal(dataset[0][1], [[0, 1, 2, 0]])
    with pytest.raises(ValueError, match="void: expected 0 with colormap2label, got 255"):
        voc.VOCSegDataset(True, (1, 4), tmp_path, own, void=255)
    Image.new("L", (4, 1)).save(tmp_path / "SegmentationClass" / "0.png")
    with pytest.raises(ValueError, match=r"0.png: expected colors, for colormap2label, got class"):
        dataset[0]


def test_bad_tables_are_refused(tmp_path):
    colors = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"colormap2label: expected shape \(16777216,\), got \(21"):
        voc.voc_label_indices(colors, voc.VOC_COLORMAP)
    with pytest.raises(ValueError, match="void: expected 0 with colormap2label, got 255"):
        voc.voc_label_indices(colors, table(voc.VOC_COLORMAP), void=255)
    with pytest.raises(ValueError, match="colormap: expected 0 to 255, got 0 to 256"):
        voc.voc_label_indices(np.full((1, 1, 3), (0, 0, 256)), table(voc.VOC_COLORMAP))
    with pytest.raises(ValueError, match=r"colormap: expected shape \(height, width, 3\), got \(2"):
        voc.voc_label_indices(colors[:, :, :2], table(voc.VOC_COLORMAP))


def test_read_voc_images_takes_train_or_val_in_order(tmp_path):
    write_tree(tmp_path, [plain(4, 4, grey) for grey in (10, 60, 200)])
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("2\n0\n")
    train, val = (voc.read_voc_images(tmp_path, is_train)[0] for is_train in (True, False))
    assert [int(image[0, 0, 0].asscalar()) for image in train] == [10, 60, 200]
    assert [int(image[0, 0, 0].asscalar()) for image in val] == [200, 10]
    again = voc.read_voc_images(root=tmp_path)[0]  # the name in the book's first edition
    assert [int(image[0, 0, 0].asscalar()) for image in again] == [10, 60, 200]


@pytest.mark.parametrize(
    "gone", ["ImageSets/Segmentation/train.txt", "JPEGImages/1.jpg", "SegmentationClass/1.png"]
)
def test_a_missing_file_is_named(tmp_path, gone):
    write_tree(tmp_path, [plain(4, 4)] * 2)
    (tmp_path / gone).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{gone}: no such file; voc_dir is the folder"):
        voc.VOCSegDataset(True, (4, 4), tmp_path)
    with pytest.raises(FileNotFoundError, match=gone):
        voc.read_voc_images(tmp_path)


@pytest.mark.parametrize("inside", ["VOC2012", "VOCdevkit/VOC2012"])
def test_a_folder_above_is_told_where_to_go(tmp_path, inside):
    write_tree(tmp_path / inside, [plain(4, 4)])
    with pytest.raises(FileNotFoundError, match=rf"voc_dir should be .*/{inside}$"):
        voc.VOCSegDataset(True, (4, 4), str(tmp_path))


def test_bad_files_are_refused(tmp_path):
    voc_dir = write_tree(tmp_path, [plain(4, 4)])
    label = tmp_path / "SegmentationClass" / "0.png"
    palette_image(np.zeros((4, 5))).save(label)
    with pytest.raises(ValueError, match=r"0.png: expected .* 4 x 4, got 4 x 5"):
        voc.VOCSegDataset(True, (4, 4), voc_dir)
    names = tmp_path / "ImageSets" / "Segmentation" / "val.txt"
    names.write_bytes(b"\xff\xfe0\0")
    with pytest.raises(ValueError, match=r"val.txt: not a list of names in UTF-8"):
        voc.VOCSegDataset(False, (4, 4), voc_dir)
    names.write_bytes(b"\xef\xbb\xbf0\r\n")  # as editors on Windows write it
    assert len(voc.VOCSegDataset(False, (4, 4), write_tree(tmp_path, [plain(4, 4)]))) == 1
    for content, message in ((b"not an image", "not an image that"), (b"", "an empty file")):
        label.write_bytes(content)
        with pytest.raises(ValueError, match=f"0.png: {message}"):
            voc.VOCSegDataset(True, (4, 4), voc_dir)


def test_images_are_read_when_they_are_asked_for(tmp_path):
    """A file that ends early has a good header: only its item cannot be read."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    write_tree(tmp_path, [plain(64, 64), (noise, plain(64, 64)[1])])
    path = tmp_path / "JPEGImages" / "1.jpg"
    path.write_bytes(path.read_bytes()[:3000])
    dataset = voc.VOCSegDataset(True, (32, 32), tmp_path)
    assert dataset[0][0].shape == (3, 32, 32)
    with pytest.raises(ValueError, match=r"1.jpg: not an image that can be read"):
        dataset[1]


# --- crops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_mxnet", [False, True], ids=["numpy", "mxnet"])
def test_image_and_label_are_cropped_together(as_mxnet):
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
    # Rows 0 to 2 and columns 0 to 5: every place comes, the last ones too.
    assert corners == {9 * y + x for y in range(3) for x in range(6)}


def test_a_crop_of_the_whole_image():
    image, label = np.random.default_rng(0).random((7, 9, 3)), np.zeros((7, 9))
    part, part_label = voc.voc_rand_crop(image, label, 7, 9)
    np.testing.assert_array_equal(part, image)
    assert part_label.shape == (7, 9)


@pytest.mark.parametrize(("height", "width"), [(8, 9), (7, 10), (0, 9), (7, -1)])
def test_crops_that_do_not_fit_are_refused(height, width):
    image = np.zeros((7, 9, 3))
    with pytest.raises(
        ValueError, match=f"height, width: expected .* 7 x 9, got {height} x {width}"
    ):
        voc.voc_rand_crop(image, image, height, width)
    with pytest.raises(
        ValueError, match=r"label: expected the image's size \(7, 9\), got \(9, 7\)"
    ):
        voc.voc_rand_crop(image, image.transpose(1, 0, 2), 1, 1)


def test_normalize_image_by_hand():
    """0 and 255 of red: (0 - 0.485) / 0.229 and (1 - 0.485) / 0.229."""
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


def test_dataset(tmp_path, capsys):
    index = np.zeros((6, 8), int)
    index[:, 4:] = BIRD
    index[:, 3] = voc.VOC_VOID
    grey = np.repeat(np.where(index == BIRD, 250, 20)[:, :, None], 3, 2).astype(np.uint8)
    write_tree(tmp_path, [(grey, palette_image(index))])
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


def test_crops_are_seeded(tmp_path):
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
)
def test_bad_crop_sizes_are_refused(tmp_path, crop_size, message):
    with pytest.raises((TypeError, ValueError), match=message):
        voc.VOCSegDataset(True, crop_size, tmp_path)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize(
    "workers",
    [{}, {"num_workers": 2}, {"num_workers": 2, "thread_pool": True}],
    ids=["none", "processes", "threads"],
)
def test_data_loader(tmp_path, workers):
    """Of 7 images in batches of 3 the last is discarded; image and label stay together."""
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


# --- the set made on the spot ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return voc.make_voc(tmp_path_factory.mktemp("made"), train=6, val=3, seed=1, size=(60, 80))


def test_made_set_has_the_layout_of_voc(made):
    assert made.parts[-2:] == ("VOCdevkit", "VOC2012")
    train, val, both = (
        (made / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
        for split in ("train", "val", "trainval")
    )
    assert (len(train), len(val)) == (6, 3)
    assert both == train + val
    assert len(set(both)) == 9
    for name in both:
        with Image.open(made / "JPEGImages" / f"{name}.jpg") as image:
            assert image.mode == "RGB"
            assert image.size in ((80, 60), (60, 80))
        with Image.open(made / "SegmentationClass" / f"{name}.png") as label:
            assert label.mode == "P"
            np.testing.assert_array_equal(np.reshape(label.getpalette(), (256, 3)), voc.VOC_PALETTE)


def test_made_set_holds_what_it_says(made):
    dataset = voc.VOCSegDataset(True, (60, 60), made, void=voc.VOC_VOID, split="trainval")
    assert len(dataset) == 9
    labels = [dataset.image(i)[1] for i in range(9)]
    present = set(np.concatenate([np.unique(label) for label in labels]))
    assert present <= {0, BIRD, CAT, SHEEP, voc.VOC_VOID}
    assert {0, voc.VOC_VOID} < present
    figures = np.isin(np.concatenate([label.ravel() for label in labels]), (BIRD, CAT, SHEEP))
    assert 0.05 < figures.mean() < 0.6


def test_boundaries_part_figures_from_background(made):
    """Next to a pixel of a figure is never one of the background."""
    dataset = voc.VOCSegDataset(True, (60, 60), made, void=voc.VOC_VOID)
    for i in range(len(dataset)):
        label = dataset.image(i)[1]
        for one, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
            figure = np.isin(one, (BIRD, CAT, SHEEP)), np.isin(other, (BIRD, CAT, SHEEP))
            assert not (figure[0] & (other == 0)).any()
            assert not (figure[1] & (one == 0)).any()


def test_made_set_is_the_same_again(made, tmp_path):
    again = voc.make_voc(tmp_path, train=6, val=3, seed=1, size=(60, 80))
    files = sorted(path.relative_to(made) for path in made.rglob("*.*"))
    assert len(files) == 3 + 2 * 9
    for file in files:
        assert (made / file).read_bytes() == (again / file).read_bytes()


@pytest.mark.parametrize("name", voc.FIGURES)
def test_figures_fill_their_square(name):
    pen = drawing.Pen(200)
    voc.FIGURES[name](pen)
    opaque = np.asarray(pen.image.getchannel("A")) > 127
    assert 0.3 < opaque.mean() < 0.9
