"""Detection in files, folders, patterns and videos; results as JSON, as of COCO, and drawings."""

from __future__ import annotations

import contextlib
import glob
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TextIO

import numpy as np

from cvops import images, plot
from cvops._files import replacing
from cvops._imports import optional
from cvops._pillow import Image, ImageFile
from cvops.datasets.annotations.base import read_json, visible_files
from cvops.datasets.loading import groups_of, load_groups
from cvops.metrics import encode_masks
from cvops.recipes.evaluation import colored, json_text
from cvops.recipes.recipe import Found, Recipe, check_nms_threshold

#: Extensions of videos.
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")

#: Maximum number of pixels of an image, by default that of Pillow's error.
MAX_PIXELS = 178_956_970


class Source(NamedTuple):
    """An image to read: a file, or a frame of a video."""

    #: Name in the results: the path, and the number of the frame after a "#".
    name: str
    path: Path
    #: Path below the given folder, for drawings.
    relative: Path
    #: The frame of a video, uint8 (h, w, 3).
    frame: np.ndarray | None = None
    #: The error of a file that cannot be read.
    error: str = ""


class Result(NamedTuple):
    """An image and the detections of a network."""

    source: Source
    #: uint8 (h, w, 3), RGB; None after an error.
    image: np.ndarray | None
    found: Found | None
    error: str = ""


# --- reading --------------------------------------------------------------------------------------


def files_of(paths: Sequence[str | Path]) -> list[tuple[Path, Path]]:
    """Return the files of paths, each with its path below the folder that was given.

    A folder stands for its images and videos, and those of the folders in it, by name, without
    hidden files and folders. A path that does not exist and has one of ``*?[`` is a pattern; ``**``
    matches folders.

    Raises:
        FileNotFoundError: a path does not exist, or a pattern or a folder has no file.
    """
    known = _suffixes()
    files: list[tuple[Path, Path]] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            inside = [file for file in visible_files(path) if file.suffix.lower() in known]
            if not inside:
                raise FileNotFoundError(f"{path}: expected an image or a video in it, got none")
            files += [(file, file.relative_to(path)) for file in inside]
        elif not path.exists() and glob.has_magic(str(given)):
            matches = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]
            matches = [match for match in matches if match.is_file()]
            if not matches:
                raise FileNotFoundError(f"{given}: no file matches this pattern")
            files += [(file, Path(file.name)) for file in matches]
        elif path.exists():
            files.append((path, Path(path.name)))
        else:
            raise FileNotFoundError(f"{path}: no such file")
    return files


def _suffixes() -> set[str]:
    """Return the extensions of videos, and of images that Pillow decodes by itself."""
    known = set(VIDEOS)
    for suffix, form in Image.registered_extensions().items():
        reader = Image.OPEN.get(form, (None,))[0]
        is_stub = isinstance(reader, type) and issubclass(reader, ImageFile.StubImageFile)
        if reader is not None and not is_stub:
            known.add(suffix)
    return known


def sources_of(files: Sequence[tuple[Path, Path]], every: int = 1) -> Iterator[Source]:
    """Yield the images of files, and every ``every``-th frame of videos."""
    for path, relative in files:
        if path.suffix.lower() in VIDEOS:
            yield from _frames(path, relative, every)
        else:
            yield Source(str(path), path, relative)


def _frames(path: Path, relative: Path, every: int) -> Iterator[Source]:
    with optional("for videos"):
        import imageio.v3
    try:
        for number, frame in enumerate(imageio.v3.imiter(path)):
            if number % every == 0:
                inside = relative.with_name(f"{relative.stem}_{number:06}{relative.suffix}")
                yield Source(f"{path}#{number}", path, inside, np.asarray(frame)[..., :3])
    except Exception as error:  # the readers of imageio raise many types
        about = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield Source(
            str(path), path, relative, error=f"{path}: not a video that can be read: {about}"
        )


