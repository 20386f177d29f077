"""The package: its version, its modules, its archive, its build and its extras."""

import ast
import importlib.metadata
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cvops
from cvops import _imports, cli
from cvops.backends import extension

ROOT = Path(__file__).parents[2]


def test_version_is_that_of_the_distribution(capsys):
    assert cvops.__version__ == importlib.metadata.version("cvops")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"cvops {cvops.__version__}\n"


def test_no_library_in_the_package_looks_like_a_module():
    """A tool that imports all modules would crash on a library."""
    folders = list(cvops.__path__)
    if extension.native() is not None:
        folders.append(str(Path(extension.native().__file__).parent))
    found = {module.name for module in pkgutil.iter_modules(folders)}
    assert {"ops", "_imports"} <= found
    assert not {name for name in found if name.startswith("lib")}
    if extension.native() is not None:
        assert "_native" in found
        assert (Path(extension.native().__file__).parent / "lib" / "libcvops.so").is_file()


def test_source_archive_contains_the_pictures_of_the_readme():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    excluded = ast.literal_eval(re.search(r"^sdist.exclude = (.+)$", text, re.MULTILINE)[1])
    pictures = re.findall(r"!\[[^]]*\]\(([^):]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).is_file()
        assert not [
            entry for entry in excluded if Path(entry) in (Path(picture), *Path(picture).parents)
        ]


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
@pytest.mark.parametrize(
    "cxx", [None, "g++", "no-such-compiler"], ids=["no CXX", "g++", "unknown CXX"]
)
def test_build_without_a_compiler_names_the_package_to_install(tmp_path, cxx):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("cmake", "make", "ninja", "uname"):
        if shutil.which(tool):
            (tools / tool).symlink_to(shutil.which(tool))
    done = subprocess.run(
        [str(tools / "cmake"), "-S", str(ROOT), "-B", str(tmp_path / "build")],
        env={"PATH": str(tools), "HOME": str(tmp_path), **({"CXX": cxx} if cxx else {})},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    message = " ".join(done.stderr.split())
    assert "cvops needs a C++17 compiler, and found none: install g++" in message
    assert "apt-get install g++" in message
    assert message.count("CMake Error") == 1


@pytest.mark.parametrize(
    ("version", "extras", "command"),
    [
        ((3, 9), ["mxnet"], 'pip install "cvops[mxnet]"'),
        ((3, 12), ["demo", "mxnet"], 'pip install "cvops[demo,mxnet]"'),
        (
            (3, 13),
            ["mxnet"],
            'pip install "cvops[mxnet]" && pip install --no-deps mxnet==1.9.1',
        ),
        (
            (3, 14),
            ["demo", "mxnet-cu112"],
            'pip install "cvops[demo,mxnet-cu112]" && pip install --no-deps mxnet-cu112==1.9.1',
        ),
        ((3, 14), ["demo"], 'pip install "cvops[demo]"'),
    ],
    ids=["3.9 mxnet", "3.12 demo mxnet", "3.13 mxnet", "3.14 demo mxnet-cu112", "3.14 demo"],
)
def test_mxnet_needs_a_second_command_from_python_3_13(monkeypatch, version, extras, command):
    monkeypatch.setattr(sys, "version_info", (*version, 0))
    assert _imports.pip_command(*extras) == command


@pytest.mark.parametrize("extra", ["mxnet", "mxnet-cu112"])
def test_extra_requires_mxnet_before_python_3_13_only(extra):
    requirements = pytest.importorskip("packaging.requirements")
    machine = {"platform_system": "Linux", "platform_machine": "x86_64", "extra": extra}

    def names(python):
        environment = {**machine, "python_version": python, "python_full_version": f"{python}.0"}
        parsed = map(requirements.Requirement, importlib.metadata.requires("cvops"))
        return {r.name for r in parsed if r.marker and r.marker.evaluate(environment)}

    for python in ("3.9", "3.12"):
        assert extra in names(python)
    for python in ("3.13", "3.14"):
        assert extra not in names(python)
        assert {"graphviz", "requests"} <= names(python)


def test_progress_bar_is_that_for_notebooks_too():
    text = (ROOT / "cvops" / "training.py").read_text("utf-8")
    assert "from tqdm.auto import tqdm" in text
    assert "from tqdm import" not in text
