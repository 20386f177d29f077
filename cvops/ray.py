"""Detection in more images than one machine holds, on a cluster of Ray.

:func:`detect` maps a data set of Ray Data. Actors load the network once each, and get batches of
images from the object store, without a copy of pixels. Ray does the work of a lost actor again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Callable

import numpy as np

from cvops import recipes
from cvops._imports import optional
from cvops.images import decode_image
from cvops.ops._check import choice, integer, number
from cvops.recipes.detectors import DetectorRecipe
from cvops.recipes.recipe import Found, check_nms_threshold

with optional():
    import pyarrow as pa
    import ray
    import ray.data

#: The columns with images: pixels, or the bytes of image files.
_COLUMNS = ("image", "bytes")

#: The result for an image that cannot be read.
_NOTHING = Found((0, 0), np.empty((0, 6), np.float32))


def detect(
    dataset: ray.data.Dataset,
    params: str | Path,
    threshold: float = 0.5,
    nms_threshold: float = 0.3,
    *,
    batch_size: int = 16,
    actors: int | tuple[int, int] = 1,
    cpus: float = 1,
    on_error: str = "stop",
) -> ray.data.Dataset:
    """Return the detections of a network in the images of a data set.

    The result is lazy, as all data sets of Ray: ``write_parquet`` and the like compute it. It has a
    row for each row of ``dataset``, with the other columns of ``dataset`` and these:

    - ``height``, ``width``: int32, the size of the image in pixels
    - ``classes``: list of strings, the names of the classes of the detections, the best first
    - ``scores``: list of float32, one for each detection
    - ``boxes``: list of float32 lists (x1, y1, x2, y2), corners in pixels of the upright image
    - ``error``: string, the reason if the image cannot be read, or else null

    The order of the rows is not that of ``dataset``: ``ray.data.read_binary_files`` and
    ``ray.data.read_images`` add the column ``path`` with ``include_paths=True``.

    Args:
        dataset: images in a column ``image``, uint8 (H, W, 3), RGB, as of ``ray.data.read_images``;
            or image files in a column ``bytes``, as of ``ray.data.read_binary_files``, which
            ``cvops.images`` decodes. The column is not in the result.
        params: the parameters of a TinySSD or a Faster or Mask R-CNN, with their JSON file. Only
            this process reads them. Masks are not in the result.
        threshold: the minimum score.
        nms_threshold: the IoU from which on a better detection of its class suppresses another.
        batch_size: the number of images that an actor processes at a time.
        actors: the number of actors, or the least and the largest number.
        cpus: the number of cores of an actor.
        on_error: "stop" makes an image that cannot be read an error of the computation, "skip" a
            row without detections, whose ``error`` names it.

    Raises:
        FileNotFoundError: a file of the network is missing.
        TypeError: a number is not one.
        ValueError: the network is not a detector; ``dataset`` is known to have no images; a number
            is out of range.
    """
    options = number("threshold", threshold, 0, 1), check_nms_threshold(nms_threshold)
    choice("on_error", on_error, ("stop", "skip"))
    limits = actors if isinstance(actors, tuple) else (actors, actors)
    sizes = [integer("actors", limit, 1) for limit in limits]
    if len(sizes) != 2 or sizes[0] > sizes[1]:
        raise ValueError(f"actors: expected a number or (least, largest), got {actors!r}")
    recipe, _ = recipes.load(params)
    if not isinstance(recipe, DetectorRecipe):
        raise ValueError(f"{params}: expected a detector, got a network of the model {recipe.name}")
    known = dataset.columns(fetch_if_missing=False)
    if known is not None:
        _column(known)
    path = Path(params)
    files = {file.name: file.read_bytes() for file in (path, path.with_suffix(".json"))}
    return dataset.map_batches(
        _Detector,
        fn_constructor_args=(partial(ray.get, ray.put(files)), path.name, *options, on_error),
        batch_size=integer("batch_size", batch_size, 1),
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=sizes[0], max_size=sizes[1]),
        num_cpus=number("cpus", cpus, 0),
        udf_modifying_row_count=False,
    )


def _column(names: Any) -> str:
    """Return the column with the images."""
    for name in _COLUMNS:
        if name in names:
            return name
    raise ValueError(f"dataset: expected a column 'image' or 'bytes', got {list(names)}")


class _Detector:
    """An actor: batches of images to batches of detections.

    Args:
        read: returns the content of the network's files by name.
        name: the name of the file of parameters.
        threshold, nms_threshold, on_error: as for :func:`detect`.
    """

    def __init__(
        self,
        read: Callable[[], dict[str, bytes]],
        name: str,
        threshold: float,
        nms_threshold: float,
        on_error: str,
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for key, content in read().items():
                Path(folder, key).write_bytes(content)
            recipe, net = recipes.load(Path(folder, name))
        self._names = np.array(net.classes)
        self._predict = recipe.predictor(net, threshold, nms_threshold)
        self._skips = on_error == "skip"

    def __call__(self, table: pa.Table) -> pa.Table:
        column = _column(table.column_names)
        images: list[np.ndarray] = []
        errors: list[str | None] = []
        for index, value in enumerate(_values(table[column])):
            try:
                images.append(_pixels(value, _name(table, index)))
                errors.append(None)
            except ValueError as error:
                if not self._skips:
                    raise
                errors.append(str(error))
        detected = iter(self._predict(images) if images else [])
        found = [_NOTHING if error else next(detected) for error in errors]
        result = table.drop_columns([column])
        for name, values in self._columns(found, errors).items():
            if name in result.column_names:
                result = result.drop_columns([name])
            result = result.append_column(name, values)
        return result

    def _columns(self, found: list[Found], errors: list[str | None]) -> dict[str, pa.Array]:
        ends = np.cumsum([0, *(len(one.rows) for one in found)]).astype(np.int32)
        rows = np.concatenate([_NOTHING.rows, *(one.rows for one in found)])
        corners = np.arange(0, 4 * len(rows) + 1, 4, dtype=np.int32)
        boxes = pa.ListArray.from_arrays(corners, pa.array(rows[:, 2:].ravel()))
        heights, widths = np.array([one.size for one in found], np.int32).reshape(-1, 2).T
        unread = np.array([error is not None for error in errors], bool)
        names = pa.array(self._names[rows[:, 0].astype(int)], pa.string())
        return {
            "height": pa.array(heights, mask=unread),
            "width": pa.array(widths, mask=unread),
            "classes": pa.ListArray.from_arrays(ends, names),
            "scores": pa.ListArray.from_arrays(ends, pa.array(rows[:, 1])),
            "boxes": pa.ListArray.from_arrays(ends, boxes),
            "error": pa.array(errors, pa.string()),
        }


def _values(column: pa.ChunkedArray) -> Iterator[Any]:
    """Yield the bytes of files, or arrays of pixels that share the memory of the column."""
    for chunk in column.chunks:
        if hasattr(chunk, "to_numpy_ndarray"):  # Arrow's tensors, all of one shape
            yield from chunk.to_numpy_ndarray()
        elif isinstance(chunk, pa.ExtensionArray):  # Ray's tensors
            yield from chunk.to_numpy(zero_copy_only=False)
        else:
            for value in chunk:
                yield value.as_py()


def _name(table: pa.Table, index: int) -> str:
    """Return the name of an image in an error."""
    return str(table["path"][index]) if "path" in table.column_names else f"image {index}"


def _pixels(value: Any, name: str) -> np.ndarray:
    if isinstance(value, bytes):
        return np.asarray(decode_image(value, name))
    image = np.asarray(value)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"{name}: expected uint8 (height, width, 3), got {image.dtype} {image.shape}"
        )
    return image
