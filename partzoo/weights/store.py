"""Find, verify and download the files of released weights."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partzoo.errors import UnknownModelError, WeightsError
from partzoo.weights.checked import digest_of, sha256_of
from partzoo.weights.manifest import (
    BUNDLED,
    NAME,
    PACKAGE,
    VARIABLE,
    WeightFile,
    WeightRecord,
    checkpoint_folders,
    full_name,
    manifest,
)
from partzoo.weights.tensors import INDEX


@dataclass(frozen=True)
class Verified:
    """The result of :func:`verify` for one file.

    Attributes:
        record: name of the record.
        file: the file as recorded.
        path: path of the file; None if it is not on this machine.
        problem: description of the damage; "" if the file is undamaged or absent.
    """

    record: str
    file: WeightFile
    path: Path | None
    problem: str = ""

    @property
    def state(self) -> str:
        """State of the file: ``"ok"``, ``"damaged"`` or ``"absent"``."""
        return "absent" if self.path is None else "damaged" if self.problem else "ok"


def resolve(
    record: WeightRecord,
    *,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    revision: str | None = None,
    verify: bool = True,
) -> list[Path]:
    """Find the files of a record, download them if necessary, and check them against their sha256.

    Files are looked up in the package, in the folders of
    :func:`partzoo.weights.manifest.checkpoint_folders`, in the Hugging Face cache and on the Hub, in this order.

    Args:
        record: record of released weights, from :func:`manifest`.
        cache_dir: folder of the Hugging Face cache; None uses the default folder (HF_HOME).
        local_files_only: whether to forbid network requests, as HF_HUB_OFFLINE does.
        revision: revision of the Hub repository, instead of the recorded one; its files are not checked, because only
            the hashes of the recorded one are known.
        verify: whether to compare the files with their recorded sha256.

    Raises:
        WeightsError: a file cannot be found, or it is damaged.
    """
    paths = []
    for file in record.files:
        path = _find(record, file, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        if verify and revision is None:
            _check(record, file, path)
        paths.append(path)
    return paths


def _find(record: WeightRecord, file: WeightFile, *, revision: str | None = None, **options: Any) -> Path:
    """Return the path of a file on this machine, or download it; it is not checked."""
    path = _here(record, file) if revision is None else None
    return path or _fetch(record, file, revision=revision, cached_first=True, **options)


def locate(record: WeightRecord, file: WeightFile, cache_dir: str | Path | None = None) -> Path | None:
    """Return the path of a record's file on this machine, without a request; None if the file is not here."""
    if (path := _here(record, file)) is not None or record.hub is None:
        return path
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(
        record.hub["repo"], hub_name(record, file), cache_dir=cache_dir, revision=record.hub["revision"]
    )
    return Path(cached) if isinstance(cached, str) else None


def available(record: WeightRecord) -> bool:
    """Return whether :func:`resolve` can find a record's files: on this machine, or in a Hub repository.

    For a file on this machine its size is compared, not its content; the Hub is not asked.
    """
    sizes = [None if (path := _here(record, file)) is None else path.stat().st_size for file in record.files]
    whole = all(size in (None, file.bytes) for size, file in zip(sizes, record.files, strict=True))
    return whole and (record.hub is not None or None not in sizes)


def verify(record: WeightRecord | str | None = None, *, cache_dir: str | Path | None = None) -> list[Verified]:
    """Read and hash every file of a record that is on this machine.

    Args:
        record: record or its name; None verifies all records of the manifest.
        cache_dir: folder of the Hugging Face cache; None uses the default folder.

    Returns:
        One result per file; :attr:`Verified.state` is ``"ok"``, ``"damaged"`` or ``"absent"``.

    Raises:
        UnknownModelError: there is no record of this name.
    """
    records = list(manifest().values()) if record is None else [find_record(record)]
    results = []
    for each in records:
        for file in each.files:
            path = locate(each, file, cache_dir)
            problem = ""
            if path is not None:
                try:
                    _check(each, file, path, remembered=False)
                except WeightsError as error:
                    problem = str(error)
            results.append(Verified(each.name, file, path, problem))
    return results


