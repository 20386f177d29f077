"""The C++ extension of bindings/, its CUDA half included, built upon the emulator."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from .build import (
    FLAGS,
    HERE,
    cached,
    compile_object,
    compile_objects,
    emulator_objects,
    run_compiler,
)

NAME = "_native_emulated"
_INCLUDE = re.compile(r'^\s*#\s*include\s+"(.+)"', re.MULTILINE)


def build_extension(
    bindings_dir: Path | str,
    kernels_dir: Path | str,
    name: str = NAME,
    driver: bool = False,
    launch: Path | None = None,
    macros: Sequence[str] = (),
) -> ModuleType:
    """Compile ``bindings_dir`` with CVOPS_CUDA against the emulator, and import it.

    It has a device of its own, or with ``driver`` those of the emulated driver. With ``launch``, a
    source that defines ``emulator::launch``, it is compiled for speed, and launches do what that
    does; all else of CUDA is then to be found in the process.

    ``macros`` are defined in all sources.

    pybind11 knows a module by its ``name``: of one name, a process gets the first one only.
    The environment variables CVOPS_EMULATOR_SEED and CVOPS_EMULATOR_THREADS are read
    at each launch.
    """
    import pybind11

    folders = [Path(bindings_dir).resolve(), Path(kernels_dir).resolve()]
    python = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    flags = [
        f"-DCVOPS_MODULE_NAME={name}",
        *(f"-isystem{folder}" for folder in (pybind11.get_include(), *sorted(python))),
    ]
    texts = [pybind11.__version__, sys.version]
    # All in one unit: most of the time goes into pybind11's templates.
    source, *others = sorted(folders[0].glob("python/*.cpp"))
    for other in others:
        flags += ["-include", f"python/{other.name}"]
        texts += _included(other, folders)
    library = _link(
        name,
        sysconfig.get_config_var("EXT_SUFFIX"),
        folders,
        [(f"python/{source.name}", flags, texts)],
        ["runtime"] if driver else ["runtime", "device"],
        launch,
        macros,
    )
    return _import(library, name)


def build_operators(bindings_dir: Path | str, kernels_dir: Path | str, wheel: Path) -> Path:
    """The operators for MXNet (``mxnet/*.cpp``), their GPU half in the place of that for the CPU.

    ``wheel`` is the folder of the MXNet that is to load the library.
    """
    border = [wheel / "include" / "mxnet" / "lib_api.h", wheel / "src" / "lib_api.cc"]
    flags = [f"-isystem{wheel}", f"-isystem{wheel / 'include'}", "-fvisibility=default"]
    return _link(
        "operators_emulated",
        ".so",
        [Path(bindings_dir).resolve(), Path(kernels_dir).resolve()],
        [("mxnet/*.cpp", flags, [path.read_text("utf-8") for path in border])],
        ["runtime", "device"],
    )


def _link(
    name: str,
    suffix: str,
    folders: list[Path],
    more: list[tuple[str, list[str], list[str]]],
    runtime: list[str],
    launch: Path | None = None,
    macros: Sequence[str] = (),
) -> Path:
    """The ops with ``more``: sources, their flags, and what beside their text they depend on.

    ``runtime`` names the emulator's sources of CUDA's functions; ``launch`` is in their place.

    As in CMakeLists.txt, ``*.cpp`` is plain C++, and in ``*.cu`` alone kernels are compiled. A file
    is compiled again only when its text changes, or one it includes.
    """
    flags = [*FLAGS, *(f"-D{macro}" for macro in ("CVOPS_CUDA", "CVOPS_EMULATED", *macros))]
    # A GPU stops at a float4 that is not aligned; a CPU would not.
    checks = ["-O1", "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
    flags += ["-O2"] if launch else checks
    flags += [f"-I{folder}" for folder in (HERE / "include", *folders)]
    cuda = ["-include", "cuda_emulator.h", "-x", "c++"]
    jobs = [
        functools.partial(
            compile_object, source, [*flags, *own], [*texts, *_included(source, folders)]
        )
        for pattern, own, texts in (*more, ("*.cpp", [], []), ("*.cu", cuda, []))
        for source in sorted(folders[0].glob(pattern))
    ]
    objects = compile_objects(jobs)
    objects += emulator_objects(["block", "grid", "shared_memory"])
    objects += [compile_object(launch, flags)] if launch else emulator_objects(runtime)
    return cached(
        name,
        suffix,
        [path.name for path in objects],
        lambda made: run_compiler("-shared", "-pthread", *objects, "-o", made),
    )


def _included(source: Path, folders: list[Path]) -> list[str]:
    """The texts that a file includes, directly or not, as far as they lie in ``folders``."""
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
