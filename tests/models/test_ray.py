"""Detection on a cluster of Ray: two nodes, on this machine."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "PIL", "ray", "pyarrow")

import pyarrow as pa
import pyarrow.parquet
import ray
from PIL import Image
from ray.cluster_utils import Cluster
from ray.data.extensions import ArrowVariableShapedTensorArray

import cvops.ray
from cvops import recipes
from cvops._mxnet import mxnet
from cvops.models import FCN, TinySSD

mx = mxnet()
pytestmark = pytest.mark.filterwarnings("ignore")
SCRIPT = Path(__file__).parents[2] / "examples" / "ray_detect.py"
NAMES = ("bee", "frog")
THRESHOLD = 0.34


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    mx.random.seed(0)
    net = TinySSD(NAMES, 64)
    net.initialize(mx.init.Xavier(magnitude=8))
    path = tmp_path_factory.mktemp("net") / "net.params"
    net.save(path)
    return path


def make_image(number, height=50, width=70):
    coarse = np.random.default_rng(number).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height)))


def encoded(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def expected(params):
    """The detections of one process in an image, by the network's own prediction."""
    recipe, net = recipes.load(params)
    predict = recipe.predictor(net, THRESHOLD)
    return lambda image: predict([image])[0].rows


def check_row(row, image, rows):
    assert (row["height"], row["width"]) == image.shape[:2]
    assert row["error"] is None
    assert row["classes"] == [NAMES[int(kind)] for kind in rows[:, 0]]
    np.testing.assert_allclose(row["scores"], rows[:, 1], atol=1e-4)
    np.testing.assert_allclose(np.reshape(row["boxes"], (-1, 4)), rows[:, 2:], atol=1e-2)


# --- a batch, without a cluster -------------------------------------------------------------------


@pytest.fixture(scope="module")
def make_detector(params):
    def make(on_error="stop"):
        files = {x.name: x.read_bytes() for x in (params, params.with_suffix(".json"))}
        return cvops.ray._Detector(lambda: files, params.name, THRESHOLD, 0.3, on_error)

    return make


def test_batch_of_files_has_the_detections_and_the_other_columns(make_detector, expected):
    """The sizes differ. The detector replaces a column of its own name."""
    images = [make_image(0), make_image(1, 40, 90), make_image(2)]
    table = pa.table(
        {
            "bytes": [encoded(image) for image in images],
            "number": [5, 6, 7],
            "scores": ["a", "b", "c"],
        }
    )
    result = make_detector()(table)
    assert result.column_names == [
        *("number", "height", "width", "classes", "scores", "boxes", "error")
    ]
    assert result["number"].to_pylist() == [5, 6, 7]
    rows = [expected(image) for image in images]
    for row, image, want in zip(result.to_pylist(), images, rows):
        check_row(row, image, want)
    assert len({len(x) for x in rows}) > 1


def test_pixels_of_a_batch_are_not_copied(make_detector, expected):
    images = np.stack([make_image(number) for number in range(3)])
    table = pa.table({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(images)})
    address = table["image"].chunks[0].storage.flatten().buffers()[1].address
    for index, image in enumerate(cvops.ray._values(table["image"])):
        assert image.ctypes.data == address + index * image.size
    for row, image in zip(make_detector()(table).to_pylist(), images):
        check_row(row, image, expected(image))


def test_pixels_of_different_sizes_have_their_detections(make_detector, expected):
    images = [make_image(0), make_image(1, 40, 90)]
    values = np.empty(2, object)
    values[:] = images
    table = pa.table({"image": ArrowVariableShapedTensorArray.from_numpy(values)})
    for row, image in zip(make_detector()(table).to_pylist(), images):
        check_row(row, image, expected(image))


def test_batch_without_rows_has_the_columns(make_detector):
    table = pa.table({"bytes": pa.array([], pa.binary())})
    result = make_detector()(table)
    assert len(result) == 0
    assert result.schema.field("boxes").type == pa.list_(pa.list_(pa.float32()))


def test_image_without_detections_has_empty_lists(make_detector):
    detector = make_detector()
    detector._predict = lambda images: [cvops.ray.Found((50, 70), np.empty((0, 6), np.float32))]
    [row] = detector(pa.table({"bytes": [encoded(make_image(0))]})).to_pylist()
    assert row["scores"] == row["classes"] == row["boxes"] == []
    assert (row["height"], row["error"]) == (50, None)


