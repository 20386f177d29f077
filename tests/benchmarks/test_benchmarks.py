"""The arithmetic of the benchmarks' reports, and the peers that they set up themselves."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark")

import bench_box_nms
import bench_multibox_detection
import bench_multibox_target
import bench_roi_pooling
import callgrind
import kernel_times
import plots
from peers import onnx_ops
from tools import gpu_times, limits, predictions
from tools.cvops_backends import Replay
from tools.gpu_times import GpuTimes
from tools.implementations import IMPLEMENTATIONS
from tools.jobs import InnerLoop, Job, check_scores, count_kept_pairs, to_numpy
from tools.layers import Steps
from tools.report import (
    Row,
    Rows,
    gpu_summary_table,
    gpu_table,
    percent_of_bound,
    summary_table,
)
from tools.small_calls import CASES
from tools.text import aligned, digits, scaled

from cvops import _imports
from cvops.arrays import Device
from cvops.backends import cuda, extension

#: Few anchors.
MAPS = ((8, (0.2, 0.4)), (4, (0.5, 0.7)))


def row(contender, median, size="N", **about):
    options = dict(work=(1, "boxes"), moved=1, **about)
    return Row("nms", size, IMPLEMENTATIONS[contender], median, **options)


class TestSummary:
    def test_the_best_peer_and_ours(self):
        rows = [
            row("mxnet", 8.0),
            row("torchvision", 3.0),
            row("onnxruntime", 4.0),
            row("numpy", 30.0),
            row("native", 0.5),
            row("native-one-thread", 1.5),
        ]
        assert Rows(rows).summary() == [
            {
                **{"op": "nms", "size": "N", "peer": "torchvision", "peer_s": 3.0},
                **{"ours_s": 0.5, "ours_ratio": 6.0, "one_thread_s": 1.5, "one_thread_ratio": 2.0},
            }
        ]

    def test_each_size_and_device_has_its_own_peers(self):
        rows = [
            row("mxnet", 8.0),
            row("torchvision", 4.0),
            row("native", 1.0),
            row("torchvision-gpu", 0.5),
            row("native-gpu", 0.25),
            row("mxnet", 6.0, "2 N"),
            row("native", 2.0, "2 N"),
        ]
        ratios = [(x["size"], x["peer"], x["ours_ratio"]) for x in Rows(rows).summary()]
        assert ratios == [
            ("N", "torchvision", 4.0),
            ("N", "torchvision, GPU", 2.0),
            ("2 N", "MXNet", 3.0),
        ]

    def test_a_peer_without_a_gpu_is_taken_from_the_cpu(self):
        rows = [row("mxnet", 8.0), row("native-gpu", 0.5), row("native-graph", 0.1)]
        (line,) = Rows(rows).summary()
        assert (line["peer"], line["ours_ratio"]) == ("MXNet", 16.0)

    def test_nothing_without_a_peer(self):
        assert Rows([row("native", 1.0)]).summary() == []

    def test_as_a_table(self):
        line = dict(op="nms", size="N", peer="MXNet", peer_s=0.5, ours_s=0.002, ours_ratio=250.0)
        (text,) = summary_table([line])[2:]
        assert [x.strip() for x in text.strip("|").split("|")] == [
            *("nms", "N", "MXNet", "500 ms", "2.00 ms", "250", "", "")
        ]


class TestText:
    @pytest.mark.parametrize(
        ("number", "text"), [(1234.5, "1234"), (12.34, "12.3"), (0.5, "0.500"), (0.0123, "0.0123")]
    )
    def test_digits(self, number, text):
        assert digits(number) == text

    def test_a_number_in_its_unit(self):
        units = {1: "s", 1e-3: "ms", 1e-6: "us"}
        assert scaled(0.0025, units) == "2.50 ms"
        assert scaled(1e-8, units) == "0.0100 us"

    def test_columns_are_aligned(self):
        assert aligned([["a", "b"], ["long", "1"]], left=1) == [
            *("| a    | b |", "| ---- | : |", "| long | 1 |")
        ]


def job(**about):
    arrays = (np.zeros(100, np.float32),)
    return Job("nms", "N", lambda x, backend: x, arrays, work=(1, "boxes"), **about)


class TestLimits:
    @pytest.fixture
    def machine(self):
        machine = limits.Limits()
        rates = {"copying": 1e3, "writing": 2e3, "reading": 4e3, "IoU": 10.0}
        machine.rate = lambda kind, size=0: rates[kind]
        return machine

    @pytest.mark.parametrize(
        ("read", "written", "floor"),
        [
            (400, 600, (1.0, "copying")),
            (9, 991, (0.5, "writing")),
            (991, 9, (0.25, "reading")),
        ],
    )
    def test_what_memory_takes(self, machine, read, written, floor):
        assert machine.lower_bound(job(read=read, written=written)) == floor

    @pytest.mark.parametrize(("pairs", "floor"), [(5, (1.0, "copying")), (20, (2.0, "IoU pairs"))])
    def test_the_slower_of_memory_and_pairs(self, machine, pairs, floor):
        inner = InnerLoop("IoU", lambda out: pairs * len(out))
        assert machine.lower_bound(job(written=600, inner=inner)) == floor

    def test_share_of_the_limit(self):
        assert (
            percent_of_bound(row("native", 4.0, bound=limits.LowerBound(1.0, "copying")))
            == "25 % copying"
        )
        assert (
            percent_of_bound(row("native", 4.0, bound=limits.LowerBound(8.0, "NMS pairs")))
            == "200 % NMS pairs"
        )
        assert (
            percent_of_bound(row("native", 4.0, bound=limits.LowerBound(0.01, "copying")))
            == "< 1 % copying"
        )
        assert percent_of_bound(row("native", 4.0)) == ""

    def test_count_kept_pairs_boxes(self):
        # 3 and 2 of two classes, and 2 of the second image: 3 + 1 + 1 pairs.
        classes = [[0, 1, 0, 1, 0, -1], [1, 1, -1, -1, -1, -1]]
        out = np.zeros((2, 6, 6), np.float32)
        out[..., 0] = classes
        assert count_kept_pairs([out]) == 5

    def test_processes_measure_at_once(self, monkeypatch):
        monkeypatch.setattr(limits, "ROUNDS", 1)
        monkeypatch.setattr(limits, "cores", lambda: 2)
        machine = limits.Limits()
        try:
            rate = machine.rate("writing", 1000)
        finally:
            machine.close()
        assert rate > 1e6
        assert machine.rates == {("writing", 2 * limits.MIN_BYTES): rate}


class TestOnnx:
    def test_numbers_as_protobuf_has_them(self):
        assert onnx_ops._varint(1) == b"\x01"
        assert onnx_ops._varint(300) == b"\xac\x02"  # 44 + 128, then 2: 2 * 128 + 44

    def test_a_field_is_number_and_kind_and_value(self):
        assert onnx_ops._field(1, 150) == b"\x08\x96\x01"
        assert onnx_ops._field(2, "testing") == b"\x12\x07testing"
        assert onnx_ops._field(3, 1.0) == b"\x1d\x00\x00\x80\x3f"

    @pytest.mark.parametrize(
        "job",
        [
            lambda: bench_box_nms.job(1, 300, 1, bench_box_nms.clustered),
            lambda: bench_box_nms.job(2, 200, 3, bench_box_nms.clustered),
            lambda: bench_roi_pooling.job(10, (1, 3, 25, 34)),
        ],
        ids=["box_nms", "box_nms of classes", "roi_pooling"],
    )
    def test_onnx_runtime_agrees_with_ours(self, job):
        contender, job = IMPLEMENTATIONS["onnxruntime"], job()
        if contender.missing():
            pytest.skip(f"ONNX Runtime {contender.missing()}")
        contender.check(job, to_numpy(contender.prepare(job)()))


class TestTorch:
    """The peers in PyTorch give what ours do, as far as their rules are the same."""

    @pytest.mark.parametrize(
        ("contender", "job"),
        [
            ("torch", lambda: bench_multibox_target.job(2, MAPS, 5)),
            ("book", lambda: bench_multibox_target.job(2, MAPS, 5)),
            ("torch", lambda: bench_multibox_target.job(3, MAPS, 4, 5, True)),
            ("book", lambda: bench_multibox_detection.job(2, MAPS, 4)),
            ("torchvision", lambda: bench_multibox_detection.job(2, MAPS, 4)),
            ("torchvision", lambda: bench_multibox_detection.job(2, MAPS, 4, 50)),
            ("torchvision", lambda: bench_box_nms.job(1, 300, 5, bench_box_nms.clustered)),
            ("torchvision", lambda: bench_box_nms.job(2, 300, 5, bench_box_nms.clustered, 40)),
        ],
        ids=[
            *("target", "target of the book", "target with mining", "detection of the book"),
            *("detection", "detection of the best", "nms of classes", "nms of the best"),
        ],
    )
    def test_agrees_with_ours(self, contender, job):
        contender, job = IMPLEMENTATIONS[contender], job()
        if contender.missing():
            pytest.skip(f"{contender.name} {contender.missing()}")
        contender.check(job, to_numpy(contender.prepare(job)()))

    def test_anchors_of_the_book(self):
        torch = pytest.importorskip("torch")
        from peers import torch_ops

        # Of a map of 1 x 2 cells, in whose first cell the middle is (1/4, 1/2). The sizes, with a
        # ratio of 4, are 0.2 * 2 * 1/2 = 0.2 wide and 0.2 / 2 = 0.1 high, and twice that; then a
        # ratio of 1: 0.1 and 0.2.
        anchors = torch_ops.book_multibox_prior(torch.zeros(1, 3, 1, 2), (0.2, 0.4), (4, 1))
        assert anchors.shape == (1, 6, 4)
        np.testing.assert_allclose(
            anchors[0, :3],
            [[0.15, 0.45, 0.35, 0.55], [0.05, 0.4, 0.45, 0.6], [0.2, 0.4, 0.3, 0.6]],
            rtol=1e-6,
        )

    def test_a_wrong_box_is_noticed(self):
        ours, theirs = np.arange(1000.0), np.arange(3, 1003.0)
        with pytest.raises(AssertionError):
            check_scores(ours, theirs)
        check_scores(ours, theirs, 0.99)


class Machine:
    """A GPU in the place of CuPy's: a host and a device, each with a clock, in seconds.

    What is queued starts when the device is free, but not before the host has queued it.
    """

    WRITE = 30e-6

    def __init__(self):
        self.host = self.device = 0.0
        self.cached = False
        machine = self

        class Stream:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                pass

        class Event:
            def record(self, stream):
                machine.queue(0, 0)
                self.time = machine.device

            def synchronize(self):
                machine.synchronize()

        class Buffer:
            def __init__(self, size):
                self.mem = SimpleNamespace(size=size)

            def memset_async(self, value, size):
                machine.queue(2e-6, machine.WRITE)
                machine.cached = False
                machine.written = size

        runtime = SimpleNamespace(
            cudaDevAttrL2CacheSize=38,
            deviceGetAttribute=lambda attribute, device: {(38, 0): 50 << 20}[attribute, device],
        )
        self.stream = Stream()
        self.cupy = ModuleType("cupy")
        self.cupy.cuda = ModuleType("cupy.cuda")
        vars(self.cupy.cuda).update(
            alloc=Buffer,
            Device=lambda: SimpleNamespace(id=0, synchronize=self.synchronize),
            Event=Event,
            get_current_stream=lambda: self.stream,
            get_elapsed_time=lambda start, end: (end.time - start.time) * 1e3,
            runtime=runtime,
        )

    def queue(self, host, device):
        self.host += host
        self.device = max(self.device, self.host) + device

    def synchronize(self):
        self.host = max(self.host, self.device)

    def call(self, host, warm, cold):
        """A call that takes the host so long, and the device so long by its cache."""

        def call():
            self.queue(host, warm if self.cached else cold)
            self.cached = True

        return call


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setitem(sys.modules, "cupy", machine.cupy)
    monkeypatch.setitem(sys.modules, "cupy.cuda", machine.cupy.cuda)
    clock = SimpleNamespace(perf_counter=lambda: machine.host)
    monkeypatch.setattr(gpu_times, "time", clock)
    gpu_times._cache_buffer.cache_clear()
    yield machine
    gpu_times._cache_buffer.cache_clear()


class TestGpuTimes:
    @pytest.mark.parametrize("host", [5e-6, 50e-6, 400e-6])
    def test_the_devices_time_is_without_the_hosts(self, machine, host):
        call = machine.call(host, warm=10e-6, cold=17e-6)
        times = gpu_times.measure(call, machine.stream, 1024, 0.1)
        assert times == pytest.approx((10e-6, 17e-6, host, 1024))

    def test_waiting_inside_of_a_call_counts(self, machine):
        def call():
            machine.queue(20e-6, 10e-6)
            machine.synchronize()
            machine.queue(20e-6, 10e-6)

        times = gpu_times.measure(call, machine.stream, None, 0.1)
        # The second half waits for the first, and for 20 us of the host after it.
        assert times.cold == pytest.approx(10e-6 + 20e-6 + 10e-6)
        assert times.host == pytest.approx(20e-6 + 10e-6 + 20e-6)

    def test_a_long_call_is_made_few_times(self, machine):
        calls = []

        def call():
            calls.append(1)
            machine.queue(1e-3, 1.0)

        assert gpu_times.measure(call, machine.stream, None, 0.1).warm == pytest.approx(1.0)
        assert len(calls) <= 7

    def test_twice_the_cache_is_written(self, machine):
        gpu_times.occupy(machine.stream, 0)
        assert machine.written == 2 * (50 << 20)

    def test_most_memory_at_a_time(self):
        hooks = pytest.importorskip("cupy.cuda.memory_hook")

        def tell(name, size):
            for hook in hooks.get_memory_hooks().values():
                getattr(hook, name)(device_id=0, mem_size=size, mem_ptr=0, pmem_id=0)

        def call():
            tell("malloc_postprocess", 1000)  # the result, which stays
            tell("malloc_postprocess", 64)
            tell("free_postprocess", 64)
            tell("malloc_postprocess", 48)
            tell("malloc_postprocess", 32)
            tell("free_postprocess", 80)

        assert gpu_times.cupy_memory(call) == 80
        assert not hooks.get_memory_hooks()

    def test_a_contender_is_timed_on_its_stream(self, machine):
        call = machine.call(3e-6, 8e-6, 9e-6)
        graph = SimpleNamespace(launch=lambda stream: call())
        times = IMPLEMENTATIONS["native-graph"].gpu_times(Replay(graph, machine.stream, None), 0.1)
        assert times[:3] == pytest.approx((8e-6, 9e-6, 3e-6))
        assert times.memory is None


class TestGpuTables:
    GPU = [
        row("torchvision-gpu", 1.0, "1000", gpu=GpuTimes(4e-3, 5e-3, 1e-4, 2048)),
        row("native-gpu", 1.0, "1000", gpu=GpuTimes(2e-5, 4e-5, 1e-5, 1024)),
        row(
            *("native-graph", 1.0, "1000"),
            gpu=GpuTimes(1e-5, 2e-5, 4e-6, None),
            bound=limits.LowerBound(5e-6, "copying"),
        ),
        row("native", 1.0, "1000"),
    ]

    def cells(self, line):
        return [cell.strip() for cell in line.strip("|").split("|")]

    def test_the_jobs_on_a_cpu_are_left_out(self):
        names = [line["implementation"] for line in Rows(self.GPU).gpu()]
        assert names == ["torchvision, GPU", "cvops native, GPU", "cvops native, GPU graph"]

    def test_ratios_and_shares(self):
        lines = gpu_table(Rows(self.GPU).gpu())
        assert self.cells(lines[2])[3:7] == ["4.00 ms", "5.00 ms", "100 us", "2.00 KiB"]
        # 4 ms / 10 us, 5 ms / 20 us, and a floor of 5 us of 20.
        assert self.cells(lines[4])[6:] == ["", "", "400", "250", "25 %"]

    def test_in_short(self):
        (line,) = gpu_summary_table(Rows(self.GPU).gpu())[2:]
        assert self.cells(line) == [
            *("nms", "1000", "torchvision", "4.00 ms", "5.00 ms"),
            *("20.0 us", "40.0 us", "10.0 us", "20.0 us", "125", "250", ""),
        ]


class TestModel:
    def test_a_prediction_is_found_by_op_and_workload(self):
        assert predictions.predicted("box_nms", "20000, spread") == pytest.approx(108e-6)
        assert predictions.predicted("box_nms", "20000, clustered") is None
        assert predictions.predicted("box_iou", "20000, spread") is None

    def test_the_tables_have_each_workload(self):
        assert "| `box_iou`, 24564 x 100 | 1 | 9.8 MB: 2.3 us |" in predictions.tables()
        assert "| `box_iou`, 100000 x 1000 | 402 MB | none |" in predictions.tables()

    def test_box_nms_is_timed_for_each_prediction(self):
        timed = {bench_box_nms.make_rows(*case)[1] for case in bench_box_nms.CASES.values()}
        predicted = {workload for op, workload in predictions.workloads() if op == "box_nms"}
        assert predicted
        assert predicted <= timed


class TestLayers:
    @pytest.mark.skipif(extension.native() is None, reason="needs the compiled extension")
    @pytest.mark.parametrize("name", CASES)
    def test_the_steps_of_a_call_give_its_result(self, name):
        tiny = CASES[name]
        steps = Steps(tiny, tiny.arrays, tiny.args)
        assert len(steps.bindings) == 1
        assert steps.memory
        implementation, *arguments = steps.implementation
        got, want = implementation(*arguments), tiny.op(*tiny.arrays, *tiny.args, **tiny.options)
        for x, y in zip(*(out if isinstance(out, tuple) else (out,) for out in (got, want))):
            np.testing.assert_array_equal(x, y)


class TestKernels:
    @pytest.fixture
    def body(self, machine):
        """A call of three launches, 7, 40 and 5 us long, without a GPU."""
        native = extension.native()
        if native is None:
            pytest.skip("needs the compiled extension cvops._native")
        self.log = []
        seconds = [7e-6, 40e-6, 5e-6]

        def launch(kernel, *about):
            machine.queue(3e-6, seconds[len(self.log) % 3])
            self.log.append(kernel)

        device = native.CallbackDevice(launch, 132, 227 << 10)
        library = SimpleNamespace(stream=lambda device: 0)
        Buffer = native.Buffer
        boxes, iou = (Buffer(4096, shape, np.dtype("f4")) for shape in ((5, 4), (5, 5)))
        colors, index = Buffer(4096, (5, 3), np.dtype("u1")), Buffer(4096, (5,), np.dtype("i4"))
        machine.stream.synchronize = machine.synchronize

        def body():
            ops = cuda.Call(library, Device("cuda", 0), device, 0).ops
            ops.box_iou(iou, boxes, boxes, False)
            ops.label_from_color(index, colors, colors, 0)
            ops.box_iou(iou, boxes, boxes, False)

        return body

    def test_each_launch_is_timed(self, body):
        before = cuda.Call
        found = kernel_times.time_launches(body)
        names = ["box_iou", "label_from_color", "box_iou"]
        assert [(x.kernel, x.number) for x in found] == list(zip(names, range(3)))
        assert [x.seconds for x in found] == pytest.approx([7e-6, 40e-6, 5e-6])
        assert cuda.Call is before

    def test_a_kernels_launches_together(self, body):
        iou, label = kernel_times.group_by_kernel(3, kernel_times.time_launches(body))
        assert (iou["job"], iou["kernel"], iou["launches"]) == (3, "box_iou", 2)
        assert (iou["seconds"], iou["longest_seconds"]) == pytest.approx((12e-6, 7e-6))
        assert (iou["longest"], label["longest"]) == (0, 1)

    def test_the_slowest_stand_once_where_they_take_longest(self):
        lines = [
            dict(kernel=kernel, job=job, seconds=seconds)
            for kernel, job, seconds in [("a", 0, 3), ("a", 1, 9), ("b", 0, 5), ("c", 0, 1)]
        ]
        assert [(x["kernel"], x["job"]) for x in kernel_times.slowest(lines, 2)] == [
            ("a", 1),
            ("b", 0),
        ]

    def test_only_the_launches_wanted_are_profiled(self, body, machine, monkeypatch):
        runtime = machine.cupy.cuda.runtime
        runtime.profilerStart = lambda: self.log.append("start")
        runtime.profilerStop = lambda: self.log.append("stop")
        monkeypatch.setattr(kernel_times, "prepare_call", lambda job: body)
        kernel_times.profile(dict(slowest=[dict(job=0, kernel="label_from_color", longest=1)]))
        assert self.log == ["box_iou", "start", "label_from_color", "stop", "box_iou"]

    def test_what_ran_before_a_time_limit_is_kept(self, body, monkeypatch, tmp_path, capsys):
        file = tmp_path / "kernels.json"

        def prepared(job):
            if job.size == "second":
                assert json.loads(file.read_text())["jobs"] == [dict(op="nms", size="first")]
                raise KeyboardInterrupt
            return body

        monkeypatch.setattr(kernel_times, "JOBS", [("nms", "first"), ("nms", "second")])
        monkeypatch.setattr(kernel_times, "find_job", lambda op, size: SimpleNamespace(size=size))
        monkeypatch.setattr(kernel_times, "prepare_call", prepared)
        monkeypatch.setattr(sys, "argv", ["kernel_times.py", "--json", str(file)])
        with pytest.raises(KeyboardInterrupt):
            kernel_times.main()
        slowest = json.loads(file.read_text())["slowest"]
        assert [line["kernel"] for line in slowest] == ["label_from_color", "box_iou"]
        assert [row.split()[1:6:2] for row in capsys.readouterr().out.splitlines()[2:]] == [
            ["nms", "first", "box_iou"],
            ["nms", "first", "label_from_color"],
        ]

    def test_one_that_cannot_run_makes_the_exit_code(self, body, monkeypatch, tmp_path):
        def job_of(op):
            if op == "nms":
                raise MemoryError("too much")
            return SimpleNamespace(size="5")

        monkeypatch.setattr(kernel_times, "JOBS", [("nms",), ("iou",)])
        monkeypatch.setattr(kernel_times, "find_job", job_of)
        monkeypatch.setattr(kernel_times, "prepare_call", lambda job: body)
        with pytest.raises(SystemExit, match="1"):
            kernel_times.measure(tmp_path / "kernels.json")
        assert json.loads((tmp_path / "kernels.json").read_text())["jobs"] == [
            dict(op="nms", size="", error="MemoryError: too much"),
            dict(op="iou", size="5"),
        ]

    def test_as_a_table(self):
        line = dict(job=0, kernel="nms_chunk", launches=10, seconds=3e-4)
        results = dict(
            jobs=[dict(op="box_nms", size="5"), dict(op="box_iou", size="6", error="no memory")],
            kernels=[line, dict(line, kernel="sort", seconds=1e-4)],
        )
        rows = [
            [x.strip() for x in line.strip("|").split("|")] for line in kernel_times.table(results)
        ]
        assert rows[2] == ["box_nms", "5", "nms_chunk", "10", "300 us", "75 %"]
        assert rows[4][2] == "FAILED: no memory"


EMULATED = """
import json, sys
sys.path[:0] = sys.argv[1:]
from emulator import clock
clock.install()
import kernel_times, plots
from bench_box_nms import clustered
from tools.implementations import IMPLEMENTATIONS
from tools.report import Row, Rows, gpu_table

