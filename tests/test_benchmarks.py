"""The arithmetic of the benchmarks' reports, and the peers that they set up themselves."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark")
# At the end, for there is a conftest.py too.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import bench_box_nms
import bench_roi_pooling
import callgrind
import limits
import onnx_ops
import plots
from harness import CONTENDERS, Inner, Job, pairs_of_kept, to_numpy
from report import Row, Rows, aligned, digits, scaled, share, summary_table


def row(contender, median, size="N", **about):
    options = dict(work=(1, "boxes"), moved=1, **about)
    return Row("nms", size, CONTENDERS[contender], median, **options)


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
        assert machine.floor(job(read=read, written=written)) == floor

    @pytest.mark.parametrize(("pairs", "floor"), [(5, (1.0, "copying")), (20, (2.0, "IoU pairs"))])
    def test_the_slower_of_memory_and_pairs(self, machine, pairs, floor):
        inner = Inner("IoU", lambda out: pairs * len(out))
        assert machine.floor(job(written=600, inner=inner)) == floor

    def test_share_of_the_limit(self):
        assert share(row("native", 4.0, floor=limits.Floor(1.0, "copying"))) == "25 % copying"
        assert share(row("native", 4.0, floor=limits.Floor(8.0, "NMS pairs"))) == "200 % NMS pairs"
        assert share(row("native", 4.0, floor=limits.Floor(0.01, "copying"))) == "< 1 % copying"
        assert share(row("native", 4.0)) == ""

    def test_pairs_of_kept_boxes(self):
        # 3 and 2 of two classes, and 2 of the second image: 3 + 1 + 1 pairs.
        classes = [[0, 1, 0, 1, 0, -1], [1, 1, -1, -1, -1, -1]]
        out = np.zeros((2, 6, 6), np.float32)
        out[..., 0] = classes
        assert pairs_of_kept([out]) == 5

    def test_processes_measure_at_once(self, monkeypatch):
        monkeypatch.setattr(limits, "ROUNDS", 1)
        monkeypatch.setattr(limits, "cores", lambda: 2)
        machine = limits.Limits()
        try:
            rate = machine.rate("writing", 1000)
        finally:
            machine.close()
        assert rate > 1e6
        assert machine.rates == {("writing", 2 * limits.FEWEST): rate}


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
        contender, job = CONTENDERS["onnxruntime"], job()
        if contender.missing():
            pytest.skip(f"ONNX Runtime {contender.missing()}")
        contender.check(job, to_numpy(contender.prepare(job)()))


class TestInstructions:
    def test_own_costs_of_functions(self):
        dump = """
events: Ir
fn=(1) cvops::cpu::box_nms(float*, int)
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
            ("cvops::cpu::box_iou(float*, long long)", "box_iou"),
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
