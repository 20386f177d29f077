"""YOLO text: a file for each image, with a line for each object.

A line is the number of the class and the center, the width and the height of the box, in fractions
of the image; or the class and x, y of the corners of a polygon. The names of the classes are in
``data.yaml``, ``classes.txt`` or ``obj.names``. The label of ``images/a/1.jpg`` is
``labels/a/1.txt`` or ``images/a/1.txt``. Splits are those of ``data.yaml``, of the lists
``train.txt`` and ``val.txt``, or of the folders. An image without a label has no objects.
"""

from __future__ import annotations

import contextlib
import os
import re
import reprlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from cvops import images as image_files
from cvops.datasets.annotations.base import (
    IMAGE_SUFFIXES,
    AnnotatedImage,
    Annotations,
    ImageFiles,
    Object,
    Polygons,
    Problem,
    Request,
    box_of,
    finite,
    folder_split,
    read_text,
    visible_files,
)

#: Files of the names of the classes, a line each.
NAME_FILES = ("classes.txt", "obj.names")
_LISTS = {"train.txt": "train", "val.txt": "val", "valid.txt": "val", "test.txt": "test"}
_YAML_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


def read(source: Path, files: ImageFiles, request: Request) -> Annotations:
    """Read the label of each image.

    Raises:
        ValueError: there are no names of the classes, or a file of names is wrong.
    """
    root = source if source.is_dir() else source.parent
    texts = [path for path in visible_files(root) if path.suffix in (".txt", ".names")]
    yaml = source if source.is_file() else _yaml_file(root)
    about = {} if yaml is None else read_yaml(yaml)
    names = _names(yaml, about, texts, request)
    lists = {
        path: _LISTS[path.name] for path in texts if path.name in _LISTS and not is_label(path)
    }
    problems: list[Problem] = []
    if yaml is None:
        listed = _list_splits(lists, files)
    else:
        listed = _yaml_splits(yaml, about, files, problems)
    labels = [path for path in texts if path.suffix == ".txt" and path not in lists]
    labels = [path for path in labels if path.name not in NAME_FILES]
    reader = _Labels(root, files, labels, names, {*listed, *files.files})
    images: list[AnnotatedImage] = []
    for path in listed or files.files:
        split = listed[path] if listed else folder_split(path, files.root)
        found = reader.read(path, split)
        if found is not None:
            images.append(found)
    if not listed:
        reader.report_unused()
    return Annotations(images, problems + reader.problems, names)


def _yaml_file(root: Path) -> Path | None:
    found = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    named = [path for path in found if re.search(r"^names\s*:", read_text(path), re.M)]
    if len(named) > 1:
        raise ValueError(f"{root}: expected one YAML file with names, got {len(named)}")
    return named[0] if named else None


# --- the subset of YAML ---------------------------------------------------------------------------

_KEYS = ("path", "train", "val", "valid", "test", "names")


def read_yaml(path: Path) -> dict[str, list[str]]:
    """Return the texts of the keys that YOLO's ``data.yaml`` has at its top level.

    A value is a text, a list or a map, on its line or in the lines below. The keys of a map are
    0, 1, ... in any order. Anchors, tags and texts of several lines are not read.

    Raises:
        ValueError: a value has another form. The message begins with the path.
    """
    text = "".join(f"{_uncommented(line)}\n" for line in read_text(path).splitlines())
    found = {}
    for key in _KEYS:
        match = re.search(rf"^{key}[ \t]*:(.*\n(?:[ \t]+\S.*\n|[-\]}}].*\n|[ \t]*\n)*)", text, re.M)
        if match:
            found[key] = _values(match[1].strip(), f"{path}: {key}")
    return found


def _uncommented(line: str) -> str:
    """Return a line without its comment, which begins with # after a space, outside of quotes."""
    quote = ""
    for place, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place].rstrip()
    return line.rstrip()


