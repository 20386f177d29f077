"""README.md and the pages in docs: their examples, links, tables and numbers.

The examples of a page run in one new process, in their order, in a new folder. An example whose
package is missing is skipped by its name. Examples with CuPy run on an emulated GPU.
"""

import ast
import doctest
import importlib.util
import inspect
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from cases import OPS
from tools import best_peers

import cvops

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
SOURCES = [file for file in sorted(DOCS.glob("**/*.md")) if "_build" not in file.parts]
PAGES = [README, *SOURCES, TESTS / "emulator" / "README.md"]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks/MODEL.md"]
#: The packages that modules of cvops import.
NEEDS = {
    "cvops.data": {"mxnet", "skimage", "PIL"},
    "cvops.jax": {"jax"},
    "cvops.models": {"mxnet"},
    "cvops.mxnet": {"mxnet"},
    "cvops.onnx": {"mxnet", "onnx"},
    "cvops.plot": {"matplotlib", "PIL"},
    "cvops.ray": {"mxnet", "skimage", "PIL", "pycocotools", "tqdm", "ray"},
    "cvops.recipes": {"mxnet", "skimage", "PIL", "pycocotools", "tqdm"},
    "cvops.sets": {"mxnet", "PIL"},
    "cvops.torch": {"torch", "torchvision"},
    "cvops.voc": {"mxnet", "skimage", "PIL"},
}
#: Executes files in one namespace. The names of the files are those of the pages.
RUN = """
import sys
namespace = {"__name__": "__main__"}
for file, name in zip(sys.argv[1::2], sys.argv[2::2]):
    with open(file, encoding="utf-8") as code:
        exec(compile(code.read(), name, "exec"), namespace)
"""
#: package -> code before the examples that use it. It makes them run on this machine.
BEFORE = {
    "cupy": "from emulator import backends; backends.register(); backends.install_driver()",
    "torchvision": "from torchvision_module import import_torchvision; import_torchvision()",
}


class Example(NamedTuple):
    page: str
    #: The number of the line before the code.
    line: int
    code: str
    #: The packages that it imports, and those of the examples that it continues.
    packages: frozenset

    @property
    def missing(self):
        return sorted(x for x in self.packages if importlib.util.find_spec(x) is None)


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def package_of(module):
    """Return the packages that the import of a module needs; the name may be of its member."""
    root = module.partition(".")[0]
    if root == "cvops":
        return NEEDS.get(".".join(module.split(".")[:2]), set())
    return {root} - {"emulator"}


def bound(tree):
    """Yield the names that a code binds, each with the packages of its import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                (x.asname or x.name.partition(".")[0], package_of(x.name)) for x in node.names
            )
        elif isinstance(node, ast.ImportFrom):
            yield from (
                (x.asname or x.name, package_of(f"{node.module}.{x.name}")) for x in node.names
            )
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, set()
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, set()


def examples(page):
    """Return the examples of a page in their order."""
    text, found, packages = page.read_text("utf-8"), [], {}
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
        tree = ast.parse(match[1])
        names = dict(bound(tree))
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(names)
        needed = set().union(*(x for _, x in bound(tree)), *(packages.get(x, ()) for x in used))
        # A later example needs the packages of a name's import, or of the code that computes it.
        packages.update({name: own or needed for name, own in names.items()})
        line = text.count("\n", 0, match.start(1))
        found.append(Example(name_of(page), line, match[1], frozenset(needed)))
    return found


EXAMPLES = {name_of(page): examples(page) for page in PAGES}


def run(folder, *command):
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS), "MPLBACKEND": "Agg"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def skip_without(*modules):
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}")


def can_emulate_gpus():
    if sys.platform != "linux" or platform.machine() != "x86_64" or shutil.which("g++") is None:
        return False
    return importlib.util.find_spec("cupy_backends") is not None


@pytest.mark.parametrize("page", [page for page, found in EXAMPLES.items() if found])
def test_examples_of_a_page_run(tmp_path, page):
    if "emulator" in page and shutil.which("g++") is None:
        pytest.skip("needs g++")
    chosen = [x for x in EXAMPLES[page] if not x.missing]
    if not can_emulate_gpus():
        chosen = [x for x in chosen if "cupy" not in x.packages]
    if not chosen:
        pytest.skip("its packages are missing")
    arguments = []
    for package in sorted(set(BEFORE) & set().union(*(x.packages for x in chosen))):
        (tmp_path / f"{package}.code").write_text(BEFORE[package], "utf-8")
        arguments += [f"{package}.code", package]
    for x in chosen:
        # A traceback has the line of the page.
        (tmp_path / f"{x.line}.code").write_text("\n" * x.line + x.code, "utf-8")
        arguments += [f"{x.line}.code", page]
    run(tmp_path, "-c", RUN, *arguments)


@pytest.mark.parametrize(
    "example",
    [x for found in EXAMPLES.values() for x in found if x.missing],
    ids=lambda x: f"{x.page}:{x.line}",
)
def test_example_without_its_package(example):
    pytest.skip(f"needs {', '.join(example.missing)}")


def test_pages_have_examples():
    assert len(EXAMPLES["README.md"]) >= 3
    assert sum(map(len, EXAMPLES.values())) >= 30


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_of_a_page_is_python_that_runs(page):
    """An indented block has commands or output; a fenced one is an example or a directive."""
    languages = re.findall(r"^```(.+)$", page.read_text("utf-8"), re.M)
    assert set(languages) <= {"python", "{toctree}", "{eval-rst}"} | {
        x for x in languages if x.startswith("{include} ")
    }


def test_detect_command_of_the_pages_runs(tmp_path):
    """The network has random weights, and the image is gray; the page names their files."""
    skip_without("mxnet", "PIL")
    [line] = re.findall(r"^    cvops (detect .*)$", (DOCS / "models.md").read_text("utf-8"), re.M)
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


def test_data_command_of_the_page_runs(tmp_path):
    skip_without("mxnet", "PIL", "skimage", "tqdm")
    page = (DOCS / "own-data.md").read_text("utf-8")
    [line] = re.findall(r"^    cvops (data .*)$", page, re.M)
    make = """
