"""Formats of shards: the same bytes however the rows arrive, in a bounded amount of memory."""

import hashlib

import numpy as np
import pytest

from partzoo.collections.sinks import FORMATS, sink_of
from partzoo.errors import UsageError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table(rows, channels=8):
    """Return a table of features."""
    values = np.random.default_rng(0).random((rows, channels), np.float32)
    pooled = pa.FixedSizeListArray.from_arrays(values.ravel(), channels)
    return pa.table({"key": [str(number) for number in range(rows)], "pooled": pooled})


@pytest.mark.parametrize("form", FORMATS)
def test_the_division_of_rows_among_calls_does_not_change_a_byte(form, tmp_path):
    whole, digests = table(300), set()
    for number, step in enumerate((300, 1, 7, 128, 299)):
        file = tmp_path / f"{number}{sink_of(form).ending}"
        with sink_of(form).writer(file, whole.schema) as add:
            for start in range(0, 300, step):
                add(whole[start : start + step])
        digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_a_shard_without_rows_and_one_that_fails(form, tmp_path):
    file = tmp_path / f"0{sink_of(form).ending}"
    with sink_of(form).writer(file, table(1).schema):
        pass
    assert file.exists() and (form != "parquet" or pq.read_table(file).schema == table(1).schema)
    file.unlink()
    with pytest.raises(ZeroDivisionError), sink_of(form).writer(file, table(1).schema) as add:
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
    with pytest.raises(UsageError, match="parquet, safetensors"):
        sink_of("hdf5")
