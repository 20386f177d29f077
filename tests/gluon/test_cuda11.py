"""The preload of the CUDA libraries for MXNet's GPU wheel, tested with small libraries."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cvops._mxnet import cuda11

ROOT = Path(__file__).parents[2]

#: library -> its folder, and the libraries that it needs, in the order of its entries. No machine
#: has one of these versions.
LIBRARIES = {
    "libcuda.so.test": ("driver", []),
    "libcudart.so.test": ("site/nvidia/cuda_runtime/lib", []),
    "libcublasLt.so.test": ("site/nvidia/cublas/lib", []),
    "libcublas.so.test": ("site/nvidia/cublas/lib", ["libcublasLt.so.test"]),
    "libcusolver.so.test": (
        "site/nvidia/cusolver/lib",
        ["libcublas.so.test", "libcudart.so.test"],
    ),
    "libopenblas.so.test": ("site/mxnet", []),
    "libmxnet.so": (
        "site/mxnet",
        # libcusolver comes before the libraries that it needs.
        [
            *("libcusolver.so.test", "libcublas.so.test", "libcudart.so.test", "libcuda.so.test"),
            "libopenblas.so.test",
        ],
    ),
}


def function_name(soname):
    return "from_" + soname.split(".")[0]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the libraries. The function of each returns 1 + the sum of those it needs."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("cuda11")
    paths = {}
    for soname, (where, needs) in LIBRARIES.items():
        names = [function_name(need) for need in needs]
        declared = "".join(f'extern "C" int {name}();\n' for name in names)
        result = " + ".join(["1", *(f"{name}()" for name in names)])
        text = f'{declared}extern "C" int {function_name(soname)}() {{ return {result}; }}\n'
        source = folder / f"{soname}.cpp"
        source.write_text(text)
        paths[soname] = folder / where / soname
        paths[soname].parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                *("g++", "-shared", "-fPIC", "-nostdlib", "-Wl,--allow-shlib-undefined"),
                *(f"-Wl,-soname,{soname}", "-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN"),
                *("-Wl,--disable-new-dtags", "-o", paths[soname], source),
                *(paths[need] for need in needs),
            ],
            check=True,
        )
    # As with the real libraries, the loader searches only the folder of libmxnet.so.
    return folder


@pytest.fixture
def folder(built, tmp_path):
    """A copy of the folder, which a test may change."""
    copied = tmp_path / "copied"
    shutil.copytree(built, copied)
    (copied / "site/mxnet/__init__.py").write_text("raise ImportError('it was imported')\n")
    return copied


def in_new_process(folder, code, loader_path="driver"):
    """The output of ``code`` in a new process, because libraries stay loaded."""
    code = f"""
import ctypes, json, sys
sys.path[:0] = [{str(folder / "site")!r}, {str(ROOT)!r}]
from cvops._mxnet import cuda11
cuda11.DRIVER = "libcuda.so.test"
library = cuda11.libmxnet()
{code}
"""
    environment = {"LD_LIBRARY_PATH": str(folder / loader_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PRELOAD = "print(json.dumps(cuda11.preload(library)))"
LOAD = "print(ctypes.CDLL(str(library)).from_libmxnet())"
IMPORT = """
from cvops._mxnet import mxnet
try:
    mxnet()
except ImportError as error:
    print(error)
"""


def preload(folder, **options):
    return json.loads(in_new_process(folder, PRELOAD, **options))


@pytest.mark.parametrize("soname", LIBRARIES)
def test_needed_lists_the_libraries_in_the_order_of_the_entries(built, soname):
    where, needs = LIBRARIES[soname]
    assert cuda11.needed(built / where / soname) == needs


def test_needed_equals_the_output_of_readelf(built):
    if shutil.which("readelf") is None:
        pytest.skip("needs readelf")
    files = [cuda11.libmxnet(), *(ROOT / "cvops").glob("*.so"), *built.rglob("libmxnet.so")]
    for file in filter(None, files):
        text = subprocess.run(["readelf", "-d", file], capture_output=True, text=True).stdout
        assert cuda11.needed(file) == re.findall(r"\(NEEDED\).*\[(.*)\]", text)


@pytest.mark.parametrize("length", [0, 10, 64, 100, 1000])
def test_needed_is_empty_for_a_truncated_library_and_for_text(built, tmp_path, length):
    cut = tmp_path / "cut.so"
    cut.write_bytes((built / "site/mxnet/libmxnet.so").read_bytes()[:length])
    assert cuda11.needed(cut) == []
    cut.write_bytes(b"a text " * 100)
    assert cuda11.needed(cut) == []


def test_library_does_not_load_without_the_preload(folder):
    code = """
try:
    ctypes.CDLL(str(library))
except OSError as error:
    print(error)
