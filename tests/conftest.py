import gc
import os
from pathlib import Path

# MXNet's handler of fatal signals would replace that of pytest, which prints where a process ends.
os.environ.setdefault("MXNET_USE_SIGNAL_HANDLER", "0")

import pytest
from backend_runner import DEVICE_BACKENDS, runner
from emulator import backends

backends.register()
if os.environ.get("CVOPS_EMULATED_GPUS"):
    backends.install_driver()

# The garbage collector would visit the objects of all tests again and again, during the collection
# of the tests and then in each test.
gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Keep each n-th of the selected tests, for CVOPS_TESTS_EACH=n."""
    each = int(os.environ.get("CVOPS_TESTS_EACH", 1))
    config.hook.pytest_deselected(items=[x for i, x in enumerate(items) if i % each])
    items[:] = items[::each]


def pytest_make_parametrize_id(val):
    """The id of a dictionary of options is its keys; the id of a shape is its sizes."""
    if isinstance(val, dict):
        return "-".join(map(str, val)) or "defaults"
    if isinstance(val, tuple) and val and all(type(x) is int for x in val):
        return "x".join(map(str, val))
    return None


@pytest.fixture(params=DEVICE_BACKENDS, ids="-".join)
def run(request):
    """run(op, *arrays, **options) on each backend."""
    return runner(*request.param)


@pytest.fixture(params=[pair for pair in DEVICE_BACKENDS if pair[1] != "numpy"], ids="-".join)
def run_other(request):
    """The backends of ``run`` without the reference."""
    return runner(*request.param)


@pytest.fixture(params=[*DEVICE_BACKENDS, ("cpu", "emulated-small")], ids="-".join)
def run_any_steps(request):
    """The backends of ``run``, and the emulator with the second values of CVOPS_STEP."""
    return runner(*request.param)


#: With this variable each sanitizer runs with both values of CVOPS_STEP, which takes twice as long.
_ALL = bool(os.environ.get("CVOPS_ALL_SANITIZERS"))


@pytest.fixture(params=["emulated-address", "emulated-thread"][: 2 if _ALL else 1])
def run_sanitized(request):
    """The kernels under AddressSanitizer, and under ThreadSanitizer if ``_ALL``."""
    return runner("cpu", request.param)


@pytest.fixture(params=["emulated-small-thread", "emulated-small-address"][: 2 if _ALL else 1])
def run_sanitized_small(request):
    """ThreadSanitizer with the second values of CVOPS_STEP, and AddressSanitizer if ``_ALL``."""
    return runner("cpu", request.param)


@pytest.fixture
def launches(monkeypatch):
    """The launches of the emulated backends, in order."""
    recorded = []

    def record(launch):
        recorded.append(launch)
        return launch

    monkeypatch.setattr(backends, "on_launch", record)
    return recorded


@pytest.fixture
def cpu_variants():
    """cpu_variants(call) yields call() for each instruction set, with 1, 2 and 3 threads."""
    native = pytest.importorskip("cvops._native")
    simd, threads = native.simd(), native.num_threads()

    def results(call):
        for name in native.simd_names():
            native.set_simd(name)
            for count in (1, 2, 3):
                native.set_num_threads(count)
                yield call()

    yield results
    native.set_simd(simd)
    native.set_num_threads(threads)


@pytest.fixture(scope="session")
def mx():
    """MXNet, whose operators give the expected results."""
    from cvops._mxnet import mxnet

    try:
        return mxnet()
    except ImportError as error:
        pytest.skip(str(error))


def pytest_terminal_summary(terminalreporter):
    """Print the number of passed tests per op and implementation, and the registers per kernel."""
    passed = terminalreporter.stats.get("passed", [])
    names = list(map("-".join, DEVICE_BACKENDS))
    names += ["emulated-small", "emulated-address", "emulated-thread", "mxnet"]
    counts = {}
    for report in passed:
        op = Path(report.fspath).stem[len("test_") :]
        _, _, rest = report.nodeid.partition("::")
        # "cpu-emulated" is a prefix of "cpu-emulated-small": the longest match counts.
        found = [name for name in names if f"[{name}" in rest or f"-{name}" in rest]
        name = "mxnet" if "mxnet" in rest.partition("[")[0] else max(found, key=len, default=None)
        if name and (Path(__file__).parents[1] / "kernels" / f"{op}.cuh").is_file():
            counts.setdefault(op, dict.fromkeys(names, 0))[name] += 1
    if counts:
        terminalreporter.section(
            "passed tests of each op, by implementation (mxnet: against MXNet's)"
        )
        terminalreporter.line(f"{'':20}" + "".join(f"{name:>20}" for name in names))
        for op, row in sorted(counts.items()):
            terminalreporter.line(f"{op:20}" + "".join(f"{row[name]:>20}" for name in names))
    registers = [p for report in passed for p in report.user_properties if "registers" in p[0]]
    if registers:
        terminalreporter.section("registers of each kernel")
        for kernel in sorted({name.partition(",")[0] for name, _ in registers}):
            of_arch = [
                f"{name.rpartition(' ')[2]}: {n}"
                for name, n in registers
                if name.startswith(f"{kernel},")
            ]
            terminalreporter.line(f"{kernel:28}" + ", ".join(of_arch))
