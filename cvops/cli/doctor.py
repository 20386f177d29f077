"""``cvops doctor``: a report of installed and missing packages, and commands to install them."""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
import warnings
from importlib import metadata
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops import __version__
from cvops._imports import load_nvrtc, pip_command
from cvops._mxnet import build, cuda11
from cvops.backends import adapter, extension
from cvops.cli import gpus


class Finding(NamedTuple):
    """Result of a check."""

    #: "ok"; "missing": not installed, its users do not work; "broken": installed, but does not
    #: work; "note".
    status: str
    text: str
    #: A command or advice.
    hint: str = ""


def run(as_json: bool = False) -> int:
    """Print the finding of each check; return 0 if the ops work on the CPU, or else 1.

    Args:
        as_json: print one JSON object: for each check its status, text and hint.
    """
    findings = {}
    for check in CHECKS:
        finding = findings[check.__name__.lstrip("_")] = examine(check)
        if not as_json:
            _print(f"{finding.status:9}", finding.text)
            if finding.hint:
                _print(" " * 9 + "-> ", finding.hint)
    if as_json:
        print(json.dumps({name: x._asdict() for name, x in findings.items()}, indent=2))
    return 0 if examine(_arrays).status == "ok" else 1


def _run(options: argparse.Namespace) -> int:
    return run(options.json)


def add(commands: Any) -> None:
    """Add the command."""
    doctor = commands.add_parser(
        "doctor", help="list installed and missing packages, and the commands that install them"
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=_run)


def _print(first: str, text: str) -> None:
    """Print ``text`` after ``first``, with its lines aligned."""
    print(first + textwrap.indent(text, " " * len(first))[len(first) :])


def examine(check: Callable[[], Finding]) -> Finding:
    """Return the finding of ``check``, or its exception as a finding."""
    try:
        return check()
    except Exception as error:
        subject = check.__name__.strip("_").replace("_", " ")
        return Finding("broken", f"{subject}: {type(error).__name__}: {error}")


def _python() -> Finding:
    text = f"Python {platform.python_version()}, {platform.system()} on {platform.machine()}"
    if text.endswith("Linux on x86_64"):
        return Finding("ok", text)
    return Finding("ok", text, "cvops is tested with MXNet 1.9.1 on Linux on x86_64 only")


def _numpy() -> Finding:
    return Finding("ok", f"NumPy {np.__version__}")


def _extension() -> Finding:
    native = extension.native()
    if native is None:
        return Finding(
            "missing",
            f"cvops {__version__}, without its compiled extension cvops._native: the CPU has the "
            "slow implementation in NumPy only",
            "with a C++ compiler: pip install . in a checkout of cvops",
        )
    cpu = f"CPU threads: {native.num_threads()}, vectors: {native.simd()}"
    text = f"cvops {__version__} with its compiled extension, {cpu}, "
    if extension.machine_code():
        return Finding("ok", f"{text}built with CUDA")
    return Finding(
        "ok",
        f"{text}built without CUDA",
        "for arrays on a GPU, install CuPy, or build cvops with nvcc: CVOPS_CUDA=ON pip install .",
    )


def _arrays() -> Finding:
    from cvops import box_iou

    # Two boxes of area 4 with an intersection of area 1.
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3]], np.float32)
    iou = box_iou(boxes[:1], boxes[1:])
    if not np.array_equal(iou, np.array([[1]], np.float32) / np.float32(7)):
        return Finding("broken", f"ops on NumPy arrays: box_iou: expected [[1/7]], got {iou}")
    return Finding("ok", "ops on NumPy arrays: box_iou is right")


def _compiler() -> Finding:
    command = adapter.compiler()
    if shutil.which(command[0]) is None:
        return Finding(
            "missing",
            f"C++ compiler: no {command[0]!r}; cvops.mxnet builds its operators for MXNet with it",
            "apt-get install g++, or set the environment variable CXX to another compiler",
        )
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
    return Finding("ok", f"C++ compiler: {said.stdout.splitlines()[0]}")


