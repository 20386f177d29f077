"""The notebooks in ``examples``: each one runs with small sizes; its kept outputs are clean."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "matplotlib", "pycocotools", "nbclient", "ipykernel")

import notebooks  # noqa: E402 (after the skip)
from PIL import Image  # noqa: E402

from cvops import weights  # noqa: E402

#: The parameters of the notebooks that train, for a run of few seconds.
SMALL = {
    "9.01-image-augmentation": "images, epochs = 16, 1",
    "9.02-fine-tuning": ("images, tests, epochs = 8, 8, 1\nsource_images, source_epochs = 16, 1"),
    "9.07-ssd": "images, epochs, tests = 8, 1, 8",
    "9.08-rcnn": "images, epochs, tests = 4, 1, 4",
    "9.10-fcn": "images, epochs, tests = 8, 1, 4",
    "9.11-style-transfer": "side, steps = 48, 2",
}
NAMES = [path.stem for path in notebooks.NOTEBOOKS]


def test_each_section_of_the_chapter_has_a_notebook():
    assert [name[:4] for name in NAMES] == [f"9.{number:02}" for number in range(1, 12)]
    chapter = Path(notebooks.FOLDER.parent, "docs/chapter-9.md").read_text("utf-8")
    assert re.findall(r"\.\./examples/(.+)\.ipynb", chapter) == NAMES


#: The notebooks that `make test` runs. The tests of the demos train the networks of the others.
FAST = ("9.03-bounding-boxes",)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if path.stem in FAST else pytest.mark.slow, id=path.stem)
        for path in notebooks.NOTEBOOKS
    ],
)
def test_notebook_runs_with_small_sizes(path, operators, monkeypatch):
    if path.stem == "9.11-style-transfer":
        try:
            weights.find("squeezenet1_1")
        except FileNotFoundError as error:
            pytest.skip(str(error))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = path.read_bytes()
    notebook = notebooks.execute(path, SMALL.get(path.stem))
    ran = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert ran == list(range(1, len(ran) + 1))
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", notebooks.NOTEBOOKS, ids=NAMES)
def test_kept_outputs_are_complete_and_clean(path):
    text = path.read_text("utf-8")
    cells = [x for x in json.loads(text)["cells"] if x["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [x for x in outputs if x["output_type"] == "error" or x.get("name") == "stderr"]
    pictures = [x["data"]["image/png"] for x in outputs if "image/png" in x.get("data", {})]
    assert pictures
    for picture in pictures:
        Image.open(io.BytesIO(base64.b64decode(picture))).verify()
    assert len(text) < 300_000
    assert not re.search(r"/(home|root|tmp|work)/", text)


def test_parameters_of_a_notebook_without_such_a_cell_raise_an_error():
    with pytest.raises(ValueError, match="expected one cell with parameters, got 0"):
        notebooks.execute(notebooks.FOLDER / "9.03-bounding-boxes.ipynb", "images = 1")
