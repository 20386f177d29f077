"""roi_align, forward and backward, of feature maps with a sixteenth of the image size.

A bin has two samples along each axis, as in Mask R-CNN. torchvision may contract products and sums,
and adds gradients in any order on a GPU.
"""

from functools import lru_cache, partial

import numpy as np
from bench_roi_pooling import BINS, CASES, SCALE, make_inputs
from tools.jobs import Job, Peer

import cvops

SAMPLE_RATIO = 2


def check_close(ours, theirs):
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-4)


@lru_cache(maxsize=1)
def job(num, shape):
    data, rois, size, bins = make_inputs(num, shape)

    def mxnet(mx, array):
        return partial(mx.nd.contrib.ROIAlign, array(data), array(rois), BINS, SCALE, SAMPLE_RATIO)

    def torchvision(tv, tensor):
        return partial(tv.ops.roi_align, tensor(data), tensor(rois), BINS, SCALE, SAMPLE_RATIO)

    corners, images = rois[:, 1:], rois[:, 0]

    def onnxruntime(onnx, array):
        options = dict(
            output_height=BINS[0],
            output_width=BINS[1],
            sampling_ratio=SAMPLE_RATIO,
            spatial_scale=SCALE,
            coordinate_transformation_mode="output_half_pixel",
        )
        inputs = dict(X=data, rois=corners, batch_indices=images.astype(np.int64))
        return onnx.call("RoiAlign", inputs, np.float32, **options)

    def openvino(vino, array):
        def make(ops, *inputs):
            options = SAMPLE_RATIO, SCALE, "avg", "asymmetric"
            return ops.roi_align(*inputs, *BINS, *options)

        return vino.call(make, data, corners, images.astype(np.int32))

    return Job(
        "roi_align",
        size,
        partial(cvops.roi_align, pooled_size=BINS, spatial_scale=SCALE, sample_ratio=SAMPLE_RATIO),
        (data, rois),
        work=(bins, "bins"),
        written=4 * bins,
        peers=dict(
            mxnet=Peer(mxnet),
            torchvision=Peer(torchvision, check_close),
            onnxruntime=Peer(onnxruntime, check_close),
            openvino=Peer(openvino, check_close),
        ),
        too_slow=["numpy"] if num > 100 else [],
    )


@lru_cache(maxsize=1)
def backward_job(num, shape):
    data, rois, size, bins = make_inputs(num, shape)
    out_grad = np.random.default_rng(1).standard_normal((num, shape[1], *BINS), np.float32)

    def mxnet(mx, array):
        x, grad = array(data), array(out_grad)
        x.attach_grad()
        with mx.autograd.record():
            out = mx.nd.contrib.ROIAlign(x, array(rois), BINS, SCALE, SAMPLE_RATIO)

        def backward():
            out.backward(grad, retain_graph=True)
            return x.grad

        return backward

    def torchvision(tv, tensor):
        import torch

        x, grad = tensor(data).requires_grad_(), tensor(out_grad)
        out = tv.ops.roi_align(x, tensor(rois), BINS, SCALE, SAMPLE_RATIO)
        return lambda: torch.autograd.grad(out, x, grad, retain_graph=True)[0]

    return Job(
        "roi_align_backward",
        size,
        partial(
            cvops.roi_align_backward,
            data_shape=shape,
            spatial_scale=SCALE,
            sample_ratio=SAMPLE_RATIO,
        ),
        (out_grad, rois),
        work=(bins, "bins"),
        written=data.nbytes,
        peers=dict(mxnet=Peer(mxnet), torchvision=Peer(torchvision, check_close)),
        too_slow=["numpy"] if num > 100 else [],
    )


@CASES
def bench_roi_align(time_job, num, shape):
    time_job(job(num, shape))


@CASES
def bench_roi_align_backward(time_job, num, shape):
    time_job(backward_job(num, shape))