def _mxnet() -> Finding:
    found = _distributions("mxnet")
    if not found:
        return Finding(
            "missing",
            "MXNet: not installed; only MXNet's arrays and the models need it",
            pip_command("mxnet"),
        )
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    if len(found) > 1:
        return Finding(
            "broken",
            f"MXNet: {text} have the same package, and hide or overwrite each other's files",
            f"pip uninstall {' '.join(found)}; then install one of them",
        )
    done = _run_python(_IMPORT)
    if done.returncode == 0:
        gpus = int(done.stdout.split()[-1])
        return Finding("ok", f"MXNet: {text}, imports" + (f", sees {gpus} GPUs" if gpus else ""))
    if done.returncode < 0:
        return Finding("broken", f"MXNet: {text}; signal {-done.returncode} ends its import")
    absent = re.search(r"(\S+): cannot open shared object file", done.stderr)
    debian = _DEBIAN.get(absent[1]) if absent else None
    hint = f"apt-get install {debian}" if debian else ""
    return Finding("broken", f"MXNet: {text} does not import: {done.stderr.strip()}", hint)


def _run_python(*code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code with arguments in a separate process, which a library may crash."""
    return subprocess.run(
        [sys.executable, "-c", *code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=600,
    )


_IMPORT = """
import sys
from cvops._mxnet import mxnet
try:
    print(mxnet().context.num_gpus())
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
#: Debian's packages of the system libraries that MXNet's wheels need.
_DEBIAN = {
    "libgomp.so.1": "libgomp1",
    "libquadmath.so.0": "libquadmath0",
    "libstdc++.so.6": "libstdc++6",
}


def _operators() -> Finding:
    if cuda11.libmxnet() is None:
        return Finding("missing", "MXNet's operators (cvops.mxnet): need MXNet, see above")
    try:
        path = build.recipe().entry().find()
    except OSError as error:
        return Finding("broken", f"MXNet's operators (cvops.mxnet): {error.strerror}")
    except ImportError as error:
        return Finding(
            "broken",
            f"MXNet's operators (cvops.mxnet): {error}",
            'pip install --force-reinstall --no-deps "mxnet==1.9.1"',
        )
    return _built("MXNet", "cvops.mxnet", path)


def _built(framework: str, module: str, path: object) -> Finding:
    """Return the finding for the operators of a framework, from the path of their library."""
    subject = f"{framework}'s operators ({module})"
    if path:
        return Finding("ok", f"{subject}: built, {path}")
    compiler = _compiler()
    return Finding(
        "note" if compiler.status == "ok" else "missing",
        f"{subject}: not built yet; `import {module}` builds them, once",
        compiler.hint,
    )


def _exported() -> Finding:
    return Finding(
        "note",
        "a model that was exported with our operators needs `import cvops.mxnet` before loading.\n"
        'Or else MXNet raises "Operator _contrib_cvops_box_nms is not registered", for example',
        "`cvops convert-symbol` translates its JSON to MXNet's operators, and back",
    )


def _cupy() -> Finding:
    if importlib.util.find_spec("cupy") is None:
        return Finding(
            "missing",
            "CuPy: not installed; it compiles and launches the kernels for arrays on a GPU",
            'with an NVIDIA GPU: pip install "cvops[cuda12]", or "cvops[cuda13]" for a CUDA 13 '
            "driver",
        )
    found = _distributions("cupy")
    cupy = _import_cupy()
    generation = cupy.cuda.runtime.runtimeGetVersion() // 1000
    name = " and ".join(found) or "CuPy"
    text = f"{name} {cupy.__version__}, for CUDA {generation}"
    if len(found) > 1:
        return Finding("broken", text, f"pip uninstall {' '.join(found)}; then install one of them")
    driver = gpus.driver_version()
    if 0 < driver // 1000 < generation:
        return Finding(
            "broken",
            f"{text}; the driver is for CUDA {gpus.dotted(driver)} at most",
            f'pip uninstall {name}; pip install "cvops[cuda{driver // 1000}]", or a newer driver',
        )
    return Finding("ok", text)


def _nvrtc() -> Finding:
    if importlib.util.find_spec("cupy") is None:
        return Finding("missing", "NVRTC: needs CuPy, see above")
    cupy = _import_cupy()
    generation = cupy.cuda.runtime.runtimeGetVersion() // 1000
    try:
        major, minor = load_nvrtc().getVersion()
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        return Finding(
            "missing",
            f"NVRTC, which compiles the kernels for CuPy: {reason}",
            f'pip install "cvops[cuda{generation}]"',
        )
    return Finding("ok", f"NVRTC {major}.{minor}")


def _torch() -> Finding:
    version = _version("torch")
    if version is None:
        return Finding("note", "PyTorch: not installed; only PyTorch's arrays need it")
    return Finding("ok", f"PyTorch {version}")


def _torch_operators() -> Finding:
    return _adapter("torch", "PyTorch", "cvops.torch", "cvops.backends.torch_adapter")


def _jax() -> Finding:
    version = _version("jax")
    if version is None:
        return Finding("note", "JAX: not installed; only JAX's arrays need it")
    return Finding("ok", f"JAX {version}")


def _jax_operators() -> Finding:
    return _adapter("jax", "JAX", "cvops.jax", "cvops.jax.build")


def _adapter(package: str, framework: str, module: str, recipes: str) -> Finding:
    """Return the finding for an adapter, from the module that has its ``recipe``."""
    subject = f"{framework}'s operators ({module})"
    if _version(package) is None:
        return Finding("note", f"{subject}: need {framework}, see above")
    done = _run_python(_FIND, recipes)
    if done.returncode < 0:
        return Finding("broken", f"{subject}: signal {-done.returncode} ends {framework}'s import")
    if done.returncode:
        return Finding("broken", f"{subject}: {done.stderr.strip()}")
    return _built(framework, module, done.stdout.rpartition("path: ")[2].strip())


_FIND = """
import importlib, sys
try:
    path = importlib.import_module(sys.argv[1]).recipe().entry().find()
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
print("path:", path or "")
"""


def _driver() -> Finding:
    try:
        ctypes.CDLL(cuda11.DRIVER)
    except OSError as error:
        return Finding(
            "missing",
            f"NVIDIA driver: {error}",
            "arrays on a GPU and the wheel mxnet-cu112 need it: https://nvidia.com/drivers;\n"
            "in a container: docker run --gpus all",
        )
    version = gpus.driver_version()
    if not version:
        return Finding(
            "broken", "NVIDIA driver: does not return its version", "run nvidia-smi for details"
        )
    return Finding("ok", f"NVIDIA driver: for CUDA {gpus.dotted(version)} and older")


def _gpus() -> Finding:
    devices = gpus.devices()
    if not devices:
        return Finding("missing", "GPU: none")
    text = [f"GPU {i}: {d.name}, {gpus.dotted_capability(d)}" for i, d in enumerate(devices)]
    return Finding("ok", "\n".join(text))


def _mxnets_kernels() -> Finding:
    ours = "Ours can, through CuPy or PyTorch arrays"
    text = "MXNet's own GPU kernels (sm_50 to sm_86, no PTX) cannot load on Hopper (9.0) or newer"
    beyond = [d for d in gpus.devices() if d.capability >= (9, 0)]
    if not beyond:
        return Finding("note", f"{text}.\n{ours}.")
    names = ", ".join(f"{d.name} ({gpus.dotted_capability(d)})" for d in beyond)
    return Finding("note", f"{text}: not on {names}.\n{ours}.", "keep MXNet's arrays on mx.cpu()")


#: All checks, in the order of the report.
CHECKS: list[Callable[[], Finding]] = [
    _python,
    _numpy,
    _extension,
    _arrays,
    _compiler,
    _mxnet,
    _operators,
    _exported,
    _cupy,
    _nvrtc,
    _torch,
    _torch_operators,
    _jax,
    _jax_operators,
    _driver,
    _gpus,
    _mxnets_kernels,
]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _distributions(root: str) -> dict[str, str]:
    """Return names and versions of the installed variants of a package: mxnet, mxnet-cu112."""
    pattern = re.compile(rf"{root}(-cu(da)?\d+x?)?", re.IGNORECASE)
    named = [(d.metadata["Name"] or "", d.version) for d in metadata.distributions()]
    return {name: version for name, version in named if pattern.fullmatch(name)}


def _import_cupy() -> Any:
    with warnings.catch_warnings():  # about several CuPy packages: ``_cupy`` reports them
        warnings.simplefilter("ignore")
        import cupy
    return cupy
