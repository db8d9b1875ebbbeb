"""A part model that needs no training."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.functional import one_hot

from partzoo.images.preprocess import Preprocess
from partzoo.models.part_model import PartModel

THIRDS = [[1, 0], [0, 1], [0.1, 1]]  # the last two look alike


class Columns(PartModel):
    """A part model whose parts are columns of equal width where the image is bright, with given descriptors."""

    preprocess = Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1))

    def __init__(self, looks):
        super().__init__()
        self.looks = nn.Parameter(torch.tensor(looks, dtype=torch.float32), requires_grad=False)
        self.config = SimpleNamespace(parts=len(looks))
        self.seen = 0

    def descriptors_and_maps(self, x, classes=None):
        self.seen += len(x)
        bright = x.mean(1, keepdim=True)
        column = torch.arange(x.shape[3]) * self.config.parts // x.shape[3]
        maps = torch.cat([1 - bright, bright * one_hot(column, self.config.parts).T[None, :, None]], 1)
        looks = torch.cat([torch.zeros_like(self.looks[:1]), self.looks])
        return looks[None].expand(len(x), -1, -1), lambda size: maps
