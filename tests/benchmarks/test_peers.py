"""The peers that the benchmarks build: models for ONNX Runtime, and ops in PyTorch."""

import bench_adaptive_avg_pooling
import bench_bilinear_resize
import bench_bipartite_matching
import bench_box_decode
import bench_box_encode
import bench_box_iou
import bench_box_iou_rotated
import bench_box_nms
import bench_match_anchors
import bench_matrix_nms
import bench_multibox_detection
import bench_multibox_target
import bench_nms_rotated
import bench_paste_masks
import bench_psroi_pooling
import bench_rcnn_target
import bench_roi_align
import bench_roi_pooling
import bench_rpn_target
import bench_soft_nms
import numpy as np
import pytest
from peers import onnx_ops
from tools.implementations import IMPLEMENTATIONS
from tools.jobs import to_numpy

#: Feature maps with few anchors: their side, and the sizes of their anchors.
MAPS = ((8, (0.2, 0.4)), (4, (0.5, 0.7)))


def check(implementation, job):
    """Compare the result of a peer with ours."""
    if implementation.missing():
        pytest.skip(f"{implementation.name} {implementation.missing()}")
    implementation.check(job, to_numpy(implementation.prepare(job)()))


class TestOnnx:
    def test_number_is_encoded_as_in_protobuf(self):
        assert onnx_ops._varint(1) == b"\x01"
        assert onnx_ops._varint(300) == b"\xac\x02"  # 44 + 128, then 2: 2 * 128 + 44

    def test_field_is_encoded_as_number_type_and_value(self):
        assert onnx_ops._field(1, 150) == b"\x08\x96\x01"
        assert onnx_ops._field(2, "testing") == b"\x12\x07testing"
        assert onnx_ops._field(3, 1.0) == b"\x1d\x00\x00\x80\x3f"

    @pytest.mark.parametrize(
        "make_job",
        [
            lambda: bench_box_nms.job(1, 300, 1, bench_box_nms.clustered),
            lambda: bench_box_nms.job(2, 200, 3, bench_box_nms.clustered),
            lambda: bench_roi_pooling.job(10, (1, 3, 25, 34)),
            lambda: bench_roi_align.job(10, (2, 3, 25, 34)),
        ],
        ids=["box_nms", "box_nms by class", "roi_pooling", "roi_align"],
    )
    def test_onnx_runtime_agrees_with_cvops(self, make_job):
        check(IMPLEMENTATIONS["onnxruntime"], make_job())


@pytest.mark.parametrize("name", ["native", "onnxruntime", "openvino"])
def test_calls_of_one_size_keep_their_inputs(name):
    """The calls of a job with new inputs take turns; some libraries share a session."""
    implementation = IMPLEMENTATIONS[name]
    if implementation.missing():
        pytest.skip(f"{implementation.name} {implementation.missing()}")
    jobs = bench_box_nms.jobs_with_new_inputs(1, 10_000, 1, bench_box_nms.spread)
    assert len({job.arrays[0].tobytes() for job in jobs}) == len(jobs) == 4
    calls = [implementation.prepare(job) for job in jobs]
    for _ in range(2):
        for job, call in zip(jobs, calls):
            implementation.check(job, to_numpy(call()))


class TestOpenVino:
    @pytest.mark.parametrize(
        "make_job",
        [
            lambda: bench_roi_align.job(10, (2, 3, 25, 34)),
            lambda: bench_psroi_pooling.job(10, 2, (2, 98, 25, 34)),
            lambda: bench_adaptive_avg_pooling.job((2, 3, 8, 7), 3),
            lambda: bench_bilinear_resize.job((2, 3, 5, 7), (8, 4)),
            lambda: bench_roi_pooling.job(10, (1, 3, 25, 34)),
            lambda: bench_box_nms.job(1, 300, 1, bench_box_nms.clustered),
            lambda: bench_box_nms.job(2, 200, 3, bench_box_nms.clustered),
        ],
        ids=[
            "roi_align",
            "psroi_pooling",
            "adaptive_avg_pooling",
            "bilinear_resize",
            "roi_pooling",
            "box_nms",
            "box_nms by class",
        ],
    )
    def test_openvino_agrees_with_cvops(self, make_job):
        check(IMPLEMENTATIONS["openvino"], make_job())