"""
    assert "libcusolver.so.test: cannot open" in in_new_process(folder, code)


def test_library_loads_after_the_preload(folder):
    # cublasLt 1, cublas 2, cudart 1, cusolver 1 + 2 + 1; in all 1 + 4 + 2 + 1 + 1 + 1.
    assert in_new_process(folder, f"{PRELOAD}\n{LOAD}").split() == ["{}", "10"]


def test_library_on_the_path_of_the_loader_needs_no_wheel(folder):
    (folder / "site/nvidia/cuda_runtime/lib/libcudart.so.test").rename(
        folder / "driver/libcudart.so.test"
    )
    assert preload(folder) == {}


@pytest.mark.parametrize(
    ("removed", "missing"),
    [
        ("cuda_runtime", {"libcudart.so.test": 'pip install "nvidia-cuda-runtime-cu11"'}),
        # libcusolver needs it too, but is not missing.
        ("cublas", {"libcublas.so.test": 'pip install "nvidia-cublas-cu11"'}),
        ("cublas/lib/libcublasLt.so.test", {"libcublasLt.so.test": "cublas"}),
        ("cusolver", {"libcusolver.so.test": 'pip install "nvidia-cusolver-cu11"'}),
    ],
    ids=["cuda_runtime", "cublas", "cublasLt", "cusolver"],
)
def test_missing_library_is_reported_with_its_package(folder, removed, missing):
    path = folder / "site/nvidia" / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = preload(folder)
    assert found.keys() == missing.keys()
    for soname, remedy in missing.items():
        assert remedy in found[soname]


def test_damaged_library_is_reported_without_a_package(folder):
    (folder / "site/nvidia/cuda_runtime/lib/libcudart.so.test").write_text("not a library")
    (remedy,) = preload(folder).values()
    assert "libcudart.so.test: " in remedy
    assert "pip" not in remedy


def test_missing_libraries_are_reported_before_mxnet_is_imported(folder):
    shutil.rmtree(folder / "site/nvidia/cublas")
    (folder / "driver/libcuda.so.test").unlink()
    text = in_new_process(folder, IMPORT)
    for part in (
        'libcublas.so.test: pip install "nvidia-cublas-cu11"',
        "libcuda.so.test: the NVIDIA driver",
        'pip install "cvops[mxnet-cu112]"',
        "pip uninstall mxnet-cu112",
    ):
        assert part in text
    assert "libcudart" not in text
    assert "it was imported" not in text


def test_mxnet_is_imported_if_no_library_is_missing(folder):
    assert in_new_process(folder, IMPORT).strip() == "it was imported"


def test_environment_variable_selects_the_library(monkeypatch, built):
    file = str(built / "driver/libcuda.so.test")
    monkeypatch.setenv("MXNET_LIBRARY_PATH", file)
    assert cuda11.libmxnet() == Path(file)


def test_cpu_wheel_needs_no_library_of_cuda(mx):
    if mx.runtime.Features().is_enabled("CUDA"):
        pytest.skip("MXNet is for GPUs here")
    assert cuda11.preload(cuda11.libmxnet()) == {}


@pytest.mark.parametrize(
    ("soname", "package"),
    [
        ("libcudart.so.11.0", "nvidia-cuda-runtime-cu11"),
        ("libcublasLt.so.11", "nvidia-cublas-cu11"),
        ("libcudnn.so.8", "nvidia-cudnn-cu11<9"),
        ("libnvToolsExt.so.1", "nvidia-nvtx-cu11"),
        ("libcuda.so.1", None),
        ("libc.so.6", None),
    ],
)
def test_package_of_a_library_is_that_of_its_prefix(soname, package):
    assert cuda11.package(soname) == package


def test_extra_has_the_packages_of_all_libraries():
    text = (ROOT / "pyproject.toml").read_text()
    (extra,) = re.findall(r"^mxnet-cu112 = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    listed = set(re.findall(r'"(nvidia-[\w-]+)', extra))
    assert listed == {name.partition("<")[0] for name in cuda11.PACKAGES.values()}


NVRTC = """
import ctypes, sys
from cvops import _imports
from cvops.backends import nvrtc
_imports.load_nvrtc()
print(ctypes.CDLL("libnvrtc.so.test").layer(), ctypes.CDLL("libnvrtc-builtins.so.test").layer())
"""


@pytest.mark.parametrize("package", ["cuda_nvrtc", "cu13"])
@pytest.mark.parametrize("entry", ["PYTHONPATH", "user", "pth"])
def test_nvrtc_of_the_first_folder_with_packages_is_loaded(tmp_path, package, entry):
    """The folders of packages are outside of the interpreter, by each way to add one."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    layers = [tmp_path / "empty", tmp_path / "first", tmp_path / "second"]
    for number, layer in enumerate(layers):
        libraries = layer / "nvidia" / package / "lib"
        libraries.mkdir(parents=True)
        for name in ("libnvrtc", "libnvrtc-builtins") if number else ():
            source = tmp_path / "layer.cpp"
            source.write_text(f'extern "C" int layer() {{ return {number}; }}\n')
            command = "g++", "-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{name}.so.test"
            subprocess.run(
                [*command, "-o", libraries / f"{name}.so.test", source],
                check=True,
            )
    cupy = layers[0] / "cupy" / "cuda"
    cupy.mkdir(parents=True)
    for file in (cupy / "__init__.py", cupy / "nvrtc.py", cupy.parent / "__init__.py"):
        file.touch()
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(layers[0])}
    prepare = ""
    if entry == "PYTHONPATH":
        environment["PYTHONPATH"] = ":".join(map(str, layers))
    elif entry == "user":  # as the interpreter does at its start for a user's packages
        prepare = f"import site; [site.addsitedir(p) for p in {list(map(str, layers[1:]))}]\n"
    else:
        (layers[0] / "layers.pth").write_text("".join(f"{layer}\n" for layer in layers[1:]))
        prepare = f"import site; site.addsitedir({str(layers[0])!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", prepare + NVRTC],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.stdout.split(), done.stderr) == (["1", "1"], "")
