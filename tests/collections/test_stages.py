"""Stages turn batches of any form into tables that equal what the package computes image by image."""

import io
import pickle

import numpy as np
import pytest
from helpers.image_files import png
from helpers.image_sets import encoded
from PIL import Image

import partzoo
from partzoo.errors import UsageError

pa = pytest.importorskip("pyarrow")
coco = pytest.importorskip("pycocotools.mask")

MODEL = "toy-vit"


@pytest.fixture(scope="module")
def vocabulary():
    images = [encoded(number) for number in range(3)]
    return partzoo.fit_parts(images, 3, model=MODEL, background="none")


@pytest.fixture(scope="module")
def images():
    """Images as they come: colour, grey, 16 bits, a path to nothing, damaged bytes, and an array."""
    grey, deep = encoded(1, (30, 20), "L"), png(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100, 0)
    pixels = np.asarray(Image.open(io.BytesIO(encoded(2))))
    return [encoded(0), grey, deep, "nowhere/a.png", encoded(3)[:300], pixels]


GOOD, BAD = (0, 1, 2, 5), (3, 4)


def test_features_equal_those_of_extract_features(images):
    stage = partzoo.ExtractFeatures(MODEL, dense=True)
    rows = stage({"key": list("abcdef"), "image": images}).to_pylist()
    assert [row["key"] for row in rows] == list("abcdef")
    for number in GOOD:
        expected, row = partzoo.extract_features(images[number], model=MODEL), rows[number]
        assert row["error"] is None
        assert (row["height"], row["width"]) == expected.size
        assert np.array_equal(np.float32(row["pooled"]), expected.pooled)
        assert np.array_equal(np.float32(row["dense"]).reshape(row["rows"], row["columns"], -1), expected.dense)


def test_features_may_be_in_float16(images):
    stage = partzoo.ExtractFeatures(MODEL, dense=True, dtype="float16")
    assert stage.settings()["dtype"] == "float16" and "dtype" not in partzoo.ExtractFeatures(MODEL).settings()
    (row,) = stage({"image": images[:1]}).to_pylist()
    expected = partzoo.extract_features(images[0], model=MODEL)
    assert stage.schema.field("pooled").type.value_type == pa.float16()
    assert np.array_equal(np.float16(row["pooled"]), expected.pooled.astype(np.float16))
    dense = np.float16(row["dense"]).reshape(expected.dense.shape)
    assert np.array_equal(dense, expected.dense.astype(np.float16))
    with pytest.raises(UsageError, match="dtype='int8' must be one of float32, float16"):
        partzoo.ExtractFeatures(MODEL, dtype="int8")


def test_shaped_and_taught_parts_equal_those_of_discover_parts(vocabulary):
    labels = np.zeros((24, 32), np.uint8)
    labels[:12, :16], labels[12:, 16:] = 1, 2
    options = {"model": MODEL, "labels": [labels, None], "names": ["head", "legs"]}
    taught = partzoo.fit_parts([encoded(0), encoded(1)], **options)
    for words in (vocabulary.join([1, 3], name="wheel"), vocabulary.drop(2), taught):
        stage = partzoo.DiscoverParts(words)
        assert stage.settings()["k"] == words.k
        (row,) = stage({"key": ["a"], "image": [encoded(0)]}).to_pylist()
        expected = partzoo.discover_parts(encoded(0), vocabulary=words)
        assert row["quality"] == np.float32(expected.quality)
        assert [part["part"] for part in row["parts"]] == list(expected.present)
        for part in row["parts"]:
            mask = coco.decode({"size": [24, 32], "counts": part["rle"]})
            assert np.array_equal(mask, expected.mask(part["part"]))
            assert np.array_equal(np.float32(part["descriptor"]), expected.descriptors[part["part"] - 1])
    assert len({partzoo.DiscoverParts(each).settings()["vocabulary"] for each in (vocabulary, vocabulary.drop(2))}) == 2


