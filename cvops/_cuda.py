"""Where bodies for a GPU run: memory from the caller's library, kernels by CuPy or by C++."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Callable

from cvops import _gpu, _kernels
from cvops._arrays import Device, Library
from cvops._program import CallRecorder, LaunchRecorder, Program, Recorder


class Cuda:
    """A GPU, for arrays of one library."""

    def __init__(self, library: Library, device: Device):
        self.library, self.device, self._number = library, device, device.number

    def run(self, plan: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
        """What the plan's body gives for the caller's arrays, as his kind of array."""
        library, device = self.library, self.device
        addresses, held, results = [], [], []
        for x in arrays:
            address, owner = library.memory(x)
            addresses.append(address)
            held.append(owner)
        before = self._set_device(self._number)
        try:
            program = _program(plan, options)
            for shape, dtype in program.kinds:
                address, owner = library.empty(shape, dtype, device)
                addresses.append(address)
                results.append(owner)
            if program.parts:
                size = program.size
                first, owner = library.workspace(size, device) if size else (0, None)
                held.append(owner)
                addresses += [first + at for at in program.parts]
            program.queue(addresses, library.stream(device))
            library.finish(self)
        finally:
            if before != self._number:
                self._set_device(before)
        return program.give(results)

    def recorder(self, arrays: Any) -> Recorder:
        """For a body and arrays of these shapes and dtypes."""
        raise NotImplementedError

    #: Makes a GPU the current one of this thread, and gives the number of the one that was.
    _set_device: Callable[[int], int]
    #: Waits for the default stream.
    synchronize: Callable[[], None]


#: Kept as plans are, since most programs call an op with the same options, too. Fewer of them: one
#: takes about 2 kB a launch.
@functools.lru_cache(256)
def _program(plan: Any, options: tuple[Any, ...]) -> Program:
    recorder: Recorder = plan.place.recorder(plan.kinds)
    return recorder.record(plan.body, options)


class CuPy(Cuda):
    """Kernels compiled by NVRTC, loaded and launched by the driver as CuPy binds it."""

    _set_device = staticmethod(_kernels.set_device)
    synchronize = staticmethod(_kernels.synchronize)

    def recorder(self, arrays: Any) -> Recorder:
        return LaunchRecorder(self.device, arrays)


class Native(Cuda):
    """Kernels compiled by nvcc, launched by the extension."""

    def __init__(self, library: Library, device: Device):
        super().__init__(library, device)
        self._extension = extension = self.extension()
        self._set_device, self.synchronize = extension.set_device, extension.synchronize

    def extension(self) -> Any:
        return _gpu.extension()

    def recorder(self, arrays: Any) -> Recorder:
        return CallRecorder(self.device, arrays, self._extension)
