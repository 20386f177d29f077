"""The commands ``demo`` and ``detect``, with small data."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import json
import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "pycocotools", "PIL", "tqdm")

from image_cases import save_on_its_side
from PIL import Image
from record_cases import BEE, FROG, SIDE, write_records

from cvops import checkpoint, cli, data, demo, recipes
from cvops._mxnet import mxnet

mx = mxnet()
SMALL = {"train_images": 8, "test_images": 4, "batch_size": 4, "side": SIDE}

# --- demo -----------------------------------------------------------------------------------------


def size_of(path):
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def trained(operators, tmp_path_factory):
    """The output folder of a short demo."""
    folder = tmp_path_factory.mktemp("demo")
    demo.run(folder, epochs=1, **SMALL)
    return folder


def test_demo_prints_the_results_and_writes_the_pictures(operators, tmp_path, capsys):
    value = demo.run(tmp_path, epochs=1, **SMALL)
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == f"mAP@0.5: {value:.2f}"
    assert re.match(r"epoch +1: class error \d\.\d\de-\d\d, box MAE \d\.\d\de-\d\d, ", out[0])
    times = [line.split() for line in out if re.match(r"(mxnet|cvops) ", line)]
    assert [name for name, *_ in times] == ["mxnet", "cvops"]
    for _, *numbers in times:
        assert len(numbers) == 5
        assert all(float(number) > 0 for number in numbers)
    assert size_of(tmp_path / "detections.png")[0] > 4 * SIDE
    assert size_of(tmp_path / "scene.png") == (SIDE, SIDE)
    about = json.loads((tmp_path / "tiny_ssd.json").read_text())
    assert about["classes"] == list(data.CLASSES)


def test_stopped_demo_resumes_to_the_same_bits(operators, tmp_path, capsys, monkeypatch):
    demo.run(tmp_path / "straight", epochs=2, **SMALL)
    saved = tmp_path / "saved"
    seeds = checkpoint.seed_all

    def stop_at_the_second_epoch(seed, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        seeds(seed, epoch)

    monkeypatch.setattr(checkpoint, "seed_all", stop_at_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        demo.run(tmp_path / "stopped", epochs=2, **SMALL, saved=saved)
    monkeypatch.undo()
    capsys.readouterr()
    demo.run(tmp_path / "stopped", epochs=2, **SMALL, saved=saved)
    assert capsys.readouterr().out.startswith("epoch  2:")
    straight, stopped = (
        mx.nd.load(str(tmp_path / name / "tiny_ssd.params")) for name in ("straight", "stopped")
    )
    assert straight.keys() == stopped.keys()
    for name, values in straight.items():
        np.testing.assert_array_equal(values.asnumpy(), stopped[name].asnumpy(), err_msg=name)

    demo.run(tmp_path / "stopped", epochs=2, **SMALL, saved=saved)  # no epoch is left
    assert capsys.readouterr().out.startswith("trained in ")
    message = r"saved: expected a training with .*'seed': 1.*, got .*'seed': 0"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        demo.run(tmp_path / "stopped", epochs=2, **SMALL, seed=1, saved=saved)


def test_training_with_images_without_objects_lowers_the_error(operators, tmp_path, capsys):
    """Objects have VOC's "difficult" flag. The only object of class 1 is difficult."""
    labels = [[2, 6, *BEE, 0], [2, 6], [2, 6, *FROG, 1], [2, 6]]
    batches = data.iterator(write_records(tmp_path / "some.rec", labels), 2, SIDE)
    net = demo.TinySSD(data.CLASSES, SIDE)
    net.initialize(mx.init.Xavier())
    errors = demo.train(net, batches, epochs=3)
    assert errors[0].anchors == 4 * 344
    # To lower the error, the biases of the last layers are enough.
    assert errors[-1].class_error < errors[0].class_error
    precision = demo.evaluate(net, batches)
    assert 0 <= precision[0] <= 1
    assert np.isnan(precision[1])


