"""The command ``demo-augmentation``, with few images."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "tqdm", "matplotlib")

from classification_cases import write_cifar10
from PIL import Image

from cvops import cli, demo_augmentation


def test_demo_prints_the_table_and_writes_the_pictures(tmp_path, capsys):
    names = "none", "flip and resized crop"
    results = demo_augmentation.run(tmp_path, 2, 20, seed=3, seeds=2, names=names, test_images=10)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "20 training images, 10 test images, 5 classes"
    for line, (seed, name) in zip(lines, [(s, name) for s in (3, 4) for name in names]):
        last = results[seed - 3][name][-1]
        accuracies = f"train acc {last.train_acc:.3f}, test acc {last.test_acc:.3f}"
        assert re.fullmatch(rf"seed {seed}, {name}: {accuracies}, \d+ s", line)
    table = [re.split(r" {2,}", line.strip()) for line in lines[5:10]]
    assert table[0] == ["seed", *names]
    assert table[2][0] == "3"
    last = results[0]["none"][-1]
    numbers = [float(text) for text in lines[7].split()[1:4]]
    expected = [last.train_acc, last.test_acc, last.train_acc - last.test_acc]
    assert numbers == pytest.approx(expected, abs=6e-4)
    mean = sum(run["none"][-1].test_acc for run in results) / 2
    assert float(lines[9].split()[2]) == pytest.approx(mean, abs=6e-4)
    plain, crops = ([run[name][-1].test_acc for run in results] for name in names)
    higher = sum(a > b for a, b in zip(crops, plain))
    assert lines[-1].endswith(f"test accuracy higher in {higher} of 2 seeds")
    with Image.open(tmp_path / "augmentation.png") as picture:
        # For each pipeline three images, each with five copies, 96 x 96, 8 pixels apart.
        assert picture.size == (6 * 104 - 8, 6 * 104 - 8)
        pixels = picture.convert("RGB")
    rows = [[pixels.crop((104 * x, y, 104 * x + 96, y + 96)) for x in range(6)] for y in (0, 312)]
    assert all(tile.tobytes() == rows[0][0].tobytes() for tile in rows[0])
    assert any(tile.tobytes() != rows[1][0].tobytes() for tile in rows[1])
    assert (tmp_path / "curves.png").is_file()


def test_equal_seeds_give_equal_accuracies(tmp_path):
    runs = [
        demo_augmentation.run(tmp_path / str(i), 2, 20, names=("flip and hue",), test_images=10)
        for i in range(2)
    ]
    first, second = ([epoch[:3] for epoch in run[0]["flip and hue"]] for run in runs)
    assert first == second


def test_demo_reads_cifar10(tmp_path, capsys, monkeypatch):
    write_cifar10(tmp_path / "data")
    monkeypatch.setattr(demo_augmentation, "PIPELINES", ("none",))
    demo_augmentation.run(tmp_path, 1, 4, names=("none",), root=tmp_path / "data")
    assert capsys.readouterr().out.startswith("4 training images, 2 test images, 10 classes\n")


def test_command_passes_its_options_to_the_demo(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(demo_augmentation, "run", lambda *args: given.append(args))
    output, data = tmp_path / "out", tmp_path / "data"
    assert cli.main(["demo-augmentation", "--output", str(output)]) == 0
    assert given[0] == (output, None, None, 0, 1, ["none", "flip", "flip and hue"], None)
    arguments = "--data", str(data), "--epochs", "3", "--train-images", "5", "--seed", "4"
    arguments += "--seeds", "2", "--pipelines", "none", "flip"
    assert cli.main(["demo-augmentation", "--output", str(output), *arguments]) == 0
    assert given[1] == (output, 3, 5, 4, 2, ["none", "flip"], data)


def test_command_rejects_bad_arguments(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, message in [
        (["--output", str(tmp_path / "file")], "file: expected a folder, got a file"),
        (["--output", str(tmp_path), "--data", str(tmp_path)], "expected CIFAR-10, the folder"),
        (["--output", str(tmp_path), "--pipelines", "no"], "names: expected one of ['none', 'flip"),
    ]:
        assert cli.main(["demo-augmentation", *arguments]) == 2
        assert message in capsys.readouterr().err
