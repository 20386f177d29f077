"""The detector of the book's chapter: its graph, its losses, its steps of training."""

import importlib.util
import re

import numpy as np
import pytest

if importlib.util.find_spec("mxnet") is None:  # not importorskip: it imports without our cure
    pytest.skip("no mxnet here", allow_module_level=True)

from cvops._mxnet import mxnet
from cvops.models import DetectionLoss, Detector, TinySSD, Training, losses, tiny_ssd

mx = mxnet()
SIDE = 64  # of the images: 8 x 8, 4 x 4, 2 x 2, 1 and 1 places, 4 anchors to a place
STATIC = {"static_alloc": True, "static_shape": True}


@pytest.fixture(scope="module")
def cvops_ops():
    """Skips where the operators for MXNet cannot be built."""
    try:
        import cvops.mxnet  # noqa: F401
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["mxnet", "cvops"])
def ops(request):
    if request.param == "cvops":
        request.getfixturevalue("cvops_ops")
    return request.param


def make(ops="mxnet", devices=None, seed=0):
    mx.random.seed(seed)
    net = TinySSD(("bee", "frog"), SIDE, ops)
    net.initialize(mx.init.Xavier(), ctx=devices)
    return net


def make_batch(count=3, seed=1):
    """Noise, and two objects in each image but the last, which has one."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 255, (count, 3, SIDE, SIDE))
    labels = np.empty((count, 2, 5))
    labels[..., 0] = rng.integers(0, 2, (count, 2))
    labels[..., 1:3] = rng.uniform(0, 0.5, (count, 2, 2))
    labels[..., 3:] = labels[..., 1:3] + rng.uniform(0.2, 0.5, (count, 2, 2))
    labels[-1, 1] = -1
    return mx.nd.array(images), mx.nd.array(labels)


def make_trainer(net, rate=0.02):
    options = {"learning_rate": rate, "momentum": 0.9, "wd": 5e-4}
    return mx.gluon.Trainer(net.collect_params(), "sgd", options)


# --- the network ----------------------------------------------------------------------------------


def test_shapes_of_the_book(ops):
    """32, 16, 8, 4 and 1 on a side, 4 anchors to a place: (1024 + 256 + 64 + 16 + 1) * 4."""
    anchors, classes, offsets = make(ops)(mx.nd.zeros((2, 3, 256, 256)))
    assert anchors.shape == (1, 5444, 4)
    assert classes.shape == (2, 5444, 3)
    assert offsets.shape == (2, 5444 * 4)


def test_anchors_of_the_book():
    """The first: at (0.5, 0.5) of 8 places, 0.2 on a side."""
    anchors, _, _ = make()(make_batch()[0])
    np.testing.assert_allclose(
        anchors[0, 0].asnumpy(), [0.0625 - 0.1, 0.0625 - 0.1, 0.0625 + 0.1, 0.0625 + 0.1], atol=1e-7
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), "classes: expected one or more names, got ()"),
        (("bee",), "classes: expected one or more names, got 'bee'"),
        (((1, 2),), "classes: expected one or more names, got (1, 2)"),
        ((2,), "classes: expected one or more names, got 2"),
        ((("bee",), 63), "side: expected an integer in [64, 2147483647], got 63"),
        ((("bee",), 64.5), "side: expected an integer, got 64.5"),
        ((("bee",), 64, "torch"), "ops: expected one of ['cvops', 'mxnet'], got 'torch'"),
    ],
    ids=["none", "a string", "numbers", "a number", "63", "64.5", "torch"],
)
def test_network_refuses(arguments, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        TinySSD(*arguments)


def test_parameters_are_named_alike_and_fit_either_way(cvops_ops, tmp_path):
    ours, theirs = make("cvops", seed=1), make("mxnet", seed=2)

    def names(net):
        return [name[len(net.prefix) :] for name in net.collect_params()]

    assert names(ours) == names(theirs)
    theirs.save(tmp_path / "net.params")
    images, _ = make_batch()
    loaded = TinySSD.load(tmp_path / "net.params", "cvops")
    assert (loaded.ops, loaded.classes, loaded.side) == ("cvops", ("bee", "frog"), SIDE)
    for our, their in zip(loaded(images), theirs(images)):
        np.testing.assert_array_equal(our.asnumpy(), their.asnumpy())


def test_load_refuses(tmp_path):
    net = make()
    path = tmp_path / "net.params"
    with pytest.raises(FileNotFoundError, match=r"net\.params: no such file"):
        TinySSD.load(path, "mxnet")
    net.save(path)
    about = path.with_suffix(".json").read_text()
    path.with_suffix(".json").write_text(about.replace("bee", "bee, wasp").replace("64", "1"))
    with pytest.raises(ValueError, match=r"net\.json: does not describe a TinySSD"):
        TinySSD.load(path, "mxnet")
    for text in ("", "[]", "[" * 100000, about.replace("64", "64.5")):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(ValueError, match=r"net\.json: does not describe a TinySSD"):
            TinySSD.load(path, "mxnet")
    path.with_suffix(".json").write_text(about.replace('"bee",', ""))
    with pytest.raises(ValueError, match=r"net\.params: not the parameters of a TinySSD"):
        TinySSD.load(path, "mxnet")


# --- losses ---------------------------------------------------------------------------------------


def log_softmax(x):
    x = np.asarray(x, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def text_of_the_loss(given, classes, boxes, per, alpha=0.25, gamma=2.0, scale=1.0):
    """``DetectionLoss`` in float64, from its definitions; and its gradient by the logits."""
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
    """cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks."""
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


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybridized"])
@pytest.mark.parametrize("options", LOSSES, ids=lambda o: " ".join(map(str, o.values())))
@pytest.mark.parametrize("largest", [3, 1e4])
def test_loss_is_that_of_the_text(options, hybrid, largest):
    given = predictions(largest)
    loss = DetectionLoss(**options)
    if hybrid:
        loss.hybridize(**STATIC)
    arrays = [mx.nd.array(x) for x in given]
    arrays[0].attach_grad()
    with mx.autograd.record():
        value = loss(*arrays)
    value.backward()
    np.testing.assert_allclose(value.asnumpy(), text_of_the_loss(given, **options), rtol=1e-5)
    assert np.isfinite(arrays[0].grad.asnumpy()).all()


@pytest.mark.parametrize("options", LOSSES, ids=lambda o: " ".join(map(str, o.values())))
def test_slope_of_the_loss_is_that_of_the_text(options):
    """By central differences in float64; they err by about 1e-10 of what is left out."""
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
            ends.append(text_of_the_loss([moved, *given[1:]], **options)[0])
        expected[place] = (ends[1] - ends[0]) / 2e-5
    np.testing.assert_allclose(logits.grad.asnumpy(), expected, rtol=1e-4, atol=1e-6)


def test_focal_loss_by_hand():
    """p = 1/4 of the labelled class: 0.25 * (3/4)^2 * ln 4; and ln 4 where it is not focused.

    MXNet's log_softmax is right to about 1e-6.
    """
    logits, label = mx.nd.array([[[0, np.log(3)]]]), mx.nd.array([[0]])
    focal = losses.focal(mx.nd, logits, label).asscalar()
    assert focal == pytest.approx(0.25 * 0.5625 * np.log(4), rel=1e-5)
    plain = losses.focal(mx.nd, logits, label, alpha=1, gamma=0).asscalar()
    assert plain == pytest.approx(np.log(4), rel=1e-5)


def test_cross_entropy_of_the_impossible():
    """Of a class whose probability rounds to 0: the difference of the logits."""
    logits = mx.nd.array([[[1e4, -1e4], [1e4, -1e4]]])
    value = losses.cross_entropy(mx.nd, logits, mx.nd.array([[1, 0]]))
    np.testing.assert_allclose(value.asnumpy(), [[2e4, 0]], atol=1e-5)


def test_smooth_l1_by_hand():
    """scale 2: the parabola (2x)^2 / 2 up to 1/4, beyond it x - 1/8."""
    errors = mx.nd.array([-1, -0.25, -0.125, 0, 0.125, 0.25, 3])
    value = losses.smooth_l1(mx.nd, errors, 2)
    expected = [0.875, 0.125, 0.03125, 0, 0.03125, 0.125, 2.875]
    np.testing.assert_array_equal(value.asnumpy(), expected)
    np.testing.assert_array_equal(losses.l1(mx.nd, errors).asnumpy(), np.abs(errors.asnumpy()))


def test_calc_loss_is_the_books():
    """Of Gluon's losses, exactly; a label of -1 is background there."""
    given = [mx.nd.array(x) for x in predictions()]
    cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks = given
    of_classes = mx.gluon.loss.SoftmaxCrossEntropyLoss()(cls_preds, cls_labels)
    of_boxes = mx.gluon.loss.L1Loss()(bbox_preds * bbox_masks, bbox_labels * bbox_masks)
    expected = (of_classes + of_boxes).asnumpy()
    np.testing.assert_array_equal(losses.calc_loss(*given).asnumpy(), expected)
    assert (DetectionLoss()(*given).asnumpy() < expected).all()
    given[1] = mx.nd.maximum(cls_labels, 0)
    np.testing.assert_allclose(DetectionLoss()(*given).asnumpy(), expected, rtol=1e-6)