def _values(text: str, where: str) -> list[str]:
    if not text:
        return []
    if text[0] in "[{":
        if text[-1] != {"[": "]", "{": "}"}[text[0]]:
            raise ValueError(f"{where}: expected a list in brackets, got {reprlib.repr(text)}")
        items = re.findall(r"""(?:[^,"']|"[^"]*"|'[^']*')+""", text[1:-1])
        is_map = text[0] == "{"
    elif text.startswith("- "):
        items = [line.strip() for line in text.splitlines() if line.strip()]
        if not all(item.startswith("- ") for item in items):
            raise ValueError(f"{where}: expected lines '- name', got {reprlib.repr(text)}")
        items, is_map = [item[2:] for item in items], False
    elif re.match(r"\d+\s*:", text):
        items, is_map = [line for line in text.splitlines() if line.strip()], True
    else:
        items, is_map = [text], False
    items = [item.strip() for item in items if item.strip()]
    if is_map:
        pairs = [re.fullmatch(r"""["']?(\d+)["']?\s*:\s*(.+)""", item) for item in items]
        numbered = {int(pair[1]): pair[2] for pair in pairs if pair}
        if len(numbered) < len(items) or sorted(numbered) != list(range(len(items))):
            raise ValueError(f"{where}: expected names by 0, 1, ..., got {reprlib.repr(text)}")
        items = [numbered[key] for key in sorted(numbered)]
    return [_unquoted(item.strip(), where) for item in items]


def _unquoted(text: str, where: str) -> str:
    if text[:1] in "'\"" and len(text) > 1 and text[-1] == text[0]:
        return text[1:-1].strip()
    if not text or text[0] in "&*!|>%@`[{":
        raise ValueError(f"{where}: expected a name or a path, got {reprlib.repr(text)}")
    return text


# --- classes and splits ---------------------------------------------------------------------------


def _names(
    yaml: Path | None, about: dict[str, list[str]], texts: list[Path], request: Request
) -> list[str]:
    if yaml is not None and about.get("names"):
        return _distinct(about["names"], yaml)
    found: dict[tuple[str, ...], Path] = {}
    for path in texts:
        if path.name in NAME_FILES:
            lines = [line.strip() for line in read_text(path).splitlines()]
            found[tuple(_distinct([line for line in lines if line], path))] = path
    if len(found) > 1:
        paths = ", ".join(map(str, found.values()))
        raise ValueError(f"{paths}: expected the same names of classes, got different ones")
    if found:
        return list(next(iter(found)))
    if request.classes:
        return list(request.classes)
    raise ValueError(
        "classes: expected the names of the classes in data.yaml, classes.txt or obj.names, or as "
        "an argument in the order of their numbers, got none"
    )


def _distinct(names: list[str], path: Path) -> list[str]:
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{path}: expected different names of classes, got {names}")
    return names


def _yaml_splits(
    yaml: Path, about: dict[str, list[str]], files: ImageFiles, problems: list[Problem]
) -> dict[Path, str | None]:
    """Return the split of each image that ``data.yaml`` names, and report missing folders."""
    base = yaml.parent / (about.get("path") or ["."])[0]
    folders = [base, yaml.parent, files.root]
    found: dict[Path, str | None] = {}
    for key, split in _YAML_SPLITS.items():
        for entry in about.get(key, []):
            # Some tools write ../train/images for a folder beside the YAML file.
            inside = re.sub(r"^(\.\./)+", "", entry)
            places = [folder / name for folder in folders for name in (entry, inside)]
            place = next((path for path in places if path.exists()), None)
            if place is None:
                message = f"{yaml}: {key}: expected a folder or a list, got {entry!r}"
                problems.append(Problem("image is missing", str(yaml), message))
            elif place.is_file():
                found |= dict.fromkeys(_listed(place, files), split)
            else:
                below = visible_files(Path(os.path.normpath(place)))
                images = [path for path in below if path.suffix.lower() in IMAGE_SUFFIXES]
                found |= dict.fromkeys(images, split)
    return found


def _list_splits(lists: dict[Path, str], files: ImageFiles) -> dict[Path, str | None]:
    found: dict[Path, str | None] = {}
    for path, split in lists.items():
        found |= dict.fromkeys(_listed(path, files), split)
    return found


def _listed(path: Path, files: ImageFiles) -> list[Path]:
    """Return the images of a list, a path on each line; missing ones too."""
    found = []
    for line in filter(None, map(str.strip, read_text(path).splitlines())):
        try:
            found.append(files.find(line, path.parent))
        except (OSError, ValueError):
            found.append(path.parent / line)
    return found


# --- labels ---------------------------------------------------------------------------------------


