"""The sources of the kernels, their compilation by NVRTC, the cache, and ``cvops warmup``."""

import pytest

import cvops.cli.warmup  # noqa: F401, the tests replace a name in it
from cvops import cli
from cvops._mxnet import build
from cvops.backends import nvrtc

SOURCES = nvrtc.sources()


def test_header_that_is_included_twice_is_in_the_source_once():
    text = nvrtc.source("multibox_detection")
    assert text.count("struct SizedBoxOf {") == 1
    assert "#include" not in text.replace("#include <cmath>", "")
    assert '#line 1 "exp_log.cuh"' in text


def test_each_kernel_belongs_to_one_source():
    assert nvrtc.kernels("box_iou") == ("box_iou", "box_iou_f64")
    assert "nms_chunk" not in nvrtc.kernels("multiclass_nms")
    assert nvrtc.source_of("nms_chunk") == "nms"
    names = [kernel for source in SOURCES for kernel in nvrtc.kernels(source)]
    assert len(names) == len(set(names))


def test_compiler_error_names_the_file_and_the_line(compiler, monkeypatch):
    text = nvrtc.source("box_iou").replace("T overlap = ", "Y overlap = ")
    monkeypatch.setattr(nvrtc, "source", lambda name: text)
    message = r"box_iou\.cuh does not compile for sm_90[\s\S]*box_iou\.cuh\(\d+\)"
    with pytest.raises(RuntimeError, match=message):
        nvrtc.compile_cubin(compiler, "box_iou", 90)


def test_function_without_an_execution_space_is_one_of_the_device(compiler, monkeypatch):
    """NVRTC of CUDA 12 takes generic lambdas for functions without one."""
    text = """
    int twice(int x) { return 2 * x; }
    extern "C" __global__ void scale(int* x) { *x = twice(*x); }
    """
    monkeypatch.setattr(nvrtc, "source", lambda name: text)
    assert nvrtc.compile_cubin(compiler, "scale", 90)[0][:4] == b"\x7fELF"


def test_changed_source_gets_another_file_in_the_cache(compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("CVOPS_CACHE_DIR", str(tmp_path))
    first = nvrtc.cubin_file("box_iou", 90)
    assert first.read_bytes()[:4] == b"\x7fELF"
    assert nvrtc.cubin_file("box_iou", 90) == first
    text = nvrtc.source("box_iou") + "\n// edited\n"
    monkeypatch.setattr(nvrtc, "source", lambda name: text)
    assert nvrtc.cubin_file("box_iou", 90) != first
    assert len(list(tmp_path.iterdir())) == 2


class TestWarmup:
    @pytest.fixture(autouse=True)
    def folder(self, compiled, monkeypatch, tmp_path):
        monkeypatch.setenv("CVOPS_CACHE_DIR", str(tmp_path))
        monkeypatch.setattr(nvrtc, "compile_cubin", lambda _, *what: compiled(*what))
        monkeypatch.setattr(build, "build", lambda: tmp_path / "operators")
        # It finds MXNet, and no PyTorch.
        monkeypatch.setattr(cli.warmup.importlib.util, "find_spec", {"mxnet": "", "cupy": ""}.get)
        return tmp_path

    def test_each_kernel_is_compiled_once(self, folder, capsys):
        assert cli.main(["warmup", "--arch", "80", "90"]) == 0
        made = sorted(folder.iterdir())
        assert len(made) == 2 * len(SOURCES)
        *kernels, operators = capsys.readouterr().out.splitlines()
        assert sorted(kernels) == list(map(str, made))
        assert operators == str(folder / "operators")
        times = [file.stat().st_mtime_ns for file in made]
        assert cli.main(["warmup", "--arch", "80", "90"]) == 0
        assert [file.stat().st_mtime_ns for file in sorted(folder.iterdir())] == times

    def test_default_architectures_are_those_of_the_gpus(self, folder, monkeypatch):
        monkeypatch.setattr(nvrtc, "architectures", lambda: [90])
        assert cli.main(["warmup"]) == 0
        assert {file.name.split("-")[1] for file in folder.iterdir()} == {"sm90"}

    def test_warmup_without_a_gpu_compiles_no_kernel(self, folder, monkeypatch, capsys):
        monkeypatch.setattr(nvrtc, "architectures", lambda: [])
        assert cli.main(["warmup"]) == 0
        assert "there is no GPU here; --arch 90" in capsys.readouterr().out
        assert list(folder.iterdir()) == []

    def test_unknown_architecture_is_an_error(self, capsys):
        assert cli.main(["warmup", "--arch", "1"]) == 2
        assert "cvops: the kernels for sm_1: " in capsys.readouterr().err
