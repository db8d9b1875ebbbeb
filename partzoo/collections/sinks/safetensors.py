"""Shards as safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from partzoo.collections.sinks import Sink
from partzoo.weights.tensors import save_streamed

if TYPE_CHECKING:
    import pyarrow

FORMAT = "1"  # version of the layout


class Safetensors(Sink):
    """Safetensors files with a tensor for each column of numbers, which hold a whole shard in memory.

    A list of any length, such as ``parts``, becomes its entries one after the other and ``parts.offsets``: the entries
    of row i are those from ``offsets[i]`` to ``offsets[i + 1]``. Fields have a dot: ``parts.area``. Texts become their
    bytes in UTF-8, with offsets; the keys are also in the metadata, as JSON.
    """

    ending = ".safetensors"

    @contextmanager
    def writer(self, path: Path, schema: pyarrow.Schema) -> Iterator[Callable[[pyarrow.Table], None]]:
        import pyarrow as pa

        tables = [schema.empty_table()]
        yield tables.append
        table = pa.concat_tables(tables).combine_chunks()
        arrays: dict[str, np.ndarray] = {}
        for name in table.column_names:
            column = table[name]
            array = column.chunk(0) if column.num_chunks else pa.array([], column.type)
            arrays |= _arrays(name, array)
        about = {name: (values.dtype, values.shape) for name, values in arrays.items()}
        metadata = {"partzoo_collection": FORMAT, "keys": json.dumps(table["key"].to_pylist())}
        save_streamed(path, about, arrays.__getitem__, metadata)


def _arrays(name: str, array: Any) -> dict[str, np.ndarray]:
    """Return the arrays that hold an Arrow array without nulls."""
    from pyarrow import types

    kind = array.type
    if types.is_fixed_size_list(kind):
        inner = array.flatten()
        values = inner.to_numpy(zero_copy_only=False)
        return {name: values.reshape(len(array), kind.list_size)}
    if types.is_list(kind):
        offsets = array.offsets.to_numpy().astype(np.int64)
        return _arrays(name, array.flatten()) | {f"{name}.offsets": offsets - offsets[0]}
    if types.is_struct(kind):
        fields = [kind.field(i).name for i in range(kind.num_fields)]
        found = zip(fields, array.flatten(), strict=True)
        return {key: value for field, each in found for key, value in _arrays(f"{name}.{field}", each).items()}
    if types.is_string(kind):
        texts = [text.encode() for text in array.to_pylist()]
        offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        return {name: np.frombuffer(b"".join(texts), np.uint8), f"{name}.offsets": offsets}
    return {name: array.to_numpy(zero_copy_only=False)}
