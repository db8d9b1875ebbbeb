"""Keep what the networks found in each image, so that they run on it only once."""

from __future__ import annotations

import contextlib
import pickle
import tempfile
import threading
import weakref
from typing import Any, BinaryIO

KEPT_BYTES = 2**25  # in memory, for which a few images need no file
SPILLED_BYTES = 2**31  # in a temporary file, once the memory is full


class Kept:
    """Network outputs of each image, kept from fitting to labelling.

    They are kept exactly, so labels do not depend on whether they were, in memory while there are at most
    :data:`KEPT_BYTES` of them, and then in a temporary file, up to :data:`SPILLED_BYTES`. The networks run again on the
    other images, also if the file cannot be written. Where the system allows it, the file has no name, so it ends with
    the process, however that ends. Threads may share one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[int, Any] = {}
        self._room = KEPT_BYTES
        self._file: BinaryIO | None = None
        self._places: dict[int, tuple[int, int]] = {}
        self._end = 0

    def add(self, index: int, encoded: Any) -> None:
        """Keep the result of :meth:`partzoo.discovery.labeller.Labeller.kept`, if it is not None and there is room."""
        if encoded is None:
            return
        with self._lock:
            if encoded.bytes <= self._room:
                self._found[index] = encoded
                self._room -= encoded.bytes
                return
            if self._end + encoded.bytes > SPILLED_BYTES:
                return
        data = pickle.dumps(encoded, pickle.HIGHEST_PROTOCOL)
        with self._lock, contextlib.suppress(OSError):  # the disk is full, or there is no folder for such files
            self._write(index, data)

    def pop(self, index: int) -> Any:
        """Remove and return what was kept for an image, or None."""
        with self._lock:
            if (found := self._found.pop(index, None)) is not None or self._file is None:
                return found
            start, size = self._places.pop(index, (0, 0))
            try:
                self._file.seek(start)
                data = self._file.read(size)
            except OSError:
                return None
        return pickle.loads(data) if size and len(data) == size else None

    def _write(self, index: int, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="partzoo-", buffering=0)  # type: ignore[assignment]
            weakref.finalize(self, self._file.close)
        self._file.seek(self._end)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        self._places[index] = self._end, len(data)
        self._end += len(data)
