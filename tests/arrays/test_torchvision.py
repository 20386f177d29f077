"""``cvops.torch``'s functions of torchvision, and torchvision's models on them."""

import copy
import importlib
import math

import numpy as np
import pytest
from torchvision_module import import_torchvision, plain_iou, plain_nms

import cvops

torch = pytest.importorskip("torch")
pytest.importorskip("cvops._native")

import cvops.torch as ours  # noqa: E402
from cvops.torch import suppression  # noqa: E402

# PyTorch uses its own deprecated functions when a model is first copied or scripted.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")

IMAGE = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8) % 17
ROIS = torch.tensor([[0.0, 0, 0, 5, 5], [1, 2, 2, 7, 7]])


def random_boxes(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num, 2, 2, generator=generator) * 20
    return corners.sort(dim=1).values.reshape(num, 4), torch.rand(num, generator=generator)


def plain_soft_nms(boxes, scores, iou_threshold, sigma, least, gaussian):
    """The loop of the paper, on one class."""
    iou, scores = plain_iou(boxes, boxes), scores.clone()
    left, kept = (scores > least).nonzero()[:, 0].tolist(), []
    while left:
        best = max(left, key=lambda i: (scores[i], -i))
        kept.append((best, scores[best].item()))
        left.remove(best)
        for i in left:
            linear = 1 - iou[best, i] if iou[best, i] > iou_threshold else 1
            scores[i] *= torch.exp(-(iou[best, i] ** 2) / sigma) if gaussian else linear
        left = [i for i in left if scores[i] > least]
    index, values = zip(*kept)
    return torch.tensor(index), torch.tensor(values)


