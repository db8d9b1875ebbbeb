"""Formats of shards: the same bytes however the rows arrive, in a bounded amount of memory."""

import hashlib
import json

import numpy as np
import pytest
from helpers.image_sets import encoded
from helpers.plain_stages import Halves

import partzoo
from partzoo.collections.destinations import destination_of
from partzoo.collections.sinks import FORMATS, TABLES, sink_of
from partzoo.collections.sinks.index_png import file_name
from partzoo.errors import UsageError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table(rows, channels=8):
    """Return a table of features."""
    values = np.random.default_rng(0).random((rows, channels), np.float32)
    pooled = pa.FixedSizeListArray.from_arrays(values.ravel(), channels)
    return pa.table({"key": [str(number) for number in range(rows)], "pooled": pooled})


@pytest.mark.parametrize("form", TABLES)
def test_the_division_of_rows_among_calls_does_not_change_a_byte(form, tmp_path):
    whole, digests = table(300), set()
    for number, step in enumerate((300, 1, 7, 128, 299)):
        file = tmp_path / f"{number}{sink_of(form).ending}"
        with sink_of(form).writer(file, whole.schema) as add:
            for start in range(0, 300, step):
                add(whole[start : start + step])
        digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("form", TABLES)
def test_a_shard_without_rows_and_one_that_fails(form, tmp_path):
    place, name = destination_of(tmp_path), f"0{sink_of(form).ending}"
    with place.aside(name) as file, sink_of(form).writer(file, table(1).schema):
        pass
    assert (tmp_path / name).exists()
    assert form != "parquet" or pq.read_table(tmp_path / name).schema == table(1).schema
    place.remove(name)
    with (
        pytest.raises(ZeroDivisionError),
        place.aside(name) as file,
        sink_of(form).writer(file, table(1).schema) as add,
    ):
        add(table(1))
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_parquet_holds_a_group_of_rows_however_many_there_are(tmp_path):
    batch, peaks = table(64, 4096), []
    with sink_of("parquet").writer(tmp_path / "0.parquet", batch.schema) as add:
        before = pa.total_allocated_bytes()
        for _ in range(40):
            add(batch)
            peaks.append(pa.total_allocated_bytes() - before)
    assert pq.read_metadata(tmp_path / "0.parquet").num_rows == 40 * 64
    assert max(peaks) <= 1.1 * max(peaks[:4]) and max(peaks) < 6 * batch.nbytes


def test_an_unknown_format_is_an_error():
    with pytest.raises(UsageError, match="parquet, safetensors, coco, index-png"):
        sink_of("hdf5")


@pytest.fixture
def rows():
    """Rows of parts of three images, of which two have keys that differ in the case of letters only."""
    images = {"a/0.png": encoded(0), "A/0.png": encoded(1), "../one:row.png": encoded(2, (1, 5))}
    return Halves()({"key": list(images), "image": list(images.values())}).drop_columns(["error"])


def written(form, path, rows, step=3):
    if sink_of(form).folder:
        path.mkdir()
    with sink_of(form).writer(path, rows.schema) as add:
        for start in range(0, len(rows), step):
            add(rows[start : start + step])
    return path


def test_coco_holds_the_masks_and_names_of_the_parts(rows, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    file = written("coco", tmp_path / "0.json", rows)
    assert written("coco", tmp_path / "1.json", rows, 1).read_bytes() == file.read_bytes()
    found = coco.COCO(str(file))
    assert [found.imgs[number]["file_name"] for number in (1, 2, 3)] == rows["key"].to_pylist()
    assert [each["name"] for each in found.loadCats([1, 2])] == ["top", "bottom"]
    assert [each["category_id"] for each in found.loadAnns(found.getAnnIds())] == [1, 2, 1, 2, 2]
    for number, parts in enumerate(rows["parts"].to_pylist(), 1):
        for about, part in zip(found.loadAnns(found.getAnnIds(number)), parts, strict=True):
            assert about["area"] == part["area"] == found.annToMask(about).sum()
            left, top, right, bottom = part["box"]
            assert about["bbox"] == [left, top, right - left, bottom - top]


def test_index_pngs_hold_the_numbers_and_names_of_the_parts(rows, tmp_path):
    folder = written("index-png", tmp_path / "0", rows)
    again = written("index-png", tmp_path / "1", rows, 1)
    names = ["a/0.png.index.png", "A/0.png-2.index.png", "%2E%2E/one%3Arow.png.index.png"]
    assert sorted(names) == sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*.png"))
    for name, (height, width) in zip(names, ((24, 32), (24, 32), (1, 5)), strict=True):
        parts = partzoo.Parts.load(folder / name)
        assert parts.names == ("top", "bottom") and parts.size == (height, width)
        assert np.array_equal(parts.labels, [[1 if row < height // 2 else 2] * width for row in range(height)])
        assert (again / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a/b.png", "a/b.png"),
        ("/data//b.png", "data/b.png"),
        ("..", "%2E%2E"),
        ("./../a%b", "%2E/%2E%2E/a%25b"),
        ("https://x/y?z", "https%3A/x/y%3Fz"),
        ("vögel\n", "vögel%0A"),
        ("/", "image"),
        ("ä" * 300, "ä" * 100),
    ],
)
def test_keys_are_paths_inside_the_shard(key, name):
    assert file_name(key) == name


@pytest.mark.parametrize("form", ["coco", "index-png"])
def test_features_cannot_be_written_as_parts(form, images, tmp_path):
    with pytest.raises(UsageError, match=f"form='{form}' is for parts, not for features"):
        partzoo.write_collection(images, partzoo.ExtractFeatures("toy-vit"), tmp_path / "out", form=form)
    assert not (tmp_path / "out").exists()


def test_an_empty_shard_of_every_format(rows, tmp_path):
    for form in FORMATS:
        written(form, tmp_path / form, rows[:0])
    assert list((tmp_path / "index-png").iterdir()) == []
    assert json.loads((tmp_path / "coco").read_text())["images"] == []
