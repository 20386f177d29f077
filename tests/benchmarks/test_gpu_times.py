"""Times by CUDA's events, and peak memory."""

from types import SimpleNamespace

import pytest
from tools import gpu_times
from tools.cvops_backends import Replay
from tools.implementations import IMPLEMENTATIONS


@pytest.mark.parametrize("host", [5e-6, 50e-6, 400e-6], ids=["5 us", "50 us", "400 us"])
def test_time_of_the_device_excludes_the_time_of_the_host(machine, host):
    call = machine.call(host, warm=10e-6, cold=17e-6)
    times = gpu_times.measure(call, machine.stream, 1024, 0.1)
    assert times == pytest.approx((10e-6, 17e-6, host, 1024))


def test_time_of_the_device_includes_a_wait_in_the_call(machine):
    def call():
        machine.queue(20e-6, 10e-6)
        machine.synchronize()
        machine.queue(20e-6, 10e-6)

    times = gpu_times.measure(call, machine.stream, None, 0.1)
    # The second half waits for the first, and for 20 us of the host after it.
    assert times.cold == pytest.approx(10e-6 + 20e-6 + 10e-6)
    assert times.host == pytest.approx(20e-6 + 10e-6 + 20e-6)


def test_long_call_is_repeated_few_times(machine):
    calls = []

    def call():
        calls.append(1)
        machine.queue(1e-3, 1.0)

    assert gpu_times.measure(call, machine.stream, None, 0.1).warm == pytest.approx(1.0)
    assert len(calls) <= 7


def test_buffer_that_clears_the_cache_has_twice_its_size(machine):
    gpu_times.occupy(machine.stream, 0)
    assert machine.written == 2 * (50 << 20)


def test_memory_is_the_peak_without_the_result():
    hooks = pytest.importorskip("cupy.cuda.memory_hook")

    def notify(name, size):
        for hook in hooks.get_memory_hooks().values():
            getattr(hook, name)(device_id=0, mem_size=size, mem_ptr=0, pmem_id=0)

    def call():
        notify("malloc_postprocess", 1000)  # the result, which is not freed
        notify("malloc_postprocess", 64)
        notify("free_postprocess", 64)
        notify("malloc_postprocess", 48)
        notify("malloc_postprocess", 32)
        notify("free_postprocess", 80)

    assert gpu_times.cupy_memory(call) == 80
    assert not hooks.get_memory_hooks()


def test_graph_is_timed_on_its_stream(machine):
    call = machine.call(3e-6, 8e-6, 9e-6)
    graph = SimpleNamespace(launch=lambda stream: call())
    times = IMPLEMENTATIONS["native-graph"].gpu_times(Replay(graph, machine.stream, None), 0.1)
    assert times[:3] == pytest.approx((8e-6, 9e-6, 3e-6))
    assert times.memory is None
