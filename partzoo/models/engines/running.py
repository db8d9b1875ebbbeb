"""Models whose networks an engine runs: ``partzoo.load(name, engine=...)``."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from partzoo.errors import ShapeError, UsageError, require
from partzoo.models.base import Encoder, Model, Tokens, as_format, in_precision
from partzoo.models.engines.graphs import Call
from partzoo.models.engines.kept import identity, kept_program
from partzoo.models.engines.quantizing import Range, quantized
from partzoo.models.engines.recorded import Recipe, recipes
from partzoo.models.engines.sessions import SESSIONS, Session
from partzoo.models.folding import folded
from partzoo.models.foreground import ForegroundModel
from partzoo.models.part_model import PartModel
from partzoo.models.precision import has_bf16, has_vnni
from partzoo.system.device import Device, device_of

Engine = Literal["auto", "torch", "onnxruntime", "openvino"]
PRECISIONS = {"onnxruntime": ("float32", "int8"), "openvino": ("float32", "bfloat16", "int8")}  # slowest first
FASTEST: tuple[Engine, ...] = ("openvino", "onnxruntime")
EXTRAS = {"onnxruntime": "export", "openvino": "openvino"}  # of partzoo, which install an engine
STARTING = threading.Lock()  # one thread exports what several need
ATTRIBUTES = ("architecture", "config", "preprocess", "keep_float", "dim", "patch", "reductions", "fixed")


class OnEngine(Model):
    """A model whose networks an engine runs on the CPU; everything else, such as a classifier, is torch's.

    A method's program is exported when it is first called, and kept in partzoo's cache folder.

    Attributes:
        module: the model in torch.
        engine: ``"onnxruntime"`` or ``"openvino"``.
        precision: ``"float32"``, ``"bfloat16"`` or ``"int8"``.
        ranges: ranges of the layers that int8 quantizes, by name.

    Args:
        own: the model's :func:`partzoo.models.engines.kept.identity`.
    """

    module: Any  # named as torch's wrappers name it, so that the model inside is what is saved
    engine: str
    precision: str

    def __init__(self, module: Model, own: str, engine: str, precision: str, ranges: Mapping[str, Range]) -> None:
        nn.Module.__init__(self)
        self.module, self.engine, self.precision, self.ranges = module, engine, precision, dict(ranges)
        for name in ATTRIBUTES:
            if hasattr(module, name):
                setattr(self, name, getattr(module, name))
        self._identity = own + json.dumps(self.ranges)
        self._sessions: dict[Call, Session] = {}
        self.eval()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sessions": {}}  # an engine's session cannot be copied

    def run(self, call: Call, x: Tensor, classes: Tensor | None = None) -> list[Tensor]:
        """Run a method's program.

        Raises:
            UsageError: the images are not on the CPU.
        """
        if x.device.type != "cpu":
            raise UsageError(f"engine={self.engine!r} runs on the CPU, not on {x.device}: load the model with 'torch'.")
        with STARTING:
            if call not in self._sessions:
                program = kept_program(self._identity, call, self._prepared)
                self._sessions[call] = SESSIONS[self.engine](program, self.precision)
        inputs = {"x": x.detach().contiguous().numpy()}
        if classes is not None:
            inputs["classes"] = classes.numpy()
        return [torch.from_numpy(each) for each in self._sessions[call](inputs)]

    def _prepared(self) -> Model:
        return quantized(folded(copy.deepcopy(self.module)), self.ranges)

    def _size(self, x: Tensor) -> tuple[int, int] | None:
        """Return the images' size if the network must be set to it."""
        return (x.shape[2], x.shape[3]) if getattr(self.module, "settable", None) else None


class EngineEncoder(OnEngine, Encoder):
    """An encoder whose network an engine runs."""

    def check_input(self, x: Tensor) -> None:
        self.module.check_input(x)

    @in_precision
    def encode(self, x: Tensor) -> Tokens:
        maps, *prefix = self.run(Call("encode", size=self._size(x)), x)
        tokens = Tokens.from_maps(maps)
        return replace(tokens, prefix=prefix[0]) if prefix else tokens

    @in_precision
    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        layers = tuple(indices) if isinstance(indices, (list, tuple)) else indices
        return as_format(self.run(Call("forward_intermediates", layers, self._size(x)), x), output_fmt)


