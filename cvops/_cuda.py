"""Where bodies for a GPU run: memory from the caller's library, kernels by CuPy or by C++."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from cvops import _gpu, _kernels
from cvops._arrays import Device, Library
from cvops._program import CallRecorder, LaunchRecorder, Program, Recorder


class Cuda:
    """A GPU, for arrays of one library."""

    def __init__(self, library: Library, device: Device):
        self.library, self.device = library, device

    def run(self, plan: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
        """What the plan's body gives for the caller's arrays, as his kind of array."""
        library, device = self.library, self.device
        # With what keeps it alive: a copy, say.
        memory = [library.memory(x) for x in arrays]
        before = self._set_device(device.number)
        try:
            program = _program(plan, options)
            results = [library.empty(shape, dtype, device) for shape, dtype in program.kinds]
            addresses = [address for address, _ in (*memory, *results)]
            if program.parts:
                size = program.size
                first, _workspace = library.workspace(size, device) if size else (0, None)
                addresses += [first + at for at in program.parts]
            program.queue(addresses, library.stream(device))
            library.finish(self)
        finally:
            if before != device.number:
                self._set_device(before)
        return program.give([x for _, x in results])

    def recorder(self, arrays: Any) -> Recorder:
        """For a body and arrays of these shapes and dtypes."""
        raise NotImplementedError

    def _set_device(self, number: int) -> int:
        """Make a GPU the current one of this thread; the number of the one that was."""
        raise NotImplementedError

    def synchronize(self) -> None:
        """Wait for the default stream."""
        raise NotImplementedError


#: Kept as plans are, since most programs call an op with the same options, too.
@functools.lru_cache(1024)
def _program(plan: Any, options: tuple[Any, ...]) -> Program:
    recorder: Recorder = plan.place.recorder(plan.kinds)
    return recorder.record(plan.body, options)


class CuPy(Cuda):
    """Kernels compiled by NVRTC, loaded and launched by the driver as CuPy binds it."""

    def recorder(self, arrays: Any) -> Recorder:
        return LaunchRecorder(self.device, arrays)

    def _set_device(self, number: int) -> int:
        return _kernels.set_device(number)

    def synchronize(self) -> None:
        _kernels.synchronize()


class Native(Cuda):
    """Kernels compiled by nvcc, launched by the extension."""

    def recorder(self, arrays: Any) -> Recorder:
        return CallRecorder(self.device, arrays, self.module)

    @functools.cached_property
    def module(self) -> Any:
        return _gpu.extension()

    def _set_device(self, number: int) -> int:
        before: int = self.module.set_device(number)
        return before

    def synchronize(self) -> None:
        self.module.synchronize()
