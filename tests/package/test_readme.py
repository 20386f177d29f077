"""The examples of README.md and of the emulator's README, each in a new process and folder."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
README = TESTS.parent / "README.md"
TEXT = README.read_text("utf-8") if README.is_file() else ""


def examples(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


BLOCKS = examples(TEXT)
#: The modules of optional packages that an example may import.
OPTIONAL = ["mxnet", "torch", "jax", "PIL", "skimage"]


def run(folder, *command, **environment):
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def skip_without(*modules):
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}")


def test_all_code_blocks_of_the_readme_are_examples():
    assert len(BLOCKS) >= 8
    assert TEXT.count("```") == 2 * len(BLOCKS)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.strip().splitlines()[-1][:40])
def test_example_of_the_readme_runs(tmp_path, code):
    needed = [name for name in OPTIONAL if re.search(rf"\b(import|from|,) {name}\b", code)]
    if "make_voc" in code:  # uses photographs of scikit-image
        needed.append("skimage")
    skip_without(*needed)
    run(tmp_path, "-c", code)


def test_examples_of_the_emulator_run(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    blocks = examples((TESTS / "emulator" / "README.md").read_text("utf-8"))
    assert len(blocks) == 2
    for code in blocks:
        run(tmp_path, "-c", code, PYTHONPATH=str(TESTS))


def test_detect_command_of_the_readme_runs(tmp_path):
    """The network has random weights, and the image is gray; README names their files."""
    skip_without("mxnet", "PIL")
    [line] = re.findall(r"^    cvops (detect .*)$", TEXT, re.M)
    make = """
import cvops
import mxnet as mx
from cvops.models import TinySSD
from PIL import Image

net = TinySSD(["bee", "frog"])
net.initialize(mx.init.Xavier())
net(mx.nd.zeros((1, 3, 256, 256)))
net.save("demo/tiny_ssd.params")
Image.new("RGB", (300, 200), "gray").save("demo/scene.png")
"""
    (tmp_path / "demo").mkdir()
    run(tmp_path, "-c", make)
    run(tmp_path, "-m", "cvops", *shlex.split(line, comments=True))
