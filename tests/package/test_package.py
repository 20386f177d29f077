"""The package: its version, its modules, its archive, its build and its extras."""

import ast
import importlib.metadata
import os
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


@pytest.mark.parametrize("command", ["demo", "demo-rcnn", "demo-style", "evaluate"])
def test_help_has_the_defaults_that_say_something(capsys, command):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert re.search(r"\(default: [\w(]", text)
    assert "(default: None)" not in text
    assert "(default: False)" not in text


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
@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_build_for_another_system_is_refused_with_its_name(tmp_path, system):
    command = ["cmake", "-S", ROOT, "-B", tmp_path, f"-DCMAKE_SYSTEM_NAME={system}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    message = " ".join(done.stderr.split())
    assert f"cvops builds on Linux only, and found {system}" in message
    assert message.count("CMake Error") == 1


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


@pytest.mark.skipif(
    not all(map(shutil.which, ("cmake", "g++", "ninja"))), reason="needs cmake, ninja and g++"
)
@pytest.mark.parametrize(("cuda", "compiles"), [(None, False), ("ON", True)], ids=["default", "ON"])
def test_build_calls_nvcc_only_on_request(tmp_path, cuda, compiles):
    pybind11 = pytest.importorskip("pybind11")
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\necho sm_90\n")
    nvcc.chmod(0o755)
    subprocess.run(
        [
            *("cmake", "-S", str(ROOT), "-B", str(tmp_path / "build"), "-G", "Ninja"),
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPython_EXECUTABLE={sys.executable}",
            *([f"-DCVOPS_CUDA={cuda}"] if cuda else []),
        ],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "called").exists() == compiles
    assert ("fatbin" in (tmp_path / "build" / "build.ninja").read_text("utf-8")) == compiles


def test_check_of_a_wheel_passes_without_other_packages_than_numpy():
    script = f"""
import runpy, sys
sys.path[:] = [x for x in sys.path if x]
sys.path.insert(0, {str(ROOT / "tests")!r})
runpy.run_path({str(ROOT / "tests" / "check_wheel.py")!r}, run_name="__main__")
others = set(sys.modules) & {{"cupy", "hypothesis", "jax", "mxnet", "PIL", "pytest", "torch"}}
assert not others, others
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT / "tests"
    )
    assert done.returncode == 0, done.stderr
    assert f"cvops {cvops.__version__}" in done.stdout


def test_metadata_names_license_and_pythons():
    metadata = importlib.metadata.metadata("cvops")
    assert metadata["License-Expression"] == "Apache-2.0"
    wheels = re.search(r'^build = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)[1]
    pythons = [f"3.{version}" for version in re.findall(r"cp3(\d+)-", wheels)]
    prefix = "Programming Language :: Python :: "
    classifiers = [x[len(prefix) :] for x in metadata.get_all("Classifier") if prefix in x]
    assert classifiers == ["3", *pythons]
    assert metadata["Requires-Python"] == f">={pythons[0]}"


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


def test_quickstart_lists_all_extras():
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    section = project.split("[project.optional-dependencies]\n")[1].split("\n[", 1)[0]
    extras = re.findall(r"^([\w-]+) = \[", section, re.M)
    assert "ray" in extras
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/quickstart.md").read_text("utf-8"), re.M)
    listed = [name for row in rows for name in re.findall(r"`([\w-]+)`", row)]
    assert sorted(listed) == sorted(extras)


def test_progress_bar_is_that_for_notebooks_too():
    text = (ROOT / "cvops" / "training.py").read_text("utf-8")
    assert "from tqdm.auto import tqdm" in text
    assert "from tqdm import" not in text
