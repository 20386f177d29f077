"""Plots of time against size."""

import plots
import pytest
from tools.implementations import IMPLEMENTATIONS

PANEL = plots.Panel("box_nms", "boxes", "", {1: ("a",), 2: ("b",), 4: ("c",)})


@pytest.fixture
def measure(monkeypatch):
    """measure(times): the series of implementations with these times or errors of the sizes."""
    monkeypatch.setattr(plots, "PANELS", (PANEL,))
    monkeypatch.setattr(plots, "find_job", lambda op, size: "abc".index(size))

    def measure(times):
        def seconds(implementation, job):
            result = times[implementation.name][job]
            if isinstance(result, BaseException):
                raise result
            return result

        monkeypatch.setattr(plots, "seconds", seconds)
        implementations = [x for x in IMPLEMENTATIONS.values() if x.name in times]
        return plots.measure_group(implementations)["series"][0]

    return measure


def test_slow_peer_gets_no_larger_sizes(measure):
    found = measure({"MXNet": [0.5, 2.0, 3.0], "cvops native": [0.5, 2.0, 3.0]})
    assert found["MXNet"] == dict(sizes=[1, 2], seconds=[0.5, 2.0])
    assert found["cvops native"] == dict(sizes=[1, 2, 4], seconds=[0.5, 2.0, 3.0])


def test_unavailable_implementation_has_no_series(measure):
    found = measure({"MXNet": [plots.Unavailable("no")], "cvops native": [1.0, 1.0, 1.0]})
    assert list(found) == ["cvops native"]


def test_error_on_a_gpu_ends_one_series(measure, capsys):
    out_of_memory = [1e-3, MemoryError("too much")]
    found = measure({"torchvision, GPU": out_of_memory, "cvops native, GPU": [1e-3] * 3})
    assert found["torchvision, GPU"]["sizes"] == [1]
    assert found["cvops native, GPU"]["sizes"] == [1, 2, 4]
    assert "torchvision, GPU, box_nms, 2 boxes: too much" in capsys.readouterr().err


def test_points_before_an_interrupt_are_kept(measure):
    found = measure({"MXNet": [0.5, KeyboardInterrupt(), 0.5], "cvops native": [0.5] * 3})
    sizes = {name: points["sizes"] for name, points in found.items()}
    assert sizes == {"MXNet": [1], "cvops native": [1]}


def test_error_on_a_cpu_is_raised(measure):
    with pytest.raises(AssertionError, match="wrong"):
        measure({"MXNet": [AssertionError("wrong")]})


def test_exponent_is_that_of_large_sizes():
    sizes = [1, 10, 100, 200, 400]
    times = [5, 5, 100.0**2, 200.0**2, 400.0**2]
    assert plots.exponent(sizes, times) == pytest.approx(2)


def test_exponent_of_one_large_size_is_none():
    assert plots.exponent([1, 100], [1, 100]) is None


def test_plot_and_table_are_made_from_results(tmp_path):
    pytest.importorskip("matplotlib")
    series = {"cvops native": dict(sizes=[1, 2, 4], seconds=[1, 2, 4])}
    panel = dict(op="box_nms", along="boxes", rest="spread", series=series)
    results = dict(about={"cvops native": "a machine"}, threads=dict(cvops="2"), panels=[panel])
    plots.draw(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"
    assert plots.table(results).splitlines()[-1].split(" | ")[-1] == "    1.00 |"
