"""Tables of the benchmarks: comparisons with peers, and times on a GPU."""

from tools.gpu_times import GpuTimes
from tools.implementations import IMPLEMENTATIONS
from tools.limits import LowerBound
from tools.report import (
    Row,
    Rows,
    gpu_summary_table,
    gpu_table,
    percent_of_bound,
    summary_table,
)


def row(implementation, median, size="N", **details):
    options = dict(work=(1, "boxes"), moved=1, **details)
    return Row("nms", size, IMPLEMENTATIONS[implementation], median, **options)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


class TestSummary:
    def test_summary_compares_the_best_peer_with_our_best_times(self):
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
                "op": "nms",
                "size": "N",
                "peer": "torchvision",
                "peer_s": 3.0,
                "ours_s": 0.5,
                "ours_ratio": 6.0,
                "one_thread_s": 1.5,
                "one_thread_ratio": 2.0,
            }
        ]

    def test_each_size_and_device_has_its_peer(self):
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

    def test_peer_on_the_cpu_serves_jobs_without_a_peer_on_a_gpu(self):
        rows = [row("mxnet", 8.0), row("native-gpu", 0.5), row("native-graph", 0.1)]
        (line,) = Rows(rows).summary()
        assert (line["peer"], line["ours_ratio"]) == ("MXNet", 16.0)

    def test_summary_without_a_peer_is_empty(self):
        assert Rows([row("native", 1.0)]).summary() == []

    def test_summary_table_has_times_with_units(self):
        line = dict(op="nms", size="N", peer="MXNet", peer_s=0.5, ours_s=0.002, ours_ratio=250.0)
        (text,) = summary_table([line])[2:]
        assert cells(text) == ["nms", "N", "MXNet", "500 ms", "2.00 ms", "250", "", ""]


def test_percent_of_bound_names_the_work():
    texts = [
        percent_of_bound(row("native", 4.0, bound=bound))
        for bound in (
            LowerBound(1.0, "copying"),
            LowerBound(8.0, "NMS pairs"),
            LowerBound(0.01, "copying"),
            None,
        )
    ]
    assert texts == ["25 % copying", "200 % NMS pairs", "< 1 % copying", ""]


class TestTablesOfAGpu:
    ROWS = [
        row("torchvision-gpu", 1.0, "1000", gpu=GpuTimes(4e-3, 5e-3, 1e-4, 2048)),
        row("native-gpu", 1.0, "1000", gpu=GpuTimes(2e-5, 4e-5, 1e-5, 1024)),
        row(
            "native-graph",
            1.0,
            "1000",
            gpu=GpuTimes(1e-5, 2e-5, 4e-6, None),
            bound=LowerBound(5e-6, "copying"),
        ),
        row("native", 1.0, "1000"),
    ]

    def test_jobs_on_a_cpu_are_left_out(self):
        names = [line["implementation"] for line in Rows(self.ROWS).gpu()]
        assert names == ["torchvision, GPU", "cvops native, GPU", "cvops native, GPU graph"]

    def test_table_has_ratios_and_the_percent_of_the_bound(self):
        lines = gpu_table(Rows(self.ROWS).gpu())
        assert cells(lines[2])[3:7] == ["4.00 ms", "5.00 ms", "100 us", "2.00 KiB"]
        # 4 ms / 10 us, 5 ms / 20 us, and a bound of 5 us for 20 us.
        assert cells(lines[4])[6:] == ["", "", "400", "250", "25 %"]

    def test_summary_table_has_the_best_peer_call_and_graph(self):
        (line,) = gpu_summary_table(Rows(self.ROWS).gpu())[2:]
        names = ["nms", "1000", "torchvision"]
        peer, call, graph = ["4.00 ms", "5.00 ms"], ["20.0 us", "40.0 us"], ["10.0 us", "20.0 us"]
        assert cells(line) == [*names, *peer, *call, *graph, "125", "250", ""]
