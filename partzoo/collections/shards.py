"""Make one shard of a result: the unit that is made anywhere, written at once, and skipped when a run is resumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from partzoo.collections.sinks import sink_of
from partzoo.errors import PartzooError, cause_of

if TYPE_CHECKING:
    import pyarrow

    from partzoo.collections.destinations import Destination
    from partzoo.collections.sources import Source
    from partzoo.collections.stages import Stage

BATCH = 16  # images in memory as encoded bytes


@dataclass(frozen=True)
class Shard:
    """A shard that has been written.

    Attributes:
        number: its number in the result, from 0.
        file: name of its file, or folder of files, in the result.
        images: number of images that were read for it.
        rows: number of rows it holds: of images that could be read.
        bytes: size of the file, or of all files in the folder.
        sha256: digest; see :meth:`partzoo.collections.destinations.Destination.measured`.
        failures: key of each image that could not be read, and the reason.
    """

    number: int
    file: str
    images: int
    rows: int
    bytes: int
    sha256: str
    failures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Work:
    """All that a worker needs to make any shard of a result.

    Attributes:
        source: the images.
        stage: what is computed of them.
        form: name of the shards' format.
        place: place of the result.
        per_shard: number of images of each shard; the last has the rest.
    """

    source: Source
    stage: Stage
    form: str
    place: Destination
    per_shard: int

    @property
    def count(self) -> int:
        """Number of shards."""
        return -(-len(self.source) // self.per_shard)

    def file(self, number: int) -> str:
        """Return the name of a shard in the result, which depends on its number only.

        Shards have a folder of their own, since readers of a folder of Parquet read all files in it.
        """
        return f"{self.stage.name}/{number:06}{sink_of(self.form).ending}"

    def make(self, number: int) -> Shard:
        """Compute and write a shard; a shard that is there already is replaced at the end.

        Raises:
            PartzooError: the file cannot be written.
        """
        file, sink, images, rows, failures = self.file(number), sink_of(self.form), 0, 0, []
        schema = self.stage.schema.remove(self.stage.schema.get_field_index("error"))
        try:
            with self.place.aside(file, folder=sink.folder) as path, sink.writer(path, schema) as add:
                for table in self._tables(number):
                    failed = table.filter(table["error"].is_valid())
                    failures += [(row["key"], row["error"]) for row in failed.select(["key", "error"]).to_pylist()]
                    good = table.filter(table["error"].is_null()).drop_columns(["error"])
                    images, rows = images + len(table), rows + len(good)
                    add(good)
        except OSError as error:
            raise PartzooError(f"Cannot write {self.place.at(file)!r}: {cause_of(error)}.") from error
        return Shard(number, file, images, rows, *self.place.measured(file), tuple(failures))

    def _tables(self, number: int) -> Iterator[pyarrow.Table]:
        start = number * self.per_shard
        records = self.source.records(start, start + self.per_shard)
        while several := list(islice(records, BATCH)):
            keys, images = zip(*several, strict=True)
            yield self.stage({self.stage.key: keys, self.stage.image: images})
