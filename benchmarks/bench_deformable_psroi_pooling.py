"""deformable_psroi_pooling, forward and backward, of R-FCN's maps, with 16 samples in each bin.

MXNet adds the samples, and the gradients of pixels and offsets, in the order of cvops.
"""

from functools import lru_cache, partial

import numpy as np
from bench_psroi_pooling import CASES, SCALE, SIZE, make_inputs
from tools.jobs import Job, Peer

import cvops

OPTIONS = dict(sample_per_part=4, trans_std=0.1)


def make_offsets(num):
    return np.random.default_rng(2).standard_normal((num, 2, SIZE, SIZE), np.float32)


@lru_cache(maxsize=1)
def job(num, dim, shape):
    data, rois, size, bins = make_inputs(num, dim, shape)
    arrays = data, rois, make_offsets(num)
    sizes = dict(spatial_scale=SCALE, output_dim=dim, group_size=SIZE, pooled_size=SIZE)

    def mxnet(mx, array):
        inputs = map(array, arrays)
        return partial(mx.nd.contrib.DeformablePSROIPooling, *inputs, **sizes, **OPTIONS)

    return Job(
        "deformable_psroi_pooling",
        size,
        partial(cvops.deformable_psroi_pooling, **sizes, **OPTIONS),
        arrays,
        work=(bins, "bins"),
        written=4 * bins,
        peers=dict(mxnet=Peer(mxnet)),
        too_slow=["numpy"] if num > 100 else [],
    )


@lru_cache(maxsize=1)
def backward_job(num, dim, shape):
    data, rois, size, bins = make_inputs(num, dim, shape)
    arrays = data, rois, make_offsets(num)
    out_grad = np.random.default_rng(1).standard_normal((num, dim, SIZE, SIZE), np.float32)
    sizes = dict(spatial_scale=SCALE, group_size=SIZE)

    def mxnet(mx, array):
        inputs, grad = [array(x) for x in arrays], array(out_grad)
        for x in inputs:
            x.attach_grad()
        with mx.autograd.record():
            out = mx.nd.contrib.DeformablePSROIPooling(
                *inputs, output_dim=dim, pooled_size=SIZE, **sizes, **OPTIONS
            )

        def backward():
            out.backward(grad, retain_graph=True)
            return [inputs[0].grad, inputs[2].grad]

        return backward

    return Job(
        "deformable_psroi_pooling_backward",
        size,
        partial(cvops.deformable_psroi_pooling_backward, **sizes, **OPTIONS),
        (out_grad, *arrays),
        work=(bins, "bins"),
        written=data.nbytes,
        peers=dict(mxnet=Peer(mxnet)),
        too_slow=["numpy"] if num > 100 else [],
    )


@CASES
def bench_deformable_psroi_pooling(time_job, num, dim, shape):
    time_job(job(num, dim, shape))


@CASES
def bench_deformable_psroi_pooling_backward(time_job, num, dim, shape):
    time_job(backward_job(num, dim, shape))