@pytest.mark.parametrize(
    ("library", "make_job"),
    [
        ("opencv", lambda: bench_box_nms.job(1, 300, 1, bench_box_nms.clustered)),
        ("opencv", lambda: bench_box_nms.job(1, 300, 3, bench_box_nms.heaps)),
        ("powerboxes", lambda: bench_box_nms.job(1, 300, 1, bench_box_nms.spread)),
        ("powerboxes", lambda: bench_box_nms.job(1, 300, 1, bench_box_nms.heaps)),
        ("powerboxes", lambda: bench_box_iou.job(50, 40)),
    ],
    ids=["opencv", "opencv by class", "powerboxes, r-tree", "powerboxes", "powerboxes, IoU"],
)
def test_function_of_a_small_library_agrees_with_cvops(library, make_job):
    check(IMPLEMENTATIONS[library], make_job())


class TestTorch:
    @pytest.mark.parametrize(
        ("implementation", "make_job"),
        [
            ("torch", lambda: bench_bipartite_matching.job(2, MAPS, 5)),
            ("torch", lambda: bench_box_decode.job(2, MAPS)),
            ("torch", lambda: bench_box_encode.job(2, MAPS)),
            ("torch", lambda: bench_box_iou_rotated.job(40, 50)),
            ("torch", lambda: bench_match_anchors.job(MAPS, 9)),
            ("torch", lambda: bench_paste_masks.job(9, 70, 90)),
            ("torch", lambda: bench_rcnn_target.job(2, 2000)),
            ("torch", lambda: bench_rpn_target.job(2, MAPS)),
            ("torch", lambda: bench_nms_rotated.job(60, 8)),
            ("torch", lambda: bench_multibox_target.job(2, MAPS, 5)),
            ("book", lambda: bench_multibox_target.job(2, MAPS, 5)),
            ("torch", lambda: bench_multibox_target.job(3, MAPS, 4, 5, True)),
            ("book", lambda: bench_multibox_detection.job(2, MAPS, 4)),
            ("torchvision", lambda: bench_multibox_detection.job(2, MAPS, 4)),
            ("torchvision", lambda: bench_multibox_detection.job(2, MAPS, 4, 50)),
            ("torch", lambda: bench_soft_nms.job(1, 300, 1, bench_box_nms.clustered)),
            ("torch", lambda: bench_matrix_nms.job(2, 300, 1, bench_box_nms.clustered)),
            ("torchvision", lambda: bench_box_nms.job(1, 300, 5, bench_box_nms.clustered)),
            ("torchvision", lambda: bench_box_nms.job(2, 300, 5, bench_box_nms.clustered, 40)),
        ],
        ids=[
            "matching",
            "decode",
            "encode",
            "rotated iou",
            "match",
            "paste",
            "rcnn",
            "rpn",
            "rotated nms",
            "target",
            "target, book",
            "target with mining",
            "detection, book",
            "detection",
            "detection with topk",
            "soft nms",
            "matrix nms",
            "nms by class",
            "nms with topk",
        ],
    )
    def test_op_in_torch_agrees_with_cvops(self, implementation, make_job):
        check(IMPLEMENTATIONS[implementation], make_job())

    def test_anchors_of_the_book_match_hand_computation(self):
        torch = pytest.importorskip("torch")
        from peers import torch_ops

        # The map has 1 x 2 cells. The center of the first cell is (1/4, 1/2). With ratio 4, a size
        # of 0.2 gives the width 0.2 * 2 * 1/2 = 0.2 and the height 0.2 / 2 = 0.1. A size of 0.4
        # gives twice that. With ratio 1, a size of 0.2 gives 0.1 and 0.2.
        anchors = torch_ops.book_multibox_prior(torch.zeros(1, 3, 1, 2), (0.2, 0.4), (4, 1))
        assert anchors.shape == (1, 6, 4)
        np.testing.assert_allclose(
            anchors[0, :3],
            [[0.15, 0.45, 0.35, 0.55], [0.05, 0.4, 0.45, 0.6], [0.2, 0.4, 0.3, 0.6]],
            rtol=1e-6,
        )
