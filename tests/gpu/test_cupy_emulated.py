"""The tests for GPUs with the real CuPy, in child processes with two emulated GPUs.

``CVOPS_EMULATED_GPUS=1 pytest tests/gpu/test_graph.py`` runs one file so. ``emulator/driver`` has
the emulated functions.
"""

import importlib.util
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cases import OPS

from cvops import _imports

TESTS = Path(__file__).parents[1]
#: The slowest tests; "cpu-emulated" makes the same launches.
LONG = "adversarial or many_boxes or (several_chunks and not extreme)"
ARRAY_TESTS = [
    *("gpu/test_cupy", "gpu/test_graph", "gpu/test_gpu_launch", "gpu/test_dependent_launches")
]
OP_TESTS = [*(f"ops/test_{op}" for op in OPS), "ops/test_mining"]
#: "cpu-emulated" compares the same C++ with the reference implementations.
NEW = f"not reference and not ({LONG})"
#: name -> files, the expression that selects their tests, n for each n-th of these, and the least
#: number that must pass.
RUNS = {
    "a sixth of the arrays' tests": (ARRAY_TESTS, "", 6, 13),
    "a twelfth of the ops' tests": (OP_TESTS, f"(cuda-cupy or cuda-native) and {NEW}", 12, 25),
    "arrays": (ARRAY_TESTS, "", 1, 80),
    "ops by CuPy": (OP_TESTS, f"cuda-cupy and {NEW}", 1, 150),
    "ops by C++": (OP_TESTS, f"cuda-native and {NEW}", 1, 150),
}


@pytest.fixture(scope="module", autouse=True)
def requirements():
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("the emulated driver is for Linux on x86-64")
    if importlib.util.find_spec("cupy_backends") is None:
        pytest.skip("needs CuPy: pip install cvops[cuda12] or cvops[cuda13]")
    try:
        _imports.load_nvrtc().getVersion()
    except RuntimeError as error:
        pytest.skip(f"needs NVRTC: {error}")


@pytest.mark.parametrize(
    "run", [pytest.param(x, marks=pytest.mark.slow if not x.startswith("a ") else ()) for x in RUNS]
)
def test_run_on_emulated_gpus_passes(run):
    files, expression, part, least = RUNS[run]
    command = ["pytest", "-q", "-rs", "-p", "no:cacheprovider", "-k", expression]
    done = subprocess.run(
        [sys.executable, "-m", *command, *(TESTS / f"{file}.py" for file in files)],
        env={**os.environ, "CVOPS_EMULATED_GPUS": "1", "CVOPS_TESTS_EACH": str(part)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= least, done.stdout
    assert "NVIDIA" not in done.stdout  # a test that needs a GPU was not skipped
