"""Train a network with one hidden layer to classify cells."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from partzoo.discovery.vocabulary import Network

HIDDEN, BATCH, RATE = 64, 512, 4e-3  # chosen on dev splits, as are the others; see docs/taught.md
STEPS, LEAST, MOST = 30, 300, 1500  # steps of training for each group of examples, and in all
DROPPED = 0.3  # share of the inputs and of the hidden units that each step of training leaves out
BALANCE = 0.35  # power of a label's share by which its cells are drawn less often
DECAYS, TINY = (0.9, 0.999), 1e-8  # of Adam


def fit_network(x: Tensor, y: Tensor, weights: Tensor, classes: int, groups: int, seed: int = 0) -> Network:
    """Train a network to classify examples, with Adam and dropout.

    Args:
        x: ``(N, D)`` features, float32 or float16, with a standard deviation of about 1.
        y: ``(N,)`` int64 classes.
        weights: ``(N,)`` float32, how often each example counts; frequent classes then count less, by :data:`BALANCE`.
        classes: number of classes.
        groups: number of groups of examples, such as images; more of them are learned from for longer.
        seed: random seed of the first weights, the order of the examples and the dropout.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015; Srivastava et al., "Dropout: a
    simple way to prevent neural networks from overfitting", JMLR 2014.
    """
    random = torch.Generator().manual_seed(seed)
    count = torch.zeros(classes).index_add_(0, y, weights)
    chances = weights * (count / count.sum())[y].pow(-BALANCE)
    steps = min(max(STEPS * groups, LEAST), MOST)
    drawn = torch.multinomial(chances, steps * BATCH, replacement=True, generator=random).view(steps, BATCH)
    sizes = ((x.shape[1], HIDDEN), (1, HIDDEN), (HIDDEN, classes), (1, classes))
    reaches = (x.shape[1], x.shape[1], HIDDEN, HIDDEN)
    with torch.inference_mode(False), torch.enable_grad():
        weights_of = [
            ((torch.rand(size, generator=random) * 2 - 1) / math.sqrt(reach)).requires_grad_()
            for size, reach in zip(sizes, reaches, strict=True)
        ]
        first, first_constant, second, second_constant = weights_of
        moments = [(torch.zeros(size), torch.zeros(size)) for size in sizes]
        for step, chosen in enumerate(drawn, 1):
            seen = _kept((BATCH, x.shape[1]), random) * x[chosen].float()
            units = _kept((BATCH, HIDDEN), random) * (seen @ first + first_constant).relu()
            loss = cross_entropy(units @ second + second_constant, y[chosen])
            slopes = torch.autograd.grad(loss, weights_of)
            rate = RATE * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
            with torch.no_grad():
                for weight, slope, (mean, square) in zip(weights_of, slopes, moments, strict=True):
                    mean.lerp_(slope, 1 - DECAYS[0])
                    square.lerp_(slope.square(), 1 - DECAYS[1])
                    spread = (square / (1 - DECAYS[1] ** step)).sqrt_().add_(TINY)
                    weight.addcdiv_(mean, spread, value=-rate / (1 - DECAYS[0] ** step))
    found = [weight.detach() for weight in weights_of]
    return Network(torch.cat(found[:2]).T.contiguous(), torch.cat(found[2:]).T.contiguous())


def _kept(size: tuple[int, int], random: torch.Generator) -> Tensor:
    """Return a mask that leaves out some of the values and scales the others up."""
    return (torch.rand(size, generator=random) >= DROPPED).float() / (1 - DROPPED)
