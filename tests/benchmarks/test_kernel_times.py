"""Times of the launches of a job, with a simulated GPU."""

import json
import sys
from types import SimpleNamespace

import kernel_times
import numpy as np
import pytest

from cvops.arrays import Device
from cvops.backends import cuda, extension


@pytest.fixture
def log():
    """The launches and the calls of the profiler, in order."""
    return []


@pytest.fixture
def call(machine, log):
    """A call with three launches of 7, 40 and 5 us."""
    native = extension.native()
    if native is None:
        pytest.skip("needs the compiled extension cvops._native")
    seconds = [7e-6, 40e-6, 5e-6]

    def launch(kernel, *details):
        machine.queue(3e-6, seconds[len(log) % 3])
        log.append(kernel)

    device = native.CallbackDevice(launch, 132, 227 << 10)
    library = SimpleNamespace(stream=lambda device: 0)
    boxes, iou = (native.Buffer(4096, shape, np.dtype("f4")) for shape in ((5, 4), (5, 5)))
    colors = native.Buffer(4096, (5, 3), np.dtype("u1"))
    index = native.Buffer(4096, (5,), np.dtype("i4"))
    machine.stream.synchronize = machine.synchronize

    def call():
        ops = cuda.Call(library, Device("cuda", 0), device, 0).ops
        ops.box_iou(iou, boxes, boxes, False)
        ops.label_from_color(index, colors, colors, 0)
        ops.box_iou(iou, boxes, boxes, False)

    return call


def test_each_launch_is_timed(call):
    before = cuda.Call
    launches = kernel_times.time_launches(call)
    names = ["box_iou", "label_from_color", "box_iou"]
    assert [(x.kernel, x.number) for x in launches] == list(zip(names, range(3)))
    assert [x.seconds for x in launches] == pytest.approx([7e-6, 40e-6, 5e-6])
    assert cuda.Call is before


def test_launches_of_a_kernel_are_added(call):
    iou, label = kernel_times.group_by_kernel(3, kernel_times.time_launches(call))
    assert (iou["job"], iou["kernel"], iou["launches"]) == (3, "box_iou", 2)
    assert (iou["seconds"], iou["longest_seconds"]) == pytest.approx((12e-6, 7e-6))
    assert (iou["longest"], label["longest"]) == (0, 1)


def test_slowest_kernels_are_listed_once_with_their_slowest_job():
    lines = [
        dict(kernel=kernel, job=job, seconds=seconds)
        for kernel, job, seconds in [("a", 0, 3), ("a", 1, 9), ("b", 0, 5), ("c", 0, 1)]
    ]
    slowest = [(x["kernel"], x["job"]) for x in kernel_times.slowest(lines, 2)]
    assert slowest == [("a", 1), ("b", 0)]


def test_only_the_slowest_launches_are_profiled(call, machine, log, monkeypatch):
    runtime = machine.cupy.cuda.runtime
    runtime.profilerStart = lambda: log.append("start")
    runtime.profilerStop = lambda: log.append("stop")
    monkeypatch.setattr(kernel_times, "prepare_call", lambda job: call)
    kernel_times.profile(dict(slowest=[dict(job=0, kernel="label_from_color", longest=1)]))
    assert log == ["box_iou", "start", "label_from_color", "stop", "box_iou"]


def test_results_before_an_interrupt_are_kept(call, monkeypatch, tmp_path, capsys):
    file = tmp_path / "kernels.json"

    def prepare_call(job):
        if job.size == "second":
            assert json.loads(file.read_text())["jobs"] == [dict(op="nms", size="first")]
            raise KeyboardInterrupt
        return call

    monkeypatch.setattr(kernel_times, "JOBS", [("nms", "first"), ("nms", "second")])
    monkeypatch.setattr(kernel_times, "find_job", lambda op, size: SimpleNamespace(size=size))
    monkeypatch.setattr(kernel_times, "prepare_call", prepare_call)
    monkeypatch.setattr(sys, "argv", ["kernel_times.py", "--json", str(file)])
    with pytest.raises(KeyboardInterrupt):
        kernel_times.main()
    slowest = json.loads(file.read_text())["slowest"]
    assert [line["kernel"] for line in slowest] == ["label_from_color", "box_iou"]
    assert [row.split()[1:6:2] for row in capsys.readouterr().out.splitlines()[2:]] == [
        ["nms", "first", "box_iou"],
        ["nms", "first", "label_from_color"],
    ]


def test_job_that_cannot_run_makes_the_exit_code_1(call, monkeypatch, tmp_path):
    def find_job(op):
        if op == "nms":
            raise MemoryError("too much")
        return SimpleNamespace(size="5")

    monkeypatch.setattr(kernel_times, "JOBS", [("nms",), ("iou",)])
    monkeypatch.setattr(kernel_times, "find_job", find_job)
    monkeypatch.setattr(kernel_times, "prepare_call", lambda job: call)
    with pytest.raises(SystemExit, match="1"):
        kernel_times.measure(tmp_path / "kernels.json")
    assert json.loads((tmp_path / "kernels.json").read_text())["jobs"] == [
        dict(op="nms", size="", error="MemoryError: too much"),
        dict(op="iou", size="5"),
    ]


def test_table_has_the_percent_of_the_op():
    line = dict(job=0, kernel="nms_chunk", launches=10, seconds=3e-4)
    results = dict(
        jobs=[dict(op="box_nms", size="5"), dict(op="box_iou", size="6", error="no memory")],
        kernels=[line, dict(line, kernel="sort", seconds=1e-4)],
    )
    rows = [[x.strip() for x in row.strip("|").split("|")] for row in kernel_times.table(results)]
    assert rows[2] == ["box_nms", "5", "nms_chunk", "10", "300 us", "75 %"]
    assert rows[4][2] == "FAILED: no memory"
