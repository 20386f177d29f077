"""``cvops doctor`` names each missing part and the command that installs it."""

import importlib.util
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from cvops import _imports, cli
from cvops._mxnet import build, cuda11
from cvops.backends import cache, extension
from cvops.cli import doctor

NO_DRIVER = "libcuda-that-is-not-there.so.1"


@pytest.fixture
def no_driver(monkeypatch):
    monkeypatch.setattr(cuda11, "DRIVER", NO_DRIVER)


@pytest.fixture
def hide(monkeypatch):
    """hide(name): make ``find_spec`` return None for a module."""
    find_spec = importlib.util.find_spec

    def hide(hidden):
        def without(name, *args):
            return None if name == hidden else find_spec(name, *args)

        monkeypatch.setattr(importlib.util, "find_spec", without)

    return hide


DRIVER = """
#include <cstring>
extern "C" {
int cuInit(unsigned) { return INIT; }
int cuDriverGetVersion(int* version) { *version = 12080; return 0; }
int cuDeviceGetCount(int* count) { *count = 2; return 0; }
int cuDeviceGet(int* device, int number) { *device = number + 70; return 0; }
int cuDeviceGetName(char* name, int size, int device) {
  std::strncpy(name, device == 70 ? "NVIDIA A10" : "NVIDIA H200", size);
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  int major = device == 70 ? 8 : 9, minor = device == 70 ? 6 : 0;
  *value = attribute == 75 ? major : attribute == 76 ? minor : -1;
  return 0;
}
}
"""


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """driver(code): install a driver with two GPUs, whose cuInit returns ``code``."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")

    def driver(code=0):
        source, library = tmp_path / f"driver{code}.cpp", tmp_path / f"libcuda{code}.so"
        source.write_text(DRIVER.replace("INIT", str(code)))
        subprocess.run(["g++", "-shared", "-fPIC", "-o", library, source], check=True)
        monkeypatch.setattr(cuda11, "DRIVER", str(library))

    return driver


def fake_cupy(monkeypatch, version, runtime, names=("cupy-cuda13x",)):
    """Install a CuPy with these versions."""
    get = types.SimpleNamespace(runtimeGetVersion=lambda: runtime)
    fake = types.SimpleNamespace(__version__=version, cuda=types.SimpleNamespace(runtime=get))
    monkeypatch.setattr(doctor, "_import_cupy", lambda: fake)
    monkeypatch.setattr(doctor, "_distributions", lambda root: dict.fromkeys(names, version))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: name == "cupy" or find_spec(name, *a)
    )


class TestAll:
    def test_each_check_prints_a_status_and_a_line(self, capsys):
        assert doctor.run() == 0
        out = capsys.readouterr().out
        starts = [line[:9].strip() for line in out.splitlines()]
        assert len([start for start in starts if start]) == len(doctor.CHECKS)
        assert set(starts) <= {"ok", "missing", "broken", "note", ""}
        assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in out
        assert "ok       ops on NumPy arrays" in out

    def test_doctor_is_a_command(self, monkeypatch, capsys):
        monkeypatch.setattr(doctor, "CHECKS", [doctor._numpy])
        assert cli.main(["doctor"]) == 0
        assert capsys.readouterr().out == f"ok       NumPy {np.__version__}\n"

    def test_json_has_the_findings_by_check(self, monkeypatch, capsys):
        def _broken():
            raise OSError("no disk")

        monkeypatch.setattr(doctor, "CHECKS", [doctor._numpy, _broken])
        assert cli.main(["doctor", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {
            "numpy": {"status": "ok", "text": f"NumPy {np.__version__}", "hint": ""},
            "broken": {"status": "broken", "text": "broken: OSError: no disk", "hint": ""},
        }

    @pytest.mark.parametrize(
        "problem", [RuntimeError("out of order"), None], ids=["error", "wrong result"]
    )
    def test_exit_status_is_1_if_an_op_fails(self, monkeypatch, capsys, problem):
        def box_iou(*args):
            if problem:
                raise problem
            return np.zeros((1, 1), np.float32)

        monkeypatch.setattr("cvops.box_iou", box_iou)
        monkeypatch.setattr(doctor, "CHECKS", [doctor._numpy, doctor._arrays])
        assert cli.main(["doctor"]) == 1
        last = capsys.readouterr().out.splitlines()[-1]
        text = "RuntimeError: out of order" if problem else "box_iou: expected [[1/7]], got [[0.]]"
        assert last.startswith("broken   ")
        assert text in last

    @pytest.mark.parametrize("check", doctor.CHECKS, ids=lambda check: check.__name__)
    def test_no_check_raises_if_all_its_calls_fail(self, monkeypatch, check):
        def fail(*args, **options):
            raise OSError("no call works")

        for target, name in (
            (doctor.subprocess, "run"),
            (doctor.ctypes, "CDLL"),
            (doctor.metadata, "distributions"),
            (doctor.metadata, "version"),
            (doctor.importlib.util, "find_spec"),
            (doctor.platform, "machine"),
            (doctor.extension, "native"),
            (doctor.shutil, "which"),
        ):
            monkeypatch.setattr(target, name, fail)
        finding = doctor.examine(check)
        assert finding.status in ("ok", "missing", "broken", "note")
        if finding.status == "broken":
            assert "no call works" in finding.text

    def test_lines_of_a_text_are_aligned(self, monkeypatch, capsys):
        def both():
            return doctor.Finding("note", "one\ntwo", "three\nfour")

        monkeypatch.setattr(doctor, "CHECKS", [both])
        doctor.run()
        assert capsys.readouterr().out.splitlines() == [
            "note     one",
            "         two",
            "         -> three",
            "            four",
        ]


class TestCpu:
    def test_missing_extension_is_reported(self, monkeypatch):
        monkeypatch.setattr(extension, "native", lambda: None)
        status, text, hint = doctor._extension()
        assert (status, hint) == (
            "missing",
            "with a C++ compiler: pip install . in a checkout of cvops",
        )
        assert "cvops._native" in text
        assert doctor._arrays().status == "ok"

    def test_extension_is_reported_with_its_features(self, monkeypatch):
        for has_cuda, line in ((True, "built with CUDA"), (False, "built without CUDA")):
            native = types.SimpleNamespace(num_threads=lambda: 3, simd=lambda: "avx2")
            monkeypatch.setattr(extension, "native", lambda native=native: native)
            files = (Path("box_iou.fatbin"),) if has_cuda else ()
            monkeypatch.setattr(extension, "machine_code", lambda files=files: files)
            status, text, hint = doctor._extension()
            assert status == "ok"
            assert "CPU threads: 3, vectors: avx2" in text
            assert line in text
            assert bool(hint) == (not has_cuda)

    def test_extension_that_does_not_load_is_broken(self, monkeypatch):
        def broken():
            raise ImportError("libcvops.so: cannot open shared object file")

        monkeypatch.setattr(extension, "native", broken)
        finding = doctor.examine(doctor._extension)
        assert finding.status == "broken"
        assert finding.text == (
            "extension: ImportError: libcvops.so: cannot open shared object file"
        )

    def test_missing_compiler_is_reported(self, monkeypatch):
        monkeypatch.setenv("CXX", "no-such-compiler -O2")
        status, text, hint = doctor._compiler()
        assert status == "missing"
        assert "'no-such-compiler'" in text
        assert "apt-get install g++" in hint
        assert "CXX" in hint


class TestMXNet:
    def test_missing_mxnet_is_reported(self, monkeypatch):
        monkeypatch.setattr(doctor, "_distributions", lambda root: {})
        status, text, hint = doctor._mxnet()
        assert (status, hint) == ("missing", _imports.pip_command("mxnet"))
        assert "not installed" in text

    def test_distributions_are_found_by_the_prefix_of_their_name(self, monkeypatch, tmp_path):
        for name in ("mxnet_cu112", "mxnet_tools", "cupy_cuda12x", "not_mxnet"):
            folder = tmp_path / f"{name}-1.9.dist-info"
            folder.mkdir()
            text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.9\n"
            (folder / "METADATA").write_text(text)
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        assert doctor._distributions("mxnet") == {"mxnet-cu112": "1.9"}
        assert doctor._distributions("cupy") == {"cupy-cuda12x": "1.9"}

    def test_two_distributions_of_mxnet_are_broken(self, monkeypatch):
        both = {"mxnet": "1.9.1", "mxnet-cu112": "1.9.1"}
        monkeypatch.setattr(doctor, "_distributions", lambda root: both)
        status, text, hint = doctor._mxnet()
        assert status == "broken"
        assert "mxnet 1.9.1, mxnet-cu112 1.9.1" in text
        assert hint.startswith("pip uninstall mxnet mxnet-cu112")

    def test_mxnet_that_imports_is_ok(self, mx):
        finding = doctor._mxnet()
        assert finding.status == "ok"
        assert f"{mx.__version__}, imports" in finding.text

    @pytest.mark.parametrize(
        ("code", "text", "hint"),
        [
            ("raise OSError('libfoo.so.1: cannot open shared object file')", "libfoo.so.1", ""),
            (
                "raise OSError('libquadmath.so.0: cannot open shared object file: No such file')",
                "does not import: OSError: libquadmath.so.0",
                "apt-get install libquadmath0",
            ),
            ("import os; os.kill(os.getpid(), 11)", "signal 11 ends its import", ""),
            ("import no_such_module", "No module named 'no_such_module'", ""),
        ],
        ids=["library", "library with a hint", "signal", "module"],
    )
    def test_mxnet_that_does_not_import_is_broken(self, monkeypatch, tmp_path, code, text, hint):
        package = tmp_path / "mxnet"
        package.mkdir()
        (package / "__init__.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(doctor, "_distributions", lambda root: {"mxnet": "1.9.1"})
        finding = doctor._mxnet()
        assert finding.status == "broken"
        assert finding.text.startswith("MXNet: mxnet 1.9.1")
        assert text in finding.text
        assert finding.hint == hint

    def test_operators_are_reported_at_each_stage_of_their_build(self, monkeypatch, tmp_path):
        monkeypatch.setattr(cuda11, "libmxnet", lambda: None)
        assert doctor._operators().status == "missing"
        wheel = tmp_path / "mxnet"
        monkeypatch.setattr(cuda11, "libmxnet", lambda: wheel / "libmxnet.so")
        monkeypatch.setattr(build, "wheel", lambda: wheel)
        finding = doctor._operators()
        assert finding.status == "broken"
        assert "needs MXNet 1.9.1, whose wheel has" in finding.text
        for name in ("include/mxnet/lib_api.h", "src/lib_api.cc"):
            (wheel / name).parent.mkdir(parents=True, exist_ok=True)
            (wheel / name).touch()
        monkeypatch.setattr(cache, "folder", lambda: tmp_path / "cache")
        monkeypatch.setenv("CXX", "no-such-compiler")
        finding = doctor._operators()
        assert (finding.status, "apt-get install g++" in finding.hint) == ("missing", True)
        monkeypatch.setenv("CXX", sys.executable)  # accepts --version
        finding = doctor._operators()
        assert finding.status == "note"
        assert "`import cvops.mxnet` builds them" in finding.text
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "mxnet-operators-of-another-version.so").touch()
        assert doctor._operators().status == "note"
        (tmp_path / "made").touch()
        built = build.recipe().entry().add(tmp_path / "made")
        finding = doctor._operators()
        assert finding.status == "ok"
        assert finding.text.endswith(str(built))

    def test_mxnets_error_for_an_unknown_operator_is_quoted(self, mx):
        code = """
