"""Cut training windows from the recordings of PhysioNet's 2018 challenge or from a folder of EDF files.

Filtering a night takes seconds, so each is prepared once and kept as float16 in a cache on disk, from which windows are
read on demand: a thousand nights need not fit into memory.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from partzoo.data.image_sets import Examples
from partzoo.errors import PartzooError, UsageError, cause_of, restated
from partzoo.evaluate.protocols.physionet import CHANNELS, PHYSIONET_2018, Night
from partzoo.files import create_folder, expand_user, write_aside
from partzoo.images.finding import files_below
from partzoo.locks import remove_leftovers
from partzoo.signals.edf import read_edf, read_edf_header
from partzoo.signals.preparing import filtered, whole_windows
from partzoo.skipping import PassOver, warn_of
from partzoo.system.cores import usable_cores
from partzoo.train.recipe import DataRecord
from partzoo.weights.checked import cache_folder

AT_ONCE = 4  # number of nights prepared at once; each takes about a gigabyte
VERSION = "2"  # version of the preparation; nights in a cache of another version are prepared again


@dataclass(frozen=True)
class SignalOptions(DataRecord):
    """Options for reading recordings, and what a release's record states about the data.

    Attributes:
        layout: ``"physionet-2018"``, the challenge's folder, of which all subjects but the held-out ones are read, or
            ``"edf"``, all ``.edf`` files of a folder and its subfolders that hold more than annotations.
        held_out: number of subjects of ``"physionet-2018"`` that are kept for the test.
        channels: exact names of the channels in EDF files.
        cache: folder for prepared nights; empty means ``signals`` in partzoo's cache folder.
        limit: use at most this many windows, evenly spaced.
    """

    layout: Literal["physionet-2018", "edf"] = "physionet-2018"
    held_out: int = PHYSIONET_2018.test_subjects
    channels: tuple[str, ...] = CHANNELS
    cache: str = ""
    limit: int | None = None


class WindowSet(Examples):
    """Training windows from several nights.

    Args:
        nights: windows of each night, ``(n, C, T)`` floats, in memory or mapped from disk.
        labels: ``(N,)`` int64 over all nights, or None.
        classes: names of the labels.
        limit: use at most this many windows, evenly spaced.
    """

    def __init__(
        self,
        nights: Sequence[np.ndarray],
        labels: Tensor | None = None,
        classes: Sequence[str] = (),
        limit: int | None = None,
    ) -> None:
        self._nights = [night for night in nights if len(night)]
        self._ends = np.cumsum([len(night) for night in self._nights])
        total = int(self._ends[-1]) if self._nights else 0
        count = total if limit is None else min(limit, total)
        if not count:
            raise UsageError("This data has no whole window of 30 s. Give longer recordings.")
        self._chosen = np.arange(count) * total // count
        self.labels = None if labels is None else labels[torch.from_numpy(self._chosen)]
        self.classes = list(classes)

    def __len__(self) -> int:
        return len(self._chosen)

    def batch(self, indices: Tensor) -> Tensor:
        """Return the windows with these numbers, ``(B, C, T)`` float32."""
        places = self._chosen[indices.numpy()]
        found = []
        for place, night in zip(places, np.searchsorted(self._ends, places, side="right"), strict=True):
            windows = self._nights[night]
            found.append(windows[place - self._ends[night] + len(windows)])
        return torch.from_numpy(np.stack(found).astype(np.float32))


def read_windows(folder: str | Path, options: SignalOptions, *, progress: bool = True) -> WindowSet:
    """Read windows to pretrain on, without labels.

    Recordings that cannot be read, or lack a channel, are skipped and named in warnings.

    Raises:
        UsageError: the folder is not in this layout, or holds no recording that can be read.
    """
    folder = expand_user(folder)
    if options.layout == "edf":
        files = [file for file in files_below(folder) if file.suffix.lower() == ".edf"]
        if not files:
            raise UsageError(f"data={folder} has no .edf files. Give another folder, or data.layout.")
        files = [file for file in files if not _is_of_annotations(file)]
        if not files:
            raise UsageError(f"data={folder} holds no recordings: its .edf files contain only annotations.")
        read, key = (lambda file: _edf_windows(file, options.channels)), "|".join(options.channels)
    else:
        rules = replace(PHYSIONET_2018, test_subjects=options.held_out)
        files, read, key = rules.unlabelled(folder), rules.read_unlabelled, options.layout
    nights = prepared(files, lambda file: (read(file),), key, options.cache, progress=progress)
    return WindowSet([windows for (windows,) in nights.values()], limit=options.limit)


def _is_of_annotations(file: Path) -> bool:
    """Return whether a file is known to contain only annotations; a damaged file is noticed when it is read."""
    try:
        return not read_edf_header(file).signals
    except UsageError:
        return False


def _edf_windows(file: Path, channels: Sequence[str]) -> np.ndarray:
    """Read the windows of an EDF recording without a warning about gaps, since the windows' times do not matter."""
    signal, rate = read_edf(file, channels)
    try:
        return whole_windows(filtered(signal, rate), channels)
    except UsageError as error:
        raise type(error)(f"{file}: {error}") from error


