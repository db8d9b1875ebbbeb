"""Find, verify and download the files of released weights."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partzoo.errors import UnknownModelError, WeightsError
from partzoo.files import parse_json, path_aside
from partzoo.weights.hub_file import hub_file
from partzoo.weights.manifest import BUNDLED, PACKAGE, WeightFile, WeightRecord, clones, manifest


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
) -> list[Path]:
    """Find the files of a record, download them if necessary, and check them against their sha256.

    Files are looked up in the package, in ``checkpoints/`` of a clone, in the Hugging Face cache and on the Hub, in
    this order.

    Args:
        record: record of released weights, from :func:`manifest`.
        cache_dir: folder of the Hugging Face cache; None uses the default folder (HF_HOME).
        local_files_only: whether to forbid network requests, as HF_HUB_OFFLINE does.
        revision: revision of the Hub repository, instead of the recorded one; its files are not checked, because only
            the hashes of the recorded one are known.

    Raises:
        WeightsError: a file cannot be found, or it is damaged.
    """
    return [_resolve(record, file, cache_dir, local_files_only, revision) for file in record.files]


def _resolve(
    record: WeightRecord,
    file: WeightFile,
    cache_dir: str | Path | None,
    local_files_only: bool,
    revision: str | None,
) -> Path:
    path = _here(file) if revision is None else None
    if path is None:
        options = {"cache_dir": cache_dir, "local_files_only": local_files_only, "cached_first": True}
        path = _fetch(record, file, revision=revision, **options)
    if revision is None:
        _check(record, file, path)
    return path


def locate(record: WeightRecord, file: WeightFile, cache_dir: str | Path | None = None) -> Path | None:
    """Return the path of a record's file on this machine, without a request; None if the file is not here."""
    if (path := _here(file)) is not None or record.hub is None:
        return path
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(
        record.hub["repo"], _hub_name(record, file), cache_dir=cache_dir, revision=record.hub["revision"]
    )
    return Path(cached) if isinstance(cached, str) else None


def available(record: WeightRecord) -> bool:
    """Return whether :func:`resolve` can find a record's files: on this machine, or in a Hub repository."""
    return record.hub is not None or all(_here(file) is not None for file in record.files)


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
    """Download the files of a record; a damaged copy in the Hugging Face cache is downloaded again.

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
        try:
            path = _resolve(record, file, cache_dir, False, None)
        except WeightsError:
            if _here(file) is not None or locate(record, file, cache_dir) is None:
                raise
            path = _fetch(record, file, cache_dir=cache_dir, force=True)
            _check(record, file, path)
        paths.append(path)
    return paths


def _fetch(record: WeightRecord, file: WeightFile, *, revision: str | None = None, **options: Any) -> Path:
    """Return a record's file from the Hugging Face cache or the Hub, without checking it."""
    if record.hub is None:
        raise WeightsError(
            f"Weights of {record.name} are not here ({file.path}) and not on the Hub: run in a clone of the "
            "repository that holds them, or pass the path of a .safetensors file."
        )
    repo, revision = record.hub["repo"], revision or record.hub["revision"]
    try:
        return hub_file(repo, _hub_name(record, file), revision=revision, name=record.name, **options)
    except FileNotFoundError as error:
        raise WeightsError(f"{error}, which the record of {record.name} names: check revision=.") from error


def _here(file: WeightFile) -> Path | None:
    """Return the path of a file in the package or in a clone; None if it is in neither."""
    roots = [PACKAGE] if file.path.startswith(f"{BUNDLED}/") else clones()
    return next((root / file.path for root in roots if (root / file.path).is_file()), None)


def _hub_name(record: WeightRecord, file: WeightFile) -> str:
    """Return a file's name on the Hub: the usual one for a single file; shards keep the names in their index."""
    return "model.safetensors" if len(record.files) == 1 else Path(file.path).name


def find_record(record: WeightRecord | str) -> WeightRecord:
    """Find a record by its name, ``architecture.tag``; a record is returned unchanged.

    Raises:
        UnknownModelError: there is no record of this name.
    """
    if isinstance(record, WeightRecord):
        return record
    records = manifest()
    if record not in records:
        raise UnknownModelError(
            f"There are no released weights {record!r}: choose one of {', '.join(records) or 'none'}."
        )
    return records[record]


def _check(record: WeightRecord, file: WeightFile, path: Path, *, remembered: bool = True) -> None:
    """Compare size and sha256 with the record; a file that has not changed since its last check is not read again."""
    try:
        found = path.stat()
        if found.st_size != file.bytes:
            raise WeightsError(
                f"{path} has {found.st_size:,} bytes, not the {file.bytes:,} recorded for {record.name}: "
                f"{_fix(record, file)}"
            )
        mark = [found.st_size, found.st_mtime_ns, found.st_ino, file.sha256]
        key = os.path.abspath(path)
        if remembered and _memo().get(key) == mark:
            return
        with open(path, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error}): {_fix(record, file)}") from error
    if digest != file.sha256:
        _remember(key, None)  # its size and time can be those of its last check, as on a disk that decays
        raise WeightsError(
            f"{path} is damaged: its sha256 is {digest[:12]}..., not the {file.sha256[:12]}... recorded for "
            f"{record.name}: {_fix(record, file)}"
        )
    _remember(key, mark)


def _fix(record: WeightRecord, file: WeightFile) -> str:
    if _here(file) is None:
        return f"run 'partzoo download {record.name}'."
    if file.path.startswith(f"{BUNDLED}/"):
        return "run 'pip install --force-reinstall partzoo', or in a clone 'git checkout -- partzoo/weights'."
    return f"restore it with 'git checkout -- {file.path}'."


def cache_folder() -> Path:
    """Return partzoo's cache folder: PARTZOO_CACHE, or ``partzoo`` in XDG_CACHE_HOME or ``~/.cache``."""
    if own := os.environ.get("PARTZOO_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "partzoo"


def _memo() -> dict[str, list]:
    try:
        content = parse_json((cache_folder() / "verified.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(key: str, mark: list | None) -> None:
    """Record that a file is undamaged, or forget it for None.

    If that cannot be written, an undamaged file is simply read again next time.
    """
    known = _memo()
    marks = {name: each for name, each in known.items() if name != key} | ({} if mark is None else {key: mark})
    if marks == known:
        return
    try:
        memo = cache_folder() / "verified.json"
        memo.parent.mkdir(parents=True, exist_ok=True)
        with path_aside(memo) as aside:
            aside.write_text(json.dumps(marks), encoding="utf-8")
    except (OSError, RuntimeError):
        return