from cvops._mxnet import mxnet
mx = mxnet()
graph = mx.sym.contrib.box_nms(mx.sym.Variable("rows"), name="nms").tojson()
try:
    mx.sym.load_json(graph.replace("_contrib_box_nms", "_contrib_cvops_box_nms"))
except mx.base.MXNetError as error:
    print(error)
"""
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        error = doctor._exported().text.split('"')[1]
        assert error == "Operator _contrib_cvops_box_nms is not registered"
        assert error in out


class TestGpu:
    def test_missing_driver_is_reported(self, no_driver):
        status, text, hint = doctor._driver()
        assert status == "missing"
        assert f"{NO_DRIVER}: cannot open shared object file" in text
        assert "https://nvidia.com/drivers" in hint
        assert doctor._gpus() == ("missing", "GPU: none", "")

    def test_driver_and_gpus_are_reported(self, driver):
        driver()
        assert doctor._driver() == ("ok", "NVIDIA driver: for CUDA 12.8 and older", "")
        assert doctor._gpus().text.splitlines() == [
            "GPU 0: NVIDIA A10, compute capability 8.6",
            "GPU 1: NVIDIA H200, compute capability 9.0",
        ]

    def test_unsupported_gpus_of_mxnets_kernels_are_named(self, driver, monkeypatch):
        driver()
        status, text, hint = doctor._mxnets_kernels()
        assert (status, hint) == ("note", "keep MXNet's arrays on mx.cpu()")
        assert "sm_50 to sm_86, no PTX" in text
        assert "NVIDIA H200 (compute capability 9.0)" in text
        assert "A10" not in text
        assert "Ours can, through CuPy or PyTorch arrays" in text
        monkeypatch.setattr(cuda11, "DRIVER", NO_DRIVER)
        assert doctor._mxnets_kernels().hint == ""

    @pytest.mark.parametrize(
        ("code", "status"), [(100, "missing"), (999, "broken")], ids=["no device", "other error"]
    )
    def test_error_of_the_driver_is_reported(self, driver, code, status):
        driver(code)
        finding = doctor.examine(doctor._gpus)
        assert finding.status == status
        assert ("error 999" in finding.text) == (code == 999)

    def test_missing_cupy_is_reported(self, hide):
        hide("cupy")
        status, text, hint = doctor._cupy()
        assert status == "missing"
        assert "CuPy: not installed" in text
        assert 'pip install "cvops[cuda12]"' in hint
        assert doctor._nvrtc().status == "missing"

    def test_cupy_with_a_driver_of_its_version_is_ok(self, monkeypatch, no_driver):
        fake_cupy(monkeypatch, "13.6.0", 13000)
        assert doctor._cupy() == ("ok", "cupy-cuda13x 13.6.0, for CUDA 13", "")

    def test_cupy_that_is_newer_than_the_driver_is_broken(self, monkeypatch, driver):
        driver()
        fake_cupy(monkeypatch, "13.6.0", 13000)
        status, text, hint = doctor._cupy()
        assert status == "broken"
        assert text.endswith("the driver is for CUDA 12.8 at most")
        assert hint.startswith('pip uninstall cupy-cuda13x; pip install "cvops[cuda12]"')

    def test_two_distributions_of_cupy_are_broken(self, monkeypatch, no_driver):
        fake_cupy(monkeypatch, "13.6.0", 12090, ["cupy-cuda12x", "cupy-cuda13x"])
        status, _, hint = doctor._cupy()
        assert status == "broken"
        assert hint.startswith("pip uninstall cupy-cuda12x cupy-cuda13x")

    def test_nvrtc_is_reported_with_its_version(self, monkeypatch):
        fake_cupy(monkeypatch, "13.6.0", 12090)
        found = types.SimpleNamespace(getVersion=lambda: (12, 9))
        monkeypatch.setattr(doctor, "load_nvrtc", lambda: found)
        assert doctor._nvrtc() == ("ok", "NVRTC 12.9", "")

    def test_missing_nvrtc_is_reported(self, monkeypatch):
        def load():
            raise RuntimeError("CuPy failed to load libnvrtc.so.12\nand more")

        fake_cupy(monkeypatch, "13.6.0", 12090)
        monkeypatch.setattr(doctor, "load_nvrtc", load)
        status, text, hint = doctor._nvrtc()
        assert (status, hint) == ("missing", 'pip install "cvops[cuda12]"')
        assert text.endswith("CuPy failed to load libnvrtc.so.12")

    def test_torch_is_reported_with_its_version(self, monkeypatch):
        monkeypatch.setattr(doctor, "_version", lambda name: None)
        assert "not installed" in doctor._torch().text
        monkeypatch.setattr(doctor, "_version", lambda name: "2.9")
        assert doctor._torch() == ("ok", "PyTorch 2.9", "")


class TestAdapters:
    """The operators for PyTorch and JAX, which their packages build on import."""

    @pytest.mark.parametrize(
        ("name", "framework", "check"),
        [("torch", "PyTorch", doctor._torch_operators), ("jax", "JAX", doctor._jax_operators)],
    )
    def test_operators_are_reported_at_each_stage(
        self, monkeypatch, tmp_path, name, framework, check
    ):
        subject = f"{framework}'s operators (cvops.{name})"
        monkeypatch.setattr(doctor, "_version", lambda name: None)
        assert check() == ("note", f"{subject}: need {framework}, see above", "")
        monkeypatch.setattr(doctor, "_version", lambda name: "2.9")
        package = tmp_path / name
        package.mkdir()
        init = package / "__init__.py"
        monkeypatch.syspath_prepend(str(tmp_path))
        for code, message in (
            ("raise OSError('libfoo.so: no such file')", "OSError: libfoo.so: no such file"),
            ("import os; os.kill(os.getpid(), 11)", f"signal 11 ends {framework}'s import"),
        ):
            init.write_text(code)
            assert check() == ("broken", f"{subject}: {message}", "")

    @pytest.mark.parametrize(
        ("name", "check"), [("torch", doctor._torch_operators), ("jax", doctor._jax_operators)]
    )
    def test_library_in_the_cache_is_found(self, monkeypatch, tmp_path, name, check):
        pytest.importorskip(name)
        monkeypatch.setenv("CVOPS_CACHE_DIR", str(tmp_path))
        monkeypatch.setenv("CXX", sys.executable)  # accepts --version
        finding = check()
        assert finding.status == "note"
        assert f"not built yet; `import cvops.{name}` builds them" in finding.text
        module = "cvops.backends.torch_adapter" if name == "torch" else "cvops.jax.build"
        (tmp_path / "made").touch()
        built = importlib.import_module(module).recipe().entry().add(tmp_path / "made")
        finding = check()
        assert finding.status == "ok"
        assert finding.text.endswith(f"built, {built}")

    def test_old_pytorch_is_reported(self, monkeypatch, tmp_path):
        package = tmp_path / "torch"
        package.mkdir()
        (package / "__init__.py").write_text(
            "class _C: _GLIBCXX_USE_CXX11_ABI = False\n__version__ = '2.5.1'\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(doctor, "_version", lambda name: "2.5.1")
        status, text, _ = doctor._torch_operators()
        assert status == "broken"
        assert "expected PyTorch 2.6 or later, got 2.5.1" in text

    def test_jax_is_reported_with_its_version(self, monkeypatch):
        monkeypatch.setattr(doctor, "_version", lambda name: None)
        assert "not installed" in doctor._jax().text
        monkeypatch.setattr(doctor, "_version", lambda name: "0.7.1")
        assert doctor._jax() == ("ok", "JAX 0.7.1", "")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "cvops: interrupted\n"),
        (BrokenPipeError(), 141, ""),
    ],
    ids=["ctrl-c", "head"],
)
def test_command_that_is_stopped_has_the_status_of_shells(
    monkeypatch, capsys, error, status, message
):
    def stopped(_):
        raise error

    monkeypatch.setattr(doctor, "run", stopped)
    assert cli.main(["doctor"]) == status
    assert capsys.readouterr().err == message


OUTPUT = """
import sys
from cvops import cli
from cvops.cli import doctor
doctor.run = lambda _: print("text")
sys.exit(cli.main(["doctor"]))
"""


def test_output_without_a_reader_is_no_error():
    """The error is in the flush at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", OUTPUT], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_import_error_of_a_command_is_one_line(monkeypatch, capsys):
    def fail(options):
        raise ImportError("libcudnn.so.8 is missing")

    monkeypatch.setattr(doctor, "_run", fail)
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "cvops: libcudnn.so.8 is missing\n"
