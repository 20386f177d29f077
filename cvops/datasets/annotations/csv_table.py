"""CSV: a row for each object, with the file, the class and the corners (x1, y1, x2, y2).

Corners are in pixels from the left upper corner; x2 and y2 are exclusive. A header may name the
columns, in any order. Without a header the columns are file, class, x1, y1, x2, y2, or file, x1,
y1, x2, y2, class. A row with a file alone is an image without objects. The classes are in the order
of their names.
"""

from __future__ import annotations

import csv
import io
import reprlib
from pathlib import Path

from cvops.datasets.annotations.base import (
    SPLITS,
    AnnotatedImage,
    Annotations,
    ImageFiles,
    Object,
    Problem,
    Request,
    files_with_suffix,
    finite,
    folder_split,
    read_text,
    split_of,
)

#: Names of the columns in a header, in lower case.
_COLUMNS = {
    "file": ("file", "filename", "file_name", "image", "image_path", "path", "img"),
    "class": ("class", "label", "class_name", "name", "category"),
    "x1": ("x1", "xmin", "x_min", "left"),
    "y1": ("y1", "ymin", "y_min", "top"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "split": ("split", "subset", "set"),
    "difficult": ("difficult",),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
}
_BOX = ("x1", "y1", "x2", "y2")
_PLAIN = {"file": 0, "class": 1, "x1": 2, "y1": 3, "x2": 4, "y2": 5}
#: The order of keras-retinanet.
_CLASS_LAST = {"file": 0, "x1": 1, "y1": 2, "x2": 3, "y2": 4, "class": 5}


def read(source: Path, files: ImageFiles, request: Request) -> Annotations:
    """Read all CSV files. The split is that of a column, of the name of the file or of the folder.

    Raises:
        ValueError: a file is not such a table, or its boxes are fractions.
    """
    found = Annotations([], [])
    root = source if source.is_dir() else source.parent
    paths = [source] if source.is_file() else files_with_suffix(source, ".csv")
    for path in paths:
        _read_file(path, split_of(path, root), files, found)
    return found


def _read_file(path: Path, split: str | None, files: ImageFiles, found: Annotations) -> None:
    rows = _rows(path)
    columns, width = _columns(rows[0][1], path), len(rows[0][1])
    if rows[0][1][columns["file"]].strip().lower() in _COLUMNS["file"]:
        rows = rows[1:]
    corners = [value for _, row in rows for value in _corners(row, columns)]
    if corners and max(map(abs, corners)) <= 1:
        raise ValueError(f"{path}: expected boxes in pixels, got fractions, as {corners[:4]}")
    objects: dict[tuple[str, str | None], list[Object]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    broken = set()
    for number, row in rows:
        where, cells = f"{path}: line {number}", _cells(row, columns)
        own = cells.get("split")
        key = cells.get("file", ""), SPLITS.get(own.lower()) if own else split
        try:
            if own and key[1] is None:
                raise ValueError(f"{where}: split: expected train, val or test, got {own!r}")
            if not key[0]:
                raise ValueError(f"{where}: expected a file, got {reprlib.repr(row)}")
            listed = objects.setdefault(key, [])
            if any(map(str.strip, row[width:])):
                raise ValueError(f"{where}: expected {width} cells, got {len(row)}: {row}")
            if any(cells.get(column) for column in ("class", *_BOX)):
                listed.append(_object(cells, where))
            if cells.get("width") and cells.get("height"):
                sizes[key[0]] = _size(cells, where)
        except ValueError as error:
            broken.add(key)
            found.problems.append(Problem("annotation cannot be read", where, str(error)))
    for (name, own), things in objects.items():
        if (name, own) in broken:
            continue
        try:
            image = files.find(name, path.parent, split=own)
        except (OSError, ValueError) as error:
            found.problems.append(Problem("image is missing", name, f"{path}: {error}"))
            continue
        chosen = own or folder_split(image, files.root)
        where, size = f"{path}: {name}", sizes.get(name)
        found.images.append(AnnotatedImage(image, things, where, chosen, size))


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the rows that are not empty, with the numbers of their lines."""
    text = read_text(path)
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: not a table: {error}") from error
    if not rows:
        raise ValueError(f"{path}: expected rows (file, class, x1, y1, x2, y2), got none")
    return rows


def _columns(first: list[str], path: Path) -> dict[str, int]:
    """Return the place of each column, from the header or from the form of the first row."""
    words = [cell.strip().lower() for cell in first]
    found = {}
    for column, names in _COLUMNS.items():
        places = [i for i, word in enumerate(words) if word in names]
        if len(places) == 1:
            found[column] = places[0]
    if "file" in found:
        missing = [column for column in ("class", *_BOX) if column not in found]
        if missing:
            raise ValueError(f"{path}: expected columns {missing} in the header, got {first}")
        return found
    if len(first) != 6:
        raise ValueError(
            f"{path}: expected a header, or the columns file, class, x1, y1, x2, y2, got {first}"
        )
    # An image without objects has no numbers; the usual order is that of its file.
    is_last = _numbers(first[1:5]) is not None and _numbers(first[5:]) is None
    return _CLASS_LAST if is_last else _PLAIN


def _numbers(cells: list[str]) -> list[float] | None:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        return None


def _cells(row: list[str], columns: dict[str, int]) -> dict[str, str]:
    return {name: row[place].strip() for name, place in columns.items() if place < len(row)}


def _corners(row: list[str], columns: dict[str, int]) -> list[float]:
    cells = _cells(row, columns)
    return _numbers([cells.get(column, "") for column in _BOX]) or []


def _size(cells: dict[str, str], where: str) -> tuple[int, int]:
    lengths = _numbers([cells["height"], cells["width"]])
    if lengths is None or not all(0 < v < 1e9 and v % 1 == 0 for v in lengths):
        got = cells["width"], cells["height"]
        raise ValueError(f"{where}: expected width and height in pixels, got {got}")
    return int(lengths[0]), int(lengths[1])


def _object(cells: dict[str, str], where: str) -> Object:
    if not cells.get("class"):
        raise ValueError(f"{where}: expected a class, got none")
    texts = [cells.get(column, "") for column in _BOX]
    numbers = _numbers(texts)
    if numbers is None:
        raise ValueError(f"{where}: expected x1, y1, x2, y2 in pixels, got {texts}")
    x1, y1, x2, y2 = finite(numbers, where, 4)
    difficult = cells.get("difficult") or "0"
    if difficult not in ("0", "1"):
        raise ValueError(f"{where}: difficult: expected 0 or 1, got {difficult!r}")
    return Object(cells["class"], (x1, y1, x2, y2), difficult == "1")
