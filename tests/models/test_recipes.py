"""The commands ``train``, ``evaluate`` and ``detect``, on small sets of a user."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import contextlib
import csv
import errno
import fcntl
import importlib.util
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "pycocotools", "PIL", "tqdm")

from image_cases import save_on_its_side
from PIL import Image
from set_cases import SIDE, make_set

from cvops import cli, data, training
from cvops._mxnet import mxnet
from cvops.datasets.set_writer import Example, write_set
from cvops.datasets.sets import read_set
from cvops.recipes import RECIPES, detection, load, run
from cvops.recipes.config import read_config, write_config
from cvops.recipes.recipe import Evaluation
from cvops.recipes.splits import Split, class_weights

mx = mxnet()
pytestmark = pytest.mark.usefixtures("operators")
MODELS = ("ssd", "mask", "fcn")
SMALL = {"side": SIDE, "batch": 4, "epochs": 1, "workers": 0}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The folders of a set of boxes and of one with masks, by the models that learn from them."""
    folder = tmp_path_factory.mktemp("sets")
    for kind in ("boxes", "instances"):
        make_set(folder / kind, kind)
    names = {"ssd": "boxes", "faster": "boxes", "mask": "instances", "fcn": "instances"}
    return {model: str(folder / kind) for model, kind in names.items()}


@pytest.fixture(scope="module")
def runs(operators, sets, tmp_path_factory):
    """The folder of a finished training of some models."""
    folder = tmp_path_factory.mktemp("runs")
    events = importlib.util.find_spec("tensorboardX") is not None
    for model in MODELS:
        given = sets[model], str(folder / model), model
        run.train(run.Options(*given, tensorboard=events, **SMALL))
    return {model: folder / model for model in MODELS}


def values_of(path):
    return {name: array.asnumpy() for name, array in mx.nd.load(str(path)).items()}


