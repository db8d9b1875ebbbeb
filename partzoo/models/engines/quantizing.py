"""Static quantization to int8: ranges of activations that were observed on images, and layers that round to them.

Layers compute what ``QuantizeLinear`` and ``DequantizeLinear`` around a product mean in ONNX, which engines compute in
integers. Weights have a scale for each output channel, activations one for each tensor.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from partzoo.models.base import Model

LEVELS = 255  # of activations, which are uint8
MOST = 127  # of weights, which are int8

Range = tuple[float, float]


def layers_of(model: Model) -> dict[str, nn.Linear]:
    """Return the layers that can be quantized: linear ones, except those that ``keep_float`` names."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(model.keep_float)
    }


def observed(model: Model, inputs: Iterable[Tensor], run: Callable[[Tensor], Any]) -> dict[str, Range]:
    """Return the range of the input of each layer over all images, by name.

    Args:
        model: the model in float32.
        inputs: normalized images ``(1, 3, H, W)``.
        run: a method of the model; layers that it does not use have no range, and stay in float32.
    """
    seen: dict[str, list[Tensor]] = {}

    def hook(name: str) -> Callable[..., None]:
        return lambda _, given: seen.setdefault(name, []).append(_range(given[0]))

    hooks = [module.register_forward_pre_hook(hook(name)) for name, module in layers_of(model).items()]
    try:
        with torch.inference_mode():
            for x in inputs:
                run(x)
    finally:
        for each in hooks:
            each.remove()
    found = {}
    for name, ranges in seen.items():
        low, high = torch.stack(ranges).unbind(1)
        found[name] = (round(low.min().item(), 4), round(high.max().item(), 4))
    return found


def _range(values: Tensor) -> Tensor:
    low, high = values.aminmax()
    return torch.stack([low.clamp(max=0), high.clamp(min=0)])  # zero must be among the levels


def quantized(model: Model, ranges: Mapping[str, Range]) -> Model:
    """Replace the layers that have ranges by quantized ones, in place, and return the model."""
    for name, module in layers_of(model).items():
        if name in ranges:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, QuantizedLinear(module, *ranges[name]))
    return model


class QuantizedLinear(nn.Module):
    """A linear layer whose input and weights are rounded to 8 bits.

    Args:
        linear: the layer.
        low, high: range of its input.
    """

    def __init__(self, linear: nn.Linear, low: float, high: float) -> None:
        super().__init__()
        # It registers the operators that are exported as QuantizeLinear and DequantizeLinear, and takes a second.
        importlib.import_module("torch.ao.quantization.fx._decomposed")
        self.scale = max(high - low, 1e-6) / LEVELS
        self.zero = round(-low / self.scale)
        scales = linear.weight.abs().amax(1).clamp(min=1e-8) / MOST
        # Engines look for products of integers, so the weights are stored as the product takes them.
        self.weight = nn.Buffer((linear.weight / scales[:, None]).round().to(torch.int8).T.contiguous())
        self.scales = nn.Buffer(scales)
        self.zeros = nn.Buffer(torch.zeros(len(scales), dtype=torch.int64))
        self.bias = nn.Buffer(torch.zeros_like(scales) if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        operators = torch.ops.quantized_decomposed
        of_input = self.scale, self.zero, 0, LEVELS, torch.uint8
        x = operators.dequantize_per_tensor(operators.quantize_per_tensor(x, *of_input), *of_input)
        weight = operators.dequantize_per_channel(self.weight, self.scales, self.zeros, 1, -MOST, MOST, torch.int8)
        return x @ weight + self.bias
