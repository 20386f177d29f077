"""Images, annotations of each format, and their parts."""

import json

from PIL import Image

from cvops.datasets.annotations import read_annotations

#: Width and height of the images.
WIDTH, HEIGHT = 40, 20


def write_images(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), "gray").save(path)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")


def read(folder, **options):
    """Return the annotations; the format is found."""
    return read_annotations(folder, **options)[1]


def objects(annotations):
    """The objects of each image by the name of its file."""
    return {image.image.name: image.objects for image in annotations.images}


def splits(annotations):
    return {image.image.name: image.split for image in annotations.images}


def problems(annotations):
    return [(problem.kind, problem.where.rpartition("/")[2]) for problem in annotations.problems]


def voc_xml(*things, filename="", size=""):
    """An annotation with (name, xmin, ymin, xmax, ymax, difficult)."""
    parts = [
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2, difficult in things
    ]
    head = f"<filename>{filename}</filename>" if filename else ""
    return f"<annotation>{head}{size}{''.join(parts)}</annotation>"


def coco(names, annotations, categories=((7, "bee"), (3, "frog"))):
    """A COCO file of images with the ids 1, 2, ..."""
    return {
        "images": [
            {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for number, name in enumerate(names, 1)
        ],
        "annotations": [{"id": 100 + i, **row} for i, row in enumerate(annotations)],
        "categories": [{"id": key, "name": name} for key, name in categories],
    }


def bee(box, **more):
    return {"image_id": 1, "category_id": 7, "bbox": box, **more}


def labelme(*shapes, **more):
    return {
        "version": "5.0",
        "shapes": [
            {"label": label, "shape_type": kind, "points": points, **rest}
            for label, kind, points, rest in shapes
        ],
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
        **more,
    }
