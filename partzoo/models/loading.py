"""``load``: parse a model's name into a :class:`Source`, read the weights and build the module on its device."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from partzoo.errors import PartzooError, UnknownModelError, UsageError, WeightsError
from partzoo.models.base import Encoder, Model
from partzoo.models.engines.running import Engine, check_engine, fastest, on_engine
from partzoo.models.precision import Precision, set_precision
from partzoo.models.registry import Architecture, find, records_of, split_tag, stored_architecture
from partzoo.system.device import Device, device_of
from partzoo.weights.folder import fetch_repo, read_config, read_folder, stored_model
from partzoo.weights.hub_file import first_line
from partzoo.weights.manifest import WeightRecord
from partzoo.weights.replacing import read_undisturbed
from partzoo.weights.store import resolve
from partzoo.weights.tensors import CONFIG, ENCODER, FIX, load_strict, read_state

HUB = "hf-hub:"


@dataclass(frozen=True)
class Source:
    """A parsed name: the model to build, and the source of its weights.

    Attributes:
        entry: architecture of the model.
        config: values saved with the weights, which override the architecture's configuration.
        tensors: function from the final configuration to the weights by name; None leaves the parameters random.
        label: name of the weights in error messages.
    """

    entry: Architecture
    config: dict[str, Any]
    tensors: Callable[[Any], dict[str, Tensor]] | None = None
    label: str = ""


def load(
    name: str | Path,
    *,
    pretrained: bool = True,
    device: Device = None,
    dtype: Precision = "auto",
    engine: Engine = "torch",
    revision: str | None = None,
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
    verify: bool = True,
    **config: Any,
) -> Model:
    """Load a model of the zoo, in evaluation mode and with frozen parameters.

    Args:
        name: ``architecture`` or ``architecture.tag`` (see :func:`partzoo.list_models`), an alias,
            ``timm/<model>``, ``hf-hub:owner/repo[@revision]``, ``local-dir:PATH``, a folder written by
            ``partzoo.hub.save_pretrained``, or a ``.safetensors`` file.
        pretrained: whether to load trained weights; False leaves the parameters random. A folder, file or repository
            provides its configuration either way.
        device: where the model runs: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or a ``torch.device``; None uses
            CUDA if available, otherwise the CPU.
        dtype: ``"auto"``, ``"int8"`` (CPU only), a floating-point dtype or its name. float32 is the reference.
        engine: what runs the networks: ``"torch"``, ``"onnxruntime"`` or ``"openvino"``, the last two on the CPU only.
            At the first call of a method its program is exported, which takes seconds to minutes, and kept in partzoo's
            cache folder. ``"auto"`` chooses OpenVINO, else ONNX Runtime, if it is installed and the device is a CPU.
            With an engine, ``dtype="auto"`` is the fastest of ``"int8"``, ``"bfloat16"`` and ``"float32"`` that this
            CPU has and that is recorded to agree with float32 for these weights (``partzoo info``); ``"int8"`` needs
            recorded ranges.
        revision: branch, tag or commit of the Hub repository, instead of the recorded one.
        local_files_only: whether to forbid network requests.
        cache_dir: folder of the Hugging Face cache; None uses the default folder.
        verify: whether to compare the weights with the sha256 in their record or in their header, which reads the whole
            file. Files of others without a digest, and files that are large and were compared before, are not compared.
        **config: values that override the architecture's configuration.

    Returns:
        The module, with ``architecture``, ``config`` and ``preprocess``.

    Raises:
        UnknownModelError: the name is unknown; the message suggests the closest names.
        UsageError: the configuration has no such value, the precision is unknown, this machine has no such device, or
            the engine cannot compute in the precision or on the device.
        MissingExtraError: the engine is not installed.
        WeightsError: the weights are missing, damaged or do not fit.
    """
    if engine == "auto":
        engine = fastest(device)
    place = device_of("cpu" if device is None and engine != "torch" else device)
    precision = str(dtype).removeprefix("torch.")
    if engine != "torch":
        check_engine(engine, precision, place)
    reach = {"local_files_only": local_files_only, "cache_dir": cache_dir}

    def read() -> Model:
        source = parse(str(name), pretrained=pretrained, verify=verify, revision=revision, **reach)
        return _filled(source, config, reach)

    folder = Path(os.path.expanduser(str(name).removeprefix("local-dir:")))  # if it is one
    model = read_undisturbed(folder, read)
    model = model.eval().requires_grad_(False)
    return set_precision(model, dtype, place) if engine == "torch" else on_engine(model.float(), engine, precision)


def _filled(source: Source, config: dict[str, Any], reach: dict[str, Any]) -> Model:
    """Build a source's model, with values that override its configuration, and fill it with its tensors."""
    chosen = source.entry.configure(source.config | config)
    if source.tensors is None:
        return build(source.entry, chosen)
    try:
        return assign(source.entry, chosen, source.tensors(chosen), source.label, **reach)
    except UsageError as error:
        if config:
            raise
        raise WeightsError(f"{source.label}: {error}") from error  # its own configuration is at fault


