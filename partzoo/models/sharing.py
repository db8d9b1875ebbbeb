"""Save and load models as folders or Hub repositories: ``config.json``, ``model.safetensors`` and a card."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partzoo.errors import UsageError, WeightsError
from partzoo.files import expand_user, write_aside
from partzoo.models.base import Model
from partzoo.models.loading import has_frozen_encoder, load, on_meta
from partzoo.models.registry import Architecture, aliases, architectures, find
from partzoo.models.wrappers import check_whole, plain_names, unwrapped_model
from partzoo.weights.card import card, encoded, kept_edits
from partzoo.weights.folder import CARD, WEIGHTS, read_config
from partzoo.weights.hub_file import first_line, hub_answers, hub_errors
from partzoo.weights.manifest import WeightRecord
from partzoo.weights.replacing import readable, replaced_together
from partzoo.weights.store import find_record
from partzoo.weights.tensors import CONFIG, ENCODER, FORMAT, INDEX, bad_values, differences, read_header, write_weights

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 5_000_000_000


def save_pretrained(
    model: Model,
    folder: str | Path,
    *,
    record: WeightRecord | str | None = None,
    dtype: torch.dtype | None = None,
    backbone: bool = True,
) -> Path:
    """Write a model as a folder that :func:`from_pretrained`, :func:`partzoo.load` and the Hub read.

    Args:
        model: a model of the zoo, not quantized, or one wrapped in ``torch.compile``, ``DataParallel`` and the like.
        folder: folder to write, created if necessary; files with the same names are replaced together, so that a kill
            leaves the old model or the new one. An existing model card keeps its text outside the generated block.
        record: manifest record of the weights, or its name; the card quotes the data, budget and scores in it.
        dtype: dtype of the stored matrices; None keeps the model's.
        backbone: whether to include the frozen encoder of a part model. Without it the file refers to the encoder by
            name, and loading downloads the encoder's released weights.

    Returns:
        The folder, with ``model.safetensors`` (shards and an index above 5 GB), ``config.json`` and ``README.md``.

    Raises:
        UsageError: the model is not of the zoo, is quantized, has tensors that its configuration does not state, has
            weights that are NaN, infinite or on the meta device, or has no frozen encoder to leave out; the record does
            not exist; or the folder holds another library's model.
        WeightsError: a file cannot be written.
        PartzooError: another process is writing the folder.
    """
    return _save(model, expand_user(folder), record, dtype, backbone=backbone)


def _save(
    model: Model,
    folder: Path,
    record: WeightRecord | str | None,
    dtype: torch.dtype | None,
    repo: str = "",
    backbone: bool = True,
) -> Path:
    model = unwrapped_model(model)
    architecture = getattr(model, "architecture", "")
    if not architecture or not dataclasses.is_dataclass(getattr(model, "config", None)):
        raise UsageError(
            f"{type(model).__name__} has no architecture and config of the zoo: save a model of partzoo.load."
        )
    record = find_record(record) if record is not None else None
    state = plain_names(model.state_dict())
    check_whole(state)
    if odd := [name for name, value in state.items() if not hasattr(value, "untyped_storage") or value.is_quantized]:
        raise UsageError(f"{architecture} is quantized ({odd[0]}): load it with dtype='float32' to save it.")
    if misfit := differences(on_meta(find(architecture), model.config), state):
        raise UsageError(
            f"{architecture} has other tensors than its configuration states: {misfit}. Undo what was added to it "
            "(torch.nn.utils.prune.remove after pruning) before you save it."
        )
    if not backbone:
        if not has_frozen_encoder(model):
            raise UsageError(f"{architecture} has no frozen encoder to leave out: use backbone=True.")
        state = {name: value for name, value in state.items() if not name.startswith(ENCODER)}
    if fault := bad_values(state):
        raise UsageError(f"{architecture} cannot be saved: {fault}.")

    def write(new: Path) -> None:
        write_weights(new / WEIGHTS, state, architecture, model.config, dtype, max_bytes=SHARD_BYTES)

    return write_folder(folder, write, model_texts(architecture, model.config, record, repo))


def write_folder(folder: Path, write: Callable[[Path], None], texts: dict[str, str]) -> Path:
    """Write a model's folder, whose files are replaced together.

    Args:
        folder: folder to write, created if necessary.
        write: function that writes the weights into the folder that it is given.
        texts: contents of the other files, from :func:`model_texts`; the card keeps text outside the generated block.

    Raises:
        UsageError: the folder holds another library's model.
        WeightsError: a file cannot be written.
        PartzooError: another process is writing the folder.
    """
    _check_replaced(folder)
    try:
        with replaced_together(folder, (WEIGHTS, f"model{INDEX}")) as new:
            write(new)
            for name, text in texts.items():
                with write_aside(new / name) as file:
                    file.write(encoded(kept_edits(text, folder / CARD) if name == CARD else text))
    except OSError as error:
        raise WeightsError(f"{folder} cannot be written ({error}): choose another folder.") from error
    return folder


def _check_replaced(folder: Path) -> None:
    """Refuse to replace another library's model in a folder.

    Raises:
        UsageError: ``config.json``, or weights without one, were not written by partzoo.
    """
    current = readable(folder)
    try:
        if (current / CONFIG).exists():
            read_config(current / CONFIG)
        elif (current / WEIGHTS).exists():
            read_header(current / WEIGHTS)
    except WeightsError as error:
        raise UsageError(f"{folder} holds a model that is not one of partzoo: choose another folder.") from error


def model_texts(
    architecture: str, config: Any, record: WeightRecord | None, repo: str, sha256: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the contents of ``config.json`` and ``README.md`` by name.

    Arguments are those of :func:`card`, and the sha256 of files of weights that have no digest in their header.
    """
    values = {
        "format": FORMAT,
        "architecture": architecture,
        "config": dataclasses.asdict(config),
        "library_name": "partzoo",
        **({"sha256": dict(sha256)} if sha256 else {}),
    }
    return {
        CONFIG: json.dumps(values, indent=2) + "\n",
        CARD: card(architecture, config, record, repo, family=find(architecture).family),
    }


