"""The feature maps that perceptual losses compare."""

from __future__ import annotations

from itertools import pairwise

from timm.models.vgg import VGG
from torch import Tensor, nn

from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder


def perceptual_levels(network: Encoder, x: Tensor, preprocess: Preprocess | None = None) -> list[Tensor]:
    """Compute the feature maps of images, from fine to coarse.

    For a VGG they are the outputs of the first convolution at each resolution, after the ReLU (relu1_1 to relu5_1 of
    VGG-19: Johnson et al., "Perceptual losses", ECCV 2016); for any other encoder, all of its intermediate maps.

    Args:
        network: encoder whose features are compared.
        x: ``(B, 3, H, W)``, normalized.
        preprocess: normalization of ``x``; None means the network's normalization.
    """
    own = network.preprocess
    if preprocess is not None and (preprocess.mean, preprocess.std) != (own.mean, own.std):
        x = own.normalize(preprocess.denormalize(x))
    model = getattr(network, "model", None)
    if not isinstance(model, VGG):
        return network.forward_intermediates(x)
    layers = model.features
    starts = [0] + [i + 1 for i, layer in enumerate(layers[:-1]) if isinstance(layer, nn.MaxPool2d)]
    ends = [next(i + 1 for i in range(start, len(layers)) if isinstance(layers[i], nn.ReLU)) for start in starts]
    return [x := layers[start:end](x) for start, end in pairwise([0, *ends])]
