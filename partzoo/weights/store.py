"""Where the files of released weights are, whether they are whole, and how they get here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partzoo.errors import UnknownModelError, WeightsError
from partzoo.files import path_aside
from partzoo.weights.hub_file import hub_file
from partzoo.weights.manifest import BUNDLED, PACKAGE, WeightFile, WeightRecord, clones, manifest


@dataclass(frozen=True)
class Verified:
    """What :func:`verify` found out about one file.

    Attributes:
        record: name of its record.
        file: the file as recorded.
        path: where it is; None where it is not on this machine.
        problem: what is wrong with it, "" where it is whole or absent.
    """

    record: str
    file: WeightFile
    path: Path | None
    problem: str = ""

    @property
    def state(self) -> str:
        """``"ok"``, ``"damaged"`` or ``"absent"``."""
        return "absent" if self.path is None else "damaged" if self.problem else "ok"


def resolve(
    record: WeightRecord,
    *,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    revision: str | None = None,
) -> list[Path]:
    """The files of a record on this machine, fetched if need be and checked against their sha256.

    The package is asked first, then ``checkpoints/`` of a clone, the Hugging Face cache, and last the Hub.

    Args:
        record: from :func:`manifest`.
        cache_dir: of the Hugging Face cache; None is its own (HF_HOME).
        local_files_only: make no request; so does HF_HUB_OFFLINE.
        revision: of the Hub's repository in place of the recorded one, whose content no sha256 is known of.

    Raises:
        WeightsError: a file is nowhere, or damaged.
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
    """Where a file of a record is on this machine, without a request; None where it is not."""
    if (path := _here(file)) is not None or record.hub is None:
        return path
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(
        record.hub["repo"], _hub_name(record, file), cache_dir=cache_dir, revision=record.hub["revision"]
    )
    return Path(cached) if isinstance(cached, str) else None


def available(record: WeightRecord) -> bool:
    """Whether :func:`resolve` can bring a record: it has a Hub repository, or its files are here."""
    return record.hub is not None or all(_here(file) is not None for file in record.files)


def verify(record: WeightRecord | str | None = None, *, cache_dir: str | Path | None = None) -> list[Verified]:
    """Read and hash every file of a record that is on this machine.

    Args:
        record: a record or its name; None is all of the manifest.
        cache_dir: of the Hugging Face cache.

    Returns:
        One result per file; :attr:`Verified.state` is ``"ok"``, ``"damaged"`` or ``"absent"``.

    Raises:
        UnknownModelError: there is no record of that name.
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
    """Bring the files of a record to this machine; a damaged copy in the Hugging Face cache is fetched again.

    Args:
        record: a record or its name.
        cache_dir: of the Hugging Face cache.
        progress: called with the name of each file before it is looked for.

    Returns:
        The files, checked.

    Raises:
        UnknownModelError: there is no record of that name.
        WeightsError: a file cannot be had.
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
    """A file of a record from the Hugging Face cache or the Hub, unchecked."""
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
    """The file in the package or in a clone."""
    roots = [PACKAGE] if file.path.startswith(f"{BUNDLED}/") else clones()
    return next((root / file.path for root in roots if (root / file.path).is_file()), None)


def _hub_name(record: WeightRecord, file: WeightFile) -> str:
    """Single files carry the Hub's usual name there; shards keep theirs, which the index names."""
    return "model.safetensors" if len(record.files) == 1 else Path(file.path).name


def find_record(record: WeightRecord | str) -> WeightRecord:
    """A record by its name, ``architecture.tag``; a record itself as it is.

    Raises:
        UnknownModelError: there is none of that name.
    """
    if isinstance(record, WeightRecord):
        return record
    records = manifest()
    if record not in records:
        raise UnknownModelError(f"There are no released weights {record!r}; there are {', '.join(records) or 'none'}.")
    return records[record]


def _check(record: WeightRecord, file: WeightFile, path: Path, *, remembered: bool = True) -> None:
    """Compare size and sha256 with the record; a file that was whole and is untouched is not read again."""
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
    """Where partzoo keeps notes: PARTZOO_CACHE, or ``partzoo`` under XDG_CACHE_HOME or ``~/.cache``."""
    if own := os.environ.get("PARTZOO_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "partzoo"


def _memo() -> dict[str, list]:
    try:
        content = json.loads((cache_folder() / "verified.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(key: str, mark: list) -> None:
    """Note a whole file; where nothing can be written it is read again next time."""
    try:
        memo = cache_folder() / "verified.json"
        memo.parent.mkdir(parents=True, exist_ok=True)
        with path_aside(memo) as aside:
            aside.write_text(json.dumps(_memo() | {key: mark}), encoding="utf-8")
    except (OSError, RuntimeError):
        return
