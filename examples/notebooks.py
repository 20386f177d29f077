"""Execute the notebooks of this folder with their outputs: ``python notebooks.py [FILE ...]``."""

from __future__ import annotations

import base64
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
#: Bars of tqdm, and its warning without ipywidgets, are not kept.
ENVIRONMENT = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}


def execute(path: Path, parameters: str | None = None) -> Any:
    """Run a notebook in a new process and return it with its outputs.

    Args:
        path: the notebook's file, which does not change.
        parameters: replaces the code of the cell with the tag "parameters".

    Raises:
        ValueError: there are parameters, and no such cell.
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    if parameters is not None:
        cells = [x for x in notebook.cells if "parameters" in x.metadata.get("tags", [])]
        if len(cells) != 1:
            raise ValueError(f"{path}: expected one cell with parameters, got {len(cells)}")
        cells[0].source = parameters
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    return client.execute(env={**os.environ, **ENVIRONMENT})


def write(notebook: Any, path: Path) -> None:
    """Write a notebook. The file depends on neither the machine nor the version of Python."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        for output in cell.get("outputs", []):
            formats = output.get("data", {})
            formats.pop("image/jpeg", None)  # Pillow's images have both
            if "image/png" in formats:
                formats["image/png"] = _smaller(formats["image/png"])
    nbformat.write(notebook, path)


def _smaller(png: str) -> str:
    """Return a PNG of at most 256 colors. Both are base64."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    file = io.BytesIO()
    image.quantize(256).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def main(paths: list[Path]) -> None:
    """Execute the notebooks in their files."""
    for path in paths:
        start = time.perf_counter()
        write(execute(path), path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or NOTEBOOKS)
