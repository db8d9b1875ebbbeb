"""Shards are read by other libraries as docs/collections.md says, and hold in every format the same."""

import itertools

import numpy as np
import pytest

import partzoo
from partzoo.collections.run import write_collection
from partzoo.weights.tensors import read_tensors

pa = pytest.importorskip("pyarrow")
coco = pytest.importorskip("pycocotools.mask")
pq = pytest.importorskip("pyarrow.parquet")

MODEL = "toy-vit"


@pytest.fixture(scope="module")
def results(images, tmp_path_factory):
    """Features, dense features and parts of the images, as Parquet and as safetensors."""
    place = tmp_path_factory.mktemp("readers")
    words = partzoo.fit_parts(images, 3, model=MODEL, background="none")
    for name, stage in (
        ("pooled", partzoo.ExtractFeatures(MODEL)),
        ("dense", partzoo.ExtractFeatures(MODEL, dense=True)),
        ("parts", partzoo.DiscoverParts(words)),
    ):
        for form in ("parquet", "safetensors"):
            write_collection(images, stage, place / name / form, form=form, per_shard=4)
    return place


@pytest.fixture(scope="module")
def pooled(images):
    return {file.relative_to(images).as_posix(): partzoo.extract_features(file, model=MODEL).pooled
            for file in sorted(images.rglob("[0-9].png"))}  # fmt: skip


def test_pyarrow(results, pooled):
    table = pq.read_table(results / "pooled" / "parquet" / "features", filters=[("key", "=", "a/2.png")])
    assert np.array_equal(np.stack(table["pooled"].to_numpy()), [pooled["a/2.png"]])
    column = pq.read_table(results / "pooled" / "parquet" / "features")["pooled"].combine_chunks()
    assert np.array_equal(column.flatten().to_numpy().reshape(len(column), -1), list(pooled.values()))


def test_pandas(results, pooled):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(results / "pooled" / "parquet" / "features")
    assert frame["key"].tolist() == list(pooled)
    assert np.array_equal(np.stack(frame["pooled"]), list(pooled.values()))
    parts = pandas.read_parquet(results / "parts" / "parquet" / "parts").explode("parts")
    rows = pandas.json_normalize(parts["parts"].tolist())
    assert rows["area"].sum() == 6 * 24 * 32


def test_duckdb(results, pooled):
    duckdb = pytest.importorskip("duckdb")
    files = f"{results}/pooled/parquet/features/*.parquet"
    width = len(pooled["a/0.png"])
    found = duckdb.sql(f"""
        with f as (select key, pooled::float[{width}] as v from '{files}')
        select b.key from f a, f b where a.key = 'a/0.png'
        order by array_cosine_distance(a.v, b.v), b.key
    """).fetchall()
    unit = {key: value / np.linalg.norm(value) for key, value in pooled.items()}
    expected = sorted(pooled, key=lambda key: (-float(unit["a/0.png"] @ unit[key]), key))
    assert [key for (key,) in found] == expected
    parts = f"{results}/parts/parquet/parts/*.parquet"
    total = duckdb.sql(f"select sum(p.area) from (select unnest(parts) as p from '{parts}')").fetchall()
    assert total == [(6 * 24 * 32,)]


def test_polars(results, pooled):
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(results / "pooled" / "parquet" / "features" / "*.parquet")
    assert np.array_equal(frame["pooled"].to_numpy(), list(pooled.values()))
    assert frame["pooled"].dtype.inner == polars.Float32
    parts = polars.read_parquet(results / "parts" / "parquet" / "parts" / "*.parquet").explode("parts").unnest("parts")
    assert parts["area"].sum() == 6 * 24 * 32


def test_float16_would_sum_to_infinity_in_polars_where_shards_do_not(tmp_path):
    polars = pytest.importorskip("polars")
    values = [60_000.0, 60_000.0]
    sums = {}
    for kind in (pa.float16(), pa.float32()):
        pq.write_table(pa.table({"x": pa.array(np.array(values, kind.to_pandas_dtype()))}), tmp_path / "x.parquet")
        sums[str(kind)] = polars.read_parquet(tmp_path / "x.parquet")["x"].sum()
    assert sums["float"] == 120_000 and sums["halffloat"] == np.inf


def test_safetensors_hold_the_same_as_parquet(results):
    for name in ("pooled", "dense", "parts"):
        for number in range(2):
            kind = "parts" if name == "parts" else "features"
            table = pq.read_table(results / name / "parquet" / kind / f"{number:06}.parquet")
            tensors, _ = read_tensors(results / name / "safetensors" / kind / f"{number:06}.safetensors")
            assert tensors["width"].tolist() == table["width"].to_pylist()
            if name == "parts":
                check_parts(tensors, table)
            else:
                assert tensors["pooled"].numpy().tolist() == table["pooled"].to_pylist()
            if name == "dense":
                ends = tensors["dense.offsets"].tolist()
                found = [tensors["dense"][a:b].tolist() for a, b in itertools.pairwise(ends)]
                assert found == table["dense"].to_pylist()


def check_parts(tensors, table):
    ends, texts = tensors["parts.offsets"].tolist(), tensors["parts.rle.offsets"].tolist()
    data = tensors["parts.rle"].numpy().tobytes()
    for row, (first, last) in zip(table.to_pylist(), itertools.pairwise(ends), strict=True):
        assert [part["rle"] for part in row["parts"]] == [
            data[texts[place] : texts[place + 1]].decode() for place in range(first, last)
        ]
        for name in ("part", "area", "box", "centroid", "confidence", "descriptor"):
            assert tensors[f"parts.{name}"][first:last].tolist() == [part[name] for part in row["parts"]]
