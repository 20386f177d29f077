"""gpu_check.sh with stand-ins for the compiler, the profilers, pytest and the GPU."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.sh"
#: Stand-in for Python. Steps have no effect but their results; other programs run.
PYTHON = r"""#!/usr/bin/env bash
echo "$*" >>"$CALLS"
case "$*" in
  *find_spec*) exit 0 ;;
  *kernel_times.py\ --json*) echo '{}' >"${*: -1}" ;;
  *kernel_times.py*) ;;
  *dependent_launches.py*) echo 'table of launches' ;;
  *plots.py*) ;;
  *"import cvops"*) ;;
  "-m pytest"*)
    while (($#)); do
      case $1 in
        *bench_*.py) op=$(basename "$1" .py); op=${op#bench_} ;;
        --table) table=$2 ;;
        --benchmark-json) results=$2 ;;
        --junit-xml) junit=$2 ;;
      esac
      shift
    done
    echo "${op-} begins" >>"$CALLS"
    if [[ ${op-} == hanging ]]; then sleep 60; fi
    if [[ ${op-} == failing ]]; then exit 1; fi
    if [[ ${op-} == once && ! -e $CALLS.once ]]; then touch "$CALLS.once"; exit 1; fi
    if [[ -n ${table-} ]]; then
      echo "table of $op" >"$table"
      echo '{"benchmarks": ["'$op'"], "summary": [], "gpu": [], "tables": {}}' >"$results"
    fi
    if [[ -n ${junit-} ]]; then
      echo '<t><testcase name="a[cuda-cupy]"/><testcase name="b[cuda-native]"/></t>' >"$junit"
    fi
    echo '1 passed'
    exit ${TESTS_CODE:-0}
    ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""
COMMANDS = {
    "python": PYTHON,
    "nvidia-smi": "#!/bin/sh\necho 'NVIDIA H200, 9.0'\n",
    "cmake": "#!/bin/sh\nexit ${BUILD_CODE:-0}\n",
    "nvcc": "#!/bin/sh\n",
    "ncu": "#!/bin/sh\necho 'Section: A'\n",
    "compute-sanitizer": "#!/bin/sh\necho '1 passed'\necho 'ERROR SUMMARY: 0 errors'\n",
}
STEPS = ("ops", "launches", "benchmarks of all ops", "kernels", "tests", "memcheck", "ncu", "plots")


@pytest.fixture
def check(tmp_path):
    """check(*ops, **variables): run the script; returns its code, its summary and its folder."""

    def run(*ops, **variables):
        for name in ("benchmarks", "tests/ops", "kernels", "cvops", "bin", "out"):
            (tmp_path / name).mkdir(parents=True)
        shutil.copy(SCRIPT, tmp_path / "benchmarks")
        for op in ops:
            (tmp_path / "benchmarks" / f"bench_{op}.py").touch()
        (tmp_path / "tests" / "ops" / "test_a.py").touch()
        (tmp_path / "kernels" / "a.cuh").touch()
        for name, text in COMMANDS.items():
            file = tmp_path / "bin" / name
            file.write_text(text, "utf-8")
            file.chmod(0o755)
        environment = dict(
            os.environ,
            PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            PYTHON="python",
            REAL_PYTHON=sys.executable,
            OUT=str(tmp_path / "out"),
            CALLS=str(tmp_path / "calls"),
            **variables,
        )
        command = ["bash", tmp_path / "benchmarks" / "gpu_check.sh"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        [summary] = (tmp_path / "out").glob("*-summary.txt")
        return done.returncode, summary.read_text("utf-8"), tmp_path / "out"

    return run


def result(out, suffix):
    [file] = out.glob(f"*nvidia-h200{suffix}")
    return file


def begin_of(step, summary):
    """Return the position of the line of a step."""
    return re.search(rf"^(?:ok     |FAILED )?{step}: ", summary, re.MULTILINE).start()


def test_steps_run_in_order_and_results_of_all_ops_are_joined(check):
    code, summary, out = check("a", "box_nms", "b", "c", "d", "overhead", "z")
    assert code == 0, summary
    assert "FAILED" not in summary
    begins = [begin_of(step, summary) for step in STEPS]
    assert begins == sorted(begins)
    assert summary.count("tests on cuda-native: 1 passed") == 2
    # The most important op comes first, and the overhead of calls last.
    ordered = ["box_nms", "a", "b", "c", "d", "z", "overhead"]
    tables = [f"table of {op}" for op in ordered]
    assert result(out, ".md").read_text("utf-8").splitlines() == tables
    ops = json.loads(result(out, ".json").read_text("utf-8"))["benchmarks"]
    assert ops == ordered
    assert result(out, "-launches.txt").read_text("utf-8") == "table of launches\n"
    with tarfile.open(result(out, "-logs.tar.gz")) as logs:
        assert {"./ops.log", "./tests.xml", "./benchmarks-a.log"} <= set(logs.getnames())


@pytest.mark.parametrize(
    "variables",
    [{"TESTS_CODE": "1"}, pytest.param({"BUILD_CODE": "1"}, marks=pytest.mark.slow)],
    ids=str,
)
def test_failure_of_a_step_does_not_stop_the_later_steps(check, variables):
    code, summary, out = check("failing", "once", "a", **variables)
    assert code == 1
    begins = [begin_of(step, summary) for step in STEPS]
    assert begins == sorted(begins)
    assert "FAILED benchmarks of failing: nothing was timed" in summary
    ops = json.loads(result(out, ".json").read_text("utf-8"))["benchmarks"]
    assert sorted(ops) == ["a", "once"]


def test_step_that_hangs_ends_at_its_limit(check):
    code, summary, out = check("a", "hanging", BUDGET="8", ONLY="benchmarks,plots")
    assert code == 1
    assert re.search(r"FAILED benchmarks of hanging: stopped after \d s", summary)
    assert "FAILED plots: no time left" in summary
    assert json.loads(result(out, ".json").read_text("utf-8"))["benchmarks"] == ["a"]