def from_pretrained(repo_or_folder: str | Path, **options: Any) -> Model:
    """Load a model from a folder written by :func:`save_pretrained` or from a Hub repository.

    Args:
        repo_or_folder: a folder, or ``owner/repo`` or ``owner/repo@revision``.
        **options: options of :func:`partzoo.load`, for example ``device``, ``dtype`` or ``local_files_only``.

    Returns:
        The module, in evaluation mode and frozen.

    Raises:
        WeightsError: files are missing, damaged or do not fit.
    """
    if expand_user(repo_or_folder).is_dir():
        return load(f"local-dir:{repo_or_folder}", **options)
    return load(f"hf-hub:{str(repo_or_folder).removeprefix('hf-hub:')}", **options)


def push_to_hub(
    model: Model,
    repo: str,
    *,
    record: WeightRecord | str | None = None,
    dtype: torch.dtype | None = None,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    message: str = "Weights from partzoo",
) -> str:
    """Upload a model, in the form written by :func:`save_pretrained`, in one commit.

    Args:
        model, record, dtype: as in :func:`save_pretrained`. The repository's model card keeps text outside the
            generated block.
        repo: ``owner/name``; the repository is created if necessary.
        private: whether to create the repository as a private one.
        revision: branch to commit to; None is ``main``.
        token: access token with write permission; None uses the token of ``hf auth login`` or HF_TOKEN.
        message: commit message.

    Returns:
        Hash of the commit, which a record's ``hub["revision"]`` pins.

    Raises:
        UsageError: the model cannot be saved, or ``repo`` is not a valid name.
        WeightsError: the Hub refuses the upload or cannot be reached.
    """
    return upload(
        repo,
        lambda folder: _save(model, folder, record, dtype, repo),
        private=private,
        revision=revision,
        token=token,
        message=message,
    )


def check_repo_name(repo: str) -> None:
    """Refuse what cannot be the name of a Hub repository.

    Raises:
        UsageError: the name is not valid.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
        valid = "/" in repo  # the Hub would add an owner to a bare name, which the card then lacks
    except HFValidationError:
        valid = False
    if not valid:
        raise UsageError(f"{repo!r} is not the name of a Hub repository: write owner/name.")


def upload(
    repo: str,
    write: Callable[[Path], Any],
    *,
    private: bool,
    revision: str | None,
    token: str | None,
    message: str,
) -> str:
    """Upload the folder that ``write`` fills, in which it finds the repository's card if there is one.

    The other arguments, the result and the errors are those of :func:`push_to_hub`.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub import errors as hub

    check_repo_name(repo)
    api = HfApi(token=token)
    if not constants.HF_HUB_OFFLINE and not hub_answers(api.endpoint):  # the client would try again for minutes
        raise WeightsError(f"{repo} cannot be written: the Hub is out of reach. Check the network, or HF_ENDPOINT.")
    refused: tuple[type[Exception], ...] = (hub.LocalTokenNotFoundError, *hub_errors())
    with tempfile.TemporaryDirectory(prefix="partzoo-") as temporary:
        folder, former = Path(temporary, "new"), Path(temporary, "former")
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            if api.file_exists(repo, CARD, revision=revision):
                folder.mkdir()
                shutil.copy(api.hf_hub_download(repo, CARD, revision=revision, local_dir=former), folder / CARD)
            write(folder)
            commit = api.upload_folder(repo_id=repo, folder_path=folder, revision=revision, commit_message=message)
        except hub.RevisionNotFoundError as error:
            raise UsageError(
                f"{repo} has no branch {revision!r}: create it on the Hub, or leave revision= out for main."
            ) from error
        except refused as error:
            raise WeightsError(
                f"{repo} cannot be written ({first_line(error)}): run 'hf auth login', or set HF_TOKEN to a "
                "token with write permission."
            ) from error
    return commit.oid


def makers() -> dict[str, Callable[..., Model]]:
    """Return a loading function for each architecture and alias, by its name with underscores, for ``hubconf.py``."""
    entries = architectures()
    targets = {name: name for name in entries} | aliases()
    return {_identifier(name): _maker(name, entries[target]) for name, target in targets.items()}


def _maker(name: str, entry: Architecture) -> Callable[..., Model]:
    def make(pretrained: bool = True, **kwargs: Any) -> Model:
        return load(name, pretrained=pretrained, **kwargs)

    make.__name__ = make.__qualname__ = _identifier(name)
    make.__module__ = "hubconf"
    options = ", ".join(field.name for field in dataclasses.fields(entry.config))
    make.__doc__ = f"""{entry.summary or entry.name}

    Args:
        pretrained: whether to load trained weights; otherwise the parameters are random.
        **kwargs: options of :func:`partzoo.load` (``device``, ``dtype``, ``revision``, ``local_files_only``,
            ``cache_dir``) and values of the architecture's configuration ({options}).

    Returns:
        ``{entry.name}``, in evaluation mode and frozen.
    """
    return make


def _identifier(name: str) -> str:
    return name.replace("-", "_").replace(".", "_")
