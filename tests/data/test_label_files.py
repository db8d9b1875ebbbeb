"""Labels that annotation tools have written or corrected are read back."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from partzoo.data.label_files import read_labels
from partzoo.errors import PartzooError, UsageError
from partzoo.parts.parts import Parts
from partzoo.skipping import SkippedWarning

pytest.importorskip("pycocotools")
SQUARE = [[2, 1], [6, 1], [6, 4], [2, 4]]


def written(tmp_path, data, name="a.json"):
    (tmp_path / name).write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return tmp_path / name


def labelme(*shapes, **more):
    shapes = [{"label": "wing", "shape_type": "polygon", "points": SQUARE} | shape for shape in shapes]
    return {"version": "5.0.1", "shapes": shapes, "imagePath": "a.jpg", "imageHeight": 8, "imageWidth": 10} | more


def box(labels, value):
    rows, columns = np.nonzero(labels == value)
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_shapes_of_labelme_are_drawn_in_their_order(tmp_path):
    small = io.BytesIO()
    Image.fromarray(np.full((2, 3), 255, np.uint8)).save(small, "PNG")
    mask = base64.b64encode(small.getvalue()).decode()
    data = labelme(
        {},
        {"label": "bill", "shape_type": "rectangle", "points": [[6, 4], [4, 2]]},
        {"label": "eye", "shape_type": "mask", "points": [[7, 5], [9, 6]], "mask": mask},
    )  # fmt: skip
    found = read_labels(written(tmp_path, data))
    assert found.names == ("bill", "eye", "wing") and found.source == "a.jpg"
    expected = np.zeros((8, 10), int)
    expected[1:4, 2:6], expected[2:4, 4:6], expected[5:7, 7:10] = 3, 1, 2
    np.testing.assert_array_equal(found.labels, expected)
    circle = labelme({"shape_type": "circle", "points": [[50, 40], [50, 20]]}, imageHeight=80, imageWidth=100)
    disc = read_labels(written(tmp_path, circle)).labels
    assert disc.sum() == pytest.approx(np.pi * 400, rel=0.01) and box(disc, 1) == (20, 60, 30, 70)


def test_what_has_no_area_is_named_in_one_warning_and_the_rest_is_read(tmp_path):
    data = labelme(
        {"shape_type": "point", "points": [[1, 1]]}, {"shape_type": "linestrip", "points": SQUARE}, {},
        {"points": [[1, float("nan")], [2, 2], [3, 3]]}, {"points": [[1, 1], [900, 2], [3, 3]]},
        {"shape_type": "rectangle", "points": [[1, 1]]},
        {"shape_type": "mask", "mask": "x", "points": [[0, 0], [1, 1]]},
    )  # fmt: skip
    expected = "shape 1 .it is a point, which has no area.*shape 2.*shape 4.*1 more"
    with pytest.warns(SkippedWarning, match=expected) as seen:
        found = read_labels(written(tmp_path, data))
    assert [each.category for each in seen].count(SkippedWarning) == 1 and found.labels.sum() == 12


def test_names_number_the_labels_and_new_ones_follow_in_natural_order(tmp_path):
    shapes = [{"label": name, "points": [[i, 0], [i + 1, 0], [i + 1, 8], [i, 8]]} for i, name in enumerate(
        ["part 10", "part 2", "crest"]
    )]  # fmt: skip
    path = written(tmp_path, labelme(*shapes))
    assert read_labels(path).names == ("crest", "part 2", "part 10")
    found = read_labels(path, names=["part 2", "none", "crest", "part 10"])
    assert found.labels[0, :4].tolist() == [4, 1, 3, 0] and found.names == ("part 2", "none", "crest", "part 10")
    kept = read_labels(written(tmp_path, labelme(*shapes, partzoo={"format": 1, "names": ["part 2", "part 3"]})))
    assert kept.names == ("part 2", "part 3", "crest", "part 10") and kept.labels[0, :3].tolist() == [4, 1, 3]
    with pytest.raises(UsageError, match=r"a\.json' has the label 'part 10', which is not among names=\['crest'"):
        read_labels(path, names=["crest", "part 2"])


def coco(**more):
    annotation = {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [np.ravel(SQUARE).tolist()]}
    image = {"id": 7, "file_name": "birds/a.jpg", "height": 8, "width": 10}
    categories = [{"id": 3, "name": "wing"}, {"id": 1, "name": "bill"}]
    return {"images": [image], "annotations": [annotation], "categories": categories} | more


def test_category_ids_of_coco_are_kept_as_numbers(tmp_path):
    found = read_labels(written(tmp_path, coco()))
    assert (
        found.names == ("bill", "part 2", "wing") and found.labels.max() == 3 and box(found.labels, 3) == (1, 4, 2, 6)
    )
    zero = coco(categories=[{"id": 3, "name": "wing"}, {"id": 0, "name": "bill"}])
    assert read_labels(written(tmp_path, zero)).names == ("bill", "wing")
    assert read_labels(written(tmp_path, coco()), names=["wing"]).labels.max() == 1
    with pytest.warns(SkippedWarning, match="annotation 1 .its category 3 is not listed"):
        assert not read_labels(written(tmp_path, coco(categories=[]))).labels.any()


def test_annotations_of_an_image_that_is_not_listed_are_named(tmp_path):
    data = coco()
    data["annotations"][0]["image_id"] = 99
    with pytest.warns(UserWarning, match="its image 99 is not listed"):
        read_labels(written(tmp_path, data))


def test_the_image_selects_its_annotations_in_a_coco_file_of_several(tmp_path):
    data = coco()
    data["images"].append({"id": 8, "file_name": "other/a.jpg", "height": 5, "width": 6})
    path = written(tmp_path, data)
    assert read_labels(path, image="/home/me/birds/a.jpg", size=(8, 10)).labels.any()
    other = read_labels(path, image="other/a.jpg")
    assert other.labels.shape == (5, 6) and not other.labels.any()
    for image, message in (("", "name one with image="), ("a.jpg", "2 of them fit"), ("b/a.jpg", "0 of them fit")):
        with pytest.raises(UsageError, match=f"holds 2 images: .*{message}"):
            read_labels(path, image=image)


def test_geojson_as_qupath_exports_it(tmp_path):
    """A list of features, corrected by hand: fractions of pixels, a hole, a derived class, a point, no class."""
    ring = [[x + 0.25, y] for x, y in [*SQUARE, SQUARE[0]]]
    hole = [[3.25, 2], [3.25, 3], [4.25, 3], [4.25, 2], [3.25, 2]]
    features = [
        {"type": "Feature", "id": "x", "geometry": {"type": "Polygon", "coordinates": [ring, hole]},
         "properties": {"objectType": "annotation", "classification": {"name": "wing", "color": [200, 0, 0]}}},
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[7, 5], [9, 5], [9, 8], [7, 8], [7, 5]]]},
         "properties": {"classification": {"names": ["leg", "left"], "colorRGB": -3670016}}},
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]},
         "properties": {"classification": {"name": "wing"}}},
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}},
    ]  # fmt: skip
    path = written(tmp_path, features, "a.geojson")
    with pytest.warns(SkippedWarning, match="feature 4 .it has no classification.*feature 3 .it is a Point"):
        found = read_labels(path, size=(8, 10))
    assert found.names == ("leg: left", "wing") and (found.labels == 2).sum() == 11 and found.labels[2, 3] == 0
    assert box(found.labels, 1) == (5, 8, 7, 9)
    with pytest.raises(UsageError, match="does not state the size of its image: pass image="):
        read_labels(path)


def test_yolo_labels_take_their_names_from_data_yaml(tmp_path):
    (tmp_path / "labels" / "train").mkdir(parents=True)
    line = "1 " + " ".join(f"{x / 10} {y / 8}" for x, y in SQUARE)
    path = written(tmp_path, f"{line}\n\n0 0.5 0.5 0.2 0.2\n", "labels/train/a.txt")
    with pytest.warns(SkippedWarning, match="line 3 .it has 4 coordinates, which is not a polygon"):
        assert read_labels(path, size=(8, 10)).names == ("part 1", "part 2")
    written(tmp_path, line, "labels/train/a.txt")
    for text in ("names: [bill, wing, leg]", "names: {0: bill, 1: wing, 2: leg}"):
        written(tmp_path, text, "data.yaml")
        found = read_labels(path, size=(8, 10))
        assert found.names == ("bill", "wing", "leg") and box(found.labels, 2) == (1, 4, 2, 6)
    with pytest.warns(SkippedWarning, match="line 1 .its label is number 2, which has no name"):
        read_labels(path, size=(8, 10), names=["bill"])
    written(tmp_path, "train: x", "data.yaml")
    with pytest.raises(PartzooError, match="has no names"):
        read_labels(path, size=(8, 10))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("", "a.json"), ("{", "a.json"), ("{}", "a.json"), ("3", "a.json"), ("[3]", "a.geojson"), ("a b c", "a.txt"),
        ("0.5 1 1 1 1 1 1", "a.txt"), ({"shapes": 3}, "a.json"), (coco(images=[{"id": 7}]), "a.json"),
        (labelme(imageHeight="x"), "a.json"), (labelme(imageHeight=10**9, imageWidth=10**9), "a.json"),
        (labelme(imageHeight=0), "a.json"), ("[" * 100_000, "a.json"), (coco(annotations=[3]), "a.json"),
    ],
)  # fmt: skip
def test_damaged_files_are_one_clear_error(tmp_path, data, name):
    with pytest.raises(PartzooError, match=rf"{name}'? is (damaged|empty)"):
        read_labels(written(tmp_path, data, name), size=(8, 10) if name != "a.json" else None)


def test_other_errors_name_the_file(tmp_path):
    with pytest.raises(PartzooError, match="No such file"):
        read_labels(tmp_path / "none.json")
    path = written(tmp_path, labelme({}))
    with pytest.raises(UsageError, match=r"is for an image of 8 x 10 pixels, and the image has 3 x 4"):
        read_labels(path, size=(3, 4))
    with pytest.raises(PartzooError, match="newer version"):
        read_labels(written(tmp_path, labelme({}, partzoo={"format": 2})))


def test_corrected_parts_are_parts_with_the_image(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    parts = Parts.load(written(tmp_path, labelme({})), image=tmp_path / "a.png", names=["bill", "wing"])
    assert (parts.k, parts.present, parts.names) == (2, (2,), ("bill", "wing"))
    assert parts.source == str(tmp_path / "a.png") and np.array_equal(parts.image, image)
    parts.save(tmp_path / "b.index.png")
    assert Parts.load(tmp_path / "b.index.png", names=["x", "y"]).names == ("x", "y")


@pytest.mark.parametrize(
    "names", ["{1000000000: x}", "{-1: x}", "{a: x}", "[[a]]", "&x [*x]", "x", "[" * 3000, "\x1b", "[!!set {a}]"]
)
def test_names_of_yolo_that_cannot_be_are_an_error_of_their_file(tmp_path, names):
    written(tmp_path, f"names: {names}", "data.yaml")
    with pytest.raises(PartzooError, match=r"data\.yaml has no names \(") as raised:
        read_labels(written(tmp_path, "0 .1 .1 .9 .1 .9 .9", "a.txt"), size=(8, 8))
    assert "a.txt" not in str(raised.value)


def test_numbers_of_any_length_in_names_have_an_order(tmp_path):
    long = "9" * 5000
    shapes = [{"label": label, "points": [[1, 1], [5, 1], [5, 5]]} for label in (f"p{long}", "p10", "p2", "p02x")]
    file = written(tmp_path, {"shapes": shapes, "imageHeight": 8, "imageWidth": 8}, "a.json")
    assert read_labels(file).names == ("p2", "p02x", "p10", f"p{long}")
