"""The tools of the benchmarks with the real CuPy, in a process with emulated GPUs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cvops import _imports

SCRIPT = """
import json, sys
sys.path[:0] = sys.argv[1:]
from emulator import clock
clock.install()
import dependent_launches, kernel_times, plots
from emulator import driver
from bench_box_nms import clustered
from tools.implementations import IMPLEMENTATIONS
from tools.report import Row, Rows

jobs = ("box_iou", 20, 30), ("box_nms", 1, 330, 2, clustered), ("box_iou", "no number", 1)
kernel_times.JOBS = jobs
kernel_times.ROUNDS = 2
kernel_times.slowest = lambda lines: [line for line in lines if line["kernel"] == "nms_chunk"]
plots.PANELS = (plots.Panel("box_iou", "rows", "", {n: (n, 20) for n in (10, 20)}),)
plots.SECONDS = 0.01

rows = []
for arguments in kernel_times.JOBS[:2]:
    job = kernel_times.find_job(*arguments)
    for name in ("cupy-gpu", "cupy-graph"):
        implementation = IMPLEMENTATIONS[name]
        call, once = implementation.first_call(job)
        gpu = implementation.gpu_times(call, 0.01)
        rows.append(Row(job.op, job.size, implementation, once, job.work, job.moved, None, gpu))
dependent_launches.TURNS = dependent_launches.CALLS = 1
nms = kernel_times.find_job(*jobs[1])
compared = dependent_launches.measure(nms)
compared["dependent"] = []
for wanted in (False, True):
    with dependent_launches.launches(wanted):
        driver.calls.clear()
        kernel_times.prepare_call(nms)
    compared["dependent"].append(sum(x.dependent for x in driver.calls))
*_, results = kernel_times.measure_jobs()
kernel_times.profile(results)
print(json.dumps(dict(
    compared=compared,
    gpu=Rows(rows).gpu(), kernels=results["kernels"], profiled=clock.profiled, jobs=results["jobs"],
    series=plots.measure_group([IMPLEMENTATIONS[x] for x in ("cupy-gpu", "cupy-graph")])["series"],
)))
"""


@pytest.fixture(scope="module")
def results():
    """The results that SCRIPT prints."""
    pytest.importorskip("cupy")
    try:
        _imports.load_nvrtc().getVersion()
    except RuntimeError:
        pytest.skip("needs NVRTC")
    root = Path(__file__).parents[2]
    folders = [str(root / x) for x in ("tests", "benchmarks", "")]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *folders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_calls_and_graphs_are_timed(results):
    assert len(results["gpu"]) == 4
    for line in results["gpu"]:
        assert min(line["warm"], line["cold"], line["host"]) > 0


def test_memory_excludes_inputs_and_results(results):
    iou, _, nms, _ = (line["memory"] for line in results["gpu"])
    # The pool allocates multiples of 512 bytes, and the buffers for 330 boxes are small.
    assert iou == 0
    assert 512 <= nms <= 256 * 512
    assert nms % 512 == 0


def test_kernels_of_jobs_that_run_are_timed(results):
    assert [job.get("error") is None for job in results["jobs"]] == [True, True, False]
    names = [line["kernel"] for line in results["kernels"]]
    assert names[0] == "box_iou"
    assert "nms_chunk" in names


def test_ordinary_and_dependent_launches_are_compared(results):
    compared = results["compared"]
    assert compared["dependent"] == [0, compared["launches"] - 1] != [0, 0]
    assert all(time > 0 for way in ("stream", "graph") for time in compared[way])


def test_profiler_runs_during_one_launch(results):
    assert results["profiled"] == ["start", "stop"]


def test_plots_have_a_point_for_each_size(results):
    (series,) = results["series"]
    assert [x["sizes"] for x in series.values()] == [[10, 20]] * 2
