"""Fast, Faster and Mask R-CNN as modules of PyTorch, with the parameters of Gluon's networks."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet")
torch = pytest.importorskip("torch")

from torch_cases import with_statistics

from cvops import models
from cvops._mxnet import mxnet
from cvops.models import rcnn
from cvops.torch import models as modules
from cvops.torch.models import rcnn as torch_rcnn

mx = mxnet()
CLASSES = ("bee", "frog")
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 3, 64, 96)).astype(np.float32)
#: Boxes inside of an image, and a row of padding.
PROPOSALS = np.random.default_rng(1).uniform(0, 1, (2, 12, 2, 2)).astype(np.float32)
PROPOSALS = np.sort(PROPOSALS, axis=2).reshape(2, 12, 4)
PROPOSALS[:, -1] = -1


def make(tmp_path, kind, **options):
    """Return a network of Gluon and the module of PyTorch that its files give."""
    net = getattr(models, kind)(CLASSES, 64, hidden=32, **options)
    inputs = [IMAGES] if kind == "FasterRCNN" else [IMAGES, PROPOSALS]
    with_statistics(net, *inputs)
    # The last layers begin with almost equal scores, and almost no offsets. Here the logits of the
    # classes have a mean of 0 and a standard deviation of 1.
    for name, parameter in net._collect_params_with_prefix().items():
        if re.fullmatch(r"(rpn|box_head)\.(objects|classes|offsets)\.weight", name):
            spread = 0.05 if name.startswith("rpn") else 0.5
            parameter.set_data(mx.nd.random.normal(0, spread, parameter.shape))
    last, logits = net.box_head.classes, net(*map(mx.nd.array, inputs))[-2].asnumpy()
    mean, deviation = logits.mean(axis=(0, 1)), logits.std(axis=(0, 1))
    last.weight.set_data(last.weight.data() / mx.nd.array(deviation[:, None]))
    last.bias.set_data(mx.nd.array(-mean / deviation))
    net.save(tmp_path / "net.params")
    return net, getattr(modules, kind).load(tmp_path / "net.params").eval(), inputs


def as_arrays(out):
    out = out if isinstance(out, (list, tuple)) else [out]
    return [x.numpy() if isinstance(x, torch.Tensor) else x.asnumpy() for x in out]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("FasterRCNN", {"mask": True}),
        ("FasterRCNN", {"mask": True, "fpn": True, "roi": "pooling", "sizes": (0.1, 0.3, 0.9)}),
        ("FasterRCNN", {"backbone": "squeezenet", "fpn": True, "ratios": (1, 3)}),
        ("FasterRCNN", {"backbone": "resnet50", "fpn": True}),
        ("FastRCNN", {"mask": True, "roi": "pooling"}),
    ],
    ids=["mask", "fpn", "squeezenet", "resnet50", "fast"],
)
def test_detections_are_those_of_gluon(tmp_path, kind, options):
    """130 detections are more than 60 proposals and two classes give: the last rows are padding."""
    net, module, inputs = make(tmp_path, kind, **options)
    assert (module.classes, module.side) == (CLASSES, 64)
    given, tensors = [mx.nd.array(x) for x in inputs], [torch.from_numpy(x) for x in inputs]
    with torch.no_grad():
        outputs = module(*tensors)
        found = as_arrays(module.detect(*tensors, threshold=0.3, most=130))
    expected = as_arrays(net(*given))
    if kind == "FasterRCNN":
        assert (expected[0][..., 0] >= 0).sum() > 20
    for got, want in zip(as_arrays(outputs), expected):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
    expected = as_arrays(net.detect(*given, threshold=0.3, most=130))
    assert len(found) == len(expected) == (2 if net.mask else 1)
    assert set(expected[0][..., 0].flat) == {-1, 0, 1}
    for got, want in zip(found, expected):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["FasterRCNN", "FastRCNN"])
def test_predictions_in_pixels_are_those_of_gluon(tmp_path, kind):
    pytest.importorskip("PIL")
    net, module, _ = make(tmp_path, kind, mask=True)
    image = np.random.default_rng(2).integers(0, 256, (50, 100, 3), np.uint8)
    boxes = None if kind == "FasterRCNN" else PROPOSALS[0, :-1] * (100, 50, 100, 50)
    module.train()
    module.backbone.eval()
    found = torch_rcnn.predict(module, image, 0.4, proposals=boxes)
    assert module.training
    assert not module.backbone.training
    expected = rcnn.predict(net, image, 0.4, proposals=boxes)
    assert len(expected.rows) > 1
    np.testing.assert_allclose(found.rows, expected.rows, rtol=1e-3, atol=0.1)
    assert found.masks.shape == expected.masks.shape
    assert found.masks.dtype == np.uint8
    assert (found.masks != expected.masks).mean() < 1e-3
    assert 0 < expected.masks.mean() < 1


class Detector(torch.nn.Module):
    """Images to detections and masks."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net.detect(images, threshold=0.1)


