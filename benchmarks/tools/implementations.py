"""The implementations that the benchmarks compare.

Each available implementation runs a job in a test of its own. Its result is compared with that of
cvops on the CPU before the timing, within the rules of a peer. Each implementation gets arrays of
its own library. A timed call includes the wait for its result, which is a synchronization on a GPU.
The implementations named "graph" replay a captured call many times. ``gpu_times`` also measures
with CUDA's events. Inputs that fit into a cache are in the cache, except in its cold times. Each
library uses its default number of threads; see ``machine.threads``.
"""

from __future__ import annotations

from peers.libraries import LIBRARIES, Module, MXNet, OnnxRuntime, OpenVino, Torch, TorchVision
from tools.cvops_backends import Captured, Cvops, OneThread
from tools.interface import Implementation

IMPLEMENTATIONS: dict[str, Implementation] = {
    "mxnet": MXNet(LIBRARIES["mxnet"]),
    "torchvision": TorchVision("torchvision", LIBRARIES["torchvision"]),
    "onnxruntime": OnnxRuntime(LIBRARIES["onnxruntime"]),
    "openvino": OpenVino(LIBRARIES["openvino"]),
    "opencv": Module("opencv", "cv2"),
    "powerboxes": Module("powerboxes", "powerboxes"),
    "torch": Torch("torch", LIBRARIES["torch"]),
    "book": Torch("book", LIBRARIES["book"]),
    "numpy": Cvops("cvops numpy", "cpu", "numpy"),
    "native": Cvops("cvops native", "cpu", "native"),
    "native-one-thread": OneThread("cvops native, one thread", "cpu", "native"),
    "torchvision-gpu": TorchVision("torchvision", "torchvision, GPU", "cuda"),
    "torch-gpu": Torch("torch", "PyTorch, GPU", "cuda"),
    "book-gpu": Torch("book", "the book's PyTorch, GPU", "cuda"),
    "cupy-gpu": Cvops("cvops cupy, GPU", "cuda", "cupy"),
    "native-gpu": Cvops("cvops native, GPU", "cuda", "native"),
    "cupy-graph": Captured("cvops cupy, GPU graph", "cuda", "cupy"),
    "native-graph": Captured("cvops native, GPU graph", "cuda", "native"),
}
#: The implementations that are too slow for the large jobs for a GPU.
PEERS_ON_CPU = tuple(
    name for name, x in IMPLEMENTATIONS.items() if x.library is not None and x.device == "cpu"
)