@pytest.mark.parametrize("make", [lambda _: partzoo.ExtractFeatures(MODEL), partzoo.DiscoverParts])
def test_a_damaged_image_is_a_row_with_an_error_and_nulls(make, images, vocabulary):
    stage = make(vocabulary)
    table = stage({"key": list("abcdef"), "image": images})
    assert table.schema == stage.schema
    for number, row in enumerate(table.to_pylist()):
        assert (row["error"] is None) == (number in GOOD)
        assert all(value is None for name, value in row.items() if name not in ("key", "error")) == (number in BAD)
    assert "No such file" in table["error"][3].as_py() and "e" in table["error"][4].as_py()


def test_parts_equal_those_of_discover_parts(images, vocabulary):
    rows = partzoo.DiscoverParts(vocabulary)({"image": images}).to_pylist()
    for number in GOOD:
        expected, row = partzoo.discover_parts(images[number], vocabulary=vocabulary), rows[number]
        assert row["quality"] == np.float32(expected.quality)
        assert [part["part"] for part in row["parts"]] == list(expected.present)
        for part in row["parts"]:
            place = part["part"] - 1
            mask = coco.decode({"size": [row["height"], row["width"]], "counts": part["rle"]})
            assert np.array_equal(mask, expected.mask(part["part"]))
            assert part["area"] == expected.areas[place] and part["box"] == expected.boxes[place].tolist()
            assert part["centroid"] == expected.centroids[place].tolist()
            assert np.array_equal(np.float32(part["descriptor"]), expected.descriptors[place])


def test_the_rows_do_not_depend_on_the_form_or_the_division_of_batches(images):
    pandas = pytest.importorskip("pandas")
    stage, keys, data = partzoo.ExtractFeatures(MODEL), list("abcd"), [encoded(number) for number in range(4)]
    whole = stage({"key": keys, "image": data})
    assert stage(pandas.DataFrame({"key": keys, "image": data})) == whole
    assert stage(pa.table({"key": keys, "image": data})) == whole
    assert stage({"key": np.array(keys), "image": np.array(data, object)}) == whole
    assert (
        pa.concat_tables([stage({"key": [key], "image": [each]}) for key, each in zip(keys, data, strict=True)])
        == whole
    )
    assert pickle.loads(pickle.dumps(stage))({"key": keys, "image": data}) == whole
    assert stage({"image": data})["key"].to_pylist() == ["0", "1", "2", "3"]


def test_a_grey_array_with_the_leading_axis_that_ray_gives_it_is_the_same_image():
    grey = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
    one, colour = np.random.default_rng(1).integers(0, 256, (1, 32, 3), np.uint8), np.zeros((24, 32, 3), np.uint8)
    stage = partzoo.ExtractFeatures(MODEL)
    sizes = [(row["height"], row["width"]) for row in stage({"image": [grey[None], grey, colour, one]}).to_pylist()]
    assert sizes == [(24, 32), (24, 32), (24, 32), (1, 32)]
    pooled = stage({"image": [grey[None], grey]})["pooled"]
    assert pooled[0] == pooled[1]


def test_copies_of_a_stage_in_a_process_share_the_loaded_model(monkeypatch):
    loads, stage = [], partzoo.ExtractFeatures(MODEL)
    load = partzoo.ExtractFeatures.load
    monkeypatch.setattr(partzoo.ExtractFeatures, "load", lambda self: loads.append(self) or load(self))
    for _ in range(3):
        pickle.loads(pickle.dumps(stage))({"image": [encoded(0)]})
    assert len(loads) == 1


def test_other_names_of_columns(images):
    table = partzoo.ExtractFeatures(MODEL, image="jpg", key="__key__")({"jpg": [encoded(0)], "__key__": [7]})
    assert table["key"].to_pylist() == ["7"]
    with pytest.raises(UsageError, match="no column 'image': its columns are jpg"):
        partzoo.ExtractFeatures(MODEL)({"jpg": [encoded(0)]})


def test_a_batch_in_which_nothing_can_be_read_has_the_same_columns():
    stage = partzoo.ExtractFeatures(MODEL, layer=0)
    table = stage({"image": [b"no", b"image"]})
    assert table.schema == stage.schema and table["pooled"].null_count == 2


def test_wrong_models_are_errors_not_failed_images(vocabulary):
    with pytest.raises(partzoo.UnknownModelError):
        partzoo.ExtractFeatures("no-such-model")({"image": [encoded(0)]})
    with pytest.raises(UsageError, match="vocabulary=None"):
        partzoo.DiscoverParts(None)
