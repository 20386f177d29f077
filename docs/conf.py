"""Configuration of Sphinx for ``make docs``."""

import importlib.util
import sys
from pathlib import Path

import cvops

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "benchmarks"))
from tools import best_peers  # noqa: E402 (after the path)

project = "cvops"
author = "the developers of cvops"
copyright = author
version = release = cvops.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"cvops {version}"
html_show_copyright = False
# A page has links to its own headings, and to those of other pages.
myst_heading_anchors = 3
# The docstrings give shapes and dtypes, which the annotations do not have.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# One line for each parameter.
maximum_signature_line_length = 90
python_use_unqualified_type_names = True

# The pages whose modules import an optional package.
exclude_patterns += [
    f"api/{page}.md"
    for page, package in (
        ("data", "mxnet"),
        ("jax", "jax"),
        ("models", "mxnet"),
        ("mxnet", "mxnet"),
        ("onnx", "onnx"),
        ("ray", "ray"),
        ("recipes", "mxnet"),
        ("torch", "torch"),
    )
    if importlib.util.find_spec(package) is None
]
for page in exclude_patterns[1:]:
    print(f"{page}: not built, because its package is not installed")

# performance.md includes this table.
(DOCS / "_build").mkdir(exist_ok=True)
(DOCS / "_build" / "best_peers.md").write_text(best_peers.table(best_peers.jobs()), "utf-8")
