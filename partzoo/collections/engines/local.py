"""The engine of one machine: in this process, or in several processes of which each makes whole shards."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection

from partzoo.collections.shards import Shard, Work
from partzoo.errors import PartzooError
from partzoo.system.cores import usable_cores

_work: Work  # of a worker process


def run(work: Work, numbers: Sequence[int], workers: int) -> Generator[Shard, None, None]:
    """Make shards, and yield each when it has been written.

    With several workers, each has a copy of the model and its share of the processors. They end with this process, no
    matter how it ends.

    Raises:
        PartzooError: a worker was killed, or a shard cannot be written.
    """
    if workers == 1:
        yield from map(work.make, numbers)
        return
    context = multiprocessing.get_context("spawn")
    lifeline, held = context.Pipe(duplex=False)
    threads = max(1, usable_cores() // workers)
    pool = ProcessPoolExecutor(workers, context, _begin, (work, threads, lifeline))
    try:
        waiting: set[Future[Shard]] = set()
        left = iter(numbers)
        while True:
            for number in left:
                waiting.add(pool.submit(_make, number))
                if len(waiting) > workers:  # one more than are at work, so that none waits for this process
                    break
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise PartzooError(
            "A worker ended, killed or for lack of memory: run the same command again, which continues."
        ) from error
    finally:
        held.close()  # the workers end at once, also one that waits for a lock of the pool that a killed one held
        pool.shutdown(cancel_futures=True)


def _begin(work: Work, threads: int, lifeline: Connection) -> None:
    global _work
    _work = work
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for torch, if it is imported with the stage's model
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    """End this process when the first one closes its side of the pipe, or has ended in any way."""
    try:
        lifeline.recv()
    except EOFError:
        pass
    os._exit(1)


def _make(number: int) -> Shard:
    return _work.make(number)
