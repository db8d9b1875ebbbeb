import torch

import partzoo
from partzoo.models.objectness import Objectness


def maps_and_colours(height=10, width=14, seed=0):
    random = torch.Generator().manual_seed(seed)
    maps = [torch.rand(6, 2 * height, 2 * width, generator=random), torch.rand(8, height, width, generator=random)]
    return maps, torch.rand(3, height, width, generator=random) * 50


def test_probabilities_lie_on_the_last_layers_grid():
    head = Objectness((6, 8), 4)
    found = head(*maps_and_colours())
    assert found.shape == (10, 14) and ((found > 0) & (found < 1)).all()


def test_evidence_moves_with_a_mirrored_image():
    maps, lab = maps_and_colours()
    there = Objectness.evidence(maps, lab).view(10, 14, -1)
    mirrored = Objectness.evidence([each.flip(2) for each in maps], lab.flip(2)).view(10, 14, -1)
    assert torch.allclose(mirrored.flip(1), there, atol=1e-4)


def test_evidence_does_not_depend_on_the_scale_of_features():
    maps, lab = maps_and_colours()
    scaled = Objectness.evidence([5 * each for each in maps], lab)
    assert torch.allclose(scaled, Objectness.evidence(maps, lab), atol=1e-4)


def test_one_row_of_cells_is_enough():
    maps, lab = maps_and_colours(1, 9)
    assert Objectness((6, 8), 4)(maps, lab).shape == (1, 9)


def test_the_encoder_with_the_head_has_the_encoders_features():
    torch.manual_seed(0)
    model = partzoo.load("patchresnet14-fg", pretrained=False, device="cpu", dtype="float32")
    plain = partzoo.load("patchresnet14", pretrained=False, device="cpu", dtype="float32")
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("objectness.")})
    x = torch.randn(1, 3, 64, 48)
    assert torch.equal(model.encode(x).patch, plain.encode(x).patch)