from pathlib import Path
from PIL import Image

Path("photos").mkdir()
for gray in range(5):
    Image.new("L", (40, 20), gray).save(f"photos/{gray}.png")
Path("photos/boxes.csv").write_text("".join(f"{i}.png,bee,1,2,30,20\\n" for i in range(5)))
"""
    run(tmp_path, "-c", make)
    run(tmp_path, "-m", "cvops", *shlex.split(line))
    assert (tmp_path / "set" / "samples.png").is_file()


def anchors(page):
    """Return the anchors of the headings of a page, as GitHub and MyST make them."""
    text = page.read_text("utf-8")
    included = re.findall(r"^```\{include\} (.+)$", text, re.M)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    for file in included:
        if "_build" not in file:
            found |= anchors(page.parent / file)
    return found


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_relative_links_lead_to_files_and_headings(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(\s*([^)\s]+)\s*\)", text):
        if re.match(r"https?:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", SOURCES, ids=name_of)
def test_lines_of_a_page_are_at_most_100_characters_long(page):
    lines = page.read_text("utf-8").splitlines()
    # A list of reST's members has one line.
    assert [x for x in lines if len(x) > 100 and ":members:" not in x] == []


def test_readme_has_at_most_150_lines():
    assert len(README.read_text("utf-8").splitlines()) <= 150


def test_numbers_of_the_readme_are_those_of_the_results():
    text, jobs = README.read_text("utf-8"), best_peers.jobs()
    assert best_peers.update(text, jobs) == text
    rows = ["| " + " | ".join(job.cells()) + " |" for job in jobs]
    assert len(set(text.splitlines()) & set(rows)) == 8
    assert re.search(rf"\[\d+ of {len(jobs)} jobs\]", text)
    newest = sorted(best_peers.RESULTS.glob("*-torchvision-cpu-*.json"))[-1]
    same = [case["same bits"] for case in json.loads(newest.read_text("utf-8"))["cases"]]
    assert all(same)
    assert f"[all {len(same)} cases]" in text


def test_pages_have_each_op():
    table, reference = ((DOCS / file).read_text("utf-8") for file in ("ops.md", "api/ops.md"))
    for op in OPS:
        assert f"`{op}`" in table
        assert f"cvops.{op}(" in table
    public = [name for name, x in vars(cvops).items() if inspect.isfunction(x) and name[0] != "_"]
    listed = re.findall(r"^\.\. autofunction:: cvops\.(\w+)$", reference, re.M)
    internal = {"find_old_packages"}
    assert sorted(listed) == sorted(set(public) - internal)


@pytest.mark.parametrize("op", OPS)
def test_example_in_the_docstring_of_an_op(op):
    names = {"cvops": cvops, "np": np}
    [test] = doctest.DocTestFinder(recurse=False).find(getattr(cvops, op), op, globs=names)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


def test_script_of_the_drawings_draws_each(tmp_path):
    skip_without("matplotlib")
    run(ROOT, "docs/figures/draw.py", tmp_path)
    drawn = {file.name for file in tmp_path.iterdir()}
    assert drawn == {file.name for file in (DOCS / "figures").glob("*.svg")}
    page = (DOCS / "how-it-works.md").read_text("utf-8")
    assert drawn == set(re.findall(r"\(figures/(.+\.svg)\)", page))
