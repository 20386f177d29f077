"""``cvops.torch``'s functions of torchvision, and torchvision's models on them."""

import copy
import importlib
import math

import pytest
from torchvision_module import import_torchvision, plain_iou, plain_nms

import cvops

torch = pytest.importorskip("torch")
pytest.importorskip("cvops._native")

import cvops.torch as ours  # noqa: E402

IMAGE = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8) % 17
ROIS = torch.tensor([[0.0, 0, 0, 5, 5], [1, 2, 2, 7, 7]])


def random_boxes(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num, 2, 2, generator=generator) * 20
    return corners.sort(dim=1).values.reshape(num, 4), torch.rand(num, generator=generator)


class TestFunctions:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_nms_keeps_the_boxes_of_the_rule(self, dtype):
        boxes, scores = (x.to(dtype) for x in random_boxes(60))
        want = plain_nms(boxes.float(), scores.float(), 0.3)
        assert torch.equal(ours.nms(boxes, scores, 0.3), want)

    def test_batched_nms_compares_the_boxes_of_a_class(self):
        boxes, scores = random_boxes(60)
        classes = torch.arange(60) % 3
        kept = [torch.nonzero(classes == c)[:, 0] for c in range(3)]
        kept = torch.cat([i[plain_nms(boxes[i], scores[i], 0.3)] for i in kept])
        want = kept[scores[kept].argsort(descending=True)]
        assert torch.equal(ours.batched_nms(boxes, scores, classes, 0.3), want)

    def test_nms_of_no_boxes_is_empty(self):
        found = ours.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
        assert (found.shape, found.dtype) == ((0,), torch.int64)

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
             "overlap_thresh: expected a number, got nan"),
            (lambda: ours.nms(torch.zeros(2, 4).double(), torch.zeros(2), 0.5), TypeError,
             r"boxes: expected float32, .*, got torch.float64"),
            (lambda: ours.batched_nms(torch.zeros(2, 4), torch.zeros(2), torch.zeros(3), 0.5),
             ValueError, r"idxs: expected shape \(2,\), got \(3,\)"),
            (lambda: ours.roi_align(IMAGE, [], 2), ValueError, "boxes: expected a tensor for each"),
            (lambda: ours.roi_align(IMAGE[0], ROIS, 2), ValueError, "input: expected shape"),
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

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
    def test_dtype_that_we_lack_stays_torchvisions(self, torchvision):
        with ours.installed():
            found = torchvision.ops.roi_align(IMAGE.double(), ROIS.double(), 2, sampling_ratio=2)
        assert found.dtype == torch.float64

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("fasterrcnn_resnet50_fpn", RCNN),
            ("maskrcnn_resnet50_fpn", RCNN),
            ("retinanet_resnet50_fpn", {"min_size": 64, **FEW, "detections_per_img": 9}),
            ("ssd300_vgg16", FEW),
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
