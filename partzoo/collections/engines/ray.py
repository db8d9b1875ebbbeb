"""The engine of many machines: Ray Data schedules shards as the rows of a dataset, and retries those of lost workers.

The workers write into the folder of the result, so on several machines that is one of a file system they share.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from partzoo.collections.shards import Shard, Work
from partzoo.errors import PartzooError, cause_of, require

WINDOW = 1000  # shards that Ray holds in its plan at a time
# Ray's own lines would stand between ours; nothing is reported to its makers. On a cluster that is started for the run,
# workers have the driver's priority: with Ray's niceness of 15 they hardly get any time on a busy machine.
DEFAULTS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_LOG_LEVEL": "ERROR", "RAY_worker_niceness": "0"}


class Maker:
    """An actor that makes shards with one copy of the model.

    Args:
        work: what the shards are made of.
    """

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the shards with the numbers of a batch; return what was made of each, a shard or an error, pickled."""
        return {"made": [pickle.dumps(self._made(int(number))) for number in batch["number"]]}

    def _made(self, number: int) -> Shard | PartzooError:
        """Make a shard; errors of ours are no reason for Ray to try again, and would lose their class on the way."""
        try:
            return self._work.make(number)
        except PartzooError as error:
            return error


def run(work: Work, numbers: Sequence[int], workers: int) -> Generator[Shard, None, None]:
    """Make shards with actors of Ray Data, and yield each when it has been written.

    They run on the cluster of ``RAY_ADDRESS``, on one that runs on this machine, or on one that is started for the run.

    Args:
        work: what the shards are made of.
        numbers: numbers of the shards.
        workers: number of actors, each of which takes one processor.

    Raises:
        MissingExtraError: ray is not installed.
        PartzooError: a shard cannot be written.
    """
    for name, value in DEFAULTS.items():  # the level is read when ray.data is imported
        os.environ.setdefault(name, value)
    data = require("ray.data", "ray")
    with _connected():
        for start in range(0, len(numbers), WINDOW):
            window = [{"number": number} for number in numbers[start : start + WINDOW]]
            made = data.from_items(window, override_num_blocks=len(window)).map_batches(
                Maker,
                fn_constructor_args=(work,),
                batch_size=1,
                compute=data.ActorPoolStrategy(size=workers),
                num_cpus=1,
            )
            for row in _rows(made):
                found = pickle.loads(row["made"])
                if isinstance(found, PartzooError):
                    raise found
                yield found


def _rows(made: Any) -> Iterator[dict[str, Any]]:
    from ray.exceptions import RayError

    try:
        yield from made.iter_rows()
    except RayError as error:
        raise PartzooError(
            f"Ray could not make a shard ({cause_of(error)}): run the same command again, which continues."
        ) from error


@contextmanager
def _connected() -> Iterator[None]:
    """Connect to a cluster for a block, unless this process is connected; no usage is reported to Ray's makers."""
    import ray
    from ray.data import DataContext

    new = not ray.is_initialized()
    if new:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    context = DataContext.get_current()
    bars, context.enable_progress_bars = context.enable_progress_bars, False
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        if new:
            ray.shutdown()
