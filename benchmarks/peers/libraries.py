"""The other libraries as implementations of a job."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import Any, Callable

import numpy as np
from peers import onnx_ops, openvino_ops
from tools import gpu_times
from tools.gpu_times import GpuTimes
from tools.interface import Implementation, Unavailable
from tools.jobs import Job, flat

from cvops._mxnet import mxnet

#: The names of the libraries, by the keys of ``Job.peers``.
LIBRARIES = {
    "mxnet": "MXNet",
    "torchvision": "torchvision",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "opencv": "OpenCV",
    "powerboxes": "powerboxes",
    "torch": "PyTorch",
    "book": "the book's PyTorch",
}


class Library(Implementation):
    """Another library; each job has its call."""

    def prepare(self, job: Job) -> Callable[[], Any]:
        assert self.library is not None
        if self.library not in job.peers:
            raise Unavailable("has no such op")
        return job.peers[self.library].prepare(*self.module_and_array())

    def module_and_array(self) -> tuple[Any, Callable[..., Any]]:
        """Return the module, and the function that makes its arrays from NumPy's."""
        raise NotImplementedError


class MXNet(Library):
    library = "mxnet"

    def missing(self) -> str | None:
        try:
            mxnet()
        except ImportError as error:
            return str(error)
        return None

    def module_and_array(self) -> tuple[Any, Callable[..., Any]]:
        return mxnet(), mxnet().nd.array

    def wait(self, out: Any) -> None:
        for x in flat(out):
            x.wait_to_read()


class Torch(Library):
    """PyTorch's own kernels; a job gets the module ``peers.torch_ops``."""

    #: The modules that it needs, and the one that a job gets.
    modules: tuple[str, ...] = ("torch",)
    module = "peers.torch_ops"

    def __init__(self, library: str, name: str, device: str = "cpu"):
        super().__init__(name, device)
        self.library = library

    def missing(self) -> str | None:
        if not all(map(importlib.util.find_spec, self.modules)):
            return f"needs {' and '.join(self.modules)}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for module in self.modules:
                    importlib.import_module(module)
        except (ImportError, RuntimeError) as error:  # the two versions do not match
            return f"cannot be imported: {error}"
        if self.device == "cuda" and not importlib.import_module("torch").cuda.is_available():
            return "needs an NVIDIA GPU and a torch built for it"
        return None

    def module_and_array(self) -> tuple[Any, Callable[..., Any]]:
        import torch

        module = importlib.import_module(self.module)
        return module, lambda x: torch.from_numpy(x).to(self.device)

    def wait(self, out: Any) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def gpu_times(self, call: Callable[[], Any], seconds: float) -> GpuTimes | None:
        """Measure with CuPy's events: the current stream of both libraries is the default one."""
        if self.device == "cpu" or not importlib.util.find_spec("cupy"):
            return None
        import cupy

        memory = gpu_times.torch_memory(call)
        return gpu_times.measure(call, cupy.cuda.Stream.null, memory, seconds)


class TorchVision(Torch):
    """torchvision; a job gets its module."""

    modules = "torch", "torchvision"
    module = "torchvision"

    def missing(self) -> str | None:
        missing = super().missing()
        if missing is None and not importlib.import_module("torchvision").extension._has_ops():
            return "cannot load its compiled operators"
        return missing


class OnnxRuntime(Library):
    """Single operators of ONNX Runtime; a job gets the module ``peers.onnx_ops``."""

    library = "onnxruntime"

    def missing(self) -> str | None:
        if not importlib.util.find_spec("onnxruntime"):
            return "needs onnxruntime"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import onnxruntime  # noqa: F401
        except ImportError as error:  # a build for another NumPy
            return f"cannot be imported: {error}"
        return None

    def module_and_array(self) -> tuple[Any, Callable[..., Any]]:
        return onnx_ops, np.asarray


class OpenVino(Library):
    """Single operators of OpenVINO; a job gets the module ``peers.openvino_ops``."""

    library = "openvino"

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("openvino") else "needs openvino"

    def module_and_array(self) -> tuple[Any, Callable[..., Any]]:
        return openvino_ops, np.asarray


class Module(Library):
    """A library with functions for NumPy arrays; a job gets its module."""

    def __init__(self, library: str, module: str):
        super().__init__(LIBRARIES[library])
        self.library, self.module = library, module

    def missing(self) -> str | None:
        return None if importlib.util.find_spec(self.module) else f"needs {self.module}"

    def module_and_array(self) -> tuple[Any, Callable[..., Any]]:
        return importlib.import_module(self.module), np.asarray
