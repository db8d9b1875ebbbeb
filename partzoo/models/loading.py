"""``load``: a name, folder or file becomes a module with weights, on a device, in a precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from partzoo.errors import UnknownModelError, WeightsError
from partzoo.models.base import Encoder
from partzoo.models.precision import Precision, default_device, set_precision
from partzoo.models.registry import Architecture, find, split_tag
from partzoo.models.timm_encoder import CONVERTED, TimmConfig
from partzoo.models.timm_encoder import PREFIX as TIMM
from partzoo.weights.hub_file import hub_file
from partzoo.weights.store import WeightRecord, load_strict, manifest, read_header, read_state, resolve

ENCODER = "encoder."  # what the names of a frozen encoder's tensors begin with


def load(
    name: str | Path,
    *,
    pretrained: bool = True,
    device: torch.device | str | None = None,
    dtype: Precision = "auto",
    revision: str | None = None,
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
    **config: Any,
) -> nn.Module:
    """A model of the zoo, in evaluation mode and frozen.

    Args:
        name: ``architecture`` or ``architecture.tag`` (see :func:`partzoo.list_models`), an alias,
            ``timm/<model>``, ``hf-hub:owner/repo[@revision]``, ``local-dir:PATH``, a folder that
            ``partzoo.hub.save_pretrained`` wrote, or a ``.safetensors`` file.
        pretrained: bring weights; without them they are random.
        device: where to; None is CUDA where there is one, else the CPU.
        dtype: ``"auto"``, ``"int8"`` (CPU), a floating-point dtype or its name. float32 is the reference.
        revision: of the Hub's repository, in place of the recorded one.
        local_files_only: make no request.
        cache_dir: of the Hugging Face cache.
        **config: values that replace those of the architecture's configuration.

    Returns:
        The module, with ``architecture``, ``config`` and ``preprocess``.

    Raises:
        UnknownModelError: no such name; the message names the closest.
        UsageError: no such option.
        WeightsError: weights are missing, damaged or do not fit.
    """
    device = torch.device(device) if device is not None else default_device()
    reach = {"local_files_only": local_files_only, "cache_dir": cache_dir}
    hub = {"revision": revision} | reach
    stored = _of_repo(str(name), hub) if str(name).startswith("hf-hub:") else stored_model(str(name))
    if stored is not None:
        architecture, saved, files = stored
        entry = find(architecture)
        model = assign(entry, entry.configure(saved | config), read_state(files), ", ".join(map(str, files)), **reach)
    elif str(name).startswith(TIMM) or isinstance(find(str(name)).config, TimmConfig):
        entry = find(str(name))
        chosen = entry.configure(config)
        if pretrained and entry.name in CONVERTED:
            raise WeightsError(
                f"timm has no weights of {entry.name}: download {CONVERTED[entry.name]}, run 'partzoo convert FILE -o "
                "DIR' and load DIR; or pass pretrained=False for random ones."
            )
        model = assign(entry, chosen, *_timm_state(chosen.model, hub)) if pretrained else build(entry, chosen)
    else:
        entry = find(str(name))
        record = _record(str(name), entry) if pretrained and entry.needs_weights else None
        if record is None:
            model = build(entry, entry.configure(config))
        else:
            files = resolve(record, **hub)
            model = assign(entry, entry.configure(record.config | config), read_state(files), record.name, **reach)
    return set_precision(model.eval().requires_grad_(False), dtype, device)


def build(entry: Architecture, config: Any) -> nn.Module:
    """A module with random parameters; seeded ones for architectures that need no weights."""
    if entry.needs_weights:
        model = entry.build(config)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = entry.build(config)
    model.architecture = entry.name
    return model


def assign(entry: Architecture, config: Any, state: dict[str, Tensor], source: str, **reach: Any) -> nn.Module:
    """Build on the meta device and give the module the tensors themselves.

    Args:
        entry: what is built, with ``config``.
        state: all tensors by name; those of a part model's frozen encoder may be missing, which is then loaded by its
            name.
        source: what an error calls them.
        **reach: ``local_files_only`` and ``cache_dir`` of :func:`load`, for the encoder.

    Raises:
        WeightsError: tensors do not fit, or the encoder cannot be had.
    """
    with torch.device("meta"):
        model = entry.build(config)
    model.architecture = entry.name
    parameters = set(model.state_dict())
    if any(name not in parameters for name, _ in model.named_buffers()):
        model = build(entry, config)
    if has_frozen_encoder(model) and not any(name.startswith(ENCODER) for name in state):
        encoder = load(model.config.encoder, device="cpu", dtype="float32", **reach)
        state = state | {f"{ENCODER}{name}": value for name, value in encoder.state_dict().items()}
    load_strict(model, state, source)
    return model


def has_frozen_encoder(model: nn.Module) -> bool:
    """Whether a model stands over another encoder of the zoo, which its configuration names and which stays as it is.

    Its files may do without the encoder's tensors, those whose names begin with :data:`ENCODER`.
    """
    return isinstance(getattr(model, "encoder", None), Encoder) and getattr(model, "frozen", True)


def stored_model(name: str) -> tuple[str, dict[str, Any], list[Path]] | None:
    """Architecture, configuration and files of a model in a folder or a file; None for other names.

    Raises:
        WeightsError: it is none of the zoo's.
    """
    from partzoo.models.sharing import read_folder

    path = Path(name.removeprefix("local-dir:"))
    if path.is_dir():
        return read_folder(path)
    if name.startswith("local-dir:"):
        raise WeightsError(f"{path} is not a folder.")
    if path.suffix == ".safetensors":
        return read_header(path)
    return None


def _of_repo(name: str, hub: dict[str, Any]) -> tuple[str, dict[str, Any], list[Path]]:
    from partzoo.models.sharing import fetch_repo, read_folder

    repo, _, revision = name.removeprefix("hf-hub:").partition("@")
    return read_folder(fetch_repo(repo, **(hub | {"revision": revision or hub["revision"]})))


def _record(name: str, entry: Architecture) -> WeightRecord:
    """The manifest's record for a name: its tag's, or the first of its architecture."""
    tag = split_tag(name)[1]
    records = [record for record in manifest().values() if record.architecture == entry.name]
    for record in records:
        if tag is None or split_tag(record.name)[1] == tag:
            return record
    if tag is not None:
        tags = ", ".join(record.name for record in records) or "none"
        raise UnknownModelError(f"{entry.name} has no weights tagged {tag!r}; those it has: {tags}.")
    raise WeightsError(
        f"{entry.name} has no trained weights yet: train them (partzoo train --help), "
        "or pass pretrained=False for random ones."
    )


def _timm_state(model: str, hub: dict[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Weights of a timm model from the Hub's cache or the Hub, without its classifier."""
    import timm

    record = timm.get_pretrained_cfg(model)
    if record is None or not record.hf_hub_id:
        raise WeightsError(f"timm knows no weights on the Hub for {model!r}: pass pretrained=False, or add a tag.")
    try:
        file = hub_file(record.hf_hub_id, "model.safetensors", name=TIMM + model, cached_first=True, **hub)
    except FileNotFoundError as error:
        raise WeightsError(f"{error}: pass another tag, or pretrained=False.") from error
    heads = record.classifier or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    state = read_state([file])
    kept = {k: v for k, v in state.items() if not any(k == h or k.startswith(f"{h}.") for h in heads)}
    return {f"model.{key}": value for key, value in kept.items()}, f"{record.hf_hub_id}/model.safetensors"