def test_loss_per_box_by_hand():
    """Two anchors; the first has a box, and its class is half as likely as the others."""
    logits = mx.nd.array([[[np.log(2), 0], [0, 0]]])
    labels, masks = mx.nd.array([[1, 0]]), mx.nd.array([[1] * 4 + [0] * 4])
    offsets = mx.nd.array([[1, 2, 3, 4, 9, 9, 9, 9]])
    loss = DetectionLoss(per="box")(logits, labels, offsets, mx.nd.zeros((1, 8)), masks)
    assert loss.asscalar() == pytest.approx(np.log(3) + np.log(2) + 1 + 2 + 3 + 4)


def test_evals_by_hand():
    logits = mx.nd.array([[[2, 0], [0, 1], [3, 4]]])
    assert losses.cls_eval(logits, mx.nd.array([[1, 1, 1]])) == 2
    masks = mx.nd.array([[1, 1, 0, 1]])
    assert losses.bbox_eval(mx.nd.array([[1, 2, 3, 4]]), mx.nd.array([[2, 0, 9, 4]]), masks) == 3


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
    ids=str,
)
def test_loss_refuses(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DetectionLoss(**options)


# --- training -------------------------------------------------------------------------------------


def trained(ops, hybrid, steps=4, mining=-1, **options):
    """The results of each step, as NumPy arrays, and the parameters after the last."""
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


@pytest.mark.parametrize("mining", [-1, 3])
def test_training_is_the_same_hybridized(ops, mining):
    plain, hybrid = (trained(ops, h, mining=mining, per="box") for h in (False, True))
    assert_same_training(plain, hybrid, rtol=1e-5)


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybridized"])
@pytest.mark.parametrize("mining", [-1, 3])
def test_training_is_the_same_with_both_sets_of_ops(cvops_ops, hybrid, mining):
    """To 1e-5: offsets that pass through a logarithm may differ in their last bits."""
    ours, theirs = (trained(ops, hybrid, mining=mining, per="box") for ops in ("cvops", "mxnet"))
    assert_same_training(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"classes": "focal", "boxes": "smooth_l1"}], ids=["book", "focal"]
)
def test_loss_falls(ops, options):
    results, _ = trained(ops, True, steps=12, per="box", **options)
    means = [loss.mean() for loss, *_ in results]
    assert np.mean(means[-3:]) < 0.6 * means[0]