@pytest.mark.parametrize("way", ["compile", "export"])
def test_detection_is_one_graph(way):
    detector = Detector(modules.FasterRCNN(CLASSES, 64, mask=True, hidden=32).eval())
    images = torch.from_numpy(IMAGES)
    with torch.no_grad():
        if way == "compile":
            graph = torch.compile(detector, backend="eager", fullgraph=True)
        else:
            graph = torch.export.export(detector, (images,)).module()
        rows, masks = detector(images)
        assert (rows[..., 0] >= 0).any()
        for got, want in zip(graph(images), (rows, masks)):
            assert torch.equal(got, want)


def test_proposals_have_no_gradient_but_the_heads_have():
    module = modules.FasterRCNN(CLASSES, 64, hidden=32)
    proposals, logits, offsets = module(torch.from_numpy(IMAGES))
    assert not proposals.requires_grad
    (logits.sum() + offsets.sum()).backward()
    assert module.backbone.stages[0][0][0].weight.grad.abs().max() > 0
    assert module.rpn.objects.weight.grad is None


BAD_ARGUMENTS = [
    ({"classes": "bee"}, "classes: expected one or more names, got 'bee'"),
    ({"side": 63}, "side: expected an integer in [64, 4096], got 63"),
    ({"roi": "crop"}, "roi: expected one of ['align', 'pooling'], got 'crop'"),
    ({"backbone": "vgg"}, "backbone: expected one of ['small', 'squeezenet', 'resnet50'], got"),
    ({"mask": "maybe"}, "mask: expected True or False, got 'maybe'"),
    ({"fpn": True, "sizes": (0.2, 0.4)}, "sizes: expected 3, one for each map, got (0.2, 0.4)"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), BAD_ARGUMENTS, ids=[next(iter(a)) for a, _ in BAD_ARGUMENTS]
)
def test_bad_argument_of_the_network_is_rejected(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        modules.FasterRCNN(**{"classes": CLASSES, **arguments})


def test_bad_input_is_rejected():
    images = torch.from_numpy(IMAGES)
    fast, faster = (kind(CLASSES, 64) for kind in (modules.FastRCNN, modules.FasterRCNN))
    with pytest.raises(TypeError, match="proposals: expected one tensor, got 0"):
        fast(images)
    with pytest.raises(ValueError, match=r"proposals: expected \(2, N, 4\), got \(1, 3, 4\)"):
        fast.detect(images, torch.zeros(1, 3, 4))
    with pytest.raises(TypeError, match="proposals: expected none for a FasterRCNN, got 1"):
        faster.detect(images, torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"threshold: expected a number in \[0, 1\], got 2"):
        faster.detect(images, threshold=2)
    with pytest.raises(ValueError, match="proposals: expected no proposals for a FasterRCNN"):
        torch_rcnn.predict(faster, np.zeros((8, 8, 3), np.uint8), proposals=np.zeros((1, 4)))


def test_files_of_another_network_are_rejected(tmp_path):
    net = models.FasterRCNN(CLASSES, 64)
    net.initialize()
    net.save(tmp_path / "net.params")
    with pytest.raises(ValueError, match=r"net\.json: does not describe a FastRCNN"):
        modules.FastRCNN.load(tmp_path / "net.params")
    description = tmp_path / "net.json"
    description.write_text(description.read_text().replace('"mask": false', '"mask": true'))
    with pytest.raises(ValueError, match=r"net\.params: parameters of another .*: missing"):
        modules.FasterRCNN.load(tmp_path / "net.params")
