"""Models with a single operator of OpenVINO."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

#: Other types than float32 would be other results.
CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


def call(make: Callable[..., Any], *arrays: np.ndarray) -> Callable[[], np.ndarray]:
    """Return a function that runs an operator on these inputs, with OpenVINO's default threads.

    ``make`` gets the module of operators and a parameter for each input. The result is overwritten
    by the next call.
    """
    import openvino
    from openvino import opset15

    inputs = [opset15.parameter(x.shape, x.dtype.type) for x in arrays]
    model = openvino.Model([make(opset15, *inputs)], inputs)
    request = openvino.Core().compile_model(model, "CPU", CONFIG).create_infer_request()
    for i, x in enumerate(arrays):
        request.set_input_tensor(i, openvino.Tensor(np.ascontiguousarray(x)))

    def run() -> np.ndarray:
        request.infer()
        return request.get_output_tensor(0).data

    return run