def log_of(folder):
    with open(folder / run.LOG, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_same_bits(one, other):
    ours, theirs = values_of(one), values_of(other)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_training_writes_the_files_of_a_run(runs, model):
    rows = log_of(runs[model])
    assert [row["epoch"] for row in rows] == ["1"]
    assert float(rows[0]["loss"]) > 0
    assert 0 <= float(rows[0][f"val {RECIPES[model].metric}"]) <= 1
    config = read_config(runs[model] / run.CONFIG, list(run.Options.__dataclass_fields__))
    assert (config["model"], config["side"], config["lr"]) == (model, SIDE, RECIPES[model].rate)
    recipe, net = load(runs[model] / run.BEST)
    assert recipe is RECIPES[model]
    wanted = ("background", *data.CLASSES) if model == "fcn" else data.CLASSES
    assert recipe.class_names(net) == wanted
    assert_same_bits(runs[model] / run.BEST, runs[model] / run.LAST)  # of one epoch


def test_training_stopped_at_the_end_of_an_epoch_resumes_to_the_same_bits(sets, tmp_path):
    """An epoch has two steps. Threads load the images of the resumed run."""
    given = {"model": "faster", **SMALL, "epochs": 2}
    straight = run.Options(sets["faster"], str(tmp_path / "straight"), **given)
    expected = run.train(straight)
    stopped = run.Options(sets["faster"], str(tmp_path / "stopped"), **{**given, "workers": 2})
    calls = iter([False, True])
    with pytest.raises(training.Interrupted):
        run.train(stopped, stop=lambda: next(calls))
    assert run.train(stopped, resume=True) == expected
    for name in (run.LAST, run.BEST):
        assert_same_bits(tmp_path / "straight" / name, tmp_path / "stopped" / name)
    log = (tmp_path / "straight" / run.LOG).read_text()
    assert (tmp_path / "stopped" / run.LOG).read_text() == log


DRIVER = """
import sys
from cvops import cli
data, folder = sys.argv[1:]
given = ["train", data, "--side", "64", "--batch", "4", "--epochs", "2"]
print("status", cli.main([*given, "--output", folder + "/stopped"]), flush=True)
print("status", cli.main(["train", "--resume", "--output", folder + "/stopped"]), flush=True)
print("status", cli.main([*given, "--output", folder + "/straight"]), flush=True)
"""


def test_interrupt_saves_a_checkpoint_from_which_the_command_resumes(sets, tmp_path):
    command = [sys.executable, "-c", DRIVER, sets["ssd"], str(tmp_path)]
    begun, (terminal, end) = threading.Event(), os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # rows, columns

    def watch():
        text = b""
        with contextlib.suppress(OSError):  # the process has ended
            while True:
                text += os.read(terminal, 1024)
                if b"0/4" in text:  # the bar, before the first step
                    begun.set()

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=end, text=True, env=os.environ
    ) as process:
        os.close(end)
        threading.Thread(target=watch, daemon=True).start()
        assert begun.wait(300)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=300)
    lines = [line for line in out.splitlines() if not line.startswith("epoch ")]
    assert lines[0] == f"stopped; `cvops train --resume --output {tmp_path}/stopped` continues"
    assert [line for line in lines if "status" in line] == ["status 130", "status 0", "status 0"]
    for name in (run.LAST, run.BEST):
        assert_same_bits(tmp_path / "straight" / name, tmp_path / "stopped" / name)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_terminal_shows_a_progress_bar_and_a_log_does_not(capsys, monkeypatch, is_terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    with training.progress_bar(2, "batch") as bar:
        bar.update()
    assert ("0/2" in capsys.readouterr().err) == is_terminal


def test_notebook_shows_a_progress_bar(monkeypatch):
    class Stream(io.StringIO):
        """A stream of a kernel of Jupyter."""

        __module__ = "ipykernel.iostream"

    monkeypatch.setattr(sys, "stderr", Stream())
    with training.progress_bar(2, "batch") as bar:
        bar.update()
    assert "0/2" in sys.stderr.getvalue()


@pytest.mark.parametrize("value", ["", "1"])
def test_environment_variable_of_tqdm_hides_the_progress_bar(value):
    code = """if True:
        import sys
        sys.stderr.isatty = lambda: True
        from cvops import training
        from cvops.cli import data
        with training.progress_bar(2, "batch") as bar:
            print(int(bar.disable), int(data._progress([], 0, "").disable))
    """
    environment = {**os.environ, "TQDM_DISABLE": value}
    run = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert run.stdout.split() == [b"1" if value else b"0"] * 2


def test_training_ends_early_and_keeps_the_best_epoch(sets, tmp_path, monkeypatch):
    """The metrics are made up. The second epoch is the best one; two others follow it."""
    metrics, weights = iter([0.2, 0.5, 0.4, 0.5]), []

    def evaluate(self, net, *_, **__):
        weights.append(net.stages[0][0][0].weight.data().asnumpy())
        return Evaluation({"AP": next(metrics)}, {}, np.zeros((0, 0)), (), [])

    monkeypatch.setattr(type(RECIPES["ssd"]), "evaluate", evaluate)
    given = {**SMALL, "batch": 8, "epochs": 9, "patience": 2}
    options = run.Options(sets["ssd"], str(tmp_path), **given)
    history = run.train(options)
    assert [epoch["val AP"] for epoch in history] == [0.2, 0.5, 0.4, 0.5]
    _, net = load(tmp_path / run.BEST)
    np.testing.assert_array_equal(net.stages[0][0][0].weight.data().asnumpy(), weights[1])
    assert run.train(options, resume=True) == history  # it does not begin again


def test_image_without_objects_alone_teaches_the_background(tmp_path):
    """The loss of images without objects is above 0, and falls."""
    photo = data.photograph(data.TRAIN_PHOTOS[0]).resize((SIDE, SIDE))
    examples = [Example(photo, np.zeros((0, 6)), None, "empty.png")] * 4
    write_set(tmp_path / "set", "boxes", ["bee"], {"train": examples})
    options = run.Options(str(tmp_path / "set"), str(tmp_path / "run"), **{**SMALL, "epochs": 3})
    losses = [epoch["loss"] for epoch in run.train(options)]
    assert losses[0] > losses[-1] > 0


def test_broken_image_stops_the_training_or_is_skipped(tmp_path):
    picture = Image.new("RGB", (SIDE, SIDE), "gray")
    box = np.array([(0, 0.1, 0.1, 0.6, 0.6, 0)])
    examples = [Example(picture, box, None, "a.jpg"), Example(b"no image", box, None, "b.jpg")]
    write_set(tmp_path / "set", "boxes", ["bee"], {"train": examples})
    given = {**SMALL, "batch": 1}
    with pytest.raises(ValueError, match=r"train\.rec: record 1: not an image"):
        run.train(run.Options(str(tmp_path / "set"), str(tmp_path / "a"), **given))
    said = []
    options = run.Options(str(tmp_path / "set"), str(tmp_path / "b"), on_error="skip", **given)
    assert len(run.train(options, say=said.append)) == 1
    assert len(said) == 1
    assert said[0].startswith("skipped: b.jpg: ")


def test_run_needs_resume_to_continue_and_refuses_other_settings(runs, sets, tmp_path, capsys):
    shutil.copytree(runs["ssd"], tmp_path / "run")
    folder = str(tmp_path / "run")
    assert cli.main(["train", sets["ssd"], "--output", folder]) == 2
    assert "last.checkpoint: there is a training; --resume continues it" in capsys.readouterr().err
    assert cli.main(["train", "--output", folder, "--resume", "--seed", "1"]) == 2
    assert (
        "expected a training with {'seed': 1}, got one with {'seed': 0}" in capsys.readouterr().err
    )
    assert cli.main(["train", "--output", f"{tmp_path}/none", "--resume"]) == 2
    assert "none/config.toml: no such file; --resume continues" in capsys.readouterr().err
    assert cli.main(["evaluate", sets["ssd"], "--params", folder]) == 2
    assert "run: expected a file of parameters, got a folder" in capsys.readouterr().err
    assert cli.main(["train", "--output", folder, "--resume"]) == 0  # no epoch is left
    assert capsys.readouterr().out.startswith("best epoch 1, validation AP 0.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "yolo"}, r"model: expected one of \['ssd', 'faster', 'mask', 'fcn'\]"),
        ({"backbone": "resnet50"}, r"backbone: expected one of \['tiny'\], got 'resnet50'"),
        ({"pretrained": True}, "pretrained: the model ssd has no pretrained weights"),
        ({"side": 32}, "side: expected an integer in"),
        ({"lr": 0}, "lr: expected a number above 0"),
        ({"devices": "tpu"}, "devices: expected such as 'cpu'"),
        ({"devices": "gpu:x"}, "devices: expected such as 'cpu'"),
        ({"devices": "gpu:-1"}, "devices: expected such as 'cpu'"),
        ({"devices": "cpu:0,0"}, "devices: expected such as 'cpu'"),
        ({"class_weights": ["wasp=2"]}, "class_weights: expected <class>=<number>"),
        ({"model": "mask"}, "expected a set of kind instances for the model mask, got boxes"),
        ({"devices": "cpu:0,1", "batch": 1}, "batch: expected 2 or more, one per device"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_do_not_fit_are_refused(options, message, sets, tmp_path):
    with pytest.raises(ValueError, match=message):
        run.train(run.Options(sets["ssd"], str(tmp_path / "run"), **options))
    assert not (tmp_path / "run").exists()


def test_command_line_overrides_the_configuration(sets, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(run, "train", lambda options, *_: seen.append(options) or [{"loss": 1.0}])
    file = tmp_path / "config.toml"
    file.write_text(f'data = "{sets["ssd"]}"\nepochs = 7\nlr = 0.25\nclass_weights = ["bee=2"]\n')
    assert cli.main(["train", "--config", str(file), "--epochs", "3", "--no-augment"]) == 0
    assert (seen[0].data, seen[0].epochs, seen[0].lr) == (sets["ssd"], 3, 0.25)
    assert (seen[0].class_weights, seen[0].augment, seen[0].batch) == (("bee=2",), False, 16)
    assert capsys.readouterr().out == "best epoch 1: run/best.params\n"
    for content, message in [
        ("epoch = 7", "config.toml: expected keys of"),
        ("epochs = ", "config.toml: not a configuration in TOML"),
        ('epochs = 1.5\ndata = "x"', "epochs: expected an integer, got 1.5"),
        ('devices = 1\ndata = "x"', "devices: expected a text, got 1"),
        ('class_weights = [2]\ndata = "x"', "class_weights: expected texts, got [2]"),
        ('class_weights = "bee=2"\ndata = "x"', "class_weights: expected texts, got 'bee=2'"),
        ("seed = 1", "data: expected the folder of a set"),
    ]:
        file.write_text(content)
        assert cli.main(["train", "--config", str(file)]) == 2
        assert message in capsys.readouterr().err


def test_written_configuration_is_read_back(tmp_path):
    values = {"data": 'a "b" \\ é\n', "lr": 1e-05, "epochs": 3, "augment": False}
    write_config(tmp_path / "c.toml", {**values, "backbone": None, "class_weights": ()})
    assert read_config(tmp_path / "c.toml", list(values)) == values
    write_config(tmp_path / "c.toml", {"class_weights": ("bee=2", "frog=1")})
    assert read_config(tmp_path / "c.toml", ["class_weights"]) == {
        "class_weights": ["bee=2", "frog=1"]
    }


def test_class_weights_are_in_proportion_to_the_frequencies(tmp_path):
    """Three bees and one frog: their mean is 2, so the weights are 2 / 3 and 2."""
    picture, rows = Image.new("RGB", (SIDE, SIDE)), [(k, 0, 0, 0.5, 0.5, 0) for k in (0, 0, 0, 1)]
    write_set(tmp_path, "boxes", data.CLASSES, {"train": [Example(picture, np.array(rows))]})
    split = Split(read_set(tmp_path), "train")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(split.kinds).result() == [[0, 0, 0, 1]]
    assert class_weights((), split, False, 0) is None
    np.testing.assert_allclose(class_weights(["balanced"], split, False, 0), [1, 2 / 3, 2])
    assert class_weights(["frog=0.5", "background=3"], split, False, 0) == [3, 1, 0.5]


def test_events_of_tensorboard_have_the_values_of_the_log(runs):
    skip_without("tensorboardX")
    from tensorboardX.proto import event_pb2

    (file,) = runs["ssd"].glob("events.*")
    content, found = file.read_bytes(), {}
    while content:  # size, its checksum, event, its checksum
        size = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + size])
        found |= {value.tag: (event.step, value.simple_value) for value in event.summary.value}
        content = content[16 + size :]
    (row,) = log_of(runs["ssd"])
    assert found["loss"] == (1, pytest.approx(float(row["loss"])))
    assert found["val/AP"] == (1, pytest.approx(float(row["val AP"])))


# --- evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_evaluation_prints_tables_and_writes_json_and_a_picture(
    model, runs, sets, tmp_path, capsys
):
    json_file, picture = tmp_path / "e.json", tmp_path / "e.png"
    given = "--params", str(runs[model] / run.BEST), "--json", str(json_file)
    assert cli.main(["evaluate", sets[model], *given, "--errors", str(picture)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 images of val\n")
    found = json.loads(json_file.read_text())
    names = [*data.CLASSES] if model != "fcn" else ["background", *data.CLASSES]
    assert list(found["classes"]) == names
    metric = RECIPES[model].metric
    (row,) = log_of(runs[model])
    assert found["metrics"][metric] == pytest.approx(float(row[f"val {metric}"]))
    counts = np.array(found["confusion"]["counts"])
    errors = [image["errors"] for image in found["errors"]]
    assert [image["image"] for image in found["errors"]] == [f"photo {i}.jpg" for i in range(4)]
    assert sum(errors) == counts.sum() - counts.trace()
    if sum(errors):
        with Image.open(picture) as image:
            assert image.width == 4 * (320 + 8) - 8
    else:
        assert "no image has an error" in out


def test_evaluation_rejects_a_set_of_other_classes(runs, tmp_path, capsys):
    picture, box = Image.new("RGB", (SIDE, SIDE)), np.array([(0, 0, 0, 1, 1, 0)])
    examples = {name: [Example(picture, box)] for name in ("train", "val")}
    write_set(tmp_path / "set", "boxes", ["wasp"], examples)
    given = "--params", str(runs["ssd"] / run.BEST)
    assert cli.main(["evaluate", str(tmp_path / "set"), *given]) == 2
    error = capsys.readouterr().err
    assert "expected the classes of the network, ['bee', 'frog'], got ['wasp']" in error
    assert cli.main(["evaluate", str(tmp_path / "none"), *given]) == 2
    assert "set.json: no such file" in capsys.readouterr().err


# --- detection ------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    """Images of many kinds in a folder with another folder: one content, upright."""
    folder = tmp_path / "photos"
    for inside in ("more", ".hidden"):
        (folder / inside).mkdir(parents=True)
    photo = data.photograph(data.TEST_PHOTOS[0]).resize((96, 72))
    photo.save(folder / "a.png")
    save_on_its_side(folder / "b.png", photo)
    alpha = photo.convert("RGBA")
    alpha.save(folder / "c.png")
    gray = np.asarray(photo.convert("L"))
    Image.fromarray(gray.astype(np.uint16) * 256).save(folder / "d.png")
    Image.fromarray(gray.astype(np.float32) / 255).save(folder / "e.tiff")
    photo.convert("L").save(folder / "f.png")
    photo.convert("CMYK").save(folder / "g.tiff")
    photo.quantize(16).save(folder / "more" / "a.png")
    for other in ("notes.txt", "paper.pdf", "array.h5", "._a.png", ".hidden/a.png"):
        (folder / other).write_text("no image")
    return folder


def detect(runs, model, *arguments, threshold="0.02"):
    given = "--params", str(runs[model] / run.BEST), "--threshold", threshold
    return cli.main(["detect", *map(str, arguments), *given])


def lines_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_detect_writes_a_line_for_each_image_of_a_folder(runs, photos, tmp_path, capsys):
    out, drawings = tmp_path / "out.jsonl", tmp_path / "drawn"
    assert detect(runs, "ssd", photos, "--json", out, "--draw", drawings, "--batch", "3") == 0
    rows = lines_of(out)
    names = ["a.png", "b.png", "c.png", "d.png", "e.tiff", "f.png", "g.tiff", "more/a.png"]
    assert [row["image"] for row in rows] == [str(photos / name) for name in names]
    assert {(row["width"], row["height"]) for row in rows} == {(96, 72)}
    by_name = {name: row["objects"] for name, row in zip(names, rows)}
    assert by_name["a.png"]
    for same in (("a.png", "b.png", "c.png"), ("d.png", "e.tiff", "f.png")):
        assert by_name[same[0]] == by_name[same[1]] == by_name[same[2]]
    for thing in by_name["a.png"]:
        assert thing["class"] in data.CLASSES
        assert 0.02 <= thing["score"] <= 1
        assert 0 <= thing["box"][0] <= thing["box"][2] <= 96
    drawn = sorted(str(path.relative_to(drawings)) for path in drawings.rglob("*.jpg"))
    assert drawn == sorted(str(Path(name).with_suffix(".jpg")) for name in names)
    assert capsys.readouterr().err == "8 images, 0 skipped\n"


def test_detections_do_not_depend_on_the_batch(runs, photos, tmp_path):
    for batch in (1, 8):
        out = tmp_path / f"{batch}.jsonl"
        assert detect(runs, "mask", photos / "*.tiff", "--json", out, "--batch", batch) == 0
    assert lines_of(tmp_path / "1.jsonl") == lines_of(tmp_path / "8.jsonl")


def test_detect_writes_the_form_of_coco(runs, photos, tmp_path, capsys):
    """Class 7 of the annotation file is the frog; it has no bee."""
    out, ids = tmp_path / "coco.json", tmp_path / "ids.json"
    images = [{"file_name": "a.png", "id": 12}]
    ids.write_text(json.dumps({"images": images, "categories": [{"name": "frog", "id": 7}]}))
    arguments = photos / "a.png", "--coco", out, "--coco-ids", ids
    assert detect(runs, "mask", *arguments, "--json", tmp_path / "out.jsonl") == 0
    rows = json.loads(out.read_text())
    (line,) = lines_of(tmp_path / "out.jsonl")
    frogs = [thing for thing in line["objects"] if thing["class"] == "frog"]
    assert frogs
    assert len(rows) == len(frogs)
    for row, frog in zip(rows, frogs):
        assert (row["image_id"], row["category_id"], row["score"]) == (12, 7, frog["score"])
        x1, y1, x2, y2 = frog["box"]
        np.testing.assert_allclose(row["bbox"], [x1, y1, x2 - x1, y2 - y1], atol=1e-3)
        assert row["segmentation"] == frog["mask"]
    assert detect(runs, "mask", photos / "b.png", "--coco", out, "--coco-ids", ids) == 2
    assert "b.png: expected one image of the annotation file, got 0" in capsys.readouterr().err
    ids.write_text('{"images": [{"file_name": "b.png", "id": 1e999}]}')
    assert detect(runs, "mask", photos / "b.png", "--coco", out, "--coco-ids", ids) == 2
    assert "ids.json: not an annotation file of COCO: expected 'categories', got none" in (
        capsys.readouterr().err
    )
    ids.write_text('{"images": [{"file_name": "b.png", "id": 1e999}], "categories": []}')
    assert detect(runs, "mask", photos / "b.png", "--coco", out, "--coco-ids", ids) == 2
    assert "ids.json: not an annotation file of COCO: OverflowError" in capsys.readouterr().err
    assert json.loads(out.read_text()) == rows  # the previous file
    assert detect(runs, "fcn", photos / "b.png", "--coco", out) == 2
    assert "--coco: expected parameters of a detector" in capsys.readouterr().err


def test_segmentation_counts_the_pixels_of_each_class(runs, photos, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert detect(runs, "fcn", photos / "*.png", "--json", out, "--draw", tmp_path / "drawn") == 0
    for row in lines_of(out):
        assert list(row["pixels"]) == ["background", *data.CLASSES]
        assert sum(row["pixels"].values()) == 96 * 72
    capsys.readouterr()
    assert detect(runs, "fcn", photos / "a.png") == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["class", "pixels"]
    assert sum(int(line.split()[1]) for line in lines) == 96 * 72


def test_broken_file_stops_the_detection_or_is_skipped(runs, photos, tmp_path, capsys):
    (photos / "bad.png").write_text("no image")
    Image.new("L", (200, 100)).save(photos / "huge.tiff")
    os.truncate(photos / "huge.tiff", 1000)  # its pixels are not read
    out = tmp_path / "out.jsonl"
    out.write_text("before")
    limit = "--max-pixels", "10000"
    assert detect(runs, "ssd", photos, "--json", out, *limit) == 2
    assert capsys.readouterr().err == f"cvops: {photos}/bad.png: not an image that can be read\n"
    assert out.read_text() == "before"
    assert not list(tmp_path.glob("*.part"))
    assert detect(runs, "ssd", photos, "--json", out, *limit, "--on-error", "skip") == 1
    error = capsys.readouterr().err.splitlines()
    assert error[1].endswith("huge.tiff: expected at most 10000 pixels, got 200 x 100")
    assert error[2] == "8 images, 2 skipped"
    wrong = {row["image"]: row["error"] for row in lines_of(out) if "error" in row}
    assert list(wrong) == [f"{photos}/bad.png", f"{photos}/huge.tiff"]


def test_names_of_images_may_have_any_bytes(runs, photos, tmp_path, monkeypatch):
    photo, out = os.fsdecode(os.fsencode(photos) + b"/\xe4.png"), tmp_path / "out.jsonl"
    shutil.copy(photos / "a.png", photo)
    assert detect(runs, "ssd", photo, "--json", out) == 0
    assert [row["image"] for row in lines_of(out)] == [photo]
    stdout = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert detect(runs, "ssd", photo, photos / "b.png") == 0  # it prints the names
    stdout.flush()
    assert rb"\udce4.png" in stdout.buffer.getvalue()


def test_detect_rejects_paths_without_images_and_outputs_in_the_way(runs, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    photo, video = photos / "a.jpg", tmp_path / "v.mp4"
    video.write_text("no video")
    Image.open(photos / "a.png").convert("RGB").save(photo)
    for arguments, message in [
        ([tmp_path / "none"], "none: no such file"),
        ([tmp_path / "*.bmp"], "*.bmp: no file matches this pattern"),
        ([tmp_path / "empty"], "empty: expected an image or a video in it, got none"),
        ([photos, "--output", tmp_path / "a.png"], "--output: expected one image"),
        ([video, "--output", tmp_path / "a.png"], "--output: expected one image"),
        ([photos, "--draw", photos], "--draw: expected another folder than that of the images"),
        ([photo, "--coco-ids", tmp_path], "--coco-ids: only with --coco"),
        ([photo, "--coco", tmp_path / "a", "--json", tmp_path / "a"], "--coco: expected another"),
        ([photo, "--json", tmp_path / "no" / "a"], "a: cannot be written: No such file"),
        ([photo, "--output", tmp_path / "no" / "a.png"], "a.png: cannot be written: No such file"),
        ([photo, "--draw", photo], "a.jpg: expected a folder, got a file"),
        ([photo, "--device", "gpu:99"], "GPUs that MXNet sees, got gpu(99)"),
        ([photo, "--nms-threshold", 0], "nms_threshold: expected a number above 0, got 0.0"),
    ]:
        assert detect(runs, "ssd", *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_number_of_an_image_is_that_of_its_folders(tmp_path):
    names = {"a.jpg": 1, "D:\\train\\b.jpg": 2, "train/c.jpg": 3, "val/c.jpg": 4}
    content = {
        "images": [{"file_name": name, "id": number} for name, number in names.items()],
        "categories": [],
    }
    (tmp_path / "ids.json").write_text(json.dumps(content), "utf-8-sig")
    ids = detection.read_coco_ids(tmp_path / "ids.json")
    paths = "x/a.jpg", "x/b.jpg", "x/train/c.jpg", "val/c.jpg"
    assert [ids.of_image(Path(path)) for path in paths] == [1, 2, 3, 4]
    for path in ("c.jpg", "x/c.jpg", "d.jpg"):
        with pytest.raises(ValueError, match="expected one image of the annotation file, got 0"):
            ids.of_image(Path(path))


def test_record_that_cannot_be_opened_is_named(runs, sets, monkeypatch, capsys):
    def closed(file, flags):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file)

    monkeypatch.setattr(
        "cvops.datasets.recordio.os", types.SimpleNamespace(**{**vars(os), "open": closed})
    )
    assert cli.main(["evaluate", sets["ssd"], "--params", str(runs["ssd"] / run.BEST)]) == 2
    assert capsys.readouterr().err == f"cvops: {sets['ssd']}/val.rec: Permission denied\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("data a b --val x", "argument --val: expected a number from 0 to 1, got 'x'"),
        ("train a --lr x", "argument --lr: expected a number above 0, got 'x'"),
        ("train a --workers -1", "argument --workers: expected a number from 0 to 256, got -1"),
        ("evaluate a --params b --workers x", "expected a number from 0 to 256, got 'x'"),
        ("detect a --params b --every x", "argument --every: expected 1 or more, got 'x'"),
        ("detect a --params b --threshold 2", "expected a number from 0 to 1, got 2"),
        ("export --params a --onnx b --batch x", "expected 1 or more or dynamic, got 'x'"),
    ],
)
def test_argument_that_is_no_number_is_named(command, message, capsys):
    with pytest.raises(SystemExit):
        cli.main(command.split())
    assert message in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of imageio
def test_detect_reads_the_frames_of_a_video(runs, photos, tmp_path, capsys):
    skip_without("imageio", "imageio_ffmpeg")
    import imageio.v3

    frames = np.stack([np.full((64, 96, 3), 20 * i, np.uint8) for i in range(5)])
    imageio.v3.imwrite(tmp_path / "v.mp4", frames, fps=5)
    out = tmp_path / "out.jsonl"
    assert detect(runs, "ssd", tmp_path / "v.mp4", "--json", out, "--every", "2") == 0
    rows = lines_of(out)
    assert [row["image"] for row in rows] == [f"{tmp_path}/v.mp4#{i}" for i in (0, 2, 4)]
    assert {(row["width"], row["height"]) for row in rows} == {(96, 64)}
    (tmp_path / "bad.mp4").write_text("no video")
    assert detect(runs, "ssd", tmp_path / "bad.mp4") == 2
    assert "bad.mp4: not a video that can be read" in capsys.readouterr().err
