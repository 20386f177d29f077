"""Hooks into the import of packages, and the errors of missing ones."""

import ast
import importlib
import importlib.machinery
import re
import sys
import types
from pathlib import Path

import pytest

from cvops._imports import EXTRAS, ImportHook, install_command, optional, when_imported

ROOT = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The source of a package that is not imported; the finders of the test are removed."""
    folder = tmp_path / "hooked"
    folder.mkdir()
    source = folder / "__init__.py"
    source.write_text("value = 1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield source
    sys.modules.pop("hooked", None)


def test_action_runs_after_the_module(package):
    before, found = list(sys.meta_path), []
    when_imported("hooked", lambda module: found.append(module.value))
    assert found == []
    importlib.import_module("hooked")
    assert found == [1]
    assert sys.meta_path == before


def test_action_of_an_imported_module_runs_immediately(package):
    module, found = importlib.import_module("hooked"), []
    when_imported("hooked", found.append)
    assert found == [module]


def test_action_does_not_run_after_an_import_with_an_error(package):
    found = []
    when_imported("hooked", found.append)
    package.write_text("raise ValueError")
    with pytest.raises(ValueError):  # noqa: PT011
        importlib.import_module("hooked")
    assert found == []
    package.write_text("other = 22")
    importlib.invalidate_caches()
    assert importlib.import_module("hooked") is found[0]


@pytest.mark.parametrize("first", [True, False], ids=["hook first", "action first"])
def test_two_hooks_of_a_module_nest(package, first):
    order = []

    def execute(module, run):
        order.append("begin")
        run(module)
        order.append("end")

    def add_hook():
        sys.meta_path.insert(0, ImportHook("hooked".__eq__, execute))

    if first:
        add_hook()
    when_imported("hooked", lambda module: order.append("action"))
    if not first:
        add_hook()
    importlib.import_module("hooked")
    assert order == (["begin", "end", "action"] if first else ["begin", "action", "end"])


def test_hooked_module_has_its_own_loader(package):
    when_imported("hooked", lambda module: None)
    module = importlib.import_module("hooked")
    assert type(module.__loader__) is importlib.machinery.SourceFileLoader
    assert module.__spec__.loader is module.__loader__


def test_hook_finds_no_module_by_itself(package):
    sys.meta_path.insert(0, ImportHook(lambda name: True, lambda module, run: run(module)))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        importlib.import_module("no_such_module")


# --- optional packages ----------------------------------------------------------------------------

#: The requirements of an extra that have another name than their package.
_REQUIREMENTS = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn"}
#: A statement that imports each optional package, of modules that a test may have imported before.
_USES = {
    "PIL": "import cvops._pillow",
    "h5py": "from cvops.weights import readers; readers._package('h5py')",
    "imageio": "from cvops.recipes import detection; next(detection._frames('a', 'a', 1))",
    "jax": "import cvops.jax",
    "matplotlib": "from cvops import plot; plot._matplotlib('figure')",
    "onnx": "import cvops.onnx.graph",
    "pyarrow": "import cvops.ray",
    "pycocotools": "from cvops import metrics; metrics.encode_masks([[[1]]])",
    "ray": "import cvops.ray",
    "safetensors": "from cvops.weights import readers; readers._package('safetensors.numpy')",
    "scipy": "from cvops.models import style; style._minimize(*4 * [None])",
    "skimage": "from cvops.datasets import drawing; drawing.photograph('a.png')",
    "sklearn": "from cvops.models import plain_rcnn; plain_rcnn.require_sklearn()",
    "tensorboardX": "from cvops.recipes import run; run._Events('a')",
    "tomli": "from cvops.recipes import config; config._toml()",
    "torch": "import cvops.torch",
    "torchvision": "from cvops.torch import install; install()",
    "tqdm": "import cvops.training",
}


@pytest.mark.parametrize("package", EXTRAS)
def test_missing_package_is_an_error_with_the_command(monkeypatch, package):
    statement = _USES[package]
    if statement.startswith("import "):
        again = statement.split()[1]
        for name in [x for x in sys.modules if f"{x}.".startswith(f"{again}.")]:
            monkeypatch.delitem(sys.modules, name)
    for name in [x for x in sys.modules if x.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    if package == "ray":
        monkeypatch.setitem(sys.modules, "pyarrow", types.ModuleType("pyarrow"))
    if package == "tomli":
        monkeypatch.setattr(sys, "version_info", (3, 10))
    with pytest.raises(ModuleNotFoundError) as error:
        exec(statement, {})
    if error.value.name.partition(".")[0] != package:
        pytest.skip(f"another package is missing: {error.value}")
    assert str(error.value).startswith(f"No module named '{package}")
    assert str(error.value).endswith(f": {install_command(package)}")


@pytest.mark.parametrize("package", [name for name, extra in EXTRAS.items() if extra])
def test_command_has_the_extra_of_the_package(package):
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    requirements = re.search(rf"^{EXTRAS[package]} = \[(.*?)\]$", project, re.M | re.S)[1]
    assert f'"{_REQUIREMENTS.get(package, package)}' in requirements
    assert f"cvops[{EXTRAS[package]}]" in install_command(package)


def test_all_imports_of_optional_packages_have_the_command():
    """Modules below a package that imports its own optional package need no command."""
    guarded = []
    for path in sorted((ROOT / "cvops").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for block in ast.walk(tree):
            if isinstance(block, ast.With) and "optional(" in ast.unparse(block.items[0]):
                guarded += [id(node) for node in ast.walk(block)]
        for node in ast.walk(tree):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {name.partition(".")[0] for name in names} & set(EXTRAS):
                inside = path.parts[-2] in (name, "arrays", "backends") or name in path.parts
                assert id(node) in guarded or inside, f"{path}: {name}"


def test_missing_module_of_another_package_keeps_its_error():
    with (
        pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_module'$"),
        optional(),
    ):
        importlib.import_module("no_such_module")


def test_purpose_of_a_missing_package_is_in_its_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    expected = pytest.raises(ModuleNotFoundError, match="'tqdm', for bars: pip")
    with expected as error, optional("for bars"):
        importlib.import_module("tqdm")
    assert error.value.name == "tqdm"