def test_demo_rejects_bad_paths(operators, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--output", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.endswith("file: expected a folder, got a file\n")
    given = "demo", "--output", str(tmp_path), "--train-images", "8"
    assert cli.main([*given, "--checkpoint", str(tmp_path / "none" / "saved")]) == 2
    assert capsys.readouterr().err.endswith("none: no such folder\n")
    assert cli.main([*given, "--checkpoint", str(tmp_path / "file")]) == 2
    assert "file: damaged, or not a checkpoint" in capsys.readouterr().err


def test_loss_that_is_not_finite_is_reported(tmp_path, monkeypatch, capsys):
    def run(*given, **options):
        raise FloatingPointError("loss: expected finite numbers")

    monkeypatch.setattr("cvops.demo.run", run)
    assert cli.main(["demo", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "cvops: loss: expected finite numbers\n"


# --- detect ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo(trained):
    """A photograph that is not square."""
    path = trained / "photo.png"
    data.photograph("coffee.png").resize((120, 80)).save(path)
    return path


def test_detect_prints_the_detections_and_draws_them(trained, photo, tmp_path, capsys):
    params, output = trained / "tiny_ssd.params", tmp_path / "out.png"
    given = "--params", str(params), "--output", str(output), "--threshold", "0"
    status = cli.main(["detect", str(photo), *given])
    header, *lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert header.split() == ["class", "score", "x1", "y1", "x2", "y2"]
    assert lines
    scores = []
    for line in lines:
        name, score, *box = line.split()
        assert name in data.CLASSES
        scores.append(float(score))
        x1, y1, x2, y2 = map(float, box)
        assert 0 <= x1 <= x2 <= 120
        assert 0 <= y1 <= y2 <= 80
    assert scores == sorted(scores, reverse=True)
    assert size_of(output) == (120, 80)


def test_detect_turns_an_image_by_its_exif_orientation(trained, photo, tmp_path, capsys):
    """The detections are those of the upright photograph."""
    side, output = tmp_path / "side.png", tmp_path / "out.png"
    with Image.open(photo) as image:
        save_on_its_side(side, image)
    given = "--params", str(trained / "tiny_ssd.params"), "--threshold", "0"
    printed = []
    for path in (photo, side):
        assert cli.main(["detect", str(path), *given, "--output", str(output)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert size_of(output) == (120, 80)


def test_detect_rejects_bad_files(trained, photo, tmp_path, capsys):
    params = trained / "tiny_ssd.params"
    text = tmp_path / "text.png"
    text.write_text("not an image")
    empty, odd, cut = (tmp_path / name for name in ("empty.jpg", "odd.tiff", "cut.png"))
    empty.write_bytes(b"")
    cut.write_bytes(photo.read_bytes()[:1000])
    Image.fromarray(np.full((8, 8), 7, np.float32)).save(odd)
    lonely = tmp_path / "lonely.params"
    lonely.write_bytes(params.read_bytes())
    wrong = tmp_path / "wrong.params"
    mx.nd.save(str(wrong), {"weight": mx.nd.zeros((1,))})
    broken = tmp_path / "broken.params"
    broken.write_text("not parameters")
    about = json.loads(params.with_suffix(".json").read_text())
    for name, changed in (("other", {"model": "FasterRCNN"}), ("huge", {"side": 10**9})):
        path = tmp_path / f"{name}.params"
        path.write_bytes(params.read_bytes())
        path.with_suffix(".json").write_text(json.dumps({**about, **changed}))
    for path in (wrong, broken):
        path.with_suffix(".json").write_bytes(params.with_suffix(".json").read_bytes())
    for arguments, message in [
        ((tmp_path / "none.png", params), "none.png: no such file"),
        ((text, params), "text.png: not an image that can be read"),
        ((empty, params), "empty.jpg: an empty file"),
        ((cut, params), "cut.png: not an image that can be read"),
        ((odd, params), "odd.tiff: expected float pixels of 0 to 1, got 7.0 to 7.0"),
        ((photo, tmp_path / "none.params"), "none.params: no such file"),
        ((photo, lonely), "lonely.json: no such file"),
        ((photo, tmp_path / "other.params"), "other.json: does not describe a FasterRCNN"),
        ((photo, tmp_path / "huge.params"), "huge.json: does not describe a TinySSD"),
        ((photo, wrong), "wrong.params: not the parameters of a TinySSD"),
        ((photo, broken), "broken.params: not the parameters of a TinySSD"),
        ((photo, params, "--output", tmp_path / "out.nothing"), "out.nothing: cannot be written"),
    ]:
        image, given, *more = map(str, arguments)
        assert cli.main(["detect", image, "--params", given, *more]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_failed_drawing_keeps_the_previous_file(trained, photo, tmp_path, capsys, monkeypatch):
    def fill_disk(self, file, *_):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    output = tmp_path / "out.png"
    output.write_bytes(b"before")
    monkeypatch.setattr(Image.Image, "save", fill_disk)
    given = "--params", str(trained / "tiny_ssd.params"), "--output", str(output)
    assert cli.main(["detect", str(photo), *given]) == 2
    assert "out.png: cannot be written: No space left on device\n" in capsys.readouterr().err
    assert output.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [output]


# --- command lines --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["demo"], ["detect", "image.png", "--params", "net.params"]], ids=["demo", "detect"]
)
def test_missing_compiler_is_reported_in_one_line(command, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise ImportError("a C++ compiler is needed")

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("image.png")
    monkeypatch.setattr(recipes, "load", fail)
    monkeypatch.setattr(demo, "run", fail)
    assert cli.main(command) == 2
    assert capsys.readouterr().err == "cvops: a C++ compiler is needed\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["detect"],
        ["detect", "image.png", "--params", "net.params", "--threshold", "2"],
        ["demo", "--epochs", "0"],
    ],
    ids=["no command", "unknown command", "no image", "threshold above 1", "no epochs"],
)
def test_wrong_command_line_prints_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: cvops" in capsys.readouterr().err
