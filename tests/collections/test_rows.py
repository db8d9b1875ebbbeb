"""Rows of Python as a source: lists of dicts, streams, and datasets of the datasets library."""

import io
import pickle
import random

import numpy as np
import pytest
from helpers.image_sets import encoded
from helpers.plain_stages import Means
from PIL import Image

from partzoo.collections.fitting import drawn
from partzoo.collections.run import write_collection
from partzoo.collections.sources import Record, open_source
from partzoo.errors import UsageError

pq = pytest.importorskip("pyarrow.parquet")

COUNT = 10


class Stream:
    """Rows that are read from the beginning each time, in a fixed order or in one that a seed shuffles."""

    def __init__(self, rows, seed=None):
        self.rows, self.seed, self.yielded = rows, seed, 0

    def __iter__(self):
        for row in random.Random(self.seed).sample(self.rows, len(self.rows)) if self.seed else self.rows:
            self.yielded += 1
            yield row


@pytest.fixture(scope="module")
def data():
    return [encoded(number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def named(data):
    return [{"id": f"{number}.png", "label": 0, "image": each} for number, each in enumerate(data)]


@pytest.fixture(scope="module")
def unnamed(data):
    return [{"image": {"bytes": each, "path": None}} for each in data]


@pytest.mark.parametrize("kind", [list, Stream])
def test_rows_are_read_in_order_from_any_number_on(kind, named, unnamed, data):
    for rows, keys in ((named, [row["id"] for row in named]), (unnamed, list(map(str, range(COUNT))))):
        source = open_source(kind(rows))
        assert len(source) == COUNT and list(source.keys()) == keys
        records = list(source.records())
        assert records == [Record(key, each) for key, each in zip(keys, data, strict=True)]
        for start, stop in ((3, 5), (5, 7), (9, 99), (0, 2), (50, 60), (0, 3), (4, 4)):
            assert list(source.records(start, stop)) == records[start:stop]
        one, two = source.records(2), source.records(1)
        assert [next(one), next(two), next(one), next(two)] == [records[i] for i in (2, 1, 3, 2)]
        assert list(pickle.loads(pickle.dumps(source)).records(8)) == records[8:]
        assert drawn(source, 3) == [records[int(key.removesuffix(".png"))] for key, _ in drawn(open_source(rows), 3)]


def test_a_stream_is_read_once_to_list_it_and_once_for_the_shards(named, tmp_path):
    rows = Stream(named)
    write_collection(rows, Means("toy-vit"), tmp_path / "out", per_shard=3)
    assert rows.yielded == 1 + 2 * COUNT  # the first one shows the columns
    found = pq.read_table(tmp_path / "out" / "features")
    assert found["key"].to_pylist() == [row["id"] for row in named]


def test_paths_images_and_arrays(tmp_path, data):
    (tmp_path / "0.png").write_bytes(data[0])
    pixels = np.asarray(Image.open(io.BytesIO(data[0])))
    images = [str(tmp_path / "0.png"), tmp_path / "0.png", (tmp_path / "0.png").as_uri(), pixels]
    images += [Image.fromarray(pixels), {"bytes": None, "path": str(tmp_path / "0.png")}]
    write_collection([{"image": each} for each in images], Means("toy-vit"), tmp_path / "out")
    assert len({tuple(row["pooled"]) for row in pq.read_table(tmp_path / "out" / "features").to_pylist()}) == 1


def test_a_stream_that_is_shuffled_anew_is_not_resumed(named, unnamed, tmp_path):
    """Resuming it would repeat images and lose others, as a resumed stream of the datasets library does."""
    for rows in (named, unnamed):
        out = tmp_path / str(len(rows[0]))
        write_collection(Stream(rows, seed=1), Means("toy-vit"), out, per_shard=3)
        (out / "features" / "000001.parquet").unlink()
        with pytest.raises(UsageError, match=r"source's keys was sha256:\w+\.\.\., is"):
            write_collection(Stream(rows, seed=2), Means("toy-vit"), out, per_shard=3)
        write_collection(Stream(rows, seed=1), Means("toy-vit"), out, per_shard=3)
        assert pq.read_table(out / "features").num_rows == COUNT


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((row for row in [{"image": b""}]), "can be read only once"),
        ([], "there are none"),
        ([1, 2], "the first is of the type int"),
        ([{"label": 1, "pixels": 2}], r"no column of images \(label, pixels\)"),
        ({"image": [b""]}, "not of the type dict"),
        (3, "not of the type int"),
    ],
)
def test_what_is_no_collection_is_one_sentence(rows, message):
    with pytest.raises(UsageError, match=message):
        open_source(rows)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("key", [False, True])
def test_datasets_of_the_datasets_library(streamed, key, data, tmp_path):
    datasets = pytest.importorskip("datasets")
    columns = {"image": [{"bytes": each, "path": None} for each in data]} | ({"id": list("abcdefghij")} if key else {})
    features = datasets.Features({"image": datasets.Image()} | ({"id": datasets.Value("string")} if key else {}))
    rows = datasets.Dataset.from_dict(columns, features=features)
    source = open_source(rows.to_iterable_dataset(num_shards=2) if streamed else rows)
    keys = "abcdefghij" if key else map(str, range(COUNT))
    assert list(source.records()) == [Record(name, each) for name, each in zip(keys, data, strict=True)]
    assert list(pickle.loads(pickle.dumps(source)).records(7, 9)) == list(source.records(7, 9))
    fixed = rows.to_iterable_dataset() if streamed else rows
    shuffled = [open_source(fixed.shuffle(seed=seed)).digest() for seed in (1, 1, 2)]
    assert shuffled[0] == shuffled[1] != shuffled[2]
