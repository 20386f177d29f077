"""PyTorch's tensors on a GPU, with a current stream of PyTorch's."""

import numpy as np
import pytest
from backend_runner import runner
from cases import CALLS

import cvops


@pytest.mark.parametrize("backend", ["cupy", "native"])
@pytest.mark.parametrize("op", CALLS)
def test_tensors_on_cuda_give_the_results_of_the_cpu(op, backend):
    runner("cuda", backend)  # skips if the backend cannot run
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a torch built for GPUs")
    arrays, options = CALLS[op]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        # The ops must run after these copies, on the same stream.
        inside = [torch.from_numpy(x).cuda() if isinstance(x, np.ndarray) else x for x in arrays]
        out = getattr(cvops, op)(*inside, **options, backend=backend)
        out = out if isinstance(out, tuple) else (out,)
        got = [x.cpu().numpy() for x in out]
    assert all(x.is_cuda for x in out)
    expected = getattr(cvops, op)(*arrays, **options, backend="numpy")
    expected = expected if isinstance(expected, tuple) else (expected,)
    for ours, want in zip(got, expected):
        np.testing.assert_array_equal(ours, want)