def test_mining_leaves_three_negatives_to_a_positive(ops):
    net, (images, labels) = make(ops), make_batch()
    *_, cls_labels, _, _, _ = Training(net, negative_mining_ratio=3)(images, labels)
    for row in cls_labels.asnumpy():
        assert (row > 0).any()
        assert (row == 0).sum() == 3 * (row > 0).sum()
        assert (row == -1).any()
    *_, cls_labels, _, _, _ = Training(net)(images, labels)
    assert (cls_labels.asnumpy() >= 0).all()


def test_mining_takes_what_the_network_is_most_wrong_of(ops):
    net, (images, labels) = make(ops), make_batch()
    given, (anchors, logits, _) = {"negative_mining_ratio": 3}, net(images)
    target = mx.nd.contrib.MultiBoxTarget
    *_, expected = target(anchors, labels, logits.transpose((0, 2, 1)), **given)
    *_, of_equal_logits = target(anchors, labels, mx.nd.zeros((3, 3, 344)), **given)
    _, _, cls_labels, *_ = Training(net, **given)(images, labels)
    np.testing.assert_array_equal(cls_labels.asnumpy(), expected.asnumpy())
    assert (cls_labels.asnumpy() != of_equal_logits.asnumpy()).any()


def test_mined_out_anchors_have_no_slope(ops):
    net, (images, labels) = make(ops), make_batch()
    training = Training(net, negative_mining_ratio=3)
    _, logits, cls_labels, *boxes = training(images, labels)
    logits.attach_grad()
    with mx.autograd.record():
        loss = training.loss(logits, cls_labels, *boxes)
    loss.backward()
    slopes = np.abs(logits.grad.asnumpy()).sum(-1)
    np.testing.assert_array_equal(slopes > 0, cls_labels.asnumpy() >= 0)


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybridized"])
@pytest.mark.parametrize("per", ["anchor", "box"])
@pytest.mark.parametrize(("mining", "count"), [(-1, 344), (3, 3), (0.5, 1), (1e9, 100)])
def test_images_without_objects_teach_the_background(ops, hybrid, per, mining, count):
    """Image 1 has no objects. Its loss is that of class 0 of the anchors that count."""
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


