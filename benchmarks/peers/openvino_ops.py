"""Models with a single operator of OpenVINO."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Callable
from weakref import WeakKeyDictionary

import numpy as np

#: Other types than float32 would be other results.
CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


#: The inputs that each request has.
_inputs: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()


@lru_cache(maxsize=8)
def _request(make: Callable[..., Any], *inputs: tuple[Any, tuple[int, ...]]) -> Any:
    """Return a request of the operator for inputs of these types and shapes."""
    import openvino
    from openvino import opset15

    parameters = [opset15.parameter(shape, of_type) for of_type, shape in inputs]
    model = openvino.Model([make(opset15, *parameters)], parameters)
    return openvino.Core().compile_model(model, "CPU", CONFIG).create_infer_request()


def call(make: Callable[..., Any], *arrays: np.ndarray) -> Callable[[], np.ndarray]:
    """Return a function that runs an operator on these inputs, with OpenVINO's default threads.

    ``make`` gets the module of operators and a parameter for each input. Calls with the same
    function and shapes share a request. The result is overwritten by the next call.
    """
    import openvino

    request = _request(make, *((x.dtype.type, x.shape) for x in arrays))
    tensors = [openvino.Tensor(np.ascontiguousarray(x)) for x in arrays]

    def run() -> np.ndarray:
        if _inputs.get(request) is not tensors:
            for i, tensor in enumerate(tensors):
                request.set_input_tensor(i, tensor)
            _inputs[request] = tensors
        request.infer()
        return request.get_output_tensor(0).data

    return run