def download(
    record: WeightRecord | str,
    *,
    cache_dir: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Download the files of a record, and read and hash those that are here.

    A damaged copy in the Hugging Face cache is downloaded again.

    Args:
        record: record or its name.
        cache_dir: folder of the Hugging Face cache; None uses the default folder.
        progress: function that is called with the name of each file before it is looked up.

    Returns:
        Paths of the files, which have been checked.

    Raises:
        UnknownModelError: there is no record of this name.
        WeightsError: a file cannot be downloaded.
    """
    record = find_record(record)
    paths = []
    for file in record.files:
        if progress is not None:
            progress(file.path)
        path = _find(record, file, cache_dir=cache_dir)
        try:
            _check(record, file, path, remembered=False)
        except WeightsError:
            if _here(record, file) is not None:
                raise
            path = _fetch(record, file, cache_dir=cache_dir, force=True)
            _check(record, file, path, remembered=False)
        paths.append(path)
    return paths


def _fetch(record: WeightRecord, file: WeightFile, *, revision: str | None = None, **options: Any) -> Path:
    """Return a record's file from the Hugging Face cache or the Hub, without checking it."""
    if record.hub is None:
        folders = " and ".join(map(str, _folders(file)))
        searched = f", searched in {folders}" if folders else ""
        raise WeightsError(
            f"Weights of {record.name} are not here ({file.path}{searched}) and not on the Hub: set {VARIABLE} to "
            "checkpoints/ of a clone of the repository, or pass the path of a .safetensors file."
        )
    from partzoo.weights.hub_file import hub_file  # which imports what downloads need

    repo, revision = record.hub["repo"], revision or record.hub["revision"]
    try:
        return hub_file(repo, hub_name(record, file), revision=revision, name=record.name, **options)
    except FileNotFoundError as error:
        raise WeightsError(f"{error}, which the record of {record.name} names: check revision=.") from error


def _here(record: WeightRecord, file: WeightFile) -> Path | None:
    """Return the path of a file in the package or in a folder of checkpoints; None if it is in neither.

    A folder of checkpoints holds the file itself, or the folder that ``partzoo download NAME -o FOLDER`` made.
    """
    names = (file.path.partition("/")[2], f"{record.name}/{hub_name(record, file)}")
    return next((path for folder in _folders(file) for name in names if (path := folder / name).is_file()), None)


def _folders(file: WeightFile) -> list[Path]:
    return [PACKAGE / BUNDLED] if file.path.startswith(f"{BUNDLED}/") else checkpoint_folders()


def hub_name(record: WeightRecord, file: WeightFile) -> str:
    """Return a file's name in a model's folder and on the Hub: the usual one, but shards keep those in their index."""
    name = Path(file.path).name
    if len(record.files) == 1:
        return "model.safetensors"
    return f"model{INDEX}" if name.endswith(INDEX) else name


def find_record(record: WeightRecord | str) -> WeightRecord:
    """Find a record by its name, ``architecture.tag``, or by its alias; a record is returned unchanged.

    Raises:
        UnknownModelError: there is no record of this name.
    """
    if isinstance(record, WeightRecord):
        return record
    records = manifest()
    record = full_name(record)
    if record not in records:
        raise UnknownModelError(
            f"There are no released weights {record!r}: choose one of {', '.join(records) or 'none'}."
        )
    return records[record]


def _check(record: WeightRecord, file: WeightFile, path: Path, *, remembered: bool = True) -> None:
    """Compare size and sha256 with the record; a file that has not changed since its last check is not read again."""
    try:
        size = path.stat().st_size
        if size != file.bytes:
            raise WeightsError(
                f"{path} has {size:,} bytes, not the {file.bytes:,} recorded for {record.name}: {remedy(record, file)}."
            )
        digest = digest_of(path, file.sha256, lambda: sha256_of(path), remembered=remembered)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error}): {remedy(record, file)}.") from error
    if digest != file.sha256:
        raise WeightsError(
            f"{path} is damaged: its sha256 is {digest[:12]}..., not the {file.sha256[:12]}... recorded for "
            f"{record.name}: {remedy(record, file)}."
        )


def remedy(record: WeightRecord, file: WeightFile) -> str:
    """Recommend how to get an undamaged copy of a file that is damaged or absent."""
    here = _here(record, file)
    if here is None and record.hub is not None:
        return f"run 'partzoo download {record.name}'"
    if file.path.startswith(f"{BUNDLED}/"):
        here = PACKAGE / file.path
    if here is not None and (root := next(filter(_is_clone, here.parents), None)):
        return f"run 'git -C {shlex.quote(str(root))} checkout -- {shlex.quote(here.relative_to(root).as_posix())}'"
    if file.path.startswith(f"{BUNDLED}/"):
        return "install partzoo again, with --force-reinstall, from the folder or file that it came from"
    return f"set {VARIABLE} to checkpoints/ of a clone of the repository"


def _is_clone(folder: Path) -> bool:
    return (folder / ".git").exists() and (folder / NAME).is_file()
