"""Read images and work on them in threads, in order, while their pixels take a bounded number of bytes."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Condition
from typing import TypeVar

from partzoo.errors import PartzooError, UsageError
from partzoo.images.decoding import admit
from partzoo.system.cores import keep_to_one_thread, one_library_thread
from partzoo.system.memory import kept_memory

AHEAD = 8  # images that are in work or wait for their turn
AHEAD_BYTES = 2**28  # beside one image that may be larger

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]
PassOver = Callable[[int, PartzooError], None]  # called with the index of an unreadable image and its error


def read_ahead(
    read: Callable[[int], Item],
    order: Sequence[int],
    count: int = AHEAD,
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
    return _ahead(lambda turn: read(order[turn]), len(order), count, progress, threads)


def work_ahead(
    read: Callable[[int], Item],
    work: Callable[[int, Item], Result],
    order: Sequence[int],
    count: int = AHEAD,
    progress: Progress | None = None,
    pass_over: PassOver | None = None,
    *,
    threads: int = 1,
    one_by_one: bool = False,
) -> Generator[tuple[int, Result]]:
    """Yield ``index, work(index, read(index))`` for each index in ``order``, with as many of them in work as threads.

    With several threads, torch has one for each of them, so that results do not depend on their number.

    Args:
        read: function that opens an image with this index.
        work: function of the index and what was read, which runs in the same thread.
        order, count, progress: as for :func:`read_ahead`.
        pass_over: function that is called in this thread, in order, for each index that cannot be read, which is then
            left out; None raises the error. Errors of ``work`` are raised.
        threads: number of threads, at most ``count``.
        one_by_one: whether images are read one after the other, in order, as the frames of a video.

    Raises:
        UsageError: ``count`` is below 1.
    """
    reading = _Queue()

    def one(turn: int) -> _Failed | Result:
        index = order[turn]
        with reading.turn(turn) if one_by_one else contextlib.nullcontext():
            try:
                item = read(index)
            except PartzooError as error:
                if pass_over is None:
                    raise
                return _Failed(error)
        return work(index, item)

    shared = min(threads, len(order), count) > 1
    many = kept_memory() if len(order) > 1 else contextlib.nullcontext()
    with many, one_library_thread() if shared else contextlib.nullcontext():
        begin = keep_to_one_thread if shared else None
        # Closed at once if there is an error, so that no thread writes files while the caller clears up.
        with contextlib.closing(_ahead(one, len(order), count, progress, threads, begin)) as found:
            for index, result in zip(order, found, strict=True):
                if not isinstance(result, _Failed):
                    yield index, result
                elif pass_over is not None:
                    pass_over(index, result.error)
                del result  # before the next image is decoded


@dataclass(frozen=True)
class _Failed:
    error: PartzooError


def _ahead(
    one: Callable[[int], Item],
    total: int,
    count: int,
    progress: Progress | None,
    threads: int | None,
    begin: Callable[[], None] | None = None,
) -> Generator[Item]:
    """Yield ``one(turn)`` for each turn, while threads, each of which calls ``begin`` first, are ahead."""
    if count < 1:
        raise UsageError(f"batch_size={count} must be at least 1.")
    if total == 1:
        yield one(0)
        if progress:
            progress(1, 1)
        return
    room = _Room(AHEAD_BYTES)

    def admitted(turn: int) -> Item:
        token = admit.set(partial(room.enter, turn))
        try:
            return one(turn)
        finally:
            admit.reset(token)

    with ThreadPoolExecutor(1 if count == 1 else threads, initializer=begin) as pool:
        waiting: deque[Future[Item]] = deque()
        try:
            for done in range(total):
                for turn in range(done + len(waiting), min(done + count, total)):
                    waiting.append(pool.submit(admitted, turn))
                yield waiting.popleft().result()
                room.leave(done)
                if progress:
                    progress(done + 1, total)
        finally:
            room.limit = math.inf
            room.leave(total)
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


class _Queue:
    """A queue of turns, of which the first may do something while the others wait."""

    def __init__(self) -> None:
        self._first = 0
        self._changed = Condition()

    @contextlib.contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """Wait for a turn, and give it to the next at the end of the block."""
        with self._changed:
            self._changed.wait_for(lambda: number == self._first)
        try:
            yield
        finally:
            with self._changed:
                self._first = number + 1
                self._changed.notify_all()
