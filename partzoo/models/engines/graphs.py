"""The methods of models as programs, which an engine runs in place of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from partzoo.models.base import Model
from partzoo.tracing.graph import BATCH, Axis, Graph, Input, Output

MAPS = ("rows", "columns")


@dataclass(frozen=True)
class Call:
    """A call of a model's method, of which there is one program.

    Attributes:
        method: ``"encode"`` or ``"forward_intermediates"`` of an encoder; ``"parts_of"``, ``"features"`` or ``"look"``
            of a part model; ``"forward"`` of a foreground model.
        layers: layers that ``forward_intermediates`` is asked for.
        size: ``(height, width)`` of the images for a network that is set to one size at a time; None leaves it free.
        classes: whether the model takes the images' classes.
    """

    method: str
    layers: tuple[int, ...] | int | None = None
    size: tuple[int, int] | None = None
    classes: bool = False


class MethodGraph(Graph):
    """A model's method: normalized images or signals, and classes if it takes them, to tensors.

    Args:
        model: the model, in evaluation mode.
        call: the method.
    """

    task = "method"
    facts: Mapping[str, Any] = {}

    def __init__(self, model: Model, call: Call) -> None:
        super().__init__()
        self.model, self.call = model, call
        self.outputs = self._outputs()

    def inputs(self) -> dict[str, Input]:
        found = {"x": normalized_input(self.model, self.call.size)}
        if self.call.classes:
            found["classes"] = Input("class of each image", (Axis("batch"),), torch.arange(BATCH) % 2)
        return found

    def forward(self, x: Tensor, classes: Tensor | None = None) -> tuple[Tensor, ...]:
        return self._results(x, classes)[: len(self.outputs)]

    def _results(self, x: Tensor, classes: Tensor | None) -> tuple[Tensor, ...]:
        method = self.call.method
        if method == "encode":
            tokens = self.model.encode(x)
            return tokens.maps(), tokens.prefix
        if method == "forward_intermediates":
            return tuple(self.model.forward_intermediates(x, self._layers()))
        if method == "look":
            return self.model.look(x, classes)
        return (self.model.parts_of(x, classes) if method == "parts_of" else getattr(self.model, method)(x),)

    def _layers(self) -> list[int] | int | None:
        return list(self.call.layers) if isinstance(self.call.layers, tuple) else self.call.layers

    def _outputs(self) -> dict[str, Output]:
        method = self.call.method
        if method == "forward":
            return {"foreground": Output("probability of the foreground", ("batch", 1, *MAPS))}
        dense = Output("features of each cell of the grid", ("batch", self.model.dim, *MAPS))
        parts = Output("descriptors of the parts", ("batch", "parts", self.model.dim))
        if method in ("encode", "forward_intermediates"):
            with torch.inference_mode():
                found = self._results(self.inputs()["x"].example[:1], None)
            if method == "encode":
                prefix = Output("class and register tokens", ("batch", *found[1].shape[1:]))
                return {"dense": dense} | ({"prefix": prefix} if found[1].shape[1] else {})
            return {
                f"layer{i}": Output("features of a layer", ("batch", each.shape[1], f"rows{i}", f"columns{i}"))
                for i, each in enumerate(found)
            }
        return {"look": {"parts": parts, "features": dense}, "parts_of": {"parts": parts}}.get(
            method, {"features": dense}
        )


def normalized_input(model: Model, size: tuple[int, int] | None = None) -> Input:
    """Return the input of a model as that of a program.

    Args:
        model: model of images or of signals.
        size: height and width of the images, if they are not free.
    """
    preprocess: Any = model.preprocess
    dtype = next(model.parameters()).dtype
    channels, *sizes = preprocess.shape
    free: tuple[Axis | int, ...]
    if len(sizes) == 1:
        about = f"{channels} channels of {preprocess.rate} samples per second, each with mean 0 and deviation 1"
        free = (sizes[0],) if getattr(model.config, "classes", 0) else (Axis("patches", model.patch),)
        example = sizes if isinstance(free[0], int) else [3 * model.patch]
    else:
        about = "RGB images, normalized with the mean and std of the metadata"
        # A network that is set to one size at a time can be exported at one size only.
        free = size or (tuple(sizes) if getattr(model, "settable", None) else (Axis("height"), Axis("width")))
        example = [each if isinstance(each, int) else _odd(preprocess, 1 + i) for i, each in enumerate(free)]
    x = torch.rand(BATCH, channels, *example, generator=torch.Generator().manual_seed(0))
    return Input(about, (Axis("batch"), channels, *free), x.to(dtype))


def _odd(preprocess: Any, more: int) -> int:
    """Return a side of an image that is no multiple of the model's patch, nor the size that it is trained on."""
    return max(preprocess.size, 2 * preprocess.multiple) + more * preprocess.multiple + 1
