"""The objects of VOC: annotations, masks, augmentation, the drawn sets."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import io
import random
import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL")

from PIL import Image
from voc_cases import palette_image, write_instances

from cvops import data, voc
from cvops._mxnet import mxnet

mx = mxnet()

# --- annotations ----------------------------------------------------------------------------------

#: An annotation of VOC2012: the person has a part, the chair has no flags.
ANNOTATION = """
<annotation>
  <folder>VOC2012</folder><filename>2007_000032.jpg</filename>
  <size><width>500</width><height>281</height><depth>3</depth></size><segmented>1</segmented>
  <object>
    <name>person</name><pose>Frontal</pose><truncated>1</truncated><difficult>0</difficult>
    <bndbox><xmin>104</xmin><ymin>78</ymin><xmax>375</xmax><ymax>183</ymax></bndbox>
    <part><name>head</name>
      <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></part>
  </object>
  <object>
    <name>pottedplant</name><difficult> 1 </difficult>
    <bndbox><xmax>45.7</xmax><xmin>1</xmin><ymax>10</ymax><ymin>9</ymin></bndbox>
  </object>
</annotation>
"""


def test_annotation_of_voc_gives_its_objects(tmp_path):
    """The corner 104 is pixel 103; the last pixel 375 is inside, so 375 is exclusive from 0 on."""
    (tmp_path / "a.xml").write_text(ANNOTATION)
    assert voc.read_voc_annotation(tmp_path / "a.xml") == [
        voc.VOCObject("person", (103, 77, 375, 183), difficult=False, truncated=True),
        voc.VOCObject("pottedplant", (0, 8, 45.7, 10), difficult=True, truncated=False),
    ]


def test_written_annotation_is_read_back(tmp_path):
    objects = [
        voc.VOCObject("bird", (0, 1, 20, 30), True, False),
        voc.VOCObject("tv & <monitor>", (3, 4, 5, 6), False, True),
    ]
    voc.write_voc_annotation(tmp_path / "a.xml", (40, 50), objects)
    assert voc.read_voc_annotation(tmp_path / "a.xml") == objects
    voc.write_voc_annotation(tmp_path / "a.xml", (40, 50), [])
    assert voc.read_voc_annotation(tmp_path / "a.xml") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</annotation>", "", r"a\.xml: not an XML file: .*line"),
        ("annotation>", "labels>", r"a\.xml: expected VOC's element <annotation>, got <labels>"),
        ("<name>person</name>", "", r"a\.xml: object 0: expected a <name>, got none"),
        ("<xmin>104</xmin>", "", r"object 0: expected a <bndbox> of xmin, ymin, .*got \[None, "),
        (">78<", ">nan<", r"object 0: expected a <bndbox> .*, got \['104', 'nan', '375', '183'\]"),
        (">78<", ">high<", r"object 0: expected a <bndbox> .*'high'"),
        (">78<", ">184<", r"object 0: expected a <bndbox> .*'184'"),
        ("> 1 <", ">2<", r"object 1: expected a <difficult> of 0 or 1, got '2'"),
        ("<truncated>1", "<truncated>yes", r"object 0: expected a <truncated> .*, got 'yes'"),
    ],
    ids=["cut", "root", "no name", "no xmin", "nan", "text", "inverted", "flag 2", "flag yes"],
)
def test_malformed_annotation_is_rejected(tmp_path, old, new, message):
    assert old in ANNOTATION
    (tmp_path / "a.xml").write_text(ANNOTATION.replace(old, new))
    with pytest.raises(ValueError, match=message):
        voc.read_voc_annotation(tmp_path / "a.xml")


BOMB = "".join(f"<!ENTITY e{i + 1} '{f'&e{i};' * 10}'>" for i in range(9))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"<!DOCTYPE a [<!ENTITY e0 'ha'>{BOMB}]><a>&e9;</a>", "expected no entities, got .* e0>"),
        ("<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><a>&e;</a>", "expected no entiti"),
        ("<?xml version='1.0' encoding='nonsense'?><annotation/>", "unknown encoding"),
        ("<?xml version='1.0' encoding='utf-7'?><annotation/>", "multi-byte encodings"),
        ("\0" * 100, "not well-formed"),
    ],
    ids=["nested entities", "external entity", "unknown encoding", "utf-7", "zeros"],
)
def test_file_that_is_no_plain_xml_is_rejected(tmp_path, content, message):
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(ValueError, match=rf"a\.xml: not an XML file: {message}"):
        voc.read_voc_annotation(tmp_path / "a.xml")


def test_message_about_a_long_number_is_short(tmp_path):
    (tmp_path / "a.xml").write_text(ANNOTATION.replace("104", "9" * 100_000))
    with pytest.raises(ValueError, match=r"object 0: expected a <bndbox> .*, got \['9999") as error:
        voc.read_voc_annotation(tmp_path / "a.xml")
    assert len(str(error.value)) < 500


def test_missing_or_empty_annotation_is_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.xml: no such file"):
        voc.read_voc_annotation(tmp_path / "none.xml")
    (tmp_path / "empty.xml").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.xml: not an XML file"):
        voc.read_voc_annotation(tmp_path / "empty.xml")
    with pytest.raises(ValueError, match=r"/dev/zero: .*expected a file, got a device"):
        voc.read_voc_annotation("/dev/zero")


# --- the data set ---------------------------------------------------------------------------------

#: Two objects of 4 x 4 pixels in an image of 8 x 10.
NUMBERS = np.zeros((8, 10), int)
NUMBERS[1:5, 1:5], NUMBERS[4:8, 6:10] = 1, 2
OBJECTS = [
    voc.VOCObject("bird", (1, 1, 5, 5), difficult=True),
    voc.VOCObject("TV monitor", (6, 4, 10, 8), truncated=True),
]
BIRD, TV = 2, 19


def scene_of(folder, numbers, objects, **options):
    pixels = np.zeros((*np.shape(numbers), 3), np.uint8)
    write_instances(folder, [(pixels, palette_image(np.asarray(numbers)), objects)])
    return voc.VOCInstanceDataset(True, folder, side=8, **options).scene(0)


def test_data_set_gives_boxes_flags_and_masks(tmp_path):
    numbers = NUMBERS.copy()
    numbers[1, 1] = voc.VOC_VOID
    image, labels, masks = scene_of(tmp_path, numbers, OBJECTS)
    assert (image.shape, image.dtype) == ((8, 10, 3), np.uint8)
    expected = [
        (BIRD, 1 / 10, 1 / 8, 5 / 10, 5 / 8, 1, 0),
        (TV, 6 / 10, 4 / 8, 10 / 10, 8 / 8, 0, 1),
    ]
    np.testing.assert_allclose(labels, expected, rtol=1e-6)
    np.testing.assert_array_equal(masks, [numbers == 1, numbers == 2])
    assert masks.dtype == np.uint8


def test_label_image_without_a_palette_has_the_numbers(tmp_path):
    write_instances(
        tmp_path,
        [
            (
                np.zeros((8, 10, 3), np.uint8),
                Image.fromarray(NUMBERS.astype(np.uint8)),
                OBJECTS,
            )
        ],
    )
    _, _, masks = voc.VOCInstanceDataset(True, tmp_path).scene(0)
    np.testing.assert_array_equal(masks, [NUMBERS == 1, NUMBERS == 2])


def test_mask_of_another_number_belongs_to_the_object_of_its_box(tmp_path):
    """The numbers are exchanged. A third object has no mask, and the mask 9 has no object."""
    numbers = np.where(NUMBERS > 0, 3 - NUMBERS, 0)
    numbers[0, 9] = 9
    objects = [*OBJECTS, voc.VOCObject("cat", (6, 0, 9, 3))]
    _, labels, masks = scene_of(tmp_path, numbers, objects)
    assert labels[:, 0].tolist() == [BIRD, TV, 7]
    np.testing.assert_array_equal(masks, [numbers == 2, numbers == 1, np.zeros((8, 10))])


def test_objects_with_similar_boxes_keep_their_numbers(tmp_path):
    """The tight box of each mask is the box of the other object, but agrees with both."""
    numbers = np.zeros((8, 10), int)
    numbers[0::2, :8], numbers[1::2, :8] = 2, 1
    objects = [voc.VOCObject("bird", (0, 0, 8, 7)), voc.VOCObject("cat", (0, 1, 8, 8))]
    _, _, masks = scene_of(tmp_path, numbers, objects)
    np.testing.assert_array_equal(masks, [numbers == 1, numbers == 2])


def test_objects_of_other_classes_are_omitted(tmp_path):
    _, labels, masks = scene_of(tmp_path, NUMBERS, OBJECTS, classes=["tvmonitor"])
    assert labels[:, 0].tolist() == [0]
    np.testing.assert_array_equal(masks, [NUMBERS == 2])
    with pytest.raises(ValueError, match=r"expected an object of \('cow',\), got 1 images"):
        voc.VOCInstanceDataset(True, tmp_path, ["cow"])
    with pytest.raises(ValueError, match="classes: expected names, got 'cow'"):
        voc.VOCInstanceDataset(True, tmp_path, "cow")


def test_items_of_images_with_fewer_objects_are_padded(tmp_path):
    """The item of 4 x 4 has every second pixel of 8 x 8: pixels 1, 3, 5, 7."""
    gray = np.full((8, 8, 3), 77, np.uint8)
    numbers = NUMBERS[:, :8]
    write_instances(
        tmp_path,
        [(gray, palette_image(numbers), OBJECTS), (gray, palette_image(numbers), OBJECTS[:1])],
    )
    dataset = voc.VOCInstanceDataset(True, tmp_path, side=4)
    assert (len(dataset), dataset.most) == (2, 2)
    pixels, labels, masks = dataset[1]
    assert (pixels.shape, pixels.dtype) == ((3, 4, 4), np.float32)
    np.testing.assert_allclose(pixels, 77, atol=1)  # JPEG
    assert labels[0].tolist() == [BIRD, 1 / 8, 1 / 8, 5 / 8, 5 / 8, 1, 0]
    assert labels[1].tolist() == [-1] * 7
    np.testing.assert_array_equal(masks, [(numbers == 1)[1::2, 1::2], np.zeros((4, 4))])
    loader = mx.gluon.data.DataLoader(dataset, 2)
    ((images, rows, shapes),) = loader
    assert images.shape == (2, 3, 4, 4)
    assert rows.shape == (2, 2, 7)
    assert shapes.shape == (2, 2, 4, 4)
    assert shapes.dtype == np.uint8


@pytest.mark.parametrize("folder", ["SegmentationObject", "Annotations", "JPEGImages"])
def test_missing_file_is_reported_with_the_layout(tmp_path, folder):
    scene_of(tmp_path, NUMBERS, OBJECTS)
    (missing,) = (tmp_path / folder).iterdir()
    missing.unlink()
    with pytest.raises(FileNotFoundError, match=f"{folder}.*: no such file; voc_dir is the folder"):
        voc.VOCInstanceDataset(True, tmp_path)


def test_damaged_label_is_rejected(tmp_path):
    scene_of(tmp_path, NUMBERS, OBJECTS)
    path = tmp_path / "SegmentationObject" / "0.png"
    dataset = voc.VOCInstanceDataset(True, tmp_path)
    for label, message in [
        (palette_image(NUMBERS[:, 1:]), r"0\.png: expected the image's size, 8 x 10, got 8 x 9"),
        (Image.new("RGB", (10, 8), (1, 2, 3)), r"colors of VOC's palette, got \(1, 2, 3\)"),
        (Image.new("I;16", (10, 8), 256), "expected numbers of objects, 0 to 255, got 256"),
    ]:
        label.save(path)
        with pytest.raises(ValueError, match=message):
            dataset.scene(0)
    path.write_text("no image")
    with pytest.raises(ValueError, match=r"0\.png: not an image"):
        dataset.scene(0)


def test_label_of_another_size_is_rejected_before_its_pixels_are_read(tmp_path):
    """The file of 9000 x 9000 pixels ends after its header."""
    scene_of(tmp_path, NUMBERS, OBJECTS)
    whole = io.BytesIO()
    Image.new("P", (9000, 9000)).save(whole, "PNG")
    (tmp_path / "SegmentationObject" / "0.png").write_bytes(whole.getvalue()[:2000])
    with pytest.raises(ValueError, match=r"0\.png: expected the image's size, 8 x 10, got 9000 x"):
        voc.VOCInstanceDataset(True, tmp_path).scene(0)


def test_more_objects_than_a_label_numbers_are_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"0\.xml: expected at most 254 objects, got 255"):
        scene_of(tmp_path, NUMBERS, OBJECTS[:1] * 255)


@pytest.mark.parametrize("box", [(10, 0, 12, 8), (-3, 0, 0, 8), (0, 8, 4, 9), (0, -2, 4, 0)])
def test_box_outside_of_the_image_is_rejected(tmp_path, box):
    with pytest.raises(
        ValueError, match=r"0\.xml: object 1: expected a box in the image of 10 x 8"
    ):
        scene_of(tmp_path, NUMBERS, [*OBJECTS[:1], voc.VOCObject("cat", box)])


# --- augmentation ---------------------------------------------------------------------------------


def random_scene(seed):
    """An image whose red pixels number its places, with masks that fill their boxes."""
    rng = np.random.default_rng(seed)
    image = np.zeros((32, 40, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(40), np.arange(32)[:, None]
    labels, masks = np.zeros((3, 7), np.float32), np.zeros((3, 32, 40), np.uint8)
    for row, mask in zip(labels, masks):
        (x1, x2), (y1, y2) = (np.sort(rng.choice(n + 1, 2, False)) for n in (40, 32))
        row[:5] = rng.integers(0, 5), x1 / 40, y1 / 32, x2 / 40, y2 / 32
        mask[y1:y2, x1:x2] = 1
    return image, labels, masks


def assert_masks_fill_their_boxes(labels, masks):
    height, width = masks.shape[1:]
    for row, mask in zip(labels, masks):
        x1, y1, x2, y2 = np.rint(row[1:5] * (width, height, width, height)).astype(int)
        assert mask[y1:y2, x1:x2].all()
        assert mask.sum() == (y2 - y1) * (x2 - x1) > 0


def test_mirror_turns_image_boxes_and_masks_left_to_right():
    image, labels, masks = random_scene(0)
    given = labels.copy()
    other, rows, shapes = voc.mirror_instances(image, labels, masks)
    np.testing.assert_array_equal(labels, given)
    np.testing.assert_array_equal(other[0, :, 0], np.arange(39, -1, -1))
    np.testing.assert_allclose(rows[:, 1], 1 - labels[:, 3])
    np.testing.assert_array_equal(rows[:, [0, 2, 4, 5, 6]], labels[:, [0, 2, 4, 5, 6]])
    assert_masks_fill_their_boxes(rows, shapes)


def test_crop_moves_boxes_and_masks_and_marks_cut_objects():
    """The crop has x of 10 to 30 and y of 0 to 16. The second box is cut to half, the third out."""
    labels = np.array(
        [
            (0, 12 / 40, 4 / 32, 20 / 40, 12 / 32, 0, 0),
            (1, 25 / 40, 8 / 32, 35 / 40, 16 / 32, 0, 0),
            (1, 0, 0, 19 / 40, 16 / 32, 1, 0),
        ],
        np.float32,
    )
    masks = np.zeros((3, 32, 40), np.uint8)
    masks[0, 4:12, 12:20] = masks[1, 8:16, 25:35] = masks[2, :16, :19] = 1
    image = random_scene(0)[0]
    part, rows, shapes = voc.crop_instances(image, labels, masks, (10, 0, 30, 16))
    np.testing.assert_array_equal(part, image[:16, 10:30])
    expected = [
        (0, 2 / 20, 4 / 16, 10 / 20, 12 / 16, 0, 0),
        (1, 15 / 20, 8 / 16, 20 / 20, 16 / 16, 0, 1),
    ]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    assert_masks_fill_their_boxes(rows, shapes)


def test_random_crops_keep_an_object_and_its_mask():
    random.seed(0)
    sizes = set()
    for seed in range(60):
        image, labels, masks = voc.rand_crop_instances(*random_scene(seed))
        assert 1 <= len(labels) == len(masks) <= 3
        assert image.shape[:2] == masks.shape[1:]
        assert image[0, -1, 0] - image[0, 0, 0] == image.shape[1] - 1
        assert image.shape[0] * image.shape[1] >= 0.45 * 32 * 40
        assert_masks_fill_their_boxes(labels, masks)
        sizes.add(image.shape[:2])
    assert len(sizes) > 30


def test_augmented_items_of_equal_seeds_are_equal(tmp_path):
    voc_dir = voc.make_voc_creatures(tmp_path, 3, 1, side=64)
    dataset = voc.VOCInstanceDataset(True, voc_dir, data.CLASSES, 64, mirror=True, crop=True)

    def items(seed):
        random.seed(seed)
        return [np.concatenate([x.ravel() for x in dataset[1]]) for _ in range(3)]

    np.testing.assert_array_equal(items(1), items(1))
    assert (np.array(items(1)) != np.array(items(2))).any()


# --- the drawn sets -------------------------------------------------------------------------------


def test_drawn_animals_have_an_annotation_and_a_mask_each(tmp_path):
    """A pixel of the class is one of a mask. A box has its mask and the boundary around it."""
    voc_dir = voc.make_voc(tmp_path, 12, 2, seed=1, size=(60, 80))
    dataset = voc.VOCInstanceDataset(True, voc_dir)
    classes = voc.VOCSegDataset(True, (60, 60), voc_dir, void=voc.VOC_VOID)
    truncated, near = [], []
    for i in range(12):
        _, labels, masks = dataset.scene(i)
        _, indices = classes.image(i)
        height, width = indices.shape
        np.testing.assert_array_equal(masks.any(axis=0), (indices > 0) & (indices < 255))
        for row, mask in zip(labels, masks):
            if not mask.any():
                continue
            assert (indices[mask > 0] == row[0] + 1).all()
            y, x = np.nonzero(mask)
            tight = x.min(), y.min(), x.max() + 1, y.max() + 1
            box = row[1:5] * (width, height, width, height)
            assert (box[:2] < np.add(tight[:2], 0.01)).all()
            assert (box[2:] > np.subtract(tight[2:], 0.01)).all()
            near.append(np.abs(box - tight).max() < 3)
            at_border = box[0] < 0.5 or box[1] < 0.5 or box[2] > width - 0.5
            assert not row[6] or at_border or box[3] > height - 0.5
            truncated.append(row[6])
    assert 0 < np.mean(truncated) < 1
    assert np.mean(near) > 0.7  # the boundary can cover legs and tails


def test_mostly_covered_animal_is_difficult(tmp_path):
    voc_dir = voc.make_voc(tmp_path, 60, 1, seed=0, size=(60, 80))
    dataset = voc.VOCInstanceDataset(True, voc_dir)
    visible = {0: [], 1: []}
    for i in range(60):
        _, labels, masks = dataset.scene(i)
        for row, mask in zip(labels, masks):
            visible[row[5]].append(mask.mean())
    assert visible[1]
    assert np.mean(visible[1]) < 0.3 * np.mean(visible[0])


def test_drawn_creatures_are_the_scenes_of_the_detection_data(tmp_path):
    voc_dir = voc.make_voc_creatures(tmp_path, 4, 2, seed=3, side=64)
    rng = random.Random(3)
    for is_train, photos in ((True, data.TRAIN_PHOTOS), (False, data.TEST_PHOTOS)):
        dataset = voc.VOCInstanceDataset(is_train, voc_dir, data.CLASSES, 64)
        for i, name in zip(range(len(dataset)), photos):
            drawn, expected, owners = data.instance_scene(data.photograph(name), rng, 64)
            image, labels, masks = dataset.scene(i)
            assert np.abs(np.subtract(image, drawn, dtype=float)).mean() < 10
            np.testing.assert_allclose(labels[:, :5], expected, atol=1e-6)
            np.testing.assert_array_equal(masks, owners)


def test_masks_of_a_scene_are_disjoint_and_fit_their_boxes():
    """The box of a covered creature is that of the whole creature."""
    for seed in range(8):
        photo = data.photograph("coffee.png")
        image, labels, masks = data.instance_scene(photo, random.Random(seed), 96)
        same, rows = data.scene(photo, random.Random(seed), 96)
        assert image.tobytes() == same.tobytes()
        np.testing.assert_array_equal(labels, rows)
        assert (masks.sum(axis=0) <= 1).all()
        for (_, x1, y1, x2, y2), mask in zip(labels, masks):
            y, x = np.nonzero(mask)
            tight = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
            box = np.rint(np.array([x1, y1, x2, y2]) * 96)
            assert (tight[:2] >= box[:2]).all()
            assert (tight[2:] <= box[2:]).all()
            assert mask.sum() > 0.3 * (box[2] - box[0]) * (box[3] - box[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 1), "train: expected an integer in"), ((1, 1, 0, 31), r"side: expected an integer in")],
    ids=["no images", "side 31"],
)
def test_bad_size_of_a_drawn_set_is_rejected(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        voc.make_voc_creatures(tmp_path, *arguments)
