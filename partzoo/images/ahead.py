"""Read images ahead in threads, while the pixels that wait or are being decoded take a bounded number of bytes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Condition
from typing import TypeVar

from partzoo.errors import UsageError
from partzoo.images.decoding import admit

AHEAD_BYTES = 2**28  # beside one image that may be larger

Item = TypeVar("Item")
Progress = Callable[[int, int], None]


def read_ahead(
    read: Callable[[int], Item],
    order: Sequence[int],
    count: int,
    progress: Progress | None = None,
    threads: int | None = 2,
) -> Iterator[Item]:
    """Yield ``read(index)`` for each index in ``order``, while threads read ahead.

    Args:
        read: function that opens an image with this index, or several.
        order: the indices.
        count: largest number of indices that are read and not yet left behind. There are fewer if their images have
            more than :data:`AHEAD_BYTES` when decoded.
        progress: function that is called with the number of indices that are done and the total.
        threads: number of threads; None chooses one by the number of processors.

    Raises:
        UsageError: ``count`` is below 1.
    """
    if count < 1:
        raise UsageError(f"batch_size={count} must be at least 1.")
    if len(order) == 1:
        yield read(order[0])
        if progress:
            progress(1, 1)
        return
    room = _Room(AHEAD_BYTES)

    def one(turn: int) -> Item:
        token = admit.set(partial(room.enter, turn))
        try:
            return read(order[turn])
        finally:
            admit.reset(token)

    with ThreadPoolExecutor(1 if count == 1 else threads) as pool:
        waiting: deque[Future[Item]] = deque()
        try:
            for done in range(len(order)):
                for turn in range(done + len(waiting), min(done + count, len(order))):
                    waiting.append(pool.submit(one, turn))
                yield waiting.popleft().result()
                room.leave(done)
                if progress:
                    progress(done + 1, len(order))
        finally:
            room.limit = math.inf
            room.leave(len(order))
            for future in waiting:
                future.cancel()


class _Room:
    """Room for a number of bytes, which turns take in order: the first one is always let in, so that none waits for it.

    Args:
        limit: number of bytes.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._first = 0
        self._held: dict[int, int] = {}
        self._changed = Condition()

    def enter(self, turn: int, size: int) -> None:
        """Take room for a turn, as soon as there is enough."""
        with self._changed:
            self._changed.wait_for(lambda: turn <= self._first or sum(self._held.values()) + size <= self.limit)
            self._held[turn] = self._held.get(turn, 0) + size

    def leave(self, turn: int) -> None:
        """Give back the room of a turn; the next one is the first now."""
        with self._changed:
            self._held.pop(turn, None)
            self._first = turn + 1
            self._changed.notify_all()
