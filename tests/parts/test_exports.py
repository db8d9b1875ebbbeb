"""What other tools get: the same masks, names and colours."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import partzoo
from partzoo.errors import UsageError
from partzoo.parts.drawing import palette
from partzoo.parts.formats import FORMATS, format_of
from partzoo.parts.yolo import add_to_dataset, data_yaml

NAMES = ["bill", "wing ü", 'a "tail": #1', "leg"]
maps = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12), elements=st.integers(0, 4)
)


@pytest.fixture
def parts():
    """Four parts, of which the first is a ring round the third, the second is in two pieces and the last is absent."""
    labels = np.zeros((40, 60), np.uint8)
    labels[5:30, 5:35], labels[10:20, 12:25] = 1, 3
    labels[2:8, 40:55], labels[30:38, 50:58] = 2, 2
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    return partzoo.Parts(labels, k=4, image=image, names=NAMES, source="birds/heron.jpg")


@settings(max_examples=60)
@given(maps)
def test_every_format_of_shapes_gives_the_parts_back(tmp_path_factory, labels):
    pytest.importorskip("pycocotools")
    folder = tmp_path_factory.mktemp("shapes")
    parts = partzoo.Parts(labels, k=4, image=np.zeros((*labels.shape, 3), np.uint8), names=NAMES)
    (folder / "data.yaml").write_text(data_yaml(NAMES), encoding="utf-8")
    for ending in (".json", ".labelme.json", ".geojson", ".txt"):
        parts.save(folder / f"a{ending}", segmentation="polygons")
        assert partzoo.Parts.load(folder / f"a{ending}", image=parts.image) == parts, ending
    for ending in (".json", ".labelme.json", ".geojson"):
        assert partzoo.Parts.load(folder / f"a{ending}") == parts, ending


def test_supervision_gets_masks_boxes_names_and_confidence(parts):
    supervision = pytest.importorskip("supervision")
    scored = partzoo.Parts(parts.labels, k=4, names=NAMES, scores=np.full((5, 40, 60), np.arange(5)[:, None, None] / 8))
    found = scored.to_supervision()
    assert isinstance(found, supervision.Detections) and len(found) == 3
    assert found.data["part"].tolist() == [1, 2, 3] and found.class_id.tolist() == [0, 1, 2]
    assert found.data["class_name"].tolist() == NAMES[:3]
    assert found.confidence.tolist() == [1 / 8, 2 / 8, 3 / 8]
    for part, mask, box in zip(found.data["part"], found.mask, found.xyxy, strict=True):
        np.testing.assert_array_equal(mask, parts.mask(part))
        assert box.tolist() == parts.boxes[part - 1].tolist()
    assert parts.to_supervision().confidence is None
    assert len(partzoo.Parts(np.zeros((4, 4), int), k=2).to_supervision()) == 0
    scene = supervision.MaskAnnotator().annotate(np.array(parts.image), found)
    assert (scene != parts.image).any(axis=2)[parts.labels > 0].mean() > 0.9


@pytest.mark.parametrize("segmentation", ["rle", "polygons"])
def test_supervision_s_reader_of_coco_gets_equal_masks_from_run_lengths(parts, segmentation, tmp_path):
    supervision = pytest.importorskip("supervision")
    pytest.importorskip("pycocotools")
    Image.fromarray(parts.image).save(tmp_path / "heron.png")
    data = parts.to_coco(segmentation)
    data["images"][0]["file_name"] = "heron.png"
    (tmp_path / "parts.json").write_text(json.dumps(data))
    dataset = supervision.DetectionDataset.from_coco(str(tmp_path), str(tmp_path / "parts.json"), force_masks=True)
    _, _, found = dataset[0]
    assert dataset.classes == NAMES
    for number, mask in zip(found.class_id, found.mask, strict=True):
        extra = mask ^ parts.mask(number + 1)
        assert not extra.any() if segmentation == "rle" else extra.any(), "it fills the edges of polygons as well"


def test_supervision_s_reader_of_yolo_finds_images_names_and_parts(parts, tmp_path):
    supervision = pytest.importorskip("supervision")
    add_to_dataset(parts, tmp_path, "heron")
    dataset = supervision.DetectionDataset.from_yolo(
        str(tmp_path / "images"), str(tmp_path / "labels"), str(tmp_path / "data.yaml"), force_masks=True
    )
    _, image, found = dataset[0]
    assert dataset.classes == NAMES and image.shape == (40, 60, 3)
    assert found.class_id.tolist() == [0, 1, 1, 2]
    for number in set(found.class_id.tolist()):
        mask = found.mask[found.class_id == number].any(0)
        assert (parts.mask(number + 1) & ~mask).sum() == 0 and mask.sum() < 1.5 * parts.areas[number]


def test_a_yolo_data_set_has_the_files_of_the_images(parts, tmp_path, monkeypatch):
    yaml = pytest.importorskip("yaml")
    monkeypatch.chdir(tmp_path)
    add_to_dataset(parts, "made", "heron")  # its source is no file
    assert np.array_equal(np.asarray(Image.open("made/images/heron.png")), parts.image)
    Path("birds").mkdir()
    Image.fromarray(parts.image).save("birds/heron.jpg")
    add_to_dataset(parts, "copied", "a.b")
    assert Path("copied/images/a.b.jpg").read_bytes() == Path("birds/heron.jpg").read_bytes()
    assert sorted(os.listdir("copied/labels")) == ["a.b.txt"]
    assert yaml.safe_load(Path("copied/data.yaml").read_text(encoding="utf-8")) == {
        "train": "images", "val": "images", "names": dict(enumerate(NAMES)),
    }  # fmt: skip
    with pytest.raises(UsageError, match="do not hold their image"):
        add_to_dataset(partzoo.Parts(parts.labels, source="no.jpg"), "none", "a")


@given(st.lists(st.text(max_size=8), max_size=4))
def test_any_name_survives_yaml(names):
    yaml = pytest.importorskip("yaml")
    assert list((yaml.safe_load(data_yaml(names))["names"] or {}).values()) == names


def test_yolo_lines_are_pieces_with_corners_as_shares(parts):
    lines = [line.split() for line in parts.to_yolo().splitlines()]
    assert [line[0] for line in lines] == ["0", "1", "1", "2"]
    corners = np.array(lines[1][1:], float).reshape(-1, 2) * [60, 40]
    np.testing.assert_allclose(corners, [[40, 2], [55, 2], [55, 8], [40, 8]], atol=1e-6)
    assert partzoo.Parts(np.zeros((4, 4), int), k=2).to_yolo() == ""


def test_labelme_gets_polygons_in_no_group_and_the_way_to_the_image(parts, tmp_path):
    parts.save(tmp_path / "heron.labelme.json")
    data = json.loads((tmp_path / "heron.labelme.json").read_text())
    assert (data["imageHeight"], data["imageWidth"], data["imageData"]) == (40, 60, None)
    assert [shape["label"] for shape in data["shapes"]] == ["bill", "wing ü", "wing ü", 'a "tail": #1']
    assert {(shape["shape_type"], shape["group_id"]) for shape in data["shapes"]} == {("polygon", None)}
    assert (tmp_path / data["imagePath"]).resolve() == Path("birds/heron.jpg").resolve()
    assert not any("group" in annotation for annotation in parts.to_coco("polygons")["annotations"])
    address = partzoo.Parts(parts.labels, source="https://example.org/a.jpg")
    assert address.to_labelme("there")["imagePath"] == "https://example.org/a.jpg"


def test_geojson_has_closed_rings_holes_classes_colours_and_no_gaps(parts):
    data = parts.to_geojson()
    assert [each["geometry"]["type"] for each in data["features"]] == ["Polygon", "MultiPolygon", "Polygon"]
    ring, hole = data["features"][0]["geometry"]["coordinates"]
    assert ring[0] == ring[-1] and hole[0] == hole[-1] and len(ring) == len(hole) == 5
    assert sorted(map(list, hole[1:])) == [[12, 10], [12, 20], [25, 10], [25, 20]]
    assert len({tuple(each["properties"]) for each in data["features"]}) == 1
    for part, each in enumerate(data["features"], 1):
        about = each["properties"]["classification"]
        assert about == {"name": NAMES[part - 1], "color": palette(4)[part].tolist()}
        assert each["properties"]["objectType"] == "annotation"
    json.dumps(data, allow_nan=False)


def test_napari_gets_layers_that_can_be_painted_on(parts):
    (image, about_image, kind), (labels, about, labels_kind) = parts.to_napari()
    assert (kind, labels_kind) == ("image", "labels") and about_image["rgb"]
    np.testing.assert_array_equal(image, parts.image)
    np.testing.assert_array_equal(labels, parts.labels)
    labels[0, 0] = 4
    assert parts.labels[0, 0] == 0 and labels.dtype == np.uint8
    assert about["features"] == {"index": [0, 1, 2, 3, 4], "name": ["background", *NAMES]}
    colours = about["colormap"]
    np.testing.assert_allclose([colours[i][:3] for i in range(1, 5)], palette(4)[1:] / 255)
    assert colours[0][3] == 0 and None in colours
    assert [layer[2] for layer in partzoo.Parts(parts.labels).to_napari()] == ["labels"]
    napari = pytest.importorskip("napari.layers")
    layer = napari.Layer.create(labels, about, "labels")
    np.testing.assert_allclose(layer.get_color(2), colours[2])


def test_the_longest_ending_that_fits_selects_the_format():
    for name, ending in (
        ("a.png", ".png"), ("a.INDEX.png", ".index.png"), ("b.labelme.json", ".labelme.json"),
        ("labelme.json", ".json"), ("a.b.txt", ".txt"), ("x.geojson", ".geojson"),
    ):  # fmt: skip
        assert format_of(name) is FORMATS[ending]
    assert format_of("a.jpg") is None and format_of("a") is None