class TestFunctions:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
    def test_nms_keeps_the_boxes_of_the_rule(self, dtype):
        boxes, scores = (x.to(dtype) for x in random_boxes(60))
        want = plain_nms(boxes.double(), scores.double(), 0.3)
        assert torch.equal(ours.nms(boxes, scores, 0.3), want)

    def test_functions_of_float64_are_computed_in_float64(self):
        boxes, other = random_boxes(5, 1)[0].double() / 3, random_boxes(7, 2)[0].double() / 7
        scores = 0.5 + torch.arange(5, dtype=torch.float64) * 2.0**-50
        assert ours.nms(boxes, scores, 1.0).tolist() == [4, 3, 2, 1, 0]
        torch.testing.assert_close(
            ours.box_iou(boxes, other), plain_iou(boxes, other), rtol=1e-14, atol=1e-15
        )
        mixed = ours.box_iou(boxes, other.float())  # torchvision promotes it
        assert torch.equal(mixed, ours.box_iou(boxes, other.float().double()))
        assert torch.equal(
            ours.box_iou(other.half(), boxes), ours.box_iou(other.half().double(), boxes)
        )
        x, rois = IMAGE.double() / 3, ROIS.double() / 3
        for found, want in (
            (ours.roi_align(x, rois, 2), cvops.roi_align(x, rois, (2, 2), 1.0)),
            (ours.roi_pool(x, rois, 2), cvops.roi_pooling(x, rois, (2, 2), 1.0)),
        ):
            assert found.dtype == torch.float64
            assert torch.equal(found, want)

    def test_batched_nms_compares_the_boxes_of_a_class(self):
        boxes, scores = random_boxes(60)
        classes = torch.arange(60) % 3
        kept = [torch.nonzero(classes == c)[:, 0] for c in range(3)]
        kept = torch.cat([i[plain_nms(boxes[i], scores[i], 0.3)] for i in kept])
        want = kept[scores[kept].argsort(descending=True)]
        assert torch.equal(ours.batched_nms(boxes, scores, classes, 0.3), want)
        assert torch.equal(ours.batched_nms(boxes, scores, classes - 1, 0.3), want)

    @pytest.mark.parametrize("with_classes", [False, True])
    def test_nms_of_tensors_on_the_cpu_keeps_the_rows_of_box_nms(self, with_classes):
        boxes, scores = random_boxes(400)
        scores[::5], scores[::7], scores[::11] = 0.5, math.nan, -math.inf
        classes = torch.arange(400) % 4 - 1
        columns = [classes[:, None]] * with_classes + [scores[:, None], boxes]
        coord = 1 + with_classes
        _, index = torch.ops.cvops.box_nms(
            torch.cat(columns, dim=1), 0.3, -math.inf, -1, coord, coord - 1, coord - 2, -2
        )
        strided = boxes.t().contiguous().t().requires_grad_()
        if with_classes:
            found = ours.batched_nms(strided, scores, classes, 0.3)
        else:
            found = ours.nms(strided, scores, 0.3)
        assert torch.equal(found, index[index >= 0].to(torch.int64))
        assert 0 < len(found) < 300
        assert not found.requires_grad

    def test_nms_of_float32_boxes_and_float64_scores_orders_by_float64(self):
        scores = 0.5 + torch.arange(5, dtype=torch.float64) * 2.0**-50
        assert ours.nms(random_boxes(5)[0], scores, 1.0).tolist() == [4, 3, 2, 1, 0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("with_classes", [False, True])
    def test_nms_in_one_operator_is_that_of_box_nms(self, monkeypatch, dtype, with_classes):
        boxes, scores = (x.to(dtype) for x in random_boxes(300))
        scores[::5], scores[::7] = 0.5, math.nan
        classes = torch.arange(300) % 3 if with_classes else None
        for threshold in (0.3, 0, -1, math.inf):
            found = torch.ops.cvops._nms(boxes, scores, classes, threshold)
            with monkeypatch.context() as patch:
                patch.setattr(suppression, "_is_plain", lambda *_: False)
                assert torch.equal(found, suppression._nms(boxes, scores, classes, threshold))

    @pytest.mark.parametrize("threshold", [math.nan, 1e39])
    def test_nms_in_one_operator_leaves_bad_arguments_to_python(self, threshold):
        boxes, scores = random_boxes(5)
        nms = torch.ops.cvops._nms
        assert nms(boxes, scores, None, threshold) is None
        for args in [(boxes.half(), scores), (boxes, scores[1:]), (boxes[:, 1:], scores)]:
            assert nms(*args, None, 0.5) is None
        assert nms(boxes, scores, scores[1:], 0.5) is None

    def test_nms_of_no_boxes_is_empty(self):
        found = ours.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
        assert (found.shape, found.dtype) == ((0,), torch.int64)

    def test_boxes_are_clipped_to_a_traced_size_in_a_compiled_graph(self):
        def function(boxes, image):
            return ours.clip_boxes_to_image(boxes, (image.shape[0], image.shape[1]))

        compiled = torch.compile(function, backend="eager", fullgraph=True, dynamic=True)
        for count in (3, 5):
            boxes, image = torch.arange(4.0 * count).reshape(count, 4), torch.zeros(count, 7)
            assert torch.equal(compiled(boxes, image), function(boxes, image))

    def test_nms_is_a_part_of_a_compiled_graph(self):
        def function(boxes, scores):
            return boxes[ours.nms(boxes, scores, 0.3)].sum()

        boxes, scores = random_boxes(20)
        with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
            compiled = torch.compile(function, backend="eager", fullgraph=True)
            assert torch.equal(compiled(boxes, scores), function(boxes, scores))

    def test_iou_and_its_gradient_are_those_of_the_formula(self):
        a, b = random_boxes(5, 1)[0].requires_grad_(), random_boxes(7, 2)[0].requires_grad_()
        found, want = ours.box_iou(a, b), plain_iou(a, b)
        torch.testing.assert_close(found, want)
        weight = torch.arange(35, dtype=torch.float32).reshape(5, 7)
        for x, y in zip(*(torch.autograd.grad(iou, (a, b), weight) for iou in (found, want))):
            torch.testing.assert_close(x, y)

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("generalized_box_iou", "giou"),
            ("distance_box_iou", "diou"),
            ("complete_box_iou", "ciou"),
        ],
    )
    def test_other_kinds_are_those_of_box_iou(self, name, kind):
        a, b = random_boxes(5, 1)[0], random_boxes(7, 2)[0]
        assert torch.equal(getattr(ours, name)(a, b), cvops.box_iou(a, b, kind=kind))

    def test_small_functions_by_hand(self):
        boxes = torch.tensor([[-1.0, 2, 5, 12], [0, 0, 1, 9]])
        assert ours.box_area(boxes).tolist() == [60, 9]
        clipped = ours.clip_boxes_to_image(boxes, (10, 4))
        assert clipped.tolist() == [[0, 2, 4, 10], [0, 0, 1, 9]]
        assert ours.remove_small_boxes(boxes, 2).tolist() == [0]

    @pytest.mark.parametrize("method", ["linear", "gaussian"])
    def test_soft_nms_lowers_the_scores_of_the_rule(self, method):
        boxes, scores = random_boxes(50)
        want = plain_soft_nms(boxes, scores, 0.2, 0.4, 0.05, method == "gaussian")
        index, values = ours.soft_nms(boxes, scores, None, 0.2, 0.4, 0.05, method)
        assert torch.equal(index, want[0])
        assert len(index) < 50
        torch.testing.assert_close(values, want[1])

    def test_soft_nms_compares_the_boxes_of_a_class(self):
        boxes, scores = random_boxes(50)
        classes = torch.arange(50) % 2
        index, values = ours.soft_nms(boxes, scores.half(), classes - 1)
        assert values.dtype == torch.float16
        parts = [classes == c for c in range(2)]
        alone = [ours.soft_nms(boxes[part], scores[part].half()) for part in parts]
        want = torch.cat([part.nonzero()[:, 0][i] for part, (i, _) in zip(parts, alone)])
        assert sorted(index.tolist()) == sorted(want.tolist())
        assert torch.equal(values, torch.cat([x for _, x in alone]).sort(descending=True).values)

    def test_boxes_of_models_are_fused(self):
        # Two models find one box; the mean has the weights 0.8 and 2 * 0.4.
        boxes = [torch.tensor([[0.0, 0, 4, 4], [8, 0, 12, 4]]), torch.tensor([[0.0, 0, 4, 3]])]
        scores, labels = [torch.tensor([0.8, 0.3]), torch.tensor([0.4])], [torch.tensor([1, 2])]
        labels.append(torch.tensor([1]))
        found = ours.weighted_boxes_fusion(boxes, scores, labels, [1, 2])
        torch.testing.assert_close(found[0], torch.tensor([[0, 0, 4, 3.5], [8, 0, 12, 4]]))
        # The mean (0.8 + 2 * 0.4) / 2, and half of 0.3; both times 2 models / 3 weights.
        torch.testing.assert_close(found[1], torch.tensor([0.8 * 2 / 3, 0.15 * 2 / 3]))
        assert found[2].tolist() == [1, 2]
        found = ours.weighted_boxes_fusion(boxes, scores, labels, score_threshold=0.4)
        assert found[2].tolist() == [1]
        labels[1] += 2
        found = ours.weighted_boxes_fusion([x.half() for x in boxes], scores, labels)
        assert [x.dtype for x in found] == [torch.float16, torch.float32, torch.int64]
        assert found[2].tolist() == [1, 3, 2]
        none = ours.weighted_boxes_fusion([torch.zeros(0, 4)], [torch.zeros(0)], [torch.zeros(0)])
        assert [x.shape for x in none] == [(0, 4), (0,), (0,)]

    def test_masks_have_their_bounding_boxes(self):
        masks = torch.zeros(4, 5, 7, dtype=torch.uint8)
        masks[0, 1:4, 2:6] = 1
        masks[1, 4, 6] = 255
        masks[2, [0, 3], [5, 1]] = 1
        want = [[2, 1, 5, 3], [6, 4, 6, 4], [1, 0, 5, 3], [0, 0, 0, 0]]
        for x in (masks, masks.bool(), -masks.double()):
            found = ours.masks_to_boxes(x)
            assert found.dtype == torch.float32
            assert found.tolist() == want
        for shape in ((0, 5, 7), (2, 0, 7), (2, 5, 0)):
            assert ours.masks_to_boxes(torch.zeros(shape)).tolist() == [[0.0] * 4] * shape[0]

    def test_position_sensitive_bins_have_their_own_channels(self):
        x = torch.arange(2 * 12 * 64, dtype=torch.float32).reshape(2, 12, 8, 8) % 23
        every = ours.roi_align(x, ROIS, (2, 3), 0.5, 2, True)
        want = torch.stack(
            [every[:, 6 * c + b, b // 3, b % 3] for c in range(2) for b in range(6)], dim=1
        ).reshape(2, 2, 2, 3)
        assert torch.equal(ours.ps_roi_align(x, ROIS, (2, 3), 0.5, 2), want)
        assert ours.ps_roi_align(x.half(), ROIS, (2, 3), 0.5).dtype == torch.float16

    def test_matches_are_those_of_the_op(self):
        anchors, boxes = random_boxes(40)[0], random_boxes(6, 1)[0].reshape(2, 3, 4)
        options = dict(allow_low_quality_matches=True, match_best_anchors=True)
        found = ours.match_anchors(anchors, boxes, 0.5, 0.25, **options)
        assert found.dtype == torch.int64
        assert torch.equal(found, cvops.match_anchors(anchors, boxes, 0.5, 0.25, **options).long())
        assert torch.equal(ours.match_anchors(anchors, boxes[:0]), torch.zeros(0, 40).long())
        half = ours.match_anchors(anchors.half(), boxes.half(), 0.5)
        assert torch.equal(half, ours.match_anchors(anchors.half().float(), boxes.half().float()))

    def test_roi_functions_take_lists_and_one_size(self):
        boxes = [ROIS[:1, 1:], ROIS[1:, 1:]]
        want = cvops.roi_align(IMAGE, ROIS, (2, 2), 0.5, 2, aligned=True)
        assert torch.equal(ours.roi_align(IMAGE, boxes, 2, 0.5, 2, True), want)
        assert torch.equal(ours.roi_pool(IMAGE, boxes, (2, 2), 0.5),
                           cvops.roi_pooling(IMAGE, ROIS, (2, 2), 0.5))  # fmt: skip

    def test_half_precision_is_rounded_once(self):
        x = IMAGE.half().requires_grad_()
        out = ours.roi_align(x, ROIS, 2, 1.0, 2)
        assert torch.equal(out, ours.roi_align(IMAGE, ROIS, 2, 1.0, 2).half())
        out.sum().backward()
        assert x.grad.dtype == torch.float16

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda: ours.nms(torch.zeros(2, 5), torch.zeros(2), 0.5), ValueError,
             r"boxes: expected shape \(N, 4\), got \(2, 5\)"),
            (lambda: ours.nms(torch.zeros(2, 4), torch.zeros(3), 0.5), ValueError,
             r"scores: expected shape \(2,\), got \(3,\)"),
            (lambda: ours.nms(torch.zeros(2, 4), torch.zeros(2), math.nan), ValueError,
             "^iou_threshold: expected a number, got nan"),
            (lambda: ours.nms(torch.zeros(2, 4).int(), torch.zeros(2), 0.5), TypeError,
             r"boxes: expected float32, float64, .*, got torch.int32"),
            (lambda: ours.soft_nms(torch.zeros(2, 4).double(), torch.zeros(2)), TypeError,
             r"boxes: expected float32, float16 or bfloat16, got torch.float64"),
            (lambda: ours.batched_nms(torch.zeros(2, 4), torch.zeros(2), torch.zeros(3), 0.5),
             ValueError, r"idxs: expected shape \(2,\), got \(3,\)"),
            (lambda: ours.roi_align(IMAGE, [], 2), ValueError, "boxes: expected a tensor for each"),
            (lambda: ours.roi_align(IMAGE[0], ROIS, 2), ValueError, "input: expected shape"),
            (lambda: ours.roi_align(IMAGE, ROIS, 2.5), TypeError,
             "output_size: expected an integer, or two, got 2.5"),
            (lambda: ours.roi_pool(IMAGE, ROIS, (2, 2, 2)), TypeError,
             r"output_size: expected an integer, or two, got \(2, 2, 2\)"),
            (lambda: ours.box_area([[0, 0, 1, 1]]), TypeError, "boxes: expected a tensor"),
            (lambda: ours.clip_boxes_to_image([[0, 0, 1, 1]], (1, 1)), TypeError, "boxes: exp"),
            (lambda: ours.remove_small_boxes(np.zeros((1, 4)), 1), TypeError,
             "boxes: expected a tensor, got ndarray"),
            (lambda: ours.clip_boxes_to_image(ROIS, (1, 1)), ValueError,
             r"boxes: expected shape \(..., 4\), got"),
            (lambda: ours.clip_boxes_to_image(ROIS[:, 1:], (1,)), TypeError,
             r"size: expected a pair \(height, width\), got \(1,\)"),
            (lambda: ours.clip_boxes_to_image(ROIS[:, 1:], "ab"), TypeError, "size: .* got 'ab'"),
            (lambda: ours.remove_small_boxes(ROIS, 1), ValueError, r"boxes: expected shape \(N, 4"),
            (lambda: ours.remove_small_boxes(ROIS[:, 1:], "1"), TypeError,
             "min_size: expected a number, got '1'"),
            (lambda: ours.roi_align(IMAGE, None, 2), TypeError,
             "boxes: expected a tensor, or a list of them, got NoneType"),
            (lambda: ours.weighted_boxes_fusion([ROIS[:, 1:]], [ROIS[:, 0]], [ROIS[:, 0]], 2),
             TypeError, "weights: expected one for each model, got int"),
            (lambda: ours.ps_roi_align(IMAGE, ROIS, 2), ValueError, "^input: expected a multiple"),
            (lambda: ours.roi_align(IMAGE, ROIS, (2, 0)), ValueError,
             r"^output_size: expected two integers of at least 1, got \(2, 0\)"),
            (lambda: ours.roi_pool(IMAGE, ROIS, -1), ValueError,
             r"^output_size: expected two integers of at least 1, got \(-1, -1\)"),
            (lambda: ours.roi_align(IMAGE, ROIS, (2, 1.5)), TypeError,
             r"^output_size: expected integers, got \[2, 1.5\]"),
            (lambda: ours.roi_align(IMAGE, ROIS, 2, sampling_ratio=1025), ValueError,
             "^sampling_ratio: expected an integer of at most 1024, got 1025"),
            (lambda: ours.roi_align(IMAGE, ROIS, 2, 1.0, 0.5), TypeError,
             "^sampling_ratio: expected an integer, got 0.5"),
            (lambda: ours.roi_pool(IMAGE, ROIS, 2, 1.7), ValueError,
             r"^spatial_scale: expected a number in \[0, 1\], got 1.7$"),
            (lambda: ours.roi_pool(IMAGE, ROIS, 2, "x"), TypeError,
             "^spatial_scale: expected a number, got 'x'"),
            (lambda: ours.roi_pool(IMAGE, ROIS.double(), 2), TypeError,
             "^boxes: expected float32 as input, got float64"),
            (lambda: ours.nms(torch.zeros(2, 4), torch.zeros(2), "x"), TypeError,
             "^iou_threshold: expected a number, got 'x'"),
            (lambda: ours.soft_nms(torch.zeros(2, 4), torch.zeros(2), None, 0.5, 0.5, -0.7),
             ValueError, r"^score_threshold: expected a number in \[0, inf\], got -0.7$"),
            (lambda: ours.soft_nms(torch.zeros(2, 4), torch.zeros(2), method="gauss"), ValueError,
             r"^method: expected one of \['linear', 'gaussian'\], got 'gauss'$"),
            (lambda: ours.weighted_boxes_fusion([ROIS[:, 1:]], [ROIS[:, 0]], [ROIS[:, 0]],
                                                iou_threshold=1.7),
             ValueError, r"^iou_threshold: expected a number in \[0, 1\], got 1.7$"),
            (lambda: ours.match_anchors(torch.zeros(3, 4), torch.zeros(2, 4), "high"), TypeError,
             "^high_threshold: expected a number, got 'high'"),
            (lambda: ours.soft_nms(torch.zeros(2, 4), torch.zeros(2), torch.zeros(1)), ValueError,
             r"idxs: expected shape \(2,\), got \(1,\)"),
            (lambda: ours.soft_nms(torch.zeros(2, 4), torch.zeros(2), sigma=0), ValueError,
             "sigma: expected a positive number, got 0"),
            (lambda: ours.weighted_boxes_fusion([], [], []), ValueError, "boxes: expected a"),
            (lambda: ours.weighted_boxes_fusion([ROIS], [ROIS[:, 0]], [ROIS[:, 0]]), ValueError,
             r"boxes\[0\]: expected shape \(N, 4\), got \(2, 5\)"),
            (lambda: ours.weighted_boxes_fusion([ROIS[:, 1:]], [ROIS[:, 0]], []), ValueError,
             "labels: expected 1 elements as boxes, got 0"),
            (lambda: ours.weighted_boxes_fusion([ROIS[:, 1:]], [ROIS[:, 0]], [[1, 2]]), TypeError,
             r"labels\[0\]: expected a tensor, got list"),
            (lambda: ours.weighted_boxes_fusion([ROIS[:, 1:]], [ROIS[:, 0]], [ROIS[:, 0]], [0]),
             ValueError, r"weights: expected positive numbers, got \[0\]"),
            (lambda: ours.masks_to_boxes(torch.zeros(3, 4)), ValueError,
             r"masks: expected shape \(N, H, W\), got \(3, 4\)"),
            (lambda: ours.masks_to_boxes([[1]]), TypeError, "masks: expected a tensor, got list"),
            (lambda: ours.match_anchors(torch.zeros(3, 4).long(), torch.zeros(2, 4)), TypeError,
             "anchors: expected float32, .*, got torch.int64"),
            (lambda: ours.match_anchors(torch.zeros(3, 4), torch.zeros(2, 5)), ValueError,
             r"boxes: expected shape \(..., M, 4\), got \(2, 5\)"),
            (lambda: ours.match_anchors(torch.zeros(3, 4), torch.zeros(2, 4), 0.5, 0.75),
             ValueError, "low_threshold: expected a number from 0 to high_threshold, got 0.75"),
            (lambda: ours.box_iou([[0, 0, 1, 1]], ROIS[:, 1:]), TypeError, "boxes1: expected a te"),
        ],
    )  # fmt: skip
    def test_bad_argument_is_an_error_that_names_it(self, call, error, message):
        with pytest.raises(error, match=message):
            call()


