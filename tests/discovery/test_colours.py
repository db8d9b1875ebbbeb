import torch

from partzoo.discovery.colours import cielab


def test_cielab_of_known_colours():
    rgb = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]).T[:, None]
    expected = torch.tensor([[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]).T[:, None]
    assert torch.allclose(cielab(rgb), expected, atol=0.05)
