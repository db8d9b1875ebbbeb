"""Write the rows of a collection in shards, with any stage, sink and engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any

from partzoo.collections.destinations import destination_of
from partzoo.collections.engines import engine_of
from partzoo.collections.manifest import Ledger, Manifest
from partzoo.collections.shards import Work
from partzoo.collections.sinks import sink_of
from partzoo.collections.sources import Source, open_source
from partzoo.collections.stages import Stage
from partzoo.collections.storage import scheme_of
from partzoo.errors import ImageError, UsageError
from partzoo.skipping import named

PER_SHARD = 1000

Progress = Callable[[int, int], None]


def write_collection(
    source: str | os.PathLike | Source | Iterable[Mapping[str, Any]],
    stage: Stage,
    out: str | os.PathLike,
    *,
    form: str = "parquet",
    per_shard: int = PER_SHARD,
    engine: str = "local",
    workers: int = 1,
    resume: bool | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Compute a stage for every image of a collection, and write the rows in shards with a manifest.

    A run can be killed at any moment: the same call continues it, making the shards that were not finished, and its
    result equals that of an undisturbed run, byte for byte, whatever the engine and the number of workers.

    Args:
        source: the images; see :func:`partzoo.collections.sources.open_source`.
        stage: what is computed, such as :class:`partzoo.ExtractFeatures`.
        out: folder for the shards, on this machine or of a file system that all workers share, or an address of fsspec
            (``s3://``, ``gs://``).
        form: format of the shards, ``"parquet"`` or ``"safetensors"``, and for parts also ``"coco"`` or
            ``"index-png"``.
        per_shard: number of images of each shard.
        engine: ``"local"``, or ``"ray"`` for Ray Data.
        workers: number of processes that make shards.
        resume: whether to continue an earlier run; None continues it if there is one, False starts over.
        strict: whether to stop after the first shard that has an image that could not be read.
        progress: function that is called with the number of finished shards and the total.

    Returns:
        The manifest; its ``failures`` are the images that could not be read.

    Raises:
        UsageError: an argument is invalid, or ``out`` holds a result of other settings.
        ImageError: an image cannot be read, and ``strict`` is set.
        PartzooError: a shard cannot be written, or a worker was killed.
    """
    if per_shard < 1 or workers < 1:
        raise UsageError(f"per_shard={per_shard} and workers={workers} must be at least 1.")
    run, sink = engine_of(engine), sink_of(form)
    if sink.stage not in (None, stage.name):
        raise UsageError(f"form={form!r} is for {sink.stage}, not for {stage.name}: choose another.")
    place, opened = destination_of(out), open_source(source)
    _check_place(place.address, opened.address, alone=engine == "local" and workers == 1)
    about = {"address": opened.address, "images": len(opened), "keys": f"sha256:{opened.digest()}"}
    settings = {"source": about, **stage.settings(), "form": form, "per_shard": per_shard}
    with place.held(), Ledger(place, settings, resume=resume) as ledger:
        work = Work(opened, stage, form, place, per_shard)
        left = [number for number in range(work.count) if number not in ledger.before]
        with closing(run(work, left, min(workers, len(left) or 1))) as shards:
            for done, shard in enumerate(shards, work.count - len(left) + 1):
                if strict and shard.failures:
                    raise ImageError(named(*shard.failures[0]))
                ledger.add(shard)
                if progress:
                    progress(done, work.count)
        return ledger.finish()


def _check_place(out: str, source: str, *, alone: bool) -> None:
    """Refuse a place in the folder of the images, or in the memory of one process if others make shards."""
    if scheme_of(out) == "memory" and not alone:
        raise UsageError(f"{out} is in the memory of one process, and others make the shards: choose another place.")
    if scheme_of(out) or scheme_of(source) or not os.path.isdir(source):
        return
    if os.path.commonpath([os.path.realpath(source), os.path.realpath(out)]) == os.path.realpath(source):
        raise UsageError(
            f"{out} lies in the folder of the images, where label maps would count as images: choose another folder."
        )
