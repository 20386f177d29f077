"""exp and log of ``kernels/exp_log.cuh`` and of the reference implementation."""

import numpy as np
import pytest

from cvops.backends import nvrtc
from cvops.ops import _exp_log

KERNEL = """
extern "C" __global__ void exp_and_log(float* e, float* l, double* d, const float* x, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    e[i] = cvops::exp_of(x[i]), l[i] = cvops::log_of(x[i]), d[i] = cvops::log_in_double(x[i]);
  }
}
"""
SPECIAL = [
    0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1,
    1e-45,
    -1,
    88.72283,
    88.72284,
    -103.97,
    -103.98,
    3.4e38,
]


@pytest.fixture(scope="module")
def values():
    """Floats of all exponents, floats with a finite positive exp, floats near 1, special values."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 300_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    parts = bits, rng.uniform(-104, 89, 300_000), rng.uniform(0.5, 2, 300_000), SPECIAL
    return np.concatenate([np.float32(part) for part in parts])


def assert_same_bits(a, b):
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_array_equal(
        np.where(np.isnan(a), 0, a.view(np.int32)), np.where(np.isnan(b), 0, b.view(np.int32))
    )


def test_kernel_functions_have_the_bits_of_the_reference(values):
    from emulator.emulator import Module

    module = Module(nvrtc.source("exp_log") + KERNEL, "math")
    exps, logs = np.empty_like(values), np.empty_like(values)
    blocks = -(-len(values) // 256)
    doubles = np.empty_like(values, np.float64)
    args = exps, logs, doubles, values, np.int32(len(values))
    module.launch("exp_and_log", (blocks,), (256,), args)
    assert_same_bits(exps, _exp_log.exp(values))
    assert_same_bits(logs, _exp_log.log(values))
    np.testing.assert_array_equal(doubles, _exp_log.log_in_double(values))


def test_log_in_double_has_a_relative_error_of_a_few_roundings(values):
    with np.errstate(all="ignore"):
        exact = np.log(values.astype(np.longdouble))
    ours = _exp_log.log_in_double(values)
    finite = np.isfinite(exact) & (values != 1)
    np.testing.assert_array_equal(ours[~finite], exact[~finite].astype(np.float64))
    assert (np.abs(ours[finite] / exact[finite] - 1) <= 1e-15).all()


@pytest.mark.parametrize("name", ["exp", "log"])
def test_result_is_correctly_rounded(values, name):
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(values.astype(np.longdouble)).astype(np.float32)
    differ = np.flatnonzero((getattr(_exp_log, name)(values) != exact) & ~np.isnan(exact))
    assert len(differ) <= 1


@pytest.mark.parametrize("name", ["exp", "log"])
def test_result_is_within_one_unit_of_mxnet(mx, values, name):
    theirs = getattr(mx.nd, name)(mx.nd.array(values)).asnumpy()
    ours = getattr(_exp_log, name)(values)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    units = np.abs(ours.view(np.int32).astype(np.int64) - theirs.view(np.int32))[~np.isnan(ours)]
    assert units.max() <= 1