def read_nights(
    records: Sequence[Path], cache: str | Path = "", *, progress: bool = True, pass_over: PassOver = warn_of
) -> list[Night]:
    """Read nights in PhysioNet's layout with their stages, from the cache if they were read before.

    Arguments and errors are those of :func:`prepared`.
    """

    def read(record: Path) -> tuple[np.ndarray, np.ndarray]:
        night = PHYSIONET_2018.read(record)
        return night.windows, night.stages

    found = prepared(records, read, "stages", cache, progress=progress, pass_over=pass_over)
    return [Night(record.name, *arrays) for record, arrays in found.items()]


def labelled(nights: Sequence[Night], classes: Sequence[str]) -> WindowSet:
    """Combine windows with their stages, to finetune on."""
    stages = np.concatenate([night.stages for night in nights])
    return WindowSet([night.windows for night in nights], torch.from_numpy(stages.astype(np.int64)), classes)


def prepared(
    files: Sequence[Path],
    read: Callable[[Path], tuple[np.ndarray, ...]],
    key: str,
    cache: str | Path = "",
    *,
    progress: bool = True,
    pass_over: PassOver = warn_of,
) -> dict[Path, tuple[np.ndarray, ...]]:
    """Return the arrays that ``read`` makes from files, kept on disk and mapped into memory, floats as float16.

    Args:
        files: recordings; a folder is identified by the files in it.
        read: function that makes the arrays of a file.
        key: description of everything the arrays depend on besides the file.
        cache: folder of the cache; empty means ``signals`` in partzoo's cache folder.
        progress: whether to show a bar.
        pass_over: function that is called for each recording that cannot be read, which is then skipped.

    Returns:
        The arrays of each file that can be read.

    Raises:
        UsageError: no file can be read.
        PartzooError: a night that is not in the cache cannot be written to it.
    """
    place = _cache_place(cache)

    def one(file: Path) -> tuple[np.ndarray, ...] | UsageError:
        try:
            with restated("", lambda error: UsageError(f"{file} cannot be read ({cause_of(error)}).")):
                stem = place / _digest(file, key)
                arrays = None if _kept(stem) else read(file)
        except UsageError as error:
            return error
        if arrays is not None:
            _keep(stem, arrays)
        return _kept(stem)

    with ThreadPoolExecutor(min(usable_cores(), AT_ONCE)) as pool:
        read_files = tqdm(pool.map(one, files), "recordings", len(files), disable=None if progress else True)
        found = dict(zip(files, read_files, strict=True))
    failed = {file: error for file, error in found.items() if isinstance(error, UsageError)}
    for file, error in failed.items():
        pass_over(str(file), error)
    if len(failed) == len(found):
        raise UsageError(f"None of the {len(files)} recordings can be read. Of the first: {failed[files[0]]}")
    return {file: arrays for file, arrays in found.items() if not isinstance(arrays, UsageError)}


def _cache_place(cache: str | Path) -> Path:
    """Return the folder of the cache, which is created if it does not exist."""
    place = expand_user(cache) if cache else cache_folder() / "signals"
    try:
        create_folder(place)
    except OSError as error:
        raise _not_kept(str(place), error.strerror or str(error)) from error
    # There is no lock: whoever prepares a recording writes the same, and each file is renamed when it is complete.
    remove_leftovers(place)
    return place


def _kept(stem: Path) -> tuple[np.ndarray, ...]:
    """Map the arrays of a recording from the cache; none if it is not there, or damaged and to be prepared again."""
    if not stem.with_suffix(".0.npy").exists():
        return ()
    numbers = range(len(list(stem.parent.glob(f"{stem.name}.*.npy"))))
    with contextlib.suppress(Exception):  # damaged files can raise errors of any type
        return tuple(np.load(stem.with_suffix(f".{number}.npy"), mmap_mode="r") for number in numbers)
    return ()


def _keep(stem: Path, arrays: Sequence[np.ndarray]) -> None:
    """Write arrays to the cache, the first one last, so that all others exist if the first one does."""
    for number in reversed(range(len(arrays))):
        array = arrays[number]
        try:
            with write_aside(stem.with_suffix(f".{number}.npy")) as opened:
                # In the order of memory: NumPy writes any other array element by element.
                np.save(opened, np.ascontiguousarray(array, np.float16 if array.dtype.kind == "f" else array.dtype))
        except PartzooError as error:
            reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else None
            raise _not_kept(str(stem.parent), reason or str(error)) from error


def _not_kept(place: str, reason: str) -> PartzooError:
    return PartzooError(
        f"Prepared recordings cannot be kept in {place}: {reason.rstrip('.')}. Choose another folder with data.cache "
        "(for sleep stages with cache=), or set PARTZOO_CACHE."
    )


def _digest(file: Path, key: str) -> str:
    parts = sorted(file.iterdir()) if file.is_dir() else [file]
    marks = [f"{part.resolve()} {part.stat().st_size} {part.stat().st_mtime_ns}" for part in parts]
    return hashlib.sha256("\n".join([VERSION, key, *marks]).encode()).hexdigest()[:24]
