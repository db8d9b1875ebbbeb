"""An encoder with a head that distinguishes objects from their surroundings.

A small perceptron takes the encoder's features at each position, their difference from the features along the image's
border, and the position itself. It is trained without masks, on the scores of a classical prior, and outperforms this
teacher, because what the prior gets wrong in one image it gets right in similar ones.

Source: the idea comes from Siméoni et al., "Unsupervised object localization: observing the background to discover
objects" (FOUND), CVPR 2023; the teacher is Zhu et al., "Saliency optimization from robust background detection",
CVPR 2014 (``partzoo.discovery.foreground``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from partzoo.models.patchresnet import PatchResNet, PatchResNetConfig
from partzoo.models.registry import register


@dataclass(frozen=True)
class PatchResNetFgConfig(PatchResNetConfig):
    """A :class:`PatchResNetConfig` with an additional ``hidden``, the width of the perceptron."""

    hidden: int = 32


class Objectness(nn.Module):
    """A perceptron that predicts the probability that a position belongs to an object, from features and colours."""

    mean: Tensor
    scale: Tensor

    def __init__(self, widths: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        inputs = 2 * sum(widths) + 2 * len(widths) + 4
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, maps: list[Tensor], lab: Tensor) -> Tensor:
        """Compute probabilities ``(h, w)`` for one image's maps (see :meth:`evidence`)."""
        return self.score(self.evidence(maps, lab)).view(maps[-1].shape[1:])

    def score(self, evidence: Tensor) -> Tensor:
        """Compute probabilities ``(N,)`` for evidence ``(N, inputs)``."""
        return self.logits(evidence).sigmoid()

    def logits(self, evidence: Tensor) -> Tensor:
        """Compute the logits ``(N,)`` of :meth:`score`."""
        return self.layers((evidence.to(self.mean.dtype) - self.mean) * self.scale)[:, 0]

    @staticmethod
    def evidence(maps: list[Tensor], lab: Tensor) -> Tensor:
        """Compute the perceptron's inputs ``(h * w, inputs)``.

        Args:
            maps: features ``(C, h_i, w_i)`` of each layer; the result has the last layer's grid.
            lab: CIELAB colours ``(3, h, w)``.
        """
        height, width = grid = maps[-1].shape[1], maps[-1].shape[2]
        units = [normalize(_pooled(layer, grid), dim=0) for layer in maps]
        found = []
        for unit in units:
            scaled = unit * len(unit) ** 0.5
            found += [scaled, (scaled - _border(scaled).mean(1)[:, None, None]).abs()]
        for unit in units:
            centred = normalize(unit - unit.mean((1, 2), keepdim=True), dim=0)
            found.append(_nearness(centred.flatten(1).T @ _border(centred), grid))
        distance = torch.cdist(lab.flatten(1).T / 10, _border(lab).T / 10)
        found.append(_nearness((-(distance**2) / 2).exp(), grid))
        y, x = (torch.linspace(-1, 1, n, device=lab.device).abs() for n in (height, width))
        found.append(torch.stack(torch.meshgrid(y, x, indexing="ij")))
        return torch.cat(found).flatten(1).T


class PatchResNetFg(PatchResNet):
    """A :class:`PatchResNet` with an additional objectness head."""

    def __init__(self, config: PatchResNetFgConfig) -> None:
        super().__init__(config)
        self.objectness = Objectness(config.widths, config.hidden)


def _pooled(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average a map ``(C, h, w)`` over the cells of a coarser grid, each of which covers whole cells of the map."""
    rows, columns = x.shape[1] // grid[0], x.shape[2] // grid[1]
    shifted = (x[:, i::rows, j::columns] for i in range(rows) for j in range(columns))
    return reduce(torch.add, shifted) / (rows * columns)


def _border(x: Tensor) -> Tensor:
    """Return the outermost positions of a map ``(C, h, w)`` as ``(C, M)``."""
    return torch.cat([x[:, 0], x[:, -1], x[:, 1:-1, 0], x[:, 1:-1, -1]], dim=1)


def _nearness(similarity: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the means of the highest tenth and of all similarities ``(N, M)`` to the border, as ``(2, h, w)``."""
    near = similarity.topk(max(similarity.shape[1] // 10, 1), dim=1, sorted=False).values.mean(1)
    return torch.stack([near, similarity.mean(1)]).view(2, *grid)


@register(family="encoder", config=PatchResNetFgConfig())
def patchresnet14_fg(config: PatchResNetFgConfig) -> PatchResNetFg:
    """patchresnet14 with a head that distinguishes objects from their surroundings."""
    return PatchResNetFg(config)