def parse(name: str, *, pretrained: bool, verify: bool = True, **hub: Any) -> Source:
    """Parse a name, in any form that :func:`load` accepts.

    Args:
        name: name of a model, or a folder, file or repository.
        pretrained: whether to load trained weights.
        verify: whether to compare them with their sha256.
        **hub: ``revision``, ``local_files_only`` and ``cache_dir`` of :func:`load`.

    Raises:
        UnknownModelError: the name is unknown; the message suggests the closest names.
        WeightsError: the weights do not exist, or the folder, file or repository does not hold a model of the zoo.
    """
    if (stored := _stored(name, pretrained, hub)) is not None:
        architecture, config, files = stored
        label = ", ".join(map(str, files))
        entry = stored_architecture(architecture, config, label or name)
        fix = f"run 'partzoo download {name}'" if name.startswith(HUB) else FIX
        tensors = (lambda _: read_state(files, verify=verify, fix=fix)) if pretrained else None
        return Source(entry, config, tensors, label)
    entry = find(name)
    if not pretrained or not entry.needs_weights:
        return Source(entry, {})
    if entry.fetch is not None:
        return Source(entry, {}, partial(entry.fetch, **hub), entry.name)
    record = _record(name, entry)
    return Source(
        entry, record.config, lambda _: read_state(resolve(record, verify=verify, **hub), verify=verify), record.name
    )


def build(entry: Architecture, config: Any) -> Model:
    """Build a module with random parameters, from a fixed seed for architectures that need no weights."""
    if entry.needs_weights:
        model = entry.build(config)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = entry.build(config)
    model.architecture = entry.name
    return model


def on_meta(entry: Architecture, config: Any) -> Model:
    """Build a module on the meta device: names and shapes without values."""
    with torch.device("meta"):
        model = entry.build(config)
    model.architecture = entry.name
    return model


def assign(entry: Architecture, config: Any, state: dict[str, Tensor], source: str, **reach: Any) -> Model:
    """Build a module on the meta device, so that no parameter is initialized needlessly, and assign the tensors to it.

    Args:
        entry: architecture of the model.
        config: configuration of the model.
        state: all tensors by name. Those of a part model's frozen encoder may be missing; the encoder is then loaded
            by its name.
        source: name of the tensors in error messages.
        **reach: ``local_files_only`` and ``cache_dir`` of :func:`load`, for the encoder.

    Raises:
        WeightsError: the tensors do not fit, or the encoder cannot be loaded.
    """
    try:
        model = on_meta(entry, config)
    except PartzooError:
        raise
    except Exception as error:  # values that are each valid, and do not fit together, can fail anywhere
        raise WeightsError(f"{source}: its configuration makes no {entry.name} ({first_line(error)}).") from error
    if has_frozen_encoder(model) and not any(name.startswith(ENCODER) for name in state):
        encoder = load(model.config.encoder, device="cpu", dtype="float32", **reach)
        state = state | {f"{ENCODER}{name}": value for name, value in encoder.state_dict().items()}
    load_strict(model, state, source)
    parameters = set(model.state_dict())
    # Buffers that are not saved would stay on the meta device, without values. Only a model that fits is built anew.
    if any(name not in parameters for name, _ in model.named_buffers()):
        model = build(entry, config)
        load_strict(model, state, source)
    return model


def has_frozen_encoder(model: Model) -> bool:
    """Return whether a model is built on a frozen encoder of the zoo, which its configuration names.

    Files of such a model may lack the encoder's tensors, whose names begin with :data:`ENCODER`.
    """
    return isinstance(getattr(model, "encoder", None), Encoder) and getattr(model, "frozen", True)


def _stored(name: str, weights: bool, hub: dict[str, Any]) -> tuple[str, dict[str, Any], list[Path]] | None:
    """Return architecture, configuration and files of a model in a folder, file or repository; None for other names."""
    if not name.startswith(HUB):
        return stored_model(name, weights=weights)
    repo, _, revision = name.removeprefix(HUB).partition("@")
    folder = fetch_repo(repo, **(hub | {"revision": revision or hub["revision"]}), weights=weights)
    return read_folder(folder) if weights else (*read_config(folder / CONFIG), [])


def _record(name: str, entry: Architecture) -> WeightRecord:
    """Return the manifest's record for a name: the one with its tag or, without a tag, the architecture's first one."""
    if found := records_of(name, entry.name):
        return found[0]
    if (tag := split_tag(name)[1]) is not None:
        names = ", ".join(record.name for record in records_of(entry.name, entry.name)) or "none"
        raise UnknownModelError(f"{entry.name} has no weights tagged {tag!r}; available weights: {names}.")
    raise WeightsError(
        f"{entry.name} has no trained weights yet: train them (partzoo train --help), "
        "or pass pretrained=False for random ones."
    )