def read(source: Source, max_pixels: int = MAX_PIXELS) -> Result:
    """Read an image; an error is in the result. Pillow's own limit of pixels holds too."""
    if source.error:
        return Result(source, None, None, source.error)
    if source.frame is not None:
        return Result(source, source.frame, None)
    try:
        return Result(source, np.asarray(images.read_image(source.path, max_pixels)), None)
    except (OSError, ValueError) as error:
        return Result(source, None, None, str(error))


def detect(
    recipe: Recipe,
    net: Any,
    sources: Iterator[Source],
    threshold: float = 0.5,
    batch_size: int = 8,
    threads: int = 2,
    nms_threshold: float = 0.3,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Result]:
    """Yield the result of each image, in order. An image that cannot be read has an error.

    Raises:
        TypeError, ValueError: a number is not one, or is out of its range.
    """
    predict = recipe.predictor(net, threshold, check_nms_threshold(nms_threshold))

    def load(source: Source) -> Result:
        return read(source, max_pixels)

    for batch in load_groups(load, groups_of(sources, batch_size), threads):
        arrays = [result.image for result in batch if result.image is not None]
        found = iter(predict(arrays) if arrays else ())
        for result in batch:
            yield result if result.error else result._replace(found=next(found))


# --- results --------------------------------------------------------------------------------------


def as_json(result: Result, classes: Sequence[str]) -> dict[str, Any]:
    """Return a result as JSON has it.

    A detector has "objects": class, score, box (x1, y1, x2, y2) in pixels, and with masks "mask",
    a run-length code of COCO. A segmentation has "pixels", the number of those of each class. An
    image that cannot be read has "error".
    """
    if result.found is None:
        return {"image": result.source.name, "error": result.error}
    found = result.found
    about: dict[str, Any] = {"image": result.source.name}
    about |= {"width": found.size[1], "height": found.size[0]}
    if found.pixels is not None:
        counts = np.bincount(found.pixels.ravel(), minlength=len(classes))
        return {**about, "pixels": dict(zip(classes, counts.tolist()))}
    objects: list[dict[str, Any]] = [
        {"class": classes[int(kind)], "score": _short(score), "box": list(map(_short, box))}
        for kind, score, *box in found.rows.tolist()
    ]
    masks = found.masks()
    if masks is not None:
        for row, code in zip(objects, encode_masks(masks)):
            row["mask"] = _text_code(code)
    return {**about, "objects": objects}


def _short(number: float) -> float:
    return round(number, 4)


def _text_code(code: Mapping[str, Any]) -> dict[str, Any]:
    return {"size": list(map(int, code["size"])), "counts": code["counts"].decode("ascii")}


class CocoIds(NamedTuple):
    """The numbers of images and of classes in an annotation file."""

    #: The paths of the images with a file name, each with its number.
    images: dict[str, list[tuple[PurePosixPath, int]]]
    #: The number of each class by its name.
    categories: dict[str, int]

    def of_image(self, path: Path) -> int:
        """Return the number of an image: with several of its name the folders decide.

        Raises:
            ValueError: there is no such image, or several have the same folders.
        """
        found = self.images.get(path.name, [])
        if len(found) > 1:
            found = [pair for pair in found if path.parts[-len(pair[0].parts) :] == pair[0].parts]
        if len(found) != 1:
            raise ValueError(
                f"{path}: expected one image of the annotation file, got {len(found)} with this "
                "name"
            )
        return found[0][1]


def read_coco_ids(path: Path) -> CocoIds:
    """Read the numbers of images and classes in an annotation file of COCO.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an annotation file of COCO.
    """
    content = read_json(path)
    for key in ("images", "categories"):
        if not isinstance(content, dict) or key not in content:
            raise ValueError(f"{path}: not an annotation file of COCO: expected {key!r}, got none")
    found: dict[str, list[tuple[PurePosixPath, int]]] = defaultdict(list)
    try:
        for row in content["images"]:
            name = PurePosixPath(row["file_name"].replace("\\", "/"))
            found[name.name].append((name, int(row["id"])))
        kinds = {row["name"]: int(row["id"]) for row in content["categories"]}
    except (AttributeError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"{path}: not an annotation file of COCO: {error!r}") from error
    return CocoIds(found, kinds)


