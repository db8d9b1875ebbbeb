"""Put released weights, byte for byte, into a folder or a Hub repository."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from partzoo.files import expand_user
from partzoo.models.registry import find
from partzoo.models.sharing import check_repo_name, model_texts, upload, write_folder
from partzoo.weights.card import encoded
from partzoo.weights.manifest import WeightRecord
from partzoo.weights.store import download, find_record, hub_name


def save_released(record: WeightRecord | str, folder: str | Path, *, cache_dir: str | Path | None = None) -> Path:
    """Copy released weights, unchanged, to a folder that :func:`partzoo.load` reads by ``local-dir:``.

    Args:
        record: record of the weights, or its name, for example ``"part-vitt8.tin"``.
        folder: folder to write, created if necessary. Files of another model in it are replaced together; a model card
            keeps its text outside the generated block.
        cache_dir: folder of the Hugging Face cache for files that have to be downloaded; None uses the default folder.

    Returns:
        The folder, with ``model.safetensors`` (or shards and their index), ``config.json`` and ``README.md``. The
        weights have the sha256 of the record.

    Raises:
        UnknownModelError: there is no record of this name.
        UsageError: the folder holds another library's model.
        WeightsError: the weights are not here and cannot be downloaded, are damaged, or the folder cannot be written.
        PartzooError: another process is writing the folder.
    """
    record = find_record(record)
    return _copy(record, download(record, cache_dir=cache_dir), expand_user(folder))


def publish(
    record: WeightRecord | str,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    message: str | None = None,
) -> str:
    """Upload released weights to a Hub repository in one commit, with the sha256 that their record states.

    Args:
        record: record of the weights, or its name.
        repo: ``owner/name``; the repository is created if necessary, and its card keeps notes of yours.
        private: whether to create the repository as a private one.
        revision: branch to commit to; None is ``main``.
        token: access token with write permission; None uses the token of ``hf auth login`` or HF_TOKEN.
        message: commit message; None names the weights.

    Returns:
        Hash of the commit, which belongs in the record's ``hub["revision"]``.

    Raises:
        UnknownModelError: there is no record of this name.
        UsageError: ``repo`` is not a valid name.
        WeightsError: a file is missing or damaged, or the Hub refuses the upload or cannot be reached.
    """
    record = find_record(record)
    files = download(record)
    return upload(
        repo,
        lambda folder: _copy(record, files, folder, repo),
        private=private,
        revision=revision,
        token=token,
        message=message or f"Weights {record.name} from partzoo",
    )


def planned(record: WeightRecord | str, repo: str) -> dict[str, int]:
    """Return the files that :func:`publish` would send, without a request to the repository.

    Args:
        record: record of the weights, or its name.
        repo: ``owner/name``.

    Returns:
        Sizes in bytes by the files' names in the repository.

    Raises:
        UnknownModelError: there is no record of this name.
        UsageError: ``repo`` is not a valid name.
        WeightsError: a file is missing or damaged.
    """
    check_repo_name(repo)
    record = find_record(record)
    named = zip(record.files, download(record), strict=True)
    sizes = {hub_name(record, file): path.stat().st_size for file, path in named}
    return sizes | {name: len(encoded(text)) for name, text in texts(record, repo).items()}


def texts(record: WeightRecord, repo: str) -> dict[str, str]:
    """Return the contents of ``config.json`` and ``README.md`` of released weights, by their names."""
    config = dataclasses.replace(find(record.architecture).config, **record.config)
    sha256 = {hub_name(record, file): file.sha256 for file in record.files}
    return model_texts(record.architecture, config, record, repo, sha256)


def _copy(record: WeightRecord, files: list[Path], folder: Path, repo: str = "") -> Path:
    def write(new: Path) -> None:
        for file, path in zip(record.files, files, strict=True):
            shutil.copyfile(path, new / hub_name(record, file))

    return write_folder(folder, write, texts(record, repo))
