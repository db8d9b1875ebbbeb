"""Read models stored as folders, locally or on the Hub: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from partzoo.errors import WeightsError
from partzoo.files import check_version, expand_user, read_json, reading
from partzoo.settings import changed
from partzoo.weights.hub_file import HubOptions, hub_file
from partzoo.weights.replacing import read_undisturbed, readable
from partzoo.weights.tensors import CONFIG, FORMAT, INDEX, read_header, read_metadata, read_tensors, shards

WEIGHTS, CARD = "model.safetensors", "README.md"


def read_folder(path: str | Path) -> tuple[str, dict[str, Any], list[Path]]:
    """Read a folder written by :func:`partzoo.hub.save_pretrained`.

    Args:
        path: folder to read.

    Returns:
        Name of the architecture, values of its configuration, and the safetensors files.

    Raises:
        WeightsError: a file is missing or damaged, or ``config.json`` and the header of the weights disagree.
    """
    path = expand_user(path)
    return read_undisturbed(path, lambda: _read_folder(readable(path)))


def _read_folder(path: Path) -> tuple[str, dict[str, Any], list[Path]]:
    index = path / f"model{INDEX}"
    if (path / WEIGHTS).is_file():
        files = [path / WEIGHTS]
    elif index.is_file():
        files = shards(index)
    else:
        raise WeightsError(f"{path} holds no {WEIGHTS}: pass a folder written by partzoo.hub.save_pretrained.")
    stored = read_config(path / CONFIG)
    for file in files:
        _compare(file, path / CONFIG, stored)
    return (*stored, files)


def _compare(file: Path, config: Path, stored: tuple[str, dict[str, Any]]) -> None:
    """Refuse a file whose header names another model than the folder's ``config.json``."""
    if "architecture" not in read_metadata(file):
        return
    architecture, values, _ = read_header(file)
    ours, theirs = ({"architecture": name} | about for name, about in ((architecture, values), stored))
    if found := changed(ours, theirs):
        key, one, other = found[0]
        raise WeightsError(
            f"{file} and {config} disagree: {key} is {one!r} in one and {other!r} in the other. Save or download both "
            "again."
        )


def fetch_repo(
    repo: str,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    *,
    weights: bool = True,
    force: bool = False,
) -> Path:
    """Download a Hub repository to the Hugging Face cache, unless it is there, and return its folder.

    Args:
        repo: ``owner/name``.
        revision: branch, tag or commit. A cached commit needs no request. For a branch, the Hub is asked for the newest
            commit; if the Hub cannot be reached, the cached commit is used.
        cache_dir: folder of the Hugging Face cache; None uses the default folder (HF_HOME).
        local_files_only: whether to forbid network requests.
        weights: whether to download the weights as well as the configuration.
        force: whether to download files again that are in the cache.

    Raises:
        WeightsError: the repository cannot be downloaded, or it does not hold a model of partzoo.
    """
    options: HubOptions = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
    try:
        config = hub_file(repo, CONFIG, force=force, **options)
        read_config(config)
        folder = config.parent
        pinned: HubOptions = {**options, "revision": folder.name}  # so that all files come from the same commit
        if not weights or ((folder / WEIGHTS).is_file() and not force):
            return folder
        index = folder / f"model{INDEX}"
        if force or not index.is_file():
            try:
                hub_file(repo, WEIGHTS, force=force, **pinned)
                return folder
            except FileNotFoundError:
                hub_file(repo, index.name, force=force, **pinned)
        for shard in shards(index):
            hub_file(repo, shard.name, force=force, **pinned)
    except FileNotFoundError as error:
        raise WeightsError(f"{error}: pass a repository written by partzoo.hub.push_to_hub.") from error
    return folder


def download_repo(repo: str, revision: str | None = None) -> Path:
    """Download a Hub repository, and compare its files with their digests; damaged copies are downloaded again.

    Arguments, result and errors are those of :func:`fetch_repo`.
    """
    try:
        folder = fetch_repo(repo, revision)
        _check(folder)
    except WeightsError:
        if not _has_copy(repo, revision):  # that could be damaged
            raise
        folder = fetch_repo(repo, revision, force=True)
        _check(folder)
    return folder


def _has_copy(repo: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(repo, CONFIG, revision=revision), str)
    except HFValidationError:  # no repository has such a name
        return False


def _check(folder: Path) -> None:
    for file in read_folder(folder)[2]:
        read_tensors(file, remembered=False)


def stored_model(name: str, *, weights: bool = True) -> tuple[str, dict[str, Any], list[Path]] | None:
    """Return architecture, configuration and files of a model in a folder or a file; None for other names.

    Args:
        name: a path, or ``local-dir:PATH`` for a folder.
        weights: whether to require the folder's weights; otherwise they may be missing, and no files are returned.

    Raises:
        WeightsError: the folder or file does not hold a model of the zoo.
    """
    path = expand_user(name.removeprefix("local-dir:"))
    if path.is_dir():
        if weights:
            return read_folder(path)
        return read_undisturbed(path, lambda: (*read_config(readable(path) / CONFIG), []))
    if name.startswith("local-dir:"):
        raise WeightsError(f"{path} is not a folder.")
    if path.suffix == ".safetensors":
        return read_header(path)
    return None


def read_config(file: Path) -> tuple[str, dict[str, Any]]:
    """Read the architecture and configuration in a ``config.json`` written by :func:`partzoo.hub.save_pretrained`.

    Raises:
        WeightsError: the file is missing or damaged, or was not written by partzoo.
    """
    fix = "pass what partzoo.hub.save_pretrained wrote; timm's models are timm/NAME"
    with reading(file, WeightsError, "names no architecture and config of partzoo", fix):
        content = read_json(file)
        check_version(content.get("format"), FORMAT, str(file), WeightsError)
        architecture, config = content["architecture"], content["config"]
        if not isinstance(architecture, str) or not isinstance(config, dict):
            raise TypeError("'architecture' is a name and 'config' an object")
    return architecture, config
