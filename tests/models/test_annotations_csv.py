"""Annotations in a CSV: corners, headers, broken files."""

import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "pycocotools")

from annotation_cases import objects, problems, read, splits, write, write_images  # noqa: E402

from cvops.datasets.annotations.base import Object  # noqa: E402


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg,bee,1,2,30,20\na.jpg,frog,0,0,5.5,5\nb.jpg,,,,,\n",
        "a.jpg,1,2,30,20,bee\na.jpg,0,0,5.5,5,frog\nb.jpg,,,,,\n",
        "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        "a.jpg,40,20,bee,1,2,30,20\na.jpg,40,20,frog,0,0,5.5,5\nb.jpg,40,20,,,,,\n",
        "\ufeffImage;Label;X1;Y1;X2;Y2\r\n\r\na.jpg;bee;1;2;30;20\r\na.jpg;frog;0;0;5.5;5\r\nb.jpg\r\n",
    ],
    ids=["plain", "class last", "header", "semicolons"],
)
def test_csv_corners_are_pixels(tmp_path, text):
    write_images(tmp_path, "images/a.jpg", "images/b.jpg")
    write(tmp_path / "boxes.csv", text)
    found = read(tmp_path)
    assert objects(found) == {
        "a.jpg": [Object("bee", (1, 2, 30, 20)), Object("frog", (0, 0, 5.5, 5))],
        "b.jpg": [],
    }
    assert found.problems == []


def test_split_of_a_csv_row_is_in_a_column_a_file_or_a_folder(tmp_path):
    write_images(tmp_path, "test/a.jpg", "b.jpg", "c.jpg")
    write(
        tmp_path / "all.csv",
        "file,class,x1,y1,x2,y2,subset,difficult\n"
        "test/a.jpg,bee,1,2,3,4,,1\nb.jpg,bee,1,2,3,4,Validation,\n",
    )
    write(tmp_path / "train_labels.csv", "c.jpg,bee,1,2,3,4\n")
    found = read(tmp_path)
    assert splits(found) == {"a.jpg": "test", "b.jpg": "val", "c.jpg": "train"}
    assert objects(found)["a.jpg"] == [Object("bee", (1, 2, 3, 4), True)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,bee,0.1,0.2,0.5,1\n", "expected boxes in pixels, got fractions"),
        ("file,x1,y1\na.jpg,1,2\n", r"expected columns \['class', 'x2', 'y2'\] in the header"),
        ("a.jpg,bee,1,2,3\n", "expected a header, or the columns file, class, x1"),
        ("\n", "expected rows .*, got none"),
        (
            'a.jpg,bee,1,2,3,4\n"a.jpg,bee,1,2,3,4\n',
            "line 2: not a table, or a wrong quotation mark",
        ),
    ],
)
def test_other_csv_is_rejected(tmp_path, text, message):
    write(tmp_path / "a.csv", text)
    with pytest.raises(ValueError, match=rf"a\.csv: {message}"):
        read(tmp_path)


def test_broken_row_of_csv_is_a_problem_of_its_image(tmp_path):
    write_images(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg")
    rows = [
        "file,class,x1,y1,x2,y2,split",
        "a.jpg,bee,1,2,3,4,",
        "a.jpg,bee,1,2,three,4,",
        "b.jpg,,1,2,3,4,",
        "c.jpg,bee,1,2,3,4,fold",
        "gone.jpg,bee,1,2,3,4,",
        ",bee,1,2,3,4,",
        "d.jpg,bee,10,2,30,inf,",
        "e.jpg,bee,1,5,2,5,train,30,5,40,5",  # decimal commas
    ]
    write(tmp_path / "a.csv", "\n".join(rows))
    found = read(tmp_path)
    assert found.images == []
    assert problems(found) == [
        ("annotation cannot be read", "a.csv: line 3"),
        ("annotation cannot be read", "a.csv: line 4"),
        ("annotation cannot be read", "a.csv: line 5"),
        ("annotation cannot be read", "a.csv: line 7"),
        ("annotation cannot be read", "a.csv: line 8"),
        ("annotation cannot be read", "a.csv: line 9"),
        ("image is missing", "gone.jpg"),
    ]
