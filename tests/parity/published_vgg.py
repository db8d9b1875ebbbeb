"""VGG-19's convolutions with weights drawn by name, as an encoder: the perceptual network of the training cases."""

import torch
from parity.published_mpae import drawn

from partzoo.models.timm_encoder import TimmConfig, TimmEncoder


def drawn_vgg():
    with torch.device("meta"):
        network = TimmEncoder(TimmConfig("vgg19"))
    prefix, features = "vgg19.features.", network.model.features
    shapes = {prefix + name: tuple(value.shape) for name, value in features.state_dict().items()}
    state = drawn({name: shape for name, shape in shapes.items() if int(name.split(".")[2]) < 30})
    features.load_state_dict({n.removeprefix(prefix): v for n, v in state.items()}, strict=False, assign=True)
    return network.eval().requires_grad_(False)
