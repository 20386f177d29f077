"""Builds of bindings/: the extension with other constants, and operators for MXNet."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from .build import FLAGS, cached, compile_object, compile_objects, run_compiler

_INCLUDE = re.compile(r'^\s*#\s*include\s+"(.+)"', re.MULTILINE)
#: The folders of bindings/ with the sources of libcvops.so.
_CORE = ("cpu", "cuda", "operators", "runtime")


def build_extension(
    bindings: Path,
    kernels: Path,
    name: str,
    flags: Sequence[str] = (),
    folders: Sequence[str] = _CORE,
    core: Path | None = None,
) -> ModuleType:
    """Compile the extension with more flags, and import it.

    Python has one module for each ``name``: another build needs another name. If ``folders`` are
    not all, ``core`` is the libcvops.so with the other functions.
    """
    import pybind11

    python = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    own = [
        f"-DCVOPS_MODULE_NAME={name}",
        *(f"-isystem{folder}" for folder in (pybind11.get_include(), *sorted(python))),
    ]
    texts = [pybind11.__version__, sys.version]
    # All sources form one translation unit, because pybind11's templates take most of the time.
    source, *others = sorted(bindings.glob("python/*.cpp"))
    includes = _folders(bindings, kernels)
    for other in others:
        own += ["-include", f"python/{other.name}"]
        texts += _included(other, includes)
    jobs = [(source, own, texts)]
    jobs += [(x, [], []) for folder in folders for x in sorted(bindings.glob(f"{folder}/*.cpp"))]
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    libraries = [core] if core else []
    return _import(_link(name, suffix, includes, flags, jobs, *libraries), name)


def build_operators(bindings: Path, kernels: Path, wheel: Path, core: Path) -> Path:
    """Compile the operators for MXNet, with the implementation for GPUs in place of the CPU's.

    ``wheel`` is the folder of the MXNet that loads the library, and ``core`` is libcvops.so.
    """
    abi = [wheel / "include" / "mxnet" / "lib_api.h", wheel / "src" / "lib_api.cc"]
    own = [f"-isystem{wheel}", f"-isystem{wheel / 'include'}", "-fvisibility=default"]
    texts = [path.read_text("utf-8") for path in abi]
    jobs = [(source, own, texts) for source in sorted(bindings.glob("mxnet/*.cpp"))]
    folders = _folders(bindings, kernels)
    return _link("operators_emulated", ".so", folders, ["-DCVOPS_EMULATED"], jobs, core)


def compile_operators(bindings: Path, kernels: Path, flags: Sequence[str]) -> list[Path]:
    """Return the object files of the operators without any framework."""
    return _compile(
        _folders(bindings, kernels),
        flags,
        [(source, [], []) for source in sorted(bindings.glob("operators/*.cpp"))],
    )


def _folders(bindings: Path, kernels: Path) -> list[Path]:
    return [x.resolve() for x in (bindings, bindings / "operators", bindings / "runtime", kernels)]


def _link(
    name: str,
    suffix: str,
    folders: list[Path],
    flags: Sequence[str],
    jobs: list[tuple[Path, list[str], list[str]]],
    *libraries: Path,
) -> Path:
    """Return a shared library of sources."""
    objects = _compile(folders, flags, jobs)
    sanitizers = [flag for flag in flags if flag.startswith("-fsanitize=")]  # add their libraries
    return cached(
        name,
        suffix,
        [*(path.name for path in objects), *sanitizers],
        lambda made: run_compiler(
            *("-shared", "-pthread", *sanitizers, *objects, *libraries, "-ldl", "-o", made)
        ),
    )


def _compile(
    folders: list[Path], flags: Sequence[str], jobs: list[tuple[Path, list[str], list[str]]]
) -> list[Path]:
    """Return the object files of sources, each with its flags and the texts that it depends on.

    A source is compiled again if its text changes, or the text of a header that it includes.
    """
    flags = [*FLAGS, "-O2", *flags, *(f"-I{folder}" for folder in folders)]
    return compile_objects(
        functools.partial(
            compile_object, source, [*flags, *own], [*texts, *_included(source, folders)]
        )
        for source, own, texts in jobs
    )


def _included(source: Path, folders: list[Path]) -> list[str]:
    """Return the texts of a file and of the headers in ``folders`` that it includes."""
    texts: dict[Path, str] = {}
    todo = [source]
    while todo:
        path = todo.pop()
        texts[path] = path.read_text("utf-8")
        for name in _INCLUDE.findall(texts[path]):
            candidates = [(folder / name).resolve() for folder in (path.parent, *folders)]
            todo += [c for c in candidates if c.is_file() and c not in texts][:1]
    return [texts[path] for path in sorted(texts)]


def _import(library: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
