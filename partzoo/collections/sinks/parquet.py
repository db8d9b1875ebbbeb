"""Shards as Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from partzoo.collections.sinks import Sink

if TYPE_CHECKING:
    import pyarrow

GROUP_ROWS = 128  # rows in memory before they are written: dense features take about a megabyte each


class Parquet(Sink):
    """Parquet files, compressed with zstd, in groups of :data:`GROUP_ROWS` rows."""

    ending = ".parquet"

    @contextmanager
    def writer(self, path: Path, schema: pyarrow.Schema) -> Iterator[Callable[[pyarrow.Table], None]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        waiting = schema.empty_table()
        options = {"compression": "zstd", "use_dictionary": False}  # hardly any value occurs twice
        with pq.ParquetWriter(path, schema, **options) as file:

            def add(table: pyarrow.Table) -> None:
                nonlocal waiting
                waiting = pa.concat_tables([waiting, table])
                while len(waiting) >= GROUP_ROWS:
                    file.write_table(waiting[:GROUP_ROWS].combine_chunks())
                    waiting = waiting[GROUP_ROWS:]

            yield add
            if len(waiting):
                file.write_table(waiting.combine_chunks())