def test_unreadable_image_is_an_error_or_a_row_with_its_reason(make_detector, expected):
    image = make_image(3)
    table = pa.table({"bytes": [b"no image", encoded(image)], "path": ["a.png", "b.png"]})
    with pytest.raises(ValueError, match=r"^a\.png: not an image that can be read"):
        make_detector()(table)
    broken, whole = make_detector("skip")(table).to_pylist()
    assert broken["error"].startswith("a.png: not an image that can be read")
    assert (broken["height"], broken["width"], broken["boxes"]) == (None, None, [])
    check_row(whole, image, expected(image))
    [broken] = make_detector("skip")(table.slice(0, 1)).to_pylist()
    assert broken["scores"] == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"picture": [b""]}, "dataset: expected a column 'image' or 'bytes', got ['picture']"),
        (
            {"image": pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((1, 4, 4, 3)))},
            "image 0: expected uint8 (height, width, 3), got float64 (4, 4, 3)",
        ),
    ],
    ids=["no images", "float pixels"],
)
def test_table_without_images_is_an_error(make_detector, table, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_detector()(pa.table(table))


# --- the cluster ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with two cores each, as far as Ray knows."""
    node = {"num_cpus": 2, "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_work_of_a_killed_actor_is_done_again(
    cluster, params, expected, tmp_path, monkeypatch, capfd
):
    """Two actors on two nodes; one dies in a batch. The results are in Parquet, each one once."""
    images = {}
    for number in range(16):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encoded(make_image(number)))
        images[str(path)] = make_image(number)
    marks = tmp_path / "marks"
    marks.mkdir()

    class Detector(cvops.ray._Detector):
        """It leaves a mark of its process and node, and dies in the first batch of all."""

        def __init__(self, *args):
            super().__init__(*args)
            node = ray.get_runtime_context().get_node_id()
            (marks / f"{os.getpid()} {node}").touch()

        def __call__(self, table):
            try:
                (marks / "killed").touch(exist_ok=False)
            except FileExistsError:
                return super().__call__(table)
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(cvops.ray, "_Detector", Detector)
    dataset = ray.data.read_binary_files(list(images), include_paths=True, override_num_blocks=8)
    found = cvops.ray.detect(dataset, params, THRESHOLD, batch_size=2, actors=2)
    found.write_parquet(str(tmp_path / "out"))

    loads = [mark.name.split() for mark in marks.iterdir() if mark.name != "killed"]
    assert (marks / "killed").exists()
    assert len({process for process, _ in loads}) == 3  # two, and the one after the killed one
    assert len({node for _, node in loads}) == 2
    rows = pyarrow.parquet.read_table(tmp_path / "out").to_pylist()
    assert sorted(row["path"] for row in rows) == sorted(images)
    for row in rows:
        check_row(row, images[row["path"]], expected(images[row["path"]]))


@pytest.mark.slow
def test_script_of_the_examples_names_broken_images(cluster, params, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "whole.PNG").write_bytes(encoded(make_image(0)))
    (photos / "broken.jpg").write_bytes(b"no image")
    (photos / "notes.txt").write_text("no image")
    command = [sys.executable, SCRIPT, photos, "--params", params, "--output", tmp_path / "found"]
    command += ["--address", cluster.address, "--actors", "1", "--threshold", str(THRESHOLD)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    skipped, total = done.stdout.splitlines()[-2:]
    assert skipped.startswith(f"skipped: {photos}/broken.jpg: not an image that can be read")
    assert re.fullmatch(r"2 images in \d+\.\d s: \d+\.\d images/s", total)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threshold": 2}, ValueError, "threshold: expected a number in [0, 1], got 2"),
        ({"nms_threshold": 0}, ValueError, "nms_threshold: expected a number above 0, got 0"),
        ({"nms_threshold": "x"}, TypeError, "nms_threshold: expected a number, got 'x'"),
        ({"batch_size": 0}, ValueError, "batch_size: expected an integer in [1,"),
        ({"actors": 0}, ValueError, "actors: expected an integer in [1,"),
        ({"actors": (3, 2)}, ValueError, "actors: expected a number or (least, largest), got"),
        ({"cpus": -1}, ValueError, "cpus: expected a number in [0,"),
        ({"on_error": "no"}, ValueError, "on_error: expected one of ['stop', 'skip'], got 'no'"),
    ],
)
def test_invalid_argument_is_an_error(cluster, params, options, error, message):
    dataset = ray.data.from_arrow(pa.table({"bytes": [b""]}))
    with pytest.raises(error, match=re.escape(message)):
        cvops.ray.detect(dataset, params, **options)


def test_network_or_data_that_do_not_fit_are_an_error(cluster, params, tmp_path):
    dataset = ray.data.from_arrow(pa.table({"picture": [b""]}))
    with pytest.raises(ValueError, match="expected a column 'image' or 'bytes', got"):
        cvops.ray.detect(dataset, params)
    with pytest.raises(FileNotFoundError, match=r"none\.params: no such file"):
        cvops.ray.detect(dataset, tmp_path / "none.params")
    net = FCN(2)
    net.initialize()
    net.save(tmp_path / "fcn.params")
    with pytest.raises(ValueError, match="expected a detector, got a network of the model fcn"):
        cvops.ray.detect(dataset, tmp_path / "fcn.params")