@pytest.mark.parametrize("options", LOSSES, ids=lambda o: " ".join(map(str, o.values())))
def test_loss_of_an_image_without_objects(options):
    """MultiBoxTarget labels all of its anchors -1: the loss is that of labels of 0."""
    given = predictions()
    given[1][1], given[3][1], given[4][1] = -1, 0, 0
    value = DetectionLoss(**options)(*map(mx.nd.array, given)).asnumpy()
    given[1][1] = 0
    np.testing.assert_allclose(value, text_of_the_loss(given, **options), rtol=1e-5)
    assert value[1] > 0


def test_training_on_images_without_objects_learns_the_background(ops):
    images, labels = make_batch()
    labels[:] = -1
    net = make(ops)
    training, trainer = Training(net), make_trainer(net)
    losses_of_steps = [
        tiny_ssd.train_step(training, trainer, images, labels)[0][0].asnumpy() for _ in range(8)
    ]
    assert (losses_of_steps[-1] < 0.7 * losses_of_steps[0]).all()
    assert (losses_of_steps[0] > 0.1).all()


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybridized"])
def test_two_devices_train_as_one(ops, hybrid):
    """On a batch whose halves are equal: so are the means and variances of either half."""
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


WRONG = [
    (2, (0.1, 0.1, 0.5, 0.5), "expected classes 0 to 1, or -1 for padding, got [2.0, "),
    (255, (0.1, 0.1, 0.5, 0.5), "expected classes 0 to 1, or -1 for padding, got [255.0, "),
    (1.5, (0.1, 0.1, 0.5, 0.5), "expected classes 0 to 1, or -1 for padding, got [1.5, "),
    (-2, (0.1, 0.1, 0.5, 0.5), "expected classes 0 to 1, or -1 for padding, got [-2.0, "),
    (np.nan, (0.1, 0.1, 0.5, 0.5), "expected classes 0 to 1, or -1 for padding, got [nan, "),
    (1, (10, 20, 50, 60), "expected corners in fractions of the image, got [1.0, 10.0, 20.0"),
    (1, (0, 0, np.nan, 0.5), "expected corners in fractions of the image, got [1.0, 0.0"),
    (1, (0, 0, np.inf, 0.5), "expected corners in fractions of the image, got [1.0, 0.0"),
    (1, (0.5, 0.5, 0.1, 0.1), "expected x1 <= x2 and y1 <= y2, got [1.0, 0.5"),
]


@pytest.mark.parametrize(("kind", "box", "message"), WRONG)
def test_labels_that_cannot_be_learnt_are_refused(cvops_ops, kind, box, message):
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
@pytest.mark.parametrize(("kind", "box", "message"), WRONG)
def test_labels_that_cannot_be_learnt_give_a_loss_of_nan_in_a_graph(
    cvops_ops, kind, box, message, options
):
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


@pytest.mark.parametrize("hybrid", [False, True])
def test_labels_at_the_limits_are_learnt(cvops_ops, hybrid):
    training = Training(make("cvops"))
    if hybrid:
        training.hybridize()
    images, labels = make_batch()
    labels[0, 0] = mx.nd.array([1, -2, -2, 2, 2])
    labels[1, 0] = mx.nd.array([0, 0.5, 0.5, 0.5, 0.5])
    labels[2] = -1
    assert np.isfinite(training(images, labels)[0].asnumpy()).all()


def test_the_shape_of_labels():
    images, labels = make_batch()
    training, trainer = Training(make()), make_trainer(make())
    with pytest.raises(
        ValueError, match=r"labels: expected shape \(B, m, 5 or more\), got \(3, 2, 4"
    ):
        tiny_ssd.train_step(training, trainer, images, labels[:, :, :4])
    with pytest.raises(ValueError, match="labels: expected labels of 3 images, got 2"):
        tiny_ssd.train_step(training, trainer, images, labels[:2])


@pytest.mark.parametrize("wrong", [3, 255, 0.5, np.nan, np.inf])
@pytest.mark.parametrize(
    "options", [{}, {"classes": "focal"}, {"classes": "focal", "gamma": 0}, {"per": "box"}], ids=str
)
def test_classes_of_anchors_that_do_not_exist(options, wrong):
    """Three classes with the background: 0 to 2, and below 0 for no loss."""
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


