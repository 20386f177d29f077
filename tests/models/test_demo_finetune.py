"""The command ``demo-finetune``, with few images and small networks."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "tqdm", "matplotlib")

from classification_cases import gray, write_folders
from PIL import Image

from cvops import classification, cli, demo_finetune
from cvops._mxnet import mxnet

mx = mxnet()
NAMES = ["fine-tuned", "features frozen", "rate ten times higher", "from scratch"]


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    """Neither MXNet's model folder nor a package has weights; the source is trained briefly."""

    def missing(*_):
        raise FileNotFoundError("squeezenet: no such file")

    train = demo_finetune.trained_source
    monkeypatch.setattr(demo_finetune, "trained_source", lambda folder: train(folder, 6, 1))
    monkeypatch.setattr(demo_finetune, "zoo_source", missing)


@pytest.mark.slow
def test_demo_trains_a_source_where_there_are_no_weights(tmp_path, capsys, no_weights):
    results = demo_finetune.run(tmp_path, 1, 4, seed=2, seeds=2, test_images=6)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == "no weights of squeezenet1_1: squeezenet: no such file"
    assert re.fullmatch(r"source: a ResNet trained here on bird, cat, sheep, .* 0\.\d\d", lines[1])
    assert lines[2] == "4 training images, 6 test images, classes bee, frog"
    assert [list(run) for run in results] == [NAMES] * 2
    start = lines.index("")
    assert lines[start + 1].split() == [
        *("test", "acc", "(train", "acc)", "seed", "2", "seed", "3", "mean"),
    ]
    for line, name in zip(lines[start + 2 :], NAMES):
        first, second = (run[name][-1] for run in results)
        pairs = [(x.test_acc, x.train_acc) for x in (first, second)]
        pairs.append(tuple(sum(values) / 2 for values in zip(*pairs)))
        assert line.startswith(name)
        assert re.findall(r"\d\.\d{3}", line) == [f"{x:.3f}" for pair in pairs for x in pair]
    gains = [run[NAMES[0]][-1].test_acc - run[NAMES[3]][-1].test_acc for run in results]
    expected = f"{min(gains):+.3f} to {max(gains):+.3f}, higher in {sum(g > 0 for g in gains)} of 2"
    assert expected in lines[-1]
    with Image.open(tmp_path / "finetune.png") as picture:
        assert picture.size == (4 * 160 + 3 * 8, 2 * 160 + 8)  # six images of 160 x 160
    assert (tmp_path / "curves.png").is_file()


@pytest.mark.slow
def test_demo_loads_given_weights(tmp_path, capsys):
    """The weights are random ones of SqueezeNet, in a file of Gluon."""
    net = mx.gluon.model_zoo.vision.squeezenet1_1()
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 3, 224, 224)))
    path = tmp_path / "random.params"
    net.save_parameters(str(path))
    (result,) = demo_finetune.run(tmp_path, 1, 4, pretrained=path, test_images=2)
    assert list(result) == [*NAMES, "output of the source"]
    assert f"source: squeezenet1_1 of {path}\n" in capsys.readouterr().out


def test_demo_reads_folders_of_images(tmp_path, capsys, no_weights, monkeypatch):
    monkeypatch.setattr(demo_finetune, "BOOK", demo_finetune.Setup(48, (0.08, 1), 5, 4))
    root = write_folders(
        tmp_path / "data",
        {
            f"{part}/{name}/{i}.png": gray(50 * i, (20 + i, 30))
            for part in ("train", "test")
            for name in ("hotdog", "not-hotdog", "other")
            for i in range(2)
        },
    )
    (result,) = demo_finetune.run(tmp_path, 1, root=root)
    assert list(result) == NAMES
    assert "6 training images, 6 test images, classes hotdog, not-hotdog, other" in (
        capsys.readouterr().out
    )


def test_rate_depends_on_the_batch_normalization(tmp_path):
    for name, rate in (("squeezenet1_1", 0.0005), ("resnet18_v2", 0.01)):
        net = getattr(mx.gluon.model_zoo.vision, name)()
        net.initialize()
        net(mx.nd.zeros((1, 3, 224, 224)))
        net.save_parameters(str(tmp_path / f"{name}.params"))
        assert demo_finetune.zoo_source(name, tmp_path / f"{name}.params").rate == rate


def test_command_passes_its_options_to_the_demo(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(demo_finetune, "run", lambda *args: given.append(args))
    output, data, file = (tmp_path / name for name in ("out", "data", "file.params"))
    assert cli.main(["demo-finetune", "--output", str(output)]) == 0
    assert given[0] == (output, None, None, 0, 1, None, "squeezenet1_1", None, None)
    arguments = "--data", str(data), "--epochs", "3", "--train-images", "5", "--seed", "4"
    arguments += "--seeds", "2", "--network", "resnet18_v2", "--pretrained", str(file)
    arguments += "--rate", "0.05"
    assert cli.main(["demo-finetune", "--output", str(output), *arguments]) == 0
    assert given[1] == (output, 3, 5, 4, 2, data, "resnet18_v2", file, 0.05)


def test_command_rejects_bad_arguments(tmp_path, capsys):
    (tmp_path / "bad.params").write_bytes(b"no parameters")
    output = ["--output", str(tmp_path / "out")]
    for arguments, message in [
        (["--data", str(tmp_path / "none")], "none/train: no such folder"),
        (["--pretrained", str(tmp_path / "none.params")], "none.params: no such file"),
        (["--pretrained", str(tmp_path / "bad.params")], "bad.params: not the parameters of"),
        (["--network", "no"], "no"),
    ]:
        assert cli.main(["demo-finetune", *output, *arguments]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["demo-finetune", "--rate", "0"])
    assert "expected a number above 0, got 0" in capsys.readouterr().err


def test_only_known_networks_are_compared(tmp_path):
    root = classification.make_image_folders(tmp_path, train=4, test=2)
    with pytest.raises(ValueError, match="only: expected one of"):
        demo_finetune.compare(None, root, 2, demo_finetune.MADE, rate=0.1, only=("best",))
