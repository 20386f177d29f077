"""The capture of each op in a CUDA graph, which allows neither synchronization nor allocation."""

import numpy as np
import pytest
from backend_runner import runner
from cases import CALLS

import cvops


@pytest.mark.parametrize("backend", ["cupy", "native"])
@pytest.mark.parametrize("op", CALLS)
def test_captured_call_gives_the_same_result_at_each_launch(op, backend):
    runner("cuda", backend)  # skips if the backend cannot run
    cupy = pytest.importorskip("cupy")
    arrays, options = CALLS[op]
    inside = [cupy.asarray(x) if isinstance(x, np.ndarray) else x for x in arrays]

    def call():
        out = getattr(cvops, op)(*inside, **options, backend=backend)
        return out if isinstance(out, tuple) else (out,)

    with cupy.cuda.Stream(non_blocking=True) as stream:
        for _ in range(3):  # loads the kernels, and leaves memory for the capture in CuPy's pool
            call()
        stream.synchronize()
        stream.begin_capture(cupy.cuda.runtime.streamCaptureModeGlobal)  # refuses cudaMalloc
        out = call()
        graph = stream.end_capture()
    expected = getattr(cvops, op)(*arrays, **options, backend="numpy")
    expected = expected if isinstance(expected, tuple) else (expected,)
    for _ in range(2):  # the second launch finds the scratch memory of the first
        with stream:
            for x in out:
                x.data.memset_async(7, x.nbytes)
            graph.launch(stream)
            stream.synchronize()
        for got, want in zip(out, expected):
            np.testing.assert_array_equal(got.get(), want)
