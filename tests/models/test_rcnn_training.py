"""The training of the R-CNN family: losses, gradients, phases, devices, bad input."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet")

from rcnn_cases import (
    ANCHORS,
    SIDE,
    STATIC,
    make,
    make_batch,
    make_fast,
    make_proposals,
    make_trainer,
)

from cvops import metrics
from cvops._mxnet import mxnet
from cvops._networks.rcnn import STDS
from cvops.models import RCNNTraining, rcnn

mx = mxnet()
pytestmark = pytest.mark.usefixtures("operators")


def inputs_of(training, batch, noise=None, seed=5):
    """The inputs of ``training`` in its order, with noise of a seed."""
    images, labels, masks = batch
    proposals = make_proposals(labels) if training.parts == "heads" else None
    if noise is None:
        mx.random.seed(seed)
        noise = training.noise(images, labels, proposals)
    given = [images, labels]
    given += [masks] if training.has_masks else []
    given += [noise]
    return given + ([proposals] if training.parts == "heads" else [])


def losses_of(training, batch, **options):
    return [x.asnumpy() for x in training(*inputs_of(training, batch, **options))]


# --- losses ---------------------------------------------------------------------------------------

TRAININGS = pytest.mark.parametrize(
    ("maker", "options", "parts", "names"),
    [
        (make, {}, "all", ("rpn class", "rpn box", "class", "box")),
        (make, {"mask": True}, "all", ("rpn class", "rpn box", "class", "box", "mask")),
        (make, {"mask": True}, "rpn", ("rpn class", "rpn box")),
        (make, {"mask": True}, "heads", ("class", "box", "mask")),
        (make_fast, {"roi": "pooling"}, None, ("class", "box")),
        (make_fast, {"mask": True, "fpn": True}, "heads", ("class", "box", "mask")),
    ],
    ids=["faster", "mask", "rpn", "heads", "fast", "fast mask"],
)


@TRAININGS
def test_hybridized_training_equals_plain_training(maker, options, parts, names):
    """The losses of each step, and the parameters after two steps."""
    results = []
    for hybrid in (False, True):
        net = maker(**options)
        training, trainer = RCNNTraining(net, parts), make_trainer(net)
        assert training.names == names
        if hybrid:
            training.hybridize(**STATIC)
        images, labels, masks = make_batch()
        proposals = make_proposals(labels) if training.parts == "heads" else None
        mx.random.seed(7)
        losses = []
        for _ in range(2):
            noise = training.noise(images, labels, proposals)
            step = rcnn.train_step(training, trainer, images, labels, masks, proposals, noise)
            losses += [x.asnumpy() for x in step[0]]
        assert all(loss.shape == (2,) for loss in losses)
        results.append([*losses, *(p.data().asnumpy() for p in net.collect_params().values())])
    for plain, hybrid in zip(*results):
        np.testing.assert_allclose(plain, hybrid, rtol=1e-3, atol=1e-4)


@TRAININGS
def test_loss_is_the_sum_of_its_parts(maker, options, parts, names):
    total, *losses = losses_of(RCNNTraining(maker(**options), parts), make_batch())
    assert len(losses) == len(names)
    np.testing.assert_allclose(total, np.sum(losses, axis=0), rtol=1e-6)
    assert all((loss >= 0).all() for loss in losses)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def smooth_l1(x, scale):
    return np.where(np.abs(x) < 1 / scale**2, (scale * x) ** 2 / 2, np.abs(x) - 0.5 / scale**2)


def test_losses_of_the_rpn_equal_a_reference():
    net, batch = make(), make_batch()
    training = RCNNTraining(net, "rpn")
    images, labels, noise = inputs_of(training, batch)
    assert noise.shape == (2, ANCHORS)
    with mx.autograd.record():  # the batch normalization uses the batch
        anchors, logits, offsets = net.regions(mx.nd, net.backbone(images))
        _, classes, boxes = training(images, labels, noise)
    kinds, targets, masks = (
        x.asnumpy()
        for x in mx.nd.contrib.cvops_rpn_target(anchors, labels, noise, num_sample=64, stds=STDS)
    )
    logits, offsets = logits.asnumpy(), offsets.asnumpy()
    for i in range(2):
        chosen = kinds[i] >= 0
        assert chosen.sum() == 64
        p = sigmoid(logits[i, chosen])
        expected = -np.log(np.where(kinds[i, chosen] == 1, p, 1 - p)).mean()
        assert classes[i].asscalar() == pytest.approx(expected, rel=1e-4)
        moves = smooth_l1((offsets[i] - targets[i]) * masks[i], 3).sum() / 64
        assert boxes[i].asscalar() == pytest.approx(moves, rel=1e-4)


@pytest.mark.parametrize("parts", ["all", "heads"])
def test_losses_of_the_heads_equal_a_reference(parts):
    net, batch = make(mask=True), make_batch()
    training = RCNNTraining(net, parts)
    given = inputs_of(training, batch)
    images, labels, shapes, noise = given[:4]
    with mx.autograd.record():
        maps = net.backbone(images)
        if parts == "all":
            proposals = net.propose(mx.nd, *net.regions(mx.nd, maps))
            assert noise.shape == (2, ANCHORS + 60 + 2)
        else:
            proposals = given[4]
            assert noise.shape == (2, 12 + 2)
        count = proposals.shape[1] + 2
        mine = noise[:, ::-1][:, :count]
        rois, kinds, matches, targets, _ = mx.nd.contrib.cvops_rcnn_target(
            proposals, labels, mine, num_sample=32, stds=STDS
        )
        logits, offsets = net.heads(mx.nd, images, maps, rois)
        cells = net.masks(mx.nd, images, maps, rois).asnumpy().reshape(2, 32, 2, 28, 28)
        *_, classes, boxes, masks = training(*given)
    rois, kinds, matches, targets, logits, offsets = (
        x.asnumpy() for x in (rois, kinds, matches, targets, logits, offsets)
    )
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=2, keepdims=True)
    for i in range(2):
        positive = np.flatnonzero(kinds[i] > 0)
        assert 0 < len(positive) <= 8
        expected = -np.log(p[i, range(32), kinds[i].astype(int)]).mean()
        assert classes[i].asscalar() == pytest.approx(expected, rel=1e-4)
        moves = sum(
            smooth_l1(offsets[i, n, int(kinds[i, n]) - 1] - targets[i, n], 1).sum()
            for n in positive
        )
        assert boxes[i].asscalar() == pytest.approx(moves / 32, rel=1e-4)
        errors = []
        for n in positive:
            mask = shapes[i, int(matches[i, n])].reshape((1, 1, SIDE, SIDE))
            roi = mx.nd.array([[0, *(rois[i, n] * SIDE)]])
            target = mx.nd.contrib.ROIAlign(mask, roi, (28, 28), 1.0, sample_ratio=2)[0, 0]
            q = sigmoid(cells[i, n, int(kinds[i, n]) - 1])
            target = target.asnumpy()
            errors.append(-(target * np.log(q) + (1 - target) * np.log(1 - q)).mean())
        assert masks[i].asscalar() == pytest.approx(np.mean(errors), rel=1e-4)


def test_noise_decides_which_samples_count():
    net, batch = make(), make_batch()
    training = RCNNTraining(net)
    first, same, other = (losses_of(training, batch, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first[0] != other[0]).all()


def test_class_weights_scale_the_loss_of_the_classes():
    """Twice the weight of each class is twice the loss; the other losses are equal."""
    net, (images, labels, _) = make(), make_batch()
    found = []
    for weights in (None, (2, 2, 2)):
        training = RCNNTraining(net, class_weights=weights)
        if weights:
            training.class_weights.initialize()
        mx.random.seed(1)
        noise = training.noise(images, labels)
        found.append([x.asnumpy() for x in training(images, labels, noise)[1:]])
    for name, one, other in zip(training.names, *found):
        np.testing.assert_allclose(other, one * (2 if name == "class" else 1), rtol=1e-5)
    with pytest.raises(ValueError, match="class_weights: expected 3 numbers"):
        RCNNTraining(net, class_weights=(1, 2))


def test_image_without_objects_has_the_losses_of_the_background():
    images, labels, masks = make_batch()
    labels[0] = -1
    masks[0] = 0
    training = RCNNTraining(make(mask=True))
    total, rpn, rpn_box, classes, box, mask = losses_of(training, (images, labels, masks))
    assert rpn_box[0] == box[0] == mask[0] == 0
    assert total[0] == pytest.approx(rpn[0] + classes[0])
    assert rpn[0] > 0.1
    assert classes[0] > 0.1
    assert (np.stack([rpn_box, box, mask])[:, 1] > 0).all()


def test_object_with_an_empty_mask_has_no_mask_loss():
    images, labels, masks = make_batch()
    training = RCNNTraining(make(mask=True), "heads")
    *_, expected = losses_of(training, (images, labels, masks))
    masks[1] = 0  # its only object
    *_, box, mask = losses_of(training, (images, labels, masks))
    assert mask[1] == 0
    assert box[1] > 0
    assert mask[0] == expected[0]


# --- gradients ------------------------------------------------------------------------------------


def gradients(net, loss):
    loss.backward()
    return {
        name[len(net.prefix) :]: np.abs(p.grad().asnumpy()).max()
        for name, p in net.collect_params().items()
        if p.grad_req != "null"
    }


def of(values, prefix):
    found = [value for name, value in values.items() if name.startswith(prefix)]
    assert found
    return found


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybridized"])
def test_no_gradient_passes_through_the_proposals(hybrid):
    """The losses of the heads depend on the RPN by its proposals only."""
    net = make(mask=True)
    training = RCNNTraining(net)
    if hybrid:
        training.hybridize(static_alloc=True)
    given = inputs_of(training, make_batch())
    with mx.autograd.record():
        _, _, _, *losses = training(*given)
        loss = sum(losses)
    values = gradients(net, loss)
    assert max(of(values, "rpn")) == 0
    assert min(of(values, "backbone")) > 0
    assert min(of(values, "boxhead")) > 0
    assert min(of(values, "maskhead")) > 0


def test_gradient_of_the_rpn_does_not_reach_the_heads():
    net = make(mask=True)
    training = RCNNTraining(net)
    given = inputs_of(training, make_batch())
    with mx.autograd.record():
        _, classes, boxes, *_ = training(*given)
        loss = classes + boxes
    values = gradients(net, loss)
    assert min(of(values, "rpn")) > 0
    assert min(of(values, "backbone")) > 0
    assert max(of(values, "boxhead") + of(values, "maskhead")) == 0


def test_steps_on_four_images_find_all_their_objects():
    """70 steps on the same images: each object has a proposal with an IoU of 0.5.

    The number of OpenMP threads changes the order of sums. After 40 steps the average precision
    therefore varies.
    """
    mx.random.seed(0)
    net, batch = make(mask=True), make_batch(4)
    training, trainer = RCNNTraining(net), make_trainer(net, 3e-3)
    training.hybridize(**STATIC)
    totals = [
        float(rcnn.train_step(training, trainer, *batch)[0][0].mean().asscalar()) for _ in range(70)
    ]
    assert np.mean(totals[-5:]) < 0.4 * totals[0]
    images, labels, _ = batch
    # With the statistics of these images: the running ones have seen too few steps.
    with mx.autograd.train_mode():
        rows, _ = net.detect(images, threshold=0.05)
        proposals, *_ = net(images)
    labels, rows = labels.asnumpy(), rows.asnumpy()
    assert metrics.proposal_recall(proposals.asnumpy(), labels, 0.5) == 1
    found = metrics.average_precision(list(rows), list(labels), 2, 0.5)
    assert found.min() > 0.7


# --- frozen parts ---------------------------------------------------------------------------------


def test_frozen_backbone_keeps_its_bits():
    """Running means included. The other parts learn."""
    net = make()
    rcnn.freeze(net.backbone)
    training, trainer = RCNNTraining(net), make_trainer(net)
    training.hybridize(**STATIC)
    before = {name: p.data().asnumpy() for name, p in net.collect_params().items()}
    for _ in range(2):
        rcnn.train_step(training, trainer, *make_batch()[:2])
    for name, parameter in net.collect_params().items():
        same = np.array_equal(parameter.data().asnumpy(), before[name])
        assert same == ("backbone" in name), name
    rcnn.freeze(net.backbone, False)
    training = RCNNTraining(net)
    trainer = make_trainer(net)
    rcnn.train_step(training, trainer, *make_batch()[:2])
    for name, parameter in net.backbone.collect_params().items():
        assert not np.array_equal(parameter.data().asnumpy(), before[name]), name


@pytest.mark.parametrize(("parts", "still"), [("rpn", "boxhead"), ("heads", "rpn")])
def test_training_of_one_part_leaves_the_other_as_it_is(parts, still):
    net = make()
    training, trainer = RCNNTraining(net, parts), make_trainer(net)
    images, labels, _ = make_batch()
    before = {name: p.data().asnumpy() for name, p in net.collect_params().items()}
    proposals = make_proposals(labels) if parts == "heads" else None
    rcnn.train_step(training, trainer, images, labels, proposals=proposals)
    for name, parameter in net.collect_params().items():
        if "running" not in name:
            same = np.array_equal(parameter.data().asnumpy(), before[name])
            assert same == (still in name), name


# --- devices --------------------------------------------------------------------------------------


def test_training_on_two_devices_equals_training_on_one():
    """The halves of the batch are equal, and so are their means and variances."""
    batch = [mx.nd.concat(x, x, dim=0) for x in make_batch(2)]
    nets = []
    for devices in ([mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]):
        net = make(devices=devices, mask=True)
        training, trainer = RCNNTraining(net), make_trainer(net, 1e-4)
        training.hybridize(**STATIC)
        mx.random.seed(3)
        noise = training.noise(*(x[:2] for x in batch[:2]))
        noise = mx.nd.concat(noise, noise, dim=0)
        results = rcnn.train_step(training, trainer, *batch, noise=noise)
        assert [loss.context for loss, *_ in results] == devices
        nets.append((net, np.concatenate([loss.asnumpy() for loss, *_ in results])))
    (one, its_losses), (two, their_losses) = nets
    np.testing.assert_allclose(their_losses, its_losses, rtol=1e-4)
    for mine, theirs in zip(one.collect_params().values(), two.collect_params().values()):
        first, second = (x.asnumpy() for x in theirs.list_data())
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, mine.data().asnumpy(), rtol=1e-3, atol=3e-4)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((2, 0.1, 0.1, 0.5, 0.5), "labels: expected classes 0 to 1, or -1 for padding"),
        ((np.nan, 0.1, 0.1, 0.5, 0.5), "labels: expected classes 0 to 1"),
        ((0, 10, 10, 50, 50), "labels: expected corners in fractions of the image"),
        ((0, 0.5, 0.1, 0.1, 0.5), "labels: expected x1 <= x2 and y1 <= y2"),
    ],
    ids=["class 2", "class nan", "pixels", "inverted"],
)
def test_bad_label_raises_an_error_or_gives_nan(row, message):
    """The first image has the label. In a graph its loss is NaN, the other one is not."""
    images, labels, _ = make_batch()
    labels[0, 0] = mx.nd.array(row)
    training = RCNNTraining(make())
    with pytest.raises(ValueError, match=re.escape(message)):
        training(*inputs_of(training, (images, labels, None)))
    with pytest.raises(ValueError, match=re.escape(message)):
        rcnn.train_step(training, None, images, labels)
    training.hybridize()
    loss, *_ = training(*inputs_of(training, (images, labels, None)))
    assert np.isnan(loss.asnumpy()).tolist() == [True, False]


def test_missing_input_of_a_step_is_rejected():
    images, labels, masks = make_batch()
    training = RCNNTraining(make(mask=True))
    for given, message in [
        ((images, labels), "masks: expected masks of 2 images, got none"),
        ((images, labels[:1], masks), "labels: expected labels of 2 images, got 1"),
        ((images, labels, masks[:1]), "masks: expected masks of 2 images, got 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            rcnn.train_step(training, None, *given)
    with pytest.raises(ValueError, match="proposals: expected proposals of 2 images, got none"):
        rcnn.train_step(RCNNTraining(make_fast()), None, images, labels)
    devices = [mx.cpu(i) for i in range(3)]
    with pytest.raises(ValueError, match="images: expected 3 or more, one per device, got 2"):
        rcnn.train_step(training, None, *make_batch(), devices=devices)


def test_part_that_a_network_has_not_is_rejected():
    with pytest.raises(ValueError, match=r"parts: expected one of \['all', 'rpn', 'heads'\], got"):
        RCNNTraining(make(), "box")
    with pytest.raises(ValueError, match=r"parts: expected one of \['heads'\], got 'all'"):
        RCNNTraining(make_fast(), "all")