def coco_rows(result: Result, classes: Sequence[str], ids: CocoIds | None) -> list[dict[str, Any]]:
    """Return the detections of an image as results of COCO, without those of other classes.

    Without ``ids`` an image has its name as its number, and the classes are 1, 2, ...

    Raises:
        ValueError: the image is not in the annotation file, or the network is no detector.
    """
    if result.found is None:
        return []
    if result.found.pixels is not None:
        raise ValueError("coco: expected a detector, got a segmentation network")
    number: Any = result.source.name
    kinds = {name: kind for kind, name in enumerate(classes, 1)}
    if ids is not None:
        kinds, number = ids.categories, ids.of_image(result.source.path)
    masks = result.found.masks()
    codes = [None] * len(result.found.rows) if masks is None else encode_masks(masks)
    rows = []
    for (kind, score, x1, y1, x2, y2), code in zip(result.found.rows.tolist(), codes):
        if classes[int(kind)] not in kinds:
            continue
        box = [_short(v) for v in (x1, y1, x2 - x1, y2 - y1)]
        row = {"image_id": number, "category_id": kinds[classes[int(kind)]], "bbox": box}
        row["score"] = _short(score)
        if code is not None:
            row["segmentation"] = _text_code(code)
        rows.append(row)
    return rows


def draw(result: Result, classes: Sequence[str]) -> Image.Image:
    """Draw the boxes and masks in an image, or the colors of its pixels' classes."""
    assert result.image is not None
    assert result.found is not None
    if result.found.pixels is not None:
        return colored(result.image, result.found.pixels)
    image, masks = Image.fromarray(result.image), result.found.masks()
    return plot.draw_detections(image, result.found.rows, classes, masks=masks)


def save_image(path: Path, picture: Image.Image, form: str, **options: Any) -> None:
    """Write a picture; an error leaves the previous file.

    Args:
        form: name of a format of Pillow.
        options: options of the format.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as part:
        try:
            picture.save(part, form, **options)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None):  # an error of the file, which `replacing` names
                raise
            raise OSError(f"{path}: cannot be written: {error}") from error


class Writer:
    """The outputs of a detection. They have their names when all results are written.

    Args:
        classes: names of the classes.
        lines: file of JSON, a line an image; "-" is the standard output.
        coco: file of COCO's results.
        ids: see :func:`coco_rows`.
        drawings: folder of drawings, JPEG. Each file is complete or not there.
    """

    def __init__(
        self,
        classes: Sequence[str],
        lines: Path | None = None,
        coco: Path | None = None,
        ids: CocoIds | None = None,
        drawings: Path | None = None,
    ) -> None:
        self._classes, self._ids = classes, ids
        self._paths = lines, coco
        self._drawings = drawings
        self._taken: set[Path] = set()
        self._lines: TextIO | None = None
        self._rows: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[Writer]:
        """Write all results inside of this context."""
        lines, coco = self._paths
        with contextlib.ExitStack() as stack:
            if lines is not None and str(lines) != "-":
                part = stack.enter_context(replacing(lines))
                self._lines = stack.enter_context(open(part, "w", encoding="utf-8"))
            yield self
            if coco is not None:
                part = stack.enter_context(replacing(coco))
                part.write_text(json.dumps(self._rows) + "\n", "utf-8")

    def add(self, result: Result) -> None:
        """Write a result."""
        lines, coco = self._paths
        if lines is not None:
            print(json_text(as_json(result, self._classes)), file=self._lines)  # None: stdout
        if coco is not None:
            self._rows += coco_rows(result, self._classes, self._ids)
        if self._drawings is not None and result.found is not None:
            path = self._free(self._drawings / result.source.relative.with_suffix(".jpg"))
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(path, draw(result, self._classes), "JPEG", quality=92)

    def _free(self, path: Path) -> Path:
        """Return a path that no other drawing has: files of two folders can have one name."""
        number, free = 2, path
        while free in self._taken:
            free = path.with_name(f"{path.stem}_{number}{path.suffix}")
            number += 1
        self._taken.add(free)
        return free
