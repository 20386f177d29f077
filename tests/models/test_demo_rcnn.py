"""The command ``demo-rcnn``, with small data."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "sklearn", "pycocotools", "PIL", "tqdm")

from PIL import Image

from cvops import checkpoint, cli, data, demo_rcnn, voc
from cvops._mxnet import mxnet
from cvops.demo_rcnn import proposals, training
from cvops.models import FasterRCNN, FastRCNN

mx = mxnet()
pytestmark = pytest.mark.usefixtures("operators")
SIDE = 64


def run_small(folder, model, epochs=1, **options):
    return demo_rcnn.run(folder, epochs, 4, 2, model=model, side=SIDE, **options)


STAGES = {
    "rcnn": ("proposals: selective search", "features: ", "crops, SVMs, regression, NMS"),
    "fast": ("proposals: selective search", "features: one run", "boxes: "),
    "faster": ("features: one run", "proposals: RPN, NMS", "boxes: "),
    "mask": ("features: one run", "proposals: RPN, NMS", "boxes: ", "masks: "),
}


@pytest.mark.parametrize("model", STAGES)
def test_demo_prints_the_metrics_and_writes_the_picture(model, tmp_path, capsys):
    value = run_small(tmp_path, model)
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"mAP of boxes at 0.5: {value:.2f}"
    assert re.search(r"^epoch  1: .*loss \d+\.\d{3}", out, re.MULTILINE)
    times = [re.search(rf"^  {stage}.* (\d+\.\d)$", out, re.MULTILINE) for stage in STAGES[model]]
    total = re.search(r"^  sum +(\d+\.\d)$", out, re.MULTILINE)
    assert sum(float(found[1]) for found in times) == pytest.approx(float(total[1]), abs=0.3)
    kinds = ("boxes", "masks") if model == "mask" else ("boxes",)
    table = re.findall(r"^(\w+), (\w+) +[\d.nan]+ +[\d.nan]+$", out, re.MULTILINE)
    assert table == [(kind, name) for kind in kinds for name in data.CLASSES]
    assert re.search(r"^recall of \d+ proposals per image: [\d.]+ at IoU 0.5, ", out, re.MULTILINE)
    with Image.open(tmp_path / "rcnn.png") as picture:
        assert picture.size == (4 * (3 * SIDE + 8) - 8, 3 * SIDE)
    if model != "rcnn":
        kind = FastRCNN if model == "fast" else FasterRCNN
        assert kind.load(tmp_path / "rcnn.params").mask == (model == "mask")


def test_alternating_training_shares_the_features(tmp_path, capsys):
    """The last two steps leave the features as they are; the last one leaves the RPN too."""
    voc_dir = voc.make_voc_creatures(tmp_path, 4, 1, side=SIDE)
    dataset = voc.VOCInstanceDataset(True, voc_dir, data.CLASSES, SIDE)
    net = FasterRCNN(data.CLASSES, SIDE, hidden=16)
    net.initialize()
    seen, train = [], training.train

    def record(trained, *args, **options):
        losses = train(trained, *args, **options)
        seen.append({name: p.data().asnumpy() for name, p in net.collect_params().items()})
        return losses

    training.train = record
    try:
        training.train_alternating(net, dataset, 1)
    finally:
        training.train = train
    assert re.findall(r"^\d: .*", capsys.readouterr().out, re.MULTILINE) == [
        "1: region proposals",
        "2: heads",
        "3: region proposals, shared features",
        "4: heads, shared features",
    ]

    def changed(before, after):
        return {
            next(part for part in ("backbone", "rpn", "boxhead") if part in name)
            for name in before
            if not np.array_equal(before[name], after[name])
        }

    steps = [changed(*pair) for pair in zip(seen, seen[1:])]
    assert steps == [{"backbone", "boxhead"}, {"rpn"}, {"boxhead"}]
    assert all(p.grad_req == "write" for n, p in net.collect_params().items() if "running" not in n)


def test_stopped_demo_resumes_to_the_same_bits(tmp_path, monkeypatch):
    run_small(tmp_path / "whole", "faster", epochs=2)
    saved, save = tmp_path / "saved", checkpoint.save

    def save_and_stop(*args, **state):
        save(*args, **state)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run_small(tmp_path / "parts", "faster", epochs=2, saved=saved)
    monkeypatch.undo()
    run_small(tmp_path / "parts", "faster", epochs=2, saved=saved)
    whole, parts = (
        mx.nd.load(str(tmp_path / folder / "rcnn.params")) for folder in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array.asnumpy(), parts[name].asnumpy())
    message = r"saved: expected a training with .*'seed': 1.*, got .*'seed': 0"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        run_small(tmp_path / "parts", "faster", epochs=2, seed=1, saved=saved)


def test_search_gives_fractions_of_each_image(tmp_path):
    voc_dir = voc.make_voc_creatures(tmp_path, 2, 1, side=SIDE)
    dataset = voc.VOCInstanceDataset(True, voc_dir, data.CLASSES, SIDE)
    boxes = proposals.search(dataset, most=200)
    assert boxes.shape == (2, 200, 4)
    for rows in boxes:
        count = int((rows[:, 0] >= 0).sum())
        assert 10 < count < 200
        assert rows[0].tolist() == [0, 0, 1, 1]
        assert (rows[count:] == -1).all()
        assert rows[:count].max() <= 1


def test_data_set_smaller_than_a_batch_is_rejected(tmp_path):
    voc_dir = voc.make_voc_creatures(tmp_path, 3, 1, side=SIDE)
    dataset = voc.VOCInstanceDataset(True, voc_dir, data.CLASSES, SIDE)
    net = FasterRCNN(data.CLASSES, SIDE)
    with pytest.raises(ValueError, match="dataset: expected 4 images or more, a batch, got 3"):
        training.train(net, dataset, 1)


def test_command_passes_its_options_to_the_demo(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(demo_rcnn, "run", lambda *args, **options: given.append((args, options)))
    output = str(tmp_path / "out")
    arguments = "--model", "faster", "--epochs", "3", "--train-images", "5", "--roi", "pooling"
    assert cli.main(["demo-rcnn", "--output", output, *arguments, "--alternating"]) == 0
    assert cli.main(["demo-rcnn", "--output", output]) == 0
    chosen = {"model": "faster", "roi": "pooling", "alternating": True}
    default = {"model": "mask", "roi": "align", "alternating": False}
    assert given == [
        ((tmp_path / "out", 3, 5), {"seed": 0, "saved": None, **chosen}),
        ((tmp_path / "out", None, None), {"seed": 0, "saved": None, **default}),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model", "fast", "--alternating"],
            "--alternating: only for the models faster and mask",
        ),
        (["--model", "rcnn", "--checkpoint", "saved"], "--checkpoint: not for the model rcnn, nor"),
        (["--alternating", "--checkpoint", "saved"], "--checkpoint: not for the model rcnn, nor"),
    ],
    ids=["fast alternating", "rcnn checkpoint", "alternating checkpoint"],
)
def test_command_rejects_options_of_another_model(tmp_path, capsys, arguments, message):
    assert cli.main(["demo-rcnn", "--output", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_demo_rejects_options_of_another_model(tmp_path):
    for options, message in [
        ({"model": "ssd"}, "model: expected one of"),
        ({"model": "rcnn", "alternating": True}, "alternating: expected a model with an RPN"),
        ({"model": "rcnn", "saved": tmp_path / "saved"}, "checkpoint: expected a training in one"),
    ]:
        with pytest.raises(ValueError, match=message):
            run_small(tmp_path, **options)