@pytest.fixture(scope="module")
def torchvision():
    module, is_compiled = import_torchvision()
    if is_compiled:
        yield module
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.extension, "_has_ops", lambda: True)
        # The formula compiles itself, which would take most of the time.
        with torch.compiler.set_stance("force_eager"):
            yield module


def touching_boxes(seed):
    """900 anchors and 40 boxes on a coarse grid, with equal IoUs; each box overlaps an anchor."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randint(1, 8, (940, 2), generator=generator)
    low = torch.randint(0, 16, (940, 2), generator=generator)
    boxes = torch.cat([low, low + sides], dim=1) / 8
    boxes[0] = torch.tensor([0, 0, 4, 4])
    return boxes[:900], boxes[900:]


#: Small sizes, and all scores of networks that are not trained.
RCNN = {
    "min_size": 64,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 9,
    **{
        f"rpn_{when}_nms_top_n_{mode}": 40 for when in ("pre", "post") for mode in ("train", "test")
    },
}
FEW = {"score_thresh": 0.0, "topk_candidates": 20}


class TestInstall:
    def test_functions_are_replaced_everywhere_and_put_back(self, torchvision):
        detection = importlib.import_module("torchvision.models.detection.roi_heads")
        theirs = torchvision.ops.roi_align, detection.roi_align
        with ours.installed() as names:
            assert ours.install() == names
            assert torchvision.ops.roi_align is detection.roi_align is not theirs[0]
            with ours.installed():
                pass
            assert torchvision.ops.roi_align is not theirs[0]
            found = torchvision.ops.roi_align(IMAGE, ROIS, 2, sampling_ratio=2)
        assert (torchvision.ops.roi_align, detection.roi_align) == theirs
        assert torch.equal(found, ours.roi_align(IMAGE, ROIS, 2, sampling_ratio=2))
        ours.uninstall()

    def test_error_in_the_block_puts_the_functions_back(self, torchvision):
        theirs = torchvision.ops.nms
        with pytest.raises(KeyError), ours.installed():
            raise KeyError
        assert torchvision.ops.nms is theirs

    def test_pooling_modules_give_the_same_on_our_functions(self, torchvision):
        ops = torchvision.ops
        maps = {f"p{i}": IMAGE[..., :: 2**i, :: 2**i].contiguous() for i in range(2)}
        levels = ops.MultiScaleRoIAlign(["p0", "p1"], (3, 2), 2, canonical_scale=6)
        boxes = [ROIS[:1, 1:], torch.tensor([[1.0, 1, 7, 7], [0, 3, 2, 5]])]
        sensitive, x = ops.PSRoIAlign((2, 1), 0.5, 2), IMAGE[:, [0, 1, 2, 0]]

        def run():
            return levels(maps, boxes, [(8, 8), (8, 8)]), sensitive(x, ROIS)

        want = run()
        with ours.installed():
            assert ops.poolers.roi_align is ops.roi_align
            found = run()
        assert want[0].shape == (3, 3, 3, 2)
        torch.testing.assert_close(found, want)
        assert torch.equal(found[1], ours.ps_roi_align(x, ROIS, (2, 1), 0.5, 2))

    def test_masks_have_the_boxes_of_torchvision(self, torchvision):
        masks = torch.rand(9, 12, 15, generator=torch.Generator().manual_seed(0)) < 0.02
        want = torchvision.ops.masks_to_boxes(masks)
        assert torch.equal(ours.masks_to_boxes(masks), want)

    @pytest.mark.parametrize(
        ("high", "low", "low_quality"),
        [(0.7, 0.3, True), (0.5, 0.5, False), (0.5, 0.4, True), (0.25, 0.0, False)],
    )
    def test_matcher_gives_our_matches(self, torchvision, high, low, low_quality):
        utils = importlib.import_module("torchvision.models.detection._utils")
        for seed in range(4):
            anchors, boxes = touching_boxes(seed)
            want = utils.Matcher(high, low, low_quality)(torchvision.ops.box_iou(boxes, anchors))
            assert torch.equal(ours.match_anchors(anchors, boxes, high, low, low_quality), want)

    def test_ssd_matcher_gives_our_matches(self, torchvision):
        utils = importlib.import_module("torchvision.models.detection._utils")
        for seed in range(4):
            anchors, boxes = touching_boxes(seed)
            want = utils.SSDMatcher(0.5)(torchvision.ops.box_iou(boxes, anchors))
            found = ours.match_anchors(anchors, boxes, 0.5, match_best_anchors=True)
            assert torch.equal(found, want)

    def test_dtype_that_we_lack_stays_torchvisions(self, torchvision):
        boxes = torch.tensor([[0, 0, 2, 2], [1, 0, 3, 2]])
        with ours.installed():
            found = torchvision.ops.box_iou(boxes, boxes)
        torch.testing.assert_close(found, torch.tensor([[1, 1 / 3], [1 / 3, 1]]))

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("fasterrcnn_resnet50_fpn", RCNN),
            ("maskrcnn_resnet50_fpn", RCNN),
            ("retinanet_resnet50_fpn", {"min_size": 64, **FEW, "detections_per_img": 9}),
            pytest.param("ssd300_vgg16", FEW, marks=pytest.mark.slow),
        ],
        ids=["faster", "mask", "retinanet", "ssd"],
    )
    def test_model_detects_and_trains_as_on_torchvisions_functions(
        self, torchvision, name, options
    ):
        torch.manual_seed(0)
        make = getattr(torchvision.models.detection, name)
        initial = make(weights=None, weights_backbone=None, num_classes=3, **options)
        images = [torch.rand(3, 64, 80), torch.rand(3, 72, 64)][: 2 if "mask" in name else 1]
        truths = [
            {
                "boxes": torch.tensor([[5.0, 6, 40, 50], [30, 10, 60, 45]]),
                "labels": torch.tensor([1, 2]),
                "masks": torch.ones(2, *x.shape[1:], dtype=torch.uint8),
            }
            for x in images
        ]

        def run():
            net = copy.deepcopy(initial)  # a training step changes the statistics
            net.eval()
            with torch.no_grad():
                found = net(images)
            net.train()
            torch.manual_seed(1)
            losses = net(images, truths)
            net.zero_grad()
            sum(losses.values()).backward()
            # The last parameter of the backbone that trains.
            grad = [x.grad for x in net.backbone.parameters() if x.grad is not None][-1].clone()
            return found, losses, grad

        want = run()
        with ours.installed():
            found = run()
        for a, b in zip(found[0], want[0]):
            assert torch.equal(a["labels"], b["labels"])
            assert len(a["labels"])
            for key in a:
                torch.testing.assert_close(a[key], b[key], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[1], want[1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[2], want[2], rtol=1e-3, atol=1e-5)
