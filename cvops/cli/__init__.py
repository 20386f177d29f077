"""The command ``cvops``."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from cvops import __version__
from cvops._files import replacing
from cvops._imports import pip_command


class Refused(Exception):
    """The command cannot run with these arguments. The message gives the reason in one line."""


def _prepare(options: argparse.Namespace) -> None:
    """Set the environment of a training command and make its output folder."""
    # MXNet reads these when it is imported. By default it uses half of the cores, and its waiting
    # threads spin, which is slow on shared cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{options.output}: cannot make this folder: {error.strerror}") from error


def _train(run: Callable[..., float], options: argparse.Namespace, **more: Any) -> None:
    if options.checkpoint and not options.checkpoint.parent.is_dir():
        raise Refused(f"{options.checkpoint.parent}: no such folder")
    from cvops.checkpoint import CheckpointError

    given = options.output, options.epochs, options.train_images
    try:
        run(*given, seed=options.seed, saved=options.checkpoint, **more)
    except (CheckpointError, OSError) as error:
        raise Refused(str(error)) from error


def _demo(options: argparse.Namespace) -> None:
    _prepare(options)
    from cvops import demo

    _train(demo.run, options)


def _demo_augmentation(options: argparse.Namespace) -> None:
    _prepare(options)
    from cvops import demo_augmentation

    given = options.output, options.epochs, options.train_images, options.seed, options.seeds
    try:
        demo_augmentation.run(*given, options.pipelines, options.data)
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error


def _demo_finetune(options: argparse.Namespace) -> None:
    _prepare(options)
    from cvops import demo_finetune

    given = options.output, options.epochs, options.train_images, options.seed, options.seeds
    source = options.network, options.pretrained, options.rate
    try:
        demo_finetune.run(*given, options.data, *source)
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error


def _demo_fcn(options: argparse.Namespace) -> None:
    _prepare(options)
    from cvops import demo_fcn

    _train(demo_fcn.run, options, stride=options.stride)


def _demo_rcnn(options: argparse.Namespace) -> None:
    if options.alternating and options.model not in ("faster", "mask"):
        raise Refused("--alternating: only for the models faster and mask")
    if options.checkpoint and (options.alternating or options.model == "rcnn"):
        raise Refused("--checkpoint: not for the model rcnn, nor with --alternating")
    _prepare(options)
    from cvops import demo_rcnn

    more = {"model": options.model, "roi": options.roi, "alternating": options.alternating}
    _train(demo_rcnn.run, options, **more)


def _demo_style(options: argparse.Namespace) -> None:
    _prepare(options)
    from cvops import demo_style

    try:
        demo_style.run(
            options.output,
            options.content,
            options.style,
            options.network,
            True if options.pretrained is None else options.pretrained,
            tuple(options.size),
            options.steps,
            options.optimizer,
            options.large,
        )
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error


def _load(params: Path) -> Any:
    from cvops.models import TinySSD

    try:
        return TinySSD.load(params)
    except (FileNotFoundError, ValueError) as error:
        raise Refused(str(error)) from error


def _open(image: Path) -> Any:
    from cvops.images import read_image

    try:
        return read_image(image)
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error


def _detect(options: argparse.Namespace) -> None:
    image = _open(options.image)
    net = _load(options.params)

    from cvops.models.tiny_ssd import predict

    rows = predict(net, image, options.threshold)
    print(f"{'class':12} {'score':>5} {'x1':>6} {'y1':>6} {'x2':>6} {'y2':>6}")
    for kind, score, *box in rows:
        print(f"{net.classes[int(kind)]:12} {score:5.2f}", *(f"{v:6.1f}" for v in box))

    if options.output:
        from PIL import Image

        from cvops import plot

        suffix = options.output.suffix.lower()
        try:
            if suffix not in Image.registered_extensions():
                raise ValueError(f"unknown file extension {suffix}")
            with replacing(options.output) as part:
                drawing = plot.draw_detections(image, rows, net.classes)
                drawing.save(part, Image.registered_extensions()[suffix])
        except (OSError, ValueError) as error:
            raise Refused(f"{options.output}: cannot be written: {error}") from error


def _convert_symbol(options: argparse.Namespace) -> None:
    from cvops._mxnet import symbols

    try:
        text = options.source.read_text("utf-8")
        converted = symbols.convert_symbol(text, options.to)
    except FileNotFoundError as error:
        raise Refused(f"{options.source}: no such file") from error
    except OSError as error:
        raise Refused(f"{options.source}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Refused(f"{options.source}: {error}") from error
    try:
        with replacing(options.target) as part:
            part.write_text(converted, "utf-8")
    except OSError as error:
        raise Refused(f"{options.target}: cannot be written: {error.strerror}") from error
    ours, mark = "_contrib_cvops_", '"op": "'
    count = abs(converted.count(mark + ours) - text.count(mark + ours))
    print(f"{options.target}: {count} operators replaced")


def _convert_weights(options: argparse.Namespace) -> None:
    from cvops import weights

    source = True if options.source is None else options.source
    try:
        path, count = weights.convert(options.network, options.target, source)
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error
    print(f"{options.target}: {count} arrays of {options.network} from {path}")


def _warmup(options: argparse.Namespace) -> None:
    from cvops.backends import nvrtc

    if importlib.util.find_spec("cupy") is not None:
        arches = options.arch or nvrtc.architectures()
        for arch in arches:
            try:
                for source in nvrtc.sources():
                    print(nvrtc.cubin_file(source, arch))
            except (OSError, RuntimeError) as error:
                raise Refused(f"the kernels for sm_{arch}: {error}") from error
        if not arches:
            print("kernels: not compiled, there is no GPU here; --arch 90 compiles them for sm_90")
    elif options.arch:
        raise Refused(
            '--arch: compiling kernels needs CuPy: pip install "cvops[cuda12]" or "cvops[cuda13]"'
        )
    for package, module in (
        ("mxnet", "cvops._mxnet.build"),
        ("torch", "cvops.torch.build"),
        ("jax", "cvops.jax.build"),
    ):
        if importlib.util.find_spec(package) is not None:
            print(importlib.import_module(module).build())


def _doctor(options: argparse.Namespace) -> int:
    from cvops.cli import doctor

    return doctor.run(options.json)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return number


def _score(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a score from 0 to 1, got {text}")
    return number


def _rate(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("cvops", description="Detection with the ops of cvops.")
    parser.add_argument("--version", action="version", version=f"cvops {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser(
        "demo",
        help="train and evaluate a small detector, and draw its detections",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--output", type=Path, default=Path("demo"), help="output folder")
    demo.add_argument("--epochs", type=_count, default=3, help="number of epochs")
    demo.add_argument("--train-images", type=_count, default=600, help="number of training images")
    demo.set_defaults(run=_demo)

    augmentation = commands.add_parser(
        "demo-augmentation",
        help="train classifiers with and without image augmentation, and compare them",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    augmentation.add_argument(
        "--output", type=Path, default=Path("demo-augmentation"), help="output folder"
    )
    augmentation.add_argument(
        "--data", type=Path, help="folder of CIFAR-10; by default small images are made"
    )
    augmentation.add_argument(
        "--epochs", type=_count, help="number of epochs, by default 25, or 10 with --data"
    )
    augmentation.add_argument(
        "--train-images", type=_count, help="number of training images, by default 300 made ones"
    )
    augmentation.add_argument(
        "--pipelines",
        nargs="+",
        default=["none", "flip", "flip and hue"],
        help="the pipelines to compare; others: 'flip and color jitter', 'flip and resized crop'",
    )
    augmentation.set_defaults(run=_demo_augmentation)

    finetune = commands.add_parser(
        "demo-finetune",
        help="fine-tune a pretrained classifier, and compare it with others",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    finetune.add_argument(
        "--output", type=Path, default=Path("demo-finetune"), help="output folder"
    )
    finetune.add_argument(
        "--data",
        type=Path,
        help="folder of images, train/<class>/* and test/<class>/*; by default images are made",
    )
    finetune.add_argument(
        "--network", default="squeezenet1_1", help="the network, of MXNet's model zoo"
    )
    finetune.add_argument(
        "--pretrained",
        type=Path,
        help="file of weights; by default that of MXNet's model folder or of an installed package, "
        "or a source that is trained here",
    )
    finetune.add_argument(
        "--epochs", type=_count, help="number of epochs, by default 4, 8, or 5 with --data"
    )
    finetune.add_argument(
        "--train-images", type=_count, help="number of made training images, by default 40 or 120"
    )
    finetune.add_argument(
        "--rate", type=_rate, help="learning rate of the features, by default 0.0005 to 0.02"
    )
    finetune.set_defaults(run=_demo_finetune)
    for command in (augmentation, finetune):
        command.add_argument("--seed", type=int, default=0, help="the first seed")
        command.add_argument("--seeds", type=_count, default=1, help="number of seeds")

    demo_fcn = commands.add_parser(
        "demo-fcn",
        help="train and evaluate a small semantic segmentation network, and draw its results",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo_fcn.add_argument("--output", type=Path, default=Path("demo-fcn"), help="output folder")
    demo_fcn.add_argument("--epochs", type=_count, default=8, help="number of epochs")
    demo_fcn.add_argument(
        "--train-images", type=_count, default=320, help="number of training images"
    )
    demo_fcn.add_argument(
        "--stride", type=int, choices=(32, 16, 8), default=8, help="FCN-32s, 16s or 8s"
    )
    demo_rcnn = commands.add_parser(
        "demo-rcnn",
        help="train, evaluate and time R-CNN, Fast, Faster or Mask R-CNN, and draw its detections",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo_rcnn.add_argument("--output", type=Path, default=Path("demo-rcnn"), help="output folder")
    demo_rcnn.add_argument(
        "--model", choices=("rcnn", "fast", "faster", "mask"), default="mask", help="the model"
    )
    demo_rcnn.add_argument("--epochs", type=_count, help="number of epochs, by default 3 or 4")
    demo_rcnn.add_argument(
        "--train-images", type=_count, help="number of training images, by default 200 to 400"
    )
    demo_rcnn.add_argument(
        "--roi", choices=("align", "pooling"), default="align", help="RoIAlign or RoI pooling"
    )
    demo_rcnn.add_argument(
        "--alternating",
        action="store_true",
        help="train RPN and heads in four steps, of --epochs each",
    )
    demo_rcnn.set_defaults(run=_demo_rcnn)
    for command in (demo, demo_fcn, demo_rcnn):
        command.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
        command.add_argument(
            "--checkpoint",
            type=Path,
            help="file, written after each epoch; if it exists, training continues from it",
        )
    demo_fcn.set_defaults(run=_demo_fcn)

    demo_style = commands.add_parser(
        "demo-style",
        help="make an image with the content of one image and the style of another",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo_style.add_argument("--output", type=Path, default=Path("demo-style"), help="output folder")
    demo_style.add_argument("--content", type=Path, help="image, by default an astronaut")
    demo_style.add_argument("--style", type=Path, help="image, by default drawn stained glass")
    demo_style.add_argument(
        "--network",
        choices=("squeezenet1_1", "vgg16", "vgg19"),
        default="squeezenet1_1",
        help="the network of the features",
    )
    demo_style.add_argument(
        "--pretrained",
        type=Path,
        help="file of its weights, by default that of MXNet's model zoo or of an installed package",
    )
    demo_style.add_argument(
        "--size",
        type=_count,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(192, 192),
        help="size of the result",
    )
    demo_style.add_argument("--steps", type=_count, default=100, help="number of steps")
    demo_style.add_argument(
        "--optimizer", choices=("adam", "lbfgs"), default="adam", help="the optimizer"
    )
    demo_style.add_argument(
        "--large", action="store_true", help="add a result of twice the size, from the first one"
    )
    demo_style.set_defaults(run=_demo_style)

    detect = commands.add_parser("detect", help="find objects in an image")
    detect.add_argument("image", type=Path, help="the image")
    detect.add_argument(
        "--params", type=Path, required=True, help="parameters that `cvops demo` wrote"
    )
    detect.add_argument("--output", type=Path, help="image file for a drawing of the objects")
    detect.add_argument("--threshold", type=_score, default=0.5, help="minimum score (%(default)s)")
    detect.set_defaults(run=_detect)

    convert = commands.add_parser(
        "convert-symbol",
        help="replace MXNet's detection operators in a symbol file (JSON) by ours, or back",
    )
    convert.add_argument("source", type=Path, help="symbol file from export or Symbol.save")
    convert.add_argument("target", type=Path, help="output file")
    convert.add_argument("--to", choices=("cvops", "mxnet"), default="cvops")
    convert.set_defaults(run=_convert_symbol)

    weights = commands.add_parser(
        "convert-weights",
        help="write pretrained weights of a network of MXNet's model zoo for Gluon",
    )
    weights.add_argument("network", help="such as squeezenet1_1, vgg19 or resnet18_v1")
    weights.add_argument("target", type=Path, help="output file, for load_parameters")
    weights.add_argument(
        "--source",
        type=Path,
        help="file of weights: torchvision's .pth or .safetensors, or one of an installed package; "
        "by default that of MXNet's model zoo or of an installed package",
    )
    weights.set_defaults(run=_convert_weights)

    warmup = commands.add_parser(
        "warmup",
        help="compile in advance: the kernels for the GPUs of this machine, and the operators for "
        "MXNet, PyTorch and JAX",
    )
    warmup.add_argument(
        "--arch",
        type=_count,
        nargs="+",
        help="GPU architectures to compile the kernels for, such as: 80 90",
    )
    warmup.set_defaults(run=_warmup)

    doctor = commands.add_parser(
        "doctor", help="list installed and missing packages, and the commands that install them"
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=_doctor)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    The status is 0, or 2 if the command cannot run with these arguments. ``cvops doctor`` returns 1
    if the ops do not work on the CPU.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except Refused as error:
        print(f"cvops: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        needs = pip_command("demo", "mxnet")
        hint = "" if "pip install" in str(error) else f" (for this command: {needs})"
        print(f"cvops: {error}{hint}", file=sys.stderr)
        return 2
    except ImportError as error:  # an installed package cannot be loaded
        print(f"cvops: {error}", file=sys.stderr)
        return 2
