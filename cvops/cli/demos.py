"""The demos: one command each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Callable

from cvops.cli.common import Refused, WithDefaults, count, prepare, rate


def _train(run: Callable[..., float], options: argparse.Namespace, **more: Any) -> None:
    if options.checkpoint and not options.checkpoint.parent.is_dir():
        raise Refused(f"{options.checkpoint.parent}: no such folder")
    from cvops.checkpoint import CheckpointError

    given = options.output, options.epochs, options.train_images
    try:
        run(*given, seed=options.seed, saved=options.checkpoint, **more)
    except (CheckpointError, FloatingPointError, OSError) as error:
        raise Refused(error) from error


def _demo(options: argparse.Namespace) -> None:
    prepare(options)
    from cvops import demo

    _train(demo.run, options)


def _demo_augmentation(options: argparse.Namespace) -> None:
    prepare(options)
    from cvops import demo_augmentation

    given = options.output, options.epochs, options.train_images, options.seed, options.seeds
    try:
        demo_augmentation.run(*given, options.pipelines, options.data)
    except (OSError, ValueError) as error:
        raise Refused(error) from error


def _demo_finetune(options: argparse.Namespace) -> None:
    prepare(options)
    from cvops import demo_finetune

    given = options.output, options.epochs, options.train_images, options.seed, options.seeds
    source = options.network, options.pretrained, options.rate
    try:
        demo_finetune.run(*given, options.data, *source)
    except (OSError, ValueError) as error:
        raise Refused(error) from error


def _demo_fcn(options: argparse.Namespace) -> None:
    prepare(options)
    from cvops import demo_fcn

    _train(demo_fcn.run, options, stride=options.stride)


def _demo_rcnn(options: argparse.Namespace) -> None:
    if options.alternating and options.model not in ("faster", "mask"):
        raise Refused("--alternating: only for the models faster and mask")
    if options.checkpoint and (options.alternating or options.model == "rcnn"):
        raise Refused("--checkpoint: not for the model rcnn, nor with --alternating")
    prepare(options)
    from cvops import demo_rcnn

    more = {"model": options.model, "roi": options.roi, "alternating": options.alternating}
    _train(demo_rcnn.run, options, **more)


def _demo_style(options: argparse.Namespace) -> None:
    prepare(options)
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
        raise Refused(error) from error


def add(commands: Any) -> None:
    """Add the commands."""
    demo = commands.add_parser(
        "demo",
        help="train and evaluate a small detector, and draw its detections",
        formatter_class=WithDefaults,
    )
    demo.add_argument("--output", type=Path, default=Path("demo"), help="output folder")
    demo.add_argument("--epochs", type=count, default=3, help="number of epochs")
    demo.add_argument("--train-images", type=count, default=600, help="number of training images")
    demo.set_defaults(run=_demo)

    augmentation = commands.add_parser(
        "demo-augmentation",
        help="train classifiers with and without image augmentation, and compare them",
        formatter_class=WithDefaults,
    )
    augmentation.add_argument(
        "--output", type=Path, default=Path("demo-augmentation"), help="output folder"
    )
    augmentation.add_argument(
        "--data", type=Path, help="folder of CIFAR-10; by default small images are made"
    )
    augmentation.add_argument(
        "--epochs", type=count, help="number of epochs, by default 25, or 10 with --data"
    )
    augmentation.add_argument(
        "--train-images", type=count, help="number of training images, by default 300 made ones"
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
        formatter_class=WithDefaults,
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
        "--epochs", type=count, help="number of epochs, by default 4, 8, or 5 with --data"
    )
    finetune.add_argument(
        "--train-images", type=count, help="number of made training images, by default 40 or 120"
    )
    finetune.add_argument(
        "--rate", type=rate, help="learning rate of the features, by default 0.0005 to 0.02"
    )
    finetune.set_defaults(run=_demo_finetune)
    for command in (augmentation, finetune):
        command.add_argument("--seed", type=int, default=0, help="the first seed")
        command.add_argument("--seeds", type=count, default=1, help="number of seeds")

    demo_fcn = commands.add_parser(
        "demo-fcn",
        help="train and evaluate a small semantic segmentation network, and draw its results",
        formatter_class=WithDefaults,
    )
    demo_fcn.add_argument("--output", type=Path, default=Path("demo-fcn"), help="output folder")
    demo_fcn.add_argument("--epochs", type=count, default=8, help="number of epochs")
    demo_fcn.add_argument(
        "--train-images", type=count, default=320, help="number of training images"
    )
    demo_fcn.add_argument(
        "--stride", type=int, choices=(32, 16, 8), default=8, help="FCN-32s, 16s or 8s"
    )
    demo_rcnn = commands.add_parser(
        "demo-rcnn",
        help="train, evaluate and time R-CNN, Fast, Faster or Mask R-CNN, and draw its detections",
        formatter_class=WithDefaults,
    )
    demo_rcnn.add_argument("--output", type=Path, default=Path("demo-rcnn"), help="output folder")
    demo_rcnn.add_argument(
        "--model", choices=("rcnn", "fast", "faster", "mask"), default="mask", help="the model"
    )
    demo_rcnn.add_argument("--epochs", type=count, help="number of epochs, by default 3 or 4")
    demo_rcnn.add_argument(
        "--train-images", type=count, help="number of training images, by default 200 to 400"
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
        formatter_class=WithDefaults,
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
        type=count,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(192, 192),
        help="size of the result",
    )
    demo_style.add_argument("--steps", type=count, default=100, help="number of steps")
    demo_style.add_argument(
        "--optimizer", choices=("adam", "lbfgs"), default="adam", help="the optimizer"
    )
    demo_style.add_argument(
        "--large", action="store_true", help="add a result of twice the size, from the first one"
    )
    demo_style.set_defaults(run=_demo_style)