jobs = ("box_iou", 20, 30), ("box_nms", 1, 60, 2, clustered), ("box_iou", "no number", 1)
kernel_times.JOBS = jobs
kernel_times.ROUNDS = 2
kernel_times.slowest = lambda lines: [line for line in lines if line["kernel"] == "nms_chunk"]
plots.PANELS = (plots.Panel("box_iou", "rows", "", {n: (n, 20) for n in (10, 20)}),)
plots.SECONDS = 0.01

rows = []
for arguments in kernel_times.JOBS[:2]:
    job = kernel_times.find_job(*arguments)
    for name in ("cupy-gpu", "cupy-graph"):
        contender = IMPLEMENTATIONS[name]
        call, once = contender.first_call(job)
        gpu = contender.gpu_times(call, 0.01)
        rows.append(Row(job.op, job.size, contender, once, job.work, job.moved, None, gpu))
*_, results = kernel_times.measure_jobs()
kernel_times.profile(results)
print(json.dumps(dict(
    gpu=Rows(rows).gpu(), kernels=results["kernels"], profiled=clock.profiled, jobs=results["jobs"],
    series=plots.measure_group([IMPLEMENTATIONS[x] for x in ("cupy-gpu", "cupy-graph")])["series"],
)))
"""


@pytest.fixture(scope="module")
def emulated():
    """What ``EMULATED`` prints."""
    pytest.importorskip("cupy")
    try:
        _imports.load_nvrtc().getVersion()
    except RuntimeError:
        pytest.skip("needs NVRTC")
    root = Path(__file__).parents[2]
    folders = [str(root / x) for x in ("tests", "benchmarks", "")]
    done = subprocess.run(
        [sys.executable, "-c", EMULATED, *folders], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


class TestEmulatedGpu:
    """The harness upon the real CuPy, in a process whose GPU is emulated: does all of it run?"""

    def test_calls_and_replays_are_timed(self, emulated):
        assert len(emulated["gpu"]) == 4
        for line in emulated["gpu"]:
            assert min(line["warm"], line["cold"], line["host"]) > 0

    def test_memory_beside_inputs_and_results(self, emulated):
        iou, _, nms, _ = (line["memory"] for line in emulated["gpu"])
        # Of 60 boxes each buffer is a piece of 512 bytes or a few.
        assert iou == 0
        assert 512 <= nms <= 64 * 512
        assert nms % 512 == 0

    def test_kernels_are_timed_where_they_run(self, emulated):
        assert [job.get("error") is None for job in emulated["jobs"]] == [True, True, False]
        names = [line["kernel"] for line in emulated["kernels"]]
        assert names[0] == "box_iou"
        assert "nms_chunk" in names

    def test_the_profiler_is_on_for_one_launch(self, emulated):
        assert emulated["profiled"] == ["start", "stop"]

    def test_plots_have_their_points(self, emulated):
        (series,) = emulated["series"]
        assert [x["sizes"] for x in series.values()] == [[10, 20]] * 2


class TestInstructions:
    def test_own_costs_of_functions(self):
        dump = """
