"""The losses of detection, against a reference in float64 and values by hand."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet")

from ssd_cases import STATIC, log_softmax

from cvops._mxnet import mxnet
from cvops.models import DetectionLoss, losses

mx = mxnet()

# --- the reference --------------------------------------------------------------------------------


def reference_loss(given, classes, boxes, per, alpha=0.25, gamma=2.0, scale=1.0):
    """``DetectionLoss`` in float64, from its definition. ``given``: the five arrays of a call."""
    logits, labels, offsets, wanted, masks = (np.asarray(x, np.float64) for x in given)
    chosen = np.maximum(labels, 0).astype(int)[..., None]
    log_p = np.take_along_axis(log_softmax(logits), chosen, -1)[..., 0]
    of_classes = -log_p
    if classes == "focal":
        of_classes = -alpha * (-np.expm1(log_p)) ** gamma * log_p
    of_classes = np.where(labels >= 0, of_classes, 0)
    errors = np.abs(offsets - wanted) * masks
    if boxes == "smooth_l1":
        near = (scale * errors) ** 2 / 2
        errors = np.where(errors < 1 / scale**2, near, errors - 0.5 / scale**2) * masks
    if per == "anchor":
        return of_classes.mean(1) + errors.mean(1)
    return (of_classes.sum(1) + errors.sum(1)) / max(masks.sum(1).mean() / 4, 1)


def predictions(largest=3, count=2, anchors=20):
    """Random cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks."""
    rng = np.random.default_rng(5)
    labels = rng.integers(-1, 3, (count, anchors))
    masks = np.repeat(labels > 0, 4, axis=1)
    logits = rng.uniform(-largest, largest, (count, anchors, 3))
    offsets, wanted = rng.normal(size=(2, count, anchors * 4))
    return [np.float32(x) for x in (logits, labels, offsets, wanted * masks, masks)]


LOSSES = [
    {"classes": "cross_entropy", "boxes": "l1", "per": "anchor"},
    {"classes": "cross_entropy", "boxes": "smooth_l1", "per": "box"},
    {"classes": "focal", "boxes": "smooth_l1", "per": "anchor", "scale": 2.0},
    {"classes": "focal", "boxes": "l1", "per": "box", "alpha": 1.0, "gamma": 0.5},
    {"classes": "focal", "boxes": "l1", "per": "anchor", "alpha": 2.0, "gamma": 0},
    {"classes": "focal", "boxes": "l1", "per": "anchor", "gamma": 1},
]


# --- values and gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybridized"])
@pytest.mark.parametrize("options", LOSSES, ids=lambda o: " ".join(map(str, o.values())))
@pytest.mark.parametrize("largest", [3, 1e4], ids=["small logits", "large logits"])
def test_loss_equals_the_reference(options, hybrid, largest):
    given = predictions(largest)
    loss = DetectionLoss(**options)
    if hybrid:
        loss.hybridize(**STATIC)
    arrays = [mx.nd.array(x) for x in given]
    arrays[0].attach_grad()
    with mx.autograd.record():
        value = loss(*arrays)
    value.backward()
    np.testing.assert_allclose(value.asnumpy(), reference_loss(given, **options), rtol=1e-5)
    assert np.isfinite(arrays[0].grad.asnumpy()).all()


@pytest.mark.parametrize("options", LOSSES, ids=lambda o: " ".join(map(str, o.values())))
def test_gradient_of_the_loss_equals_that_of_the_reference(options):
    """The reference gradient has central differences in float64, with an error of about 1e-10."""
    given = predictions(count=1, anchors=4)
    logits = mx.nd.array(given[0])
    logits.attach_grad()
    with mx.autograd.record():
        value = DetectionLoss(**options)(logits, *map(mx.nd.array, given[1:]))
    value.backward()
    expected = np.empty(logits.shape)
    for place in np.ndindex(*logits.shape):
        ends = []
        for step in (-1e-5, 1e-5):
            moved = given[0].astype(np.float64)
            moved[place] += step
            ends.append(reference_loss([moved, *given[1:]], **options)[0])
        expected[place] = (ends[1] - ends[0]) / 2e-5
    np.testing.assert_allclose(logits.grad.asnumpy(), expected, rtol=1e-4, atol=1e-6)


def test_focal_loss_equals_the_value_by_hand():
    """The labeled class has p = 1/4: 0.25 * (3/4)^2 * ln 4, and ln 4 for alpha 1 and gamma 0.

    MXNet's log_softmax has an error of about 1e-6.
    """
    logits, label = mx.nd.array([[[0, np.log(3)]]]), mx.nd.array([[0]])
    focal = losses.focal(mx.nd, logits, label).asscalar()
    assert focal == pytest.approx(0.25 * 0.5625 * np.log(4), rel=1e-5)
    plain = losses.focal(mx.nd, logits, label, alpha=1, gamma=0).asscalar()
    assert plain == pytest.approx(np.log(4), rel=1e-5)


def test_cross_entropy_is_finite_for_a_probability_of_0():
    """The probability rounds to 0. The loss is the difference of the logits."""
    logits = mx.nd.array([[[1e4, -1e4], [1e4, -1e4]]])
    value = losses.cross_entropy(mx.nd, logits, mx.nd.array([[1, 0]]))
    np.testing.assert_allclose(value.asnumpy(), [[2e4, 0]], atol=1e-5)


def test_smooth_l1_and_l1_equal_the_values_by_hand():
    """Scale 2: (2x)^2 / 2 up to |x| = 1/4, then |x| - 1/8."""
    errors = mx.nd.array([-1, -0.25, -0.125, 0, 0.125, 0.25, 3])
    value = losses.smooth_l1(mx.nd, errors, 2)
    expected = [0.875, 0.125, 0.03125, 0, 0.03125, 0.125, 2.875]
    np.testing.assert_array_equal(value.asnumpy(), expected)
    np.testing.assert_array_equal(losses.l1(mx.nd, errors).asnumpy(), np.abs(errors.asnumpy()))


def test_calc_loss_equals_the_losses_of_gluon():
    """The bits are equal. ``calc_loss`` counts a label of -1 as background, as in the book."""
    given = [mx.nd.array(x) for x in predictions()]
    cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks = given
    of_classes = mx.gluon.loss.SoftmaxCrossEntropyLoss()(cls_preds, cls_labels)
    of_boxes = mx.gluon.loss.L1Loss()(bbox_preds * bbox_masks, bbox_labels * bbox_masks)
    expected = (of_classes + of_boxes).asnumpy()
    np.testing.assert_array_equal(losses.calc_loss(*given).asnumpy(), expected)
    assert (DetectionLoss()(*given).asnumpy() < expected).all()
    given[1] = mx.nd.maximum(cls_labels, 0)
    np.testing.assert_allclose(DetectionLoss()(*given).asnumpy(), expected, rtol=1e-6)


def test_loss_per_box_equals_the_value_by_hand():
    """The first of two anchors has a box. Its class has p = 1/3, that of the second 1/2."""
    logits = mx.nd.array([[[np.log(2), 0], [0, 0]]])
    labels, masks = mx.nd.array([[1, 0]]), mx.nd.array([[1] * 4 + [0] * 4])
    offsets = mx.nd.array([[1, 2, 3, 4, 9, 9, 9, 9]])
    loss = DetectionLoss(per="box")(logits, labels, offsets, mx.nd.zeros((1, 8)), masks)
    assert loss.asscalar() == pytest.approx(np.log(3) + np.log(2) + 1 + 2 + 3 + 4)


def test_cls_eval_and_bbox_eval_equal_the_values_by_hand():
    logits = mx.nd.array([[[2, 0], [0, 1], [3, 4]]])
    assert losses.cls_eval(logits, mx.nd.array([[1, 1, 1]])) == 2
    masks = mx.nd.array([[1, 1, 0, 1]])
    assert losses.bbox_eval(mx.nd.array([[1, 2, 3, 4]]), mx.nd.array([[2, 0, 9, 4]]), masks) == 3


@pytest.mark.parametrize("options", LOSSES, ids=lambda o: " ".join(map(str, o.values())))
def test_loss_of_an_image_without_objects_is_that_of_the_background(options):
    """MultiBoxTarget labels all of its anchors -1. The loss is that of labels of 0."""
    given = predictions()
    given[1][1], given[3][1], given[4][1] = -1, 0, 0
    value = DetectionLoss(**options)(*map(mx.nd.array, given)).asnumpy()
    given[1][1] = 0
    np.testing.assert_allclose(value, reference_loss(given, **options), rtol=1e-5)
    assert value[1] > 0


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "hinge"}, "classes: expected one of ['cross_entropy', 'focal'], got 'hinge'"),
        ({"boxes": "l2"}, "boxes: expected one of ['l1', 'smooth_l1'], got 'l2'"),
        ({"per": "image"}, "per: expected one of ['anchor', 'box'], got 'image'"),
        ({"alpha": 0}, "alpha: expected a number above 0, got 0"),
        ({"scale": float("nan")}, "scale: expected a number in [0, inf], got nan"),
        ({"gamma": -1}, "gamma: expected a number in [0, inf], got -1"),
    ],
    ids=["classes hinge", "boxes l2", "per image", "alpha 0", "scale nan", "gamma -1"],
)
def test_bad_option_of_the_loss_is_rejected(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DetectionLoss(**options)


@pytest.mark.parametrize("wrong", [3, 255, 0.5, np.nan, np.inf])
@pytest.mark.parametrize(
    "options",
    [{}, {"classes": "focal"}, {"classes": "focal", "gamma": 0}, {"per": "box"}],
    ids=["cross entropy", "focal", "gamma 0", "per box"],
)
def test_unknown_class_of_an_anchor_is_rejected(options, wrong):
    """Classes are 0 to 2 with the background. A label below 0 has no loss."""
    loss = DetectionLoss(**options)
    rng = np.random.default_rng(0)
    preds, offsets = mx.nd.array(rng.random((3, 4, 3))), mx.nd.array(rng.random((3, 16)))
    labels = mx.nd.array([[0, 1, 2, -1], [0, 2, 1, -1], [-1, -1, -1, -2]])
    arguments = offsets, offsets * 0, offsets * 0 + 1
    right = loss(preds, labels, *arguments).asnumpy()
    assert np.isfinite(right).all()
    for image, place in ((1, 2), (2, 3)):
        bad = labels.copy()
        bad[image, place] = wrong
        with pytest.raises(
            ValueError, match=rf"cls_labels: .* 0 to 2, or below 0, got .* at \({image}, "
        ):
            DetectionLoss(**options)(preds, bad, *arguments)
        graph = DetectionLoss(**options)
        graph.hybridize()
        got = graph(preds, bad, *arguments).asnumpy()
        others = [i for i in range(3) if i != image]
        assert np.isnan(got[image])
        np.testing.assert_array_equal(got[others], right[others])
    with pytest.raises(ValueError, match="cls_labels: expected classes 0 to 2"):
        losses.calc_loss(preds, bad, *arguments)


def test_class_weights_are_factors_of_the_losses_of_their_classes():
    """All classes have the loss log 3. The labels are background, 1, 2 and ignored."""
    zeros = mx.nd.zeros((1, 4, 3)), mx.nd.array([[0, 1, 2, -1]]), *[mx.nd.zeros((1, 16))] * 3
    for is_graph in (False, True):
        loss = DetectionLoss(class_weights=(1, 2, 0.5))
        loss.initialize()
        loss.hybridize(is_graph)
        expected = np.log(3) * (1 + 2 + 0.5) / 4
        np.testing.assert_allclose(loss(*zeros).asnumpy(), [expected], rtol=1e-5)
    for weights, kind in (
        ((1, -1, 1), ValueError),
        ((1, np.inf, 1), ValueError),
        ((1, None), TypeError),
    ):
        with pytest.raises(kind, match="class_weights: expected"):
            DetectionLoss(class_weights=weights)