class _Labels:
    """The reader of labels; ``problems`` are those that it found."""

    def __init__(
        self,
        root: Path,
        files: ImageFiles,
        labels: list[Path],
        names: list[str],
        images: Iterable[Path],
    ) -> None:
        self.problems: list[Problem] = []
        self._root, self._files, self._names = root, files, names
        self._labels = dict.fromkeys(labels)
        self._by_stem = defaultdict(list)
        for path in labels:
            self._by_stem[path.stem].append(path)
        self._images_of = Counter(path.stem for path in images)
        self._used: set[Path] = set()

    def _label(self, image: Path) -> Path | None:
        """Return the label of an image; None if it has none."""
        parts = list(image.with_suffix(".txt").parts)
        places = [image.with_suffix(".txt")]
        if "images" in parts:
            parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
            places.insert(0, Path(*parts))
        if image.is_relative_to(self._files.root):
            inside = image.relative_to(self._files.root).with_suffix(".txt")
            places += [self._root / inside, self._root / "labels" / inside]
        for place in places:
            if place in self._labels or place.is_file():
                return place
        # A label in another place can be that of another image with this name.
        same = self._by_stem.get(image.stem, [])
        return same[0] if len(same) == self._images_of[image.stem] == 1 else None

    def read(self, image: Path, split: str | None) -> AnnotatedImage | None:
        path = self._label(image)
        if path is not None:
            self._used.add(path)
        try:
            height, width = image_files.image_size(image)
        except FileNotFoundError as error:
            self.problems.append(Problem("image is missing", str(image), str(error)))
            return None
        except (OSError, ValueError) as error:
            self.problems.append(Problem("image cannot be read", str(image), str(error)))
            return None
        if path is None:
            self.problems.append(Problem("image without a label file", str(image)))
            return AnnotatedImage(image, [], str(image), split)
        objects = []
        try:
            for number, line in enumerate(read_text(path).splitlines(), 1):
                if line.strip():
                    where = f"{path}: line {number}"
                    objects.append(self._object(line.split(), where, width, height))
        except _UnknownClass as error:
            self.problems.append(Problem("unknown class", str(path), str(error)))
            return None
        except (OSError, ValueError) as error:
            self.problems.append(Problem("annotation cannot be read", str(path), str(error)))
            return None
        return AnnotatedImage(image, objects, str(path), split)

    def _object(self, words: list[str], where: str, width: int, height: int) -> Object:
        values: list[float] = []
        with contextlib.suppress(ValueError):
            values = [float(word) for word in words]
        if len(values) < 5 or (len(values) > 5 and (len(values) < 7 or len(values) % 2 == 0)):
            raise ValueError(
                f"{where}: expected a class and 4 numbers, or x, y of 3 corners or more, got "
                f"{reprlib.repr(' '.join(words))}"
            )
        kind, *rest = finite(values, where)
        if kind % 1 or not 0 <= kind < len(self._names):
            raise _UnknownClass(
                f"{where}: expected a class from 0 to {len(self._names) - 1}, got {words[0]}"
            )
        if max(map(abs, rest)) > 2:
            raise ValueError(
                f"{where}: expected fractions of the image, got {reprlib.repr(' '.join(words))}"
            )
        name = self._names[int(kind)]
        if len(rest) == 4:
            x, y, w, h = rest
            box = (x - w / 2) * width, (y - h / 2) * height
            return Object(name, (*box, (x + w / 2) * width, (y + h / 2) * height))
        ring = [v * (height if i % 2 else width) for i, v in enumerate(rest)]
        return Object(name, box_of([ring]), False, Polygons([ring]))

    def report_unused(self) -> None:
        """Report the labels without an image."""
        folders = {path.parent for path in self._used}
        for path in self._labels:
            if path not in self._used and path.parent in folders and is_label(path):
                message = f"{path}: no image has the name {path.stem}"
                self.problems.append(Problem("image is missing", str(path), message))


def is_label(path: Path) -> bool:
    """Return True if the first line of a text has numbers alone, or the text is empty."""
    try:
        words = read_text(path).split("\n", 1)[0].split()
    except ValueError:
        return False
    return all(re.fullmatch(r"[-+.\deE]+", word) for word in words)


class _UnknownClass(ValueError):
    """A class without a name."""
