"""Build a finder from a model's name: its encoder or part model, its settings, and its foreground method."""

from __future__ import annotations

import functools
from typing import cast

from torch import nn

from partzoo.discovery.clustered import ClusteredFinder
from partzoo.discovery.finder import Finder
from partzoo.discovery.foreground import METHODS
from partzoo.discovery.framed import FramedFinder
from partzoo.discovery.learned import LearnedFinder
from partzoo.discovery.taught import TaughtFinder, encoder_sizes, levels
from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import UnknownModelError, UsageError, WeightsError
from partzoo.features import DEFAULT_MODEL, encoder_of, placed
from partzoo.files import expand_user
from partzoo.limits import check_size
from partzoo.models.base import Model
from partzoo.models.engines.running import Engine
from partzoo.models.folding import folded
from partzoo.models.foreground import ForegroundModel
from partzoo.models.loading import load
from partzoo.models.part_model import PartModel
from partzoo.models.precision import exact
from partzoo.models.registry import find, list_models
from partzoo.system.device import Device
from partzoo.weights.folder import stored_model
from partzoo.weights.manifest import short_names

FOREGROUND = "foreground-lite0.masks"  # the model that background="auto" stands for
FEATURES, COLOUR, PLACE = 0.8, 0.15, 0.05  # weights of the blocks of a descriptor, see docs/discovery.md
COARSEST, CELLS = 32, 28  # the stride from which two levels are used; cells along the longer side for finer strides

Background = str | bool | ForegroundModel | None


def make_finder(
    model: str | nn.Module | None = None,
    background: Background = "auto",
    size: int | None = None,
    refine: bool = True,
    device: Device = None,
    engine: Engine = "torch",
) -> Finder:
    """Make a finder that uses a model; arguments and errors as in :func:`partzoo.discover_parts`.

    ``engine`` is what runs a model given by name, as for :func:`partzoo.load`.
    """
    if size is not None:
        check_size(size)
    encoder = inference_model(model, device, engine=engine)
    name = DEFAULT_MODEL if model is None else model if isinstance(model, str) else ""
    if isinstance(encoder, PartModel):
        return _learned(encoder, Settings(name, size or encoder.preprocess.size, refine=refine))
    method, network = foreground_of(background, encoder, device)
    settings = Settings(name, size or default_size(encoder), *blend(encoder), method, refine)
    return ClusteredFinder(encoder, settings, network)


def make_taught_finder(
    model: str | nn.Module | None = None,
    background: Background = "auto",
    size: int | None = None,
    refine: bool = True,
    device: Device = None,
) -> TaughtFinder:
    """Make the finder of parts that a user will teach; arguments and errors as in :func:`partzoo.discover_parts`."""
    if size is not None:
        check_size(size)
    encoder = inference_model(model, device)
    name = DEFAULT_MODEL if model is None else model if isinstance(model, str) else ""
    if isinstance(encoder, PartModel):
        raise UsageError("A part model has learned its own parts: teach others with an encoder as model=.")
    method, network = foreground_of(background, encoder, device)
    if network is None and method != "none":
        raise UsageError(f"background={method!r} has no features to teach with: choose a foreground model, or None.")
    size = size or default_size(encoder)
    settings = Settings(name, size, levels(encoder), (), method, refine, sizes=encoder_sizes(size))
    return TaughtFinder(encoder, settings, network)


def finder_of(
    vocabulary: PartVocabulary, model: str | nn.Module | None, device: Device = None, engine: Engine = "torch"
) -> Finder | TaughtFinder:
    """Make the finder that a vocabulary was fitted with; ``model`` replaces the model that its settings name.

    ``engine`` is what runs a model given by name, as for :func:`partzoo.load`.

    A vocabulary may come from anyone, so the models that it names must be on this machine: none is downloaded.
    """
    settings = vocabulary.settings
    if model is None and not settings.model:
        raise UsageError("The vocabulary was fitted with a module that has no name: pass that module as model=.")
    local = model is None
    encoder = inference_model(settings.model if model is None else model, device, local=local, engine=engine)
    own = encoder.config.parts if isinstance(encoder, PartModel) else 0
    known = len(vocabulary.numbering) if vocabulary.learned else 0
    if known != own:
        raise UsageError(
            f"The vocabulary is for a model with {known} learned parts, but this one has {own}: "
            "use the model that the vocabulary was fitted with."
        )
    if isinstance(encoder, PartModel):
        return _learned(encoder, settings)
    network = foreground_of(settings.background, encoder, device, local=True)[1]
    return (TaughtFinder if settings.taught else ClusteredFinder)(encoder, settings, network)