def test_an_odd_batch_is_split(ops):
    devices = [mx.cpu(0), mx.cpu(1)]
    net = make(ops, devices)
    results = tiny_ssd.train_step(Training(net), make_trainer(net), *make_batch(3), devices)
    assert sorted(len(loss) for loss, *_ in results) == [1, 2]


def test_a_batch_smaller_than_the_devices_is_refused():
    net = make(devices=[mx.cpu(0), mx.cpu(1)])
    with pytest.raises(ValueError, match="images: expected 2 or more, one per device, got 1"):
        tiny_ssd.train_step(Training(net), make_trainer(net), *make_batch(1))


# --- detecting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybridized"])
def test_both_sets_of_ops_detect_the_same(cvops_ops, hybrid):
    images, _ = make_batch()
    found = []
    for ops in ("cvops", "mxnet"):
        detector = Detector(make(ops), threshold=0.35)
        if hybrid:
            detector.hybridize(**STATIC)
        found.append(detector(images).asnumpy())
    assert found[0].shape == (3, 344, 6)
    assert (found[0][..., 0] >= 0).any()
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Cannot decide type")  # of the images, says SymbolBlock
def test_an_exported_detector_is_imported(ops, tmp_path):
    images, _ = make_batch()
    detector = Detector(make(ops), threshold=0.3)
    detector.hybridize(**STATIC)
    expected = detector(images).asnumpy()
    detector.export(str(tmp_path / "detector"))
    block = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "detector-symbol.json"), ["data"], str(tmp_path / "detector-0000.params")
    )
    np.testing.assert_array_equal(block(images).asnumpy(), expected)
    assert ("cvops_MultiBoxDetection" in (tmp_path / "detector-symbol.json").read_text()) == (
        ops == "cvops"
    )


def test_predict_is_detect_in_pixels(ops):
    """Of an image twice as wide as high: resized to a square, and boxes back to its pixels."""
    Image = pytest.importorskip("PIL.Image")
    net = make(ops)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 100, 3), np.uint8)
    image = Image.fromarray(pixels)
    square = np.asarray(image.resize((SIDE, SIDE))).transpose(2, 0, 1)[None]
    expected = net.detect(mx.nd.array(square), threshold=0.35)[0].asnumpy()
    expected = expected[expected[:, 0] >= 0]
    rows = tiny_ssd.predict(net, image, threshold=0.35)
    assert rows.shape == (len(expected), 6)
    assert len(rows) > 0
    assert rows.dtype == np.float32
    assert (rows[:, 1] >= 0.35).all()
    np.testing.assert_array_equal(rows[:, :2], expected[:, :2])
    np.testing.assert_allclose(rows[:, 2:], expected[:, 2:] * (100, 50, 100, 50), rtol=1e-6)
    for other in (pixels, mx.nd.array(pixels, dtype=np.uint8)):
        np.testing.assert_array_equal(tiny_ssd.predict(net, other, threshold=0.35), rows)
    assert tiny_ssd.predict(net, image, threshold=1).shape == (0, 6)


def test_predict_reads_pillow_images_by_the_rules(ops):
    """On its side by EXIF, of 16 bits, transparent: as the upright RGB image."""
    Image = pytest.importorskip("PIL.Image")
    net = make(ops)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 100, 3), np.uint8)
    on_its_side = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    on_its_side.getexif()[0x0112] = 6
    deep = Image.fromarray(pixels[:, :, 0] * np.uint16(256))
    gray = np.repeat(pixels[:, :, :1], 3, axis=2)
    clear = Image.new("RGBA", (100, 50), (0, 0, 0, 0))
    white = np.full((50, 100, 3), 255, np.uint8)
    for image, upright in ((on_its_side, pixels), (deep, gray), (clear, white)):
        expected = tiny_ssd.predict(net, upright, threshold=0.35)
        np.testing.assert_array_equal(tiny_ssd.predict(net, image, threshold=0.35), expected)
    odd = Image.fromarray(np.full((50, 100), 2, np.float32))
    with pytest.raises(ValueError, match="image: expected float pixels of 0 to 1"):
        tiny_ssd.predict(net, odd)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3, 50, 100), np.uint8), ((50, 100), np.uint8), ((5, 5, 3), np.float32)]
)
def test_predict_refuses(shape, dtype):
    pytest.importorskip("PIL")
    message = f"image: expected uint8 (height, width, 3), got {np.dtype(dtype)} {shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny_ssd.predict(make(), np.zeros(shape, dtype))