class EnginePartModel(OnEngine, PartModel):
    """A part model whose networks an engine runs. torch compares descriptors with features."""

    def parts_of(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        return self._of("parts_of", x, classes)[0]

    def features(self, x: Tensor) -> Tensor:
        return self.run(Call("features", size=self._size(x)), x)[0]

    def look(self, x: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        parts, features = self._of("look", x, classes)
        return parts, features

    def match(self, parts: Tensor, features: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        return self.module.match(parts, features, size)

    def _of(self, method: str, x: Tensor, classes: Tensor | None) -> list[Tensor]:
        return self.run(Call(method, size=self._size(x), classes=classes is not None), x, classes)


class EngineForeground(OnEngine, ForegroundModel):
    """A foreground model whose network an engine runs."""

    def forward(self, x: Tensor) -> Tensor:
        """Predict as in torch, for images whose sides are multiples of the network's stride, as discovery's are.

        Raises:
            ShapeError: a side is not.
        """
        multiple = self.module.preprocess.multiple
        if any(side % multiple for side in x.shape[2:]):
            size = " x ".join(map(str, x.shape[2:]))
            raise ShapeError(f"{size} pixels: engine={self.engine!r} runs this model at multiples of {multiple}.")
        return self.run(Call("forward"), x.float())[0]


def check_engine(engine: str, precision: object, device: torch.device) -> None:
    """Refuse an engine that is unknown or not installed, or that cannot compute in a precision or on a device.

    Raises:
        UsageError: the engine is unknown, or cannot compute in the precision or on the device.
        MissingExtraError: the engine is not installed.
    """
    if engine not in SESSIONS:
        raise UsageError(f"engine={engine!r} must be one of {', '.join(map(repr, ('auto', 'torch', *SESSIONS)))}.")
    if device.type != "cpu":
        raise UsageError(f"engine={engine!r} runs on the CPU, not on {device}: use engine='torch'.")
    if precision not in ("auto", *PRECISIONS[engine]):
        known = ", ".join(map(repr, ("auto", *PRECISIONS[engine])))
        raise UsageError(f"dtype={precision!r}: {engine} computes in one of {known}.")
    if precision == "int8" and not has_vnni():
        raise UsageError("dtype='int8': this CPU does not multiply int8 natively (AVX-512 VNNI): use dtype='float32'.")
    require(engine, EXTRAS[engine])


def fastest(device: Device) -> Engine:
    """Return what ``engine="auto"`` chooses for a device: on the CPU the first engine of a list that is installed.

    The list is in the order of the times in ``docs/speed.md``.
    """
    on_cpu = device_of(device).type == "cpu"
    return next((engine for engine in FASTEST if on_cpu and find_spec(engine)), "torch")


def on_engine(model: Model, engine: str, precision: str, ranges: Mapping[str, Range] | None = None) -> Model:
    """Return a model, loaded in float32 on the CPU, whose networks an engine runs.

    Args:
        model: the model in torch.
        engine: ``"onnxruntime"`` or ``"openvino"``.
        precision: ``"auto"`` or one of :data:`PRECISIONS`.
        ranges: ranges for int8; None takes those that are recorded.

    Raises:
        UsageError: no ranges are recorded for the model.
    """
    kinds = {PartModel: EnginePartModel, Encoder: EngineEncoder, ForegroundModel: EngineForeground}
    kind = next(found for base, found in kinds.items() if isinstance(model, base))
    own = identity(model)
    if ranges is not None or precision == "float32":
        return kind(model, own, engine, precision, ranges or {})
    recipe = recipes().get(own)
    chosen = offered(engine, recipe) if precision == "auto" else precision
    if chosen == "int8" and not (recipe and recipe.ranges):
        known = ", ".join(sorted(each.name for each in recipes().values() if each.ranges))
        raise UsageError(
            f"dtype='int8': no ranges are recorded for these weights of {model.architecture}, only for {known}."
        )
    return kind(model, own, engine, chosen, recipe.ranges if recipe and chosen == "int8" else {})


def offered(engine: str, recipe: Recipe | None) -> str:
    """Return the fastest precision of an engine that agrees with float32 for a model and that this CPU has."""
    has = {"float32": True, "bfloat16": has_bf16(torch.device("cpu")), "int8": has_vnni()}
    agreement = recipe.agreement.get(engine, {}) if recipe else {}
    fit = [each for each in PRECISIONS[engine] if has[each] and each in agreement and agreement[each].enough]
    return fit[-1] if fit else "float32"
