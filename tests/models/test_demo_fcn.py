"""The command ``demo-fcn``, with small data."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "tqdm")

from fcn_cases import make_net
from PIL import Image

from cvops import checkpoint, cli, demo_fcn, voc
from cvops._mxnet import mxnet
from cvops.models import FCN

mx = mxnet()


def run_small(folder, epochs=2, **options):
    return demo_fcn.run(folder, epochs, 8, 3, crop_size=(32, 32), batch_size=4, **options)


def test_demo_prints_the_metrics_and_writes_the_pictures(tmp_path, capsys):
    accuracy = run_small(tmp_path)
    read, _, *lines, pixels, iou = capsys.readouterr().out.splitlines()
    assert read == "read 8 examples"
    assert re.match(r"epoch  1: loss \d+\.\d{3}, ", lines[0])
    assert re.fullmatch(rf"pixel accuracy +{accuracy:.2f} +0\.\d\d", pixels)
    assert re.fullmatch(r"mean IoU +0\.\d\d +0\.\d\d", iou)
    with Image.open(tmp_path / "segmentation.png") as picture:
        # Two rows and two columns. Each cell has image, prediction and label of 200 x 150.
        assert picture.size == (2 * (3 * 200 + 2 * 4) + 8, 150 + 8 + 150)
    net = FCN(stride=8)
    net.load_parameters(str(tmp_path / "fcn.params"))


@pytest.mark.slow
def test_stopped_demo_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """The demo stops after the first of two epochs. The second run trains the second epoch."""
    run_small(tmp_path / "whole")
    saved, save = tmp_path / "saved", checkpoint.save

    def save_and_stop(*args, **state):
        save(*args, **state)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run_small(tmp_path / "parts", saved=saved)
    monkeypatch.undo()
    run_small(tmp_path / "parts", saved=saved)
    whole, parts = (
        mx.nd.load(str(tmp_path / folder / "fcn.params")) for folder in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array.asnumpy(), parts[name].asnumpy())
    message = r"saved: expected a training with .*'epochs': 3.*, got .*'epochs': 2"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        run_small(tmp_path / "parts", epochs=3, saved=saved)


def test_data_set_smaller_than_a_batch_is_rejected(tmp_path):
    dataset = voc.VOCSegDataset(True, (32, 32), voc.make_voc(tmp_path, 3, 1, size=(32, 32)))
    with pytest.raises(ValueError, match="dataset: expected 4 images or more, a batch, got 3"):
        demo_fcn.train(make_net(), dataset, 1, batch_size=4)


def test_command_passes_its_options_to_the_demo(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(demo_fcn, "run", lambda *args, **options: given.append((args, options)))
    output, saved = str(tmp_path / "out"), str(tmp_path / "saved")
    arguments = "--epochs", "3", "--train-images", "5", "--stride", "16", "--checkpoint", saved
    assert cli.main(["demo-fcn", "--output", output, *arguments]) == 0
    options = {"seed": 0, "saved": tmp_path / "saved", "stride": 16}
    assert given == [((tmp_path / "out", 3, 5), options)]
    assert (tmp_path / "out").is_dir()


def test_command_rejects_bad_arguments(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, message in [
        (["--output", str(tmp_path / "file")], "file: expected a folder, got a file"),
        (["--output", str(tmp_path), "--checkpoint", str(tmp_path / "no/saved")], "no such folder"),
    ]:
        assert cli.main(["demo-fcn", *arguments]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["demo-fcn", "--stride", "4"])
    assert "invalid choice: 4" in capsys.readouterr().err
