"""The modules of PyTorch with the parameters of Gluon's networks."""

import numpy as np
import pytest
from torch_cases import with_statistics

from cvops._mxnet import mxnet

torch = pytest.importorskip("torch")
mx = mxnet()

from cvops import models  # noqa: E402
from cvops.torch import models as modules  # noqa: E402


def test_tiny_ssd_detects_as_in_gluon(tmp_path):
    images = np.random.default_rng(0).uniform(0, 255, (2, 3, 80, 96)).astype(np.float32)
    net = with_statistics(models.TinySSD(["cat", "dog"], 96), images)
    net.save(tmp_path / "net.params")
    module = modules.TinySSD.load(tmp_path / "net.params").eval()
    assert (module.classes, module.side) == (("cat", "dog"), 96)
    with torch.no_grad():
        outputs = module(torch.from_numpy(images))
        rows = module.detect(torch.from_numpy(images)).numpy()
    for got, want in zip(outputs, net(mx.nd.array(images))):
        np.testing.assert_allclose(got.numpy(), want.asnumpy(), rtol=1e-4, atol=1e-4)
    want = net.detect(mx.nd.array(images)).asnumpy()
    assert (want[..., 0] >= 0).any()
    np.testing.assert_allclose(rows, want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("upsample", "stride"), [("bilinear", 32), ("transposed", 8)])
def test_fcn_scores_pixels_as_in_gluon(tmp_path, upsample, stride):
    images = np.random.default_rng(0).normal(size=(1, 3, 50, 70)).astype(np.float32)
    net = with_statistics(models.FCN(3, upsample, stride), images)
    net.save_parameters(str(tmp_path / "net.params"))
    module = modules.FCN(3, upsample, stride).eval()
    modules.load_parameters(module, tmp_path / "net.params")
    with torch.no_grad():
        scores = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(scores, net(mx.nd.array(images)).asnumpy(), rtol=1e-3, atol=1e-3)


def test_tiny_ssd_is_one_compiled_graph():
    module = modules.TinySSD(["cat"]).eval()
    images = torch.rand(1, 3, 64, 64) * 255
    compiled = torch.compile(module.detect, backend="eager", fullgraph=True)
    assert torch.equal(compiled(images), module.detect(images))


class TestFiles:
    def test_parameters_of_another_network_are_refused(self, tmp_path):
        net = models.TinySSD(["cat"])
        net.initialize()
        net.save(tmp_path / "net.params")
        with pytest.raises(ValueError, match=r"net\.params: parameters of another .*: missing"):
            modules.load_parameters(modules.FCN(), tmp_path / "net.params")
        with pytest.raises(ValueError, match=r"net\.params: class_heads.0.weight: .*12, 64"):
            modules.load_parameters(modules.TinySSD(["a", "b"]), tmp_path / "net.params")

    @pytest.mark.parametrize("content", [b"", b"\x12\x01" + bytes(6), b"text" * 9])
    def test_broken_file_is_an_error_with_its_name(self, tmp_path, content):
        (tmp_path / "net.params").write_bytes(content)
        with pytest.raises(ValueError, match=r"net\.params: not a file of parameters"):
            modules.load_parameters(modules.FCN(), tmp_path / "net.params")

    def test_missing_file_is_an_error_with_its_name(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"net\.json"):
            modules.TinySSD.load(tmp_path / "net.params")

    def test_description_of_another_kind_is_refused(self, tmp_path):
        (tmp_path / "net.json").write_text('{"model": "FCN", "classes": ["cat"], "side": 64}')
        with pytest.raises(ValueError, match=r"net\.json: does not describe a TinySSD"):
            modules.TinySSD.load(tmp_path / "net.params")

    @pytest.mark.parametrize(
        "fields", ['"classes": "cat", "side": 64', '"classes": ["cat"], "side": 1']
    )
    def test_description_with_bad_arguments_is_refused(self, tmp_path, fields):
        (tmp_path / "net.json").write_text(f'{{"model": "TinySSD", {fields}}}')
        with pytest.raises(ValueError, match=r"net\.json: does not describe a TinySSD"):
            modules.TinySSD.load(tmp_path / "net.params")
