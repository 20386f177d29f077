"""Hooks into the import of packages, and the errors of missing ones."""

import importlib
import importlib.machinery
import subprocess
import sys

import pytest

from cvops._imports import ImportHook, pip_command, when_imported


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


def test_missing_package_of_images_is_an_error_with_the_command():
    code = "import sys; sys.modules['PIL'] = None; import cvops.images"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: import of PIL halted")
    assert last.endswith(f": {pip_command('demo', 'mxnet')}")