events: Ir
fn=(1) cvops::box_nms(cvops::Cpu const&, float*, int)
12 100
+3 20
cfn=(2) sort_keys(int)
calls=2 40
14 5000
fn=(2)
40 3000
* 2000
fn=(3) unused()

fn=(1)
16 7
"""
        assert callgrind.costs(dump) == {"box_nms": 127, "sort_keys": 5000}

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("cvops::box_iou(cvops::Cpu const&, float*, long long)", "box_iou"),
            ("cvops::(anonymous namespace)::decode(int) [clone .isra.0]", "decode"),
            ("auto cvops::as_avx2<&cvops::iou_row, float*&>(float*&) [clone .isra.0]", "iou_row"),
            (
                "auto cvops::as_avx2<&(unsigned long long cvops::(anonymous namespace)::best_key"
                "<false>(cvops::Range const&)), cvops::Range&>(cvops::Range&) [clone .isra.0]",
                "best_key",
            ),
            (
                "cvops::Run::write(int)::{lambda(int)#1}::operator()(int) const",
                "Run::write::{lambda#1}",
            ),
            ("void std::__sort<std::pair<int, int>*, std::less<int> >(int*)", "std::__sort"),
        ],
    )
    def test_short_names(self, name, text):
        assert callgrind.short(name) == text


class TestPlots:
    PANEL = plots.Panel("box_nms", "boxes", "", {1: ("a",), 2: ("b",), 4: ("c",)})

    @pytest.fixture
    def race(self, monkeypatch):
        """race(times): of contenders whose times are those, or errors, one for each size."""
        monkeypatch.setattr(plots, "PANELS", (self.PANEL,))
        monkeypatch.setattr(plots, "find_job", lambda op, size: "abc".index(size))

        def race(times):
            def seconds(contender, job):
                taken = times[contender.name][job]
                if isinstance(taken, BaseException):
                    raise taken
                return taken

            monkeypatch.setattr(plots, "seconds", seconds)
            contenders = [x for x in IMPLEMENTATIONS.values() if x.name in times]
            return plots.measure_group(contenders)["series"][0]

        return race

    def test_a_slow_peer_stops_and_ours_goes_on(self, race):
        found = race({"MXNet": [0.5, 2.0, 3.0], "cvops native": [0.5, 2.0, 3.0]})
        assert found["MXNet"] == dict(sizes=[1, 2], seconds=[0.5, 2.0])
        assert found["cvops native"] == dict(sizes=[1, 2, 4], seconds=[0.5, 2.0, 3.0])

    def test_who_has_no_such_op_has_no_series(self, race):
        found = race({"MXNet": [plots.Unavailable("no")], "cvops native": [1.0, 1.0, 1.0]})
        assert list(found) == ["cvops native"]

    def test_on_a_gpu_an_error_ends_a_series_alone(self, race, capsys):
        out_of_memory = [1e-3, MemoryError("too much")]
        found = race({"torchvision, GPU": out_of_memory, "cvops native, GPU": [1e-3] * 3})
        assert found["torchvision, GPU"]["sizes"] == [1]
        assert found["cvops native, GPU"]["sizes"] == [1, 2, 4]
        assert "torchvision, GPU, box_nms, 2 boxes: too much" in capsys.readouterr().err

    def test_what_there_is_when_interrupted(self, race):
        found = race({"MXNet": [0.5, KeyboardInterrupt(), 0.5], "cvops native": [0.5] * 3})
        assert {name: points["sizes"] for name, points in found.items()} == {
            "MXNet": [1],
            "cvops native": [1],
        }

    def test_on_a_cpu_an_error_is_one(self, race):
        with pytest.raises(AssertionError, match="wrong"):
            race({"MXNet": [AssertionError("wrong")]})

    def test_exponent_of_what_is_large(self):
        sizes = [1, 10, 100, 200, 400]
        times = [5, 5, 100.0**2, 200.0**2, 400.0**2]
        assert plots.exponent(sizes, times) == pytest.approx(2)

    def test_one_size_has_none(self):
        assert plots.exponent([1, 100], [1, 100]) is None

    def test_is_drawn_from_the_numbers(self, tmp_path):
        pytest.importorskip("matplotlib")
        series = {"cvops native": dict(sizes=[1, 2, 4], seconds=[1, 2, 4])}
        panel = dict(op="box_nms", along="boxes", rest="spread", series=series)
        results = dict(about={"cvops native": "a machine"}, threads=dict(cvops="2"), panels=[panel])
        plots.draw(results, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"
        assert plots.table(results).splitlines()[-1].split(" | ")[-1] == "    1.00 |"