def _learned(model: PartModel, settings: Settings) -> LearnedFinder:
    """Return the finder of a part model; under the alias of its weights it looks for the object in smaller frames."""
    return (FramedFinder if settings.model in short_names() else LearnedFinder)(model, settings)


def inference_model(
    model: str | nn.Module | None, device: Device = None, *, local: bool = False, engine: Engine = "torch"
) -> Model:
    """Load the encoder with a name and fold its batch norms for speed; the caller's module is not folded.

    Either computes in the dtype of its parameters, so that a machine's fastest precision cannot change labels.

    Args:
        model: name of the encoder, or a module; None uses the bundled default.
        device: where the model runs, as for :func:`partzoo.load`.
        local: whether to forbid network requests, because the name is a vocabulary's.
        engine: what runs a model given by name, as for :func:`partzoo.load`.
    """
    if isinstance(model, nn.Module):
        return exact(encoder_of(model, device))
    name = DEFAULT_MODEL if model is None else model
    found = _here(name, device, engine) if local else load(name, device=device, engine=engine)
    return exact(folded(encoder_of(found)))


def _here(name: str, device: Device, engine: Engine = "torch") -> Model:
    try:
        return load(name, device=device, engine=engine, local_files_only=True)
    except WeightsError as error:
        raise WeightsError(
            f"A vocabulary downloads nothing, and its model {name!r} cannot be loaded ({str(error).rstrip('.')}): pass "
            f"model={name!r} if you trust it."
        ) from error


def foreground_of(
    background: Background, encoder: Model, device: Device = None, *, local: bool = False
) -> tuple[str, ForegroundModel | None]:
    """Return the name of a foreground method or model, and the model if it is one.

    A released model is cached for the next call. A folder or a file is read every time, since its content may
    change. The encoder's engine runs it too. ``local`` forbids network requests.
    """
    engine: Engine = getattr(encoder, "engine", "torch")
    if isinstance(background, ForegroundModel):
        return "", exact(placed(background, device))
    if background is None or background is False:
        return "none", None
    name = FOREGROUND if background is True or background == "auto" else background
    if name in METHODS:
        if METHODS[name].objectness and not hasattr(encoder, "objectness"):
            raise UsageError(
                f"background={name!r} needs an encoder with an objectness head: patchresnet14-fg.caltech101."
            )
        return name, None
    if is_foreground_model(name):
        return name, (_read if expand_user(name).exists() else _released)(name, device, local, engine)
    known = ", ".join([*METHODS, *list_models(family="foreground", pretrained=True)])
    raise UsageError(f"Unknown background {name!r}: it is 'auto' or one of {known}.")


def _read(name: str, device: Device, local: bool, engine: Engine) -> ForegroundModel:
    found = _here(name, device, engine) if local else load(name, device=device, engine=engine)
    return exact(folded(cast("ForegroundModel", found)))


@functools.lru_cache(maxsize=2)
def _released(name: str, device: Device, local: bool, engine: Engine) -> ForegroundModel:
    return _read(name, device, local, engine)


def is_foreground_model(name: str) -> bool:
    """Return whether a name refers to a foreground model, or a folder or a file contains one."""
    stored = stored_model(name) if expand_user(name).exists() else None
    try:
        return find(stored[0] if stored else name).family == "foreground"
    except UnknownModelError:
        return False


def blend(encoder: Model) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the layers of an encoder to compare, and the weights of each layer, of colour and of position.

    Only the last layer is used, unless its stride is 32 or more: then the map before it gets a third of the weight.
    """
    if len(encoder.reductions) > 1 and encoder.reductions[-1] >= COARSEST:
        return (-2, -1), (FEATURES / 3, 2 * FEATURES / 3, COLOUR, PLACE)
    return (-1,), (FEATURES, COLOUR, PLACE)


def default_size(encoder: Model) -> int:
    """Return the longer side of the working size in pixels: 28 cells of the encoder's grid, within 224 to 448."""
    return min(max(CELLS * encoder.patch, 224), 448)
