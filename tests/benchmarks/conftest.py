"""A simulated GPU for the tests of times."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from tools import gpu_times


class Machine:
    """A host and a device in place of CuPy's, each with a clock in seconds.

    Queued work starts when the device is free, but not before the host has queued it.
    """

    #: The seconds of a write to the buffer that clears the cache.
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
        """Queue work; ``host`` and ``device`` are the seconds that each needs for it."""
        self.host += host
        self.device = max(self.device, self.host) + device

    def synchronize(self):
        self.host = max(self.host, self.device)

    def call(self, host, warm, cold):
        """Return a call with these seconds of the host, and of the device by its cache."""

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
