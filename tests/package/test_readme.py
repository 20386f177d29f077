"""Every example of README.md runs unchanged, each in a process and a folder of its own."""

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
#: The packages that an example may need, by the module that it imports.
OPTIONAL = ["mxnet", "torch", "PIL", "skimage"]


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
            pytest.skip(f"no {module} here")


def test_the_examples_are_found():
    assert len(BLOCKS) >= 8
    assert TEXT.count("```") == 2 * len(BLOCKS)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.strip().splitlines()[-1][:40])
def test_an_example(tmp_path, code):
    needed = [name for name in OPTIONAL if re.search(rf"\b(import|from|,) {name}\b", code)]
    if "make_voc" in code:  # it draws on the photographs of scikit-image
        needed.append("skimage")
    skip_without(*needed)
    run(tmp_path, "-c", code)


def test_the_examples_of_the_emulator(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    blocks = examples((TESTS / "emulator" / "README.md").read_text("utf-8"))
    assert len(blocks) == 2
    for code in blocks:
        run(tmp_path, "-c", code, PYTHONPATH=str(TESTS))


def test_the_detect_command(tmp_path):
    """On random weights and a gray image, in the places that README names."""
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
