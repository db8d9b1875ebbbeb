"""Untrained baselines, called floors, which stand in every table of results for comparison."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from partzoo.discovery.factory import make_finder
from partzoo.discovery.finder import Finder
from partzoo.features import placed
from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder, Tokens
from partzoo.models.loading import load
from partzoo.system.device import Device

RANDOM, COLOUR = "random-weights", "colour-position"
BOX = "centred-box"  # a floor for foreground protocols only
UNTRAINED = "patchresnet14"
FLOORS = {
    RANDOM: "patchresnet14 with random weights (seed 0)",
    COLOUR: "colour and position alone, without a network",
}


def random_weights() -> nn.Module:
    """Return an untrained encoder with random weights from seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load(UNTRAINED, pretrained=False, device="cpu", dtype="float32")


class Thumbnail(Encoder):
    """An encoder whose features are the image's ``side`` x ``side`` thumbnail, in one token for the whole image."""

    architecture = "thumbnail"
    preprocess = Preprocess(size=64, mean=(0.5,) * 3, std=(0.5,) * 3)

    def __init__(self, side: int = 8) -> None:
        super().__init__()
        self.side, self.dim = side, 3 * side**2

    def encode(self, x: Tensor) -> Tokens:
        token = adaptive_avg_pool2d(x, self.side).flatten(1)[:, None]
        return Tokens(token, token[:, :0], (1, 1))


def floor_encoder(name: str, device: Device = None) -> nn.Module:
    """Return the encoder of a floor, for probes."""
    return placed(random_weights() if name == RANDOM else Thumbnail(), device)


def floor_finder(name: str, background: str | None = None, size: int | None = None, device: Device = None) -> Finder:
    """Return a finder that implements a floor; everything is foreground unless ``background`` names what finds it."""
    finder = make_finder(random_weights(), background, size, device=device).with_settings(model=name)
    if name != COLOUR:
        return finder
    weights = finder.settings.weights
    colour, position = weights[-2:]
    alone = (colour / (colour + position), position / (colour + position))
    return finder.with_settings(weights=(*(0.0 for _ in weights[:-2]), *alone))
