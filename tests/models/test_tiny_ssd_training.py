"""The training of a TinySSD: steps, mining, images without objects, devices, bad labels."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet")

from ssd_cases import STATIC, log_softmax, make, make_batch, make_trainer

from cvops._mxnet import mxnet
from cvops.models import DetectionLoss, Training, tiny_ssd

mx = mxnet()

# --- steps ----------------------------------------------------------------------------------------


def trained(ops, hybrid, steps=4, mining=-1, **options):
    """The results of each step, as NumPy arrays, and the parameters after the last step."""
    net = make(ops)
    training = Training(net, DetectionLoss(**options), negative_mining_ratio=mining)
    if hybrid:
        training.hybridize(**STATIC)
    trainer, batch = make_trainer(net), make_batch()
    results = []
    for _ in range(steps):
        (result,) = tiny_ssd.train_step(training, trainer, *batch)
        results.append([x.asnumpy() for x in result])
    return results, [p.data().asnumpy() for p in net.collect_params().values()]


def assert_same_training(first, second, rtol):
    for ours, theirs in zip(first[0], second[0]):
        loss, _, cls_labels, _, bbox_labels, bbox_masks = ours
        np.testing.assert_allclose(loss, theirs[0], rtol=rtol)
        np.testing.assert_array_equal(cls_labels, theirs[2])
        np.testing.assert_allclose(bbox_labels, theirs[4], rtol=max(rtol, 1e-6), atol=1e-6)
        np.testing.assert_array_equal(bbox_masks, theirs[5])
    for ours, theirs in zip(first[1], second[1]):
        np.testing.assert_allclose(ours, theirs, rtol=10 * rtol, atol=rtol)


@pytest.mark.parametrize("mining", [-1, 3], ids=["no mining", "mining"])
def test_hybridized_training_equals_plain_training(ops, mining):
    plain, hybrid = (trained(ops, h, mining=mining, per="box") for h in (False, True))
    assert_same_training(plain, hybrid, rtol=1e-5)


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybridized"])
@pytest.mark.parametrize("mining", [-1, 3], ids=["no mining", "mining"])
def test_training_with_both_sets_of_ops_is_equal(operators, hybrid, mining):
    """The tolerance is 1e-5, because logarithms may differ in their last bits."""
    ours, theirs = (trained(ops, hybrid, mining=mining, per="box") for ops in ("cvops", "mxnet"))
    assert_same_training(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"classes": "focal", "boxes": "smooth_l1"}], ids=["book", "focal"]
)
def test_training_lowers_the_loss(ops, options):
    results, _ = trained(ops, True, steps=12, per="box", **options)
    means = [loss.mean() for loss, *_ in results]
    assert np.mean(means[-3:]) < 0.6 * means[0]


# --- mining ---------------------------------------------------------------------------------------


def test_mining_keeps_three_negatives_per_positive(ops):
    net, (images, labels) = make(ops), make_batch()
    *_, cls_labels, _, _, _ = Training(net, negative_mining_ratio=3)(images, labels)
    for row in cls_labels.asnumpy():
        assert (row > 0).any()
        assert (row == 0).sum() == 3 * (row > 0).sum()
        assert (row == -1).any()
    *_, cls_labels, _, _, _ = Training(net)(images, labels)
    assert (cls_labels.asnumpy() >= 0).all()


def test_mining_selects_negatives_by_the_predictions_of_the_network(ops):
    net, (images, labels) = make(ops), make_batch()
    given, (anchors, logits, _) = {"negative_mining_ratio": 3}, net(images)
    target = mx.nd.contrib.MultiBoxTarget
    *_, expected = target(anchors, labels, logits.transpose((0, 2, 1)), **given)
    *_, of_equal_logits = target(anchors, labels, mx.nd.zeros((3, 3, 344)), **given)
    _, _, cls_labels, *_ = Training(net, **given)(images, labels)
    np.testing.assert_array_equal(cls_labels.asnumpy(), expected.asnumpy())
    assert (cls_labels.asnumpy() != of_equal_logits.asnumpy()).any()


def test_anchors_that_mining_ignores_have_no_gradient(ops):
    net, (images, labels) = make(ops), make_batch()
    training = Training(net, negative_mining_ratio=3)
    _, logits, cls_labels, *boxes = training(images, labels)
    logits.attach_grad()
    with mx.autograd.record():
        loss = training.loss(logits, cls_labels, *boxes)
    loss.backward()
    gradients = np.abs(logits.grad.asnumpy()).sum(-1)
    np.testing.assert_array_equal(gradients > 0, cls_labels.asnumpy() >= 0)


# --- images without objects -----------------------------------------------------------------------


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybridized"])
@pytest.mark.parametrize("per", ["anchor", "box"])
@pytest.mark.parametrize(
    ("mining", "count"),
    [(-1, 344), (3, 3), (0.5, 1), (1e9, 100)],
    ids=["no mining", "ratio 3", "ratio 0.5", "ratio 1e9"],
)
def test_image_without_objects_has_the_loss_of_the_background(ops, hybrid, per, mining, count):
    """Image 1 has no objects. Its loss has the ``count`` anchors with the largest errors."""
    images, labels = make_batch()
    labels[1] = -1
    training = Training(make(ops), DetectionLoss(per=per), negative_mining_ratio=mining)
    if hybrid:
        training.hybridize(**STATIC)
    with mx.autograd.record():
        loss, logits, cls_labels, _, _, masks = training(images, labels)
    loss.backward()
    cls_labels = cls_labels.asnumpy()
    assert (cls_labels[[0, 2]] > 0).any(axis=1).all()
    errors = -log_softmax(logits.asnumpy()[1])[:, 0]
    counted = cls_labels[1] == 0
    assert counted.sum() == count
    assert (cls_labels[1][~counted] == -1).all()
    assert errors[counted].min() >= errors[~counted].max(initial=0)
    divisor = 344 if per == "anchor" else masks.asnumpy().sum() / 3 / 4
    assert loss.asnumpy()[1] == pytest.approx(errors[counted].sum() / divisor, rel=1e-5)


def test_training_on_images_without_objects_lowers_the_loss(ops):
    images, labels = make_batch()
    labels[:] = -1
    net = make(ops)
    training, trainer = Training(net), make_trainer(net)
    losses_of_steps = [
        tiny_ssd.train_step(training, trainer, images, labels)[0][0].asnumpy() for _ in range(8)
    ]
    assert (losses_of_steps[-1] < 0.7 * losses_of_steps[0]).all()
    assert (losses_of_steps[0] > 0.1).all()


# --- devices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybridized"])
def test_training_on_two_devices_equals_training_on_one(ops, hybrid):
    """The halves of the batch are equal, and so are their means and variances."""
    images, labels = (mx.nd.concat(x, x, dim=0) for x in make_batch(2))
    nets = []
    for devices in ([mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]):
        net = make(ops, devices)
        training, trainer = Training(net, DetectionLoss(per="box")), make_trainer(net, 0.005)
        if hybrid:
            training.hybridize(**STATIC)
        for _ in range(2):
            results = tiny_ssd.train_step(training, trainer, images, labels)
        assert [loss.context for loss, *_ in results] == devices
        nets.append((net, np.concatenate([loss.asnumpy() for loss, *_ in results])))
    (one, its_losses), (two, their_losses) = nets
    np.testing.assert_allclose(their_losses, its_losses, rtol=1e-5)
    for mine, theirs in zip(one.collect_params().values(), two.collect_params().values()):
        first, second = (x.asnumpy() for x in theirs.list_data())
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, mine.data().asnumpy(), rtol=1e-4, atol=1e-5)


def test_odd_batch_is_split_between_the_devices(ops):
    devices = [mx.cpu(0), mx.cpu(1)]
    net = make(ops, devices)
    results = tiny_ssd.train_step(Training(net), make_trainer(net), *make_batch(3), devices)
    assert sorted(len(loss) for loss, *_ in results) == [1, 2]


def test_batch_smaller_than_the_number_of_devices_is_rejected():
    net = make(devices=[mx.cpu(0), mx.cpu(1)])
    with pytest.raises(ValueError, match="images: expected 2 or more, one per device, got 1"):
        tiny_ssd.train_step(Training(net), make_trainer(net), *make_batch(1))


# --- labels ---------------------------------------------------------------------------------------

#: name -> class, box, the error.
BAD_LABELS = {
    **{
        f"class {kind}": (
            kind,
            (0.1, 0.1, 0.5, 0.5),
            f"expected classes 0 to 1, or -1 for padding, got [{kind:.1f}, ",
        )
        for kind in (2, 255, 1.5, -2, np.nan)
    },
    **{
        name: (1, box, f"expected corners in fractions of the image, got [1.0, {begin}")
        for name, box, begin in [
            ("pixels", (10, 20, 50, 60), "10.0, 20.0"),
            ("corner nan", (0, 0, np.nan, 0.5), "0.0"),
            ("corner infinite", (0, 0, np.inf, 0.5), "0.0"),
        ]
    },
    "box inverted": (1, (0.5, 0.5, 0.1, 0.1), "expected x1 <= x2 and y1 <= y2, got [1.0, 0.5"),
}


@pytest.mark.parametrize(("kind", "box", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_label_is_rejected_and_changes_no_weight(operators, kind, box, message):
    net = make("cvops")
    images, labels = make_batch()
    labels[1, 1] = mx.nd.array([kind, *box])
    want = re.escape(f"labels: {message}") + ".* in image 1, row 1"
    training = Training(net)
    with pytest.raises(ValueError, match=want):
        training(images, labels)
    training.hybridize(**STATIC)
    before = net.class_heads[0].weight.data().asnumpy()
    with pytest.raises(ValueError, match=want):
        tiny_ssd.train_step(training, make_trainer(net), images, labels)
    np.testing.assert_array_equal(net.class_heads[0].weight.data().asnumpy(), before)


@pytest.mark.parametrize("options", [{}, STATIC], ids=["hybridized", "static"])
@pytest.mark.parametrize(("kind", "box", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_label_in_a_graph_gives_a_loss_of_nan(operators, kind, box, message, options):
    net = make("cvops")
    training = Training(net)
    training.hybridize(**options)
    images, labels = make_batch()
    labels[1, 1] = mx.nd.array([kind, *box])
    with mx.autograd.record():
        loss = training(images, labels)[0]
    loss.backward()
    np.testing.assert_array_equal(np.isnan(loss.asnumpy()), [False, True, False])
    assert np.isnan(net.class_heads[0].weight.grad().asnumpy()).any()


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybridized"])
def test_labels_at_the_limits_are_accepted(operators, hybrid):
    training = Training(make("cvops"))
    if hybrid:
        training.hybridize()
    images, labels = make_batch()
    labels[0, 0] = mx.nd.array([1, -2, -2, 2, 2])
    labels[1, 0] = mx.nd.array([0, 0.5, 0.5, 0.5, 0.5])
    labels[2] = -1
    assert np.isfinite(training(images, labels)[0].asnumpy()).all()


def test_labels_of_a_wrong_shape_are_rejected():
    images, labels = make_batch()
    training, trainer = Training(make()), make_trainer(make())
    with pytest.raises(
        ValueError, match=r"labels: expected shape \(B, m, 5 or more\), got \(3, 2, 4"
    ):
        tiny_ssd.train_step(training, trainer, images, labels[:, :, :4])
    with pytest.raises(ValueError, match="labels: expected labels of 3 images, got 2"):
        tiny_ssd.train_step(training, trainer, images, labels[:2])
