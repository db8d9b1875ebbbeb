import pytest
import torch

from partzoo.errors import UsageError
from partzoo.models.loading import load
from partzoo.models.part.model import Part, PartConfig
from partzoo.weights.manifest import manifest
from partzoo.weights.release_files import check_golden
from partzoo.weights.tensors import write_weights


def test_the_order_of_patches_does_not_matter():
    torch.manual_seed(0)
    model = Part(PartConfig(dim=24, depth=2, heads=3)).eval()
    patches, order = torch.randn(1, 9, 3, 8, 8), torch.randperm(9)
    torch.testing.assert_close(model.encode_patches(patches)[:, order], model.encode_patches(patches[:, order]))
    matrix = model.relate(patches).reshape(1, 9, 9, 2)
    shuffled = model.relate(patches[:, order]).reshape(1, 9, 9, 2)
    torch.testing.assert_close(matrix[:, order][:, :, order], shuffled, atol=1e-5, rtol=1e-4)


def test_an_image_is_its_grid_of_patches():
    torch.manual_seed(0)
    model = Part(PartConfig(dim=24, depth=2, heads=3)).eval()
    x = torch.randn(1, 3, 16, 24)
    patches = torch.stack([x[0, :, r : r + 8, c : c + 8] for r in (0, 8) for c in (0, 8, 16)])[None]
    torch.testing.assert_close(model.encode(x).patch, model.encode_patches(patches))


def test_sizes_of_the_vision_transformers():
    for config, millions in [(PartConfig(), 5.4), (PartConfig(dim=384, heads=6), 21.4)]:
        with torch.device("meta"):
            model = Part(config)
        encoder = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("relative_encoder"))
        assert encoder / 1e6 == pytest.approx(millions, abs=0.1)


def test_the_bundled_weight_gives_its_golden_output():
    model = load("part-vitt8.tin", device="cpu", dtype="float32")
    assert check_golden(model, manifest()["part-vitt8.tin"].golden) < 1e-3


@pytest.mark.parametrize("relative", ["cross-attention", "pairwise-mlp", "mlp"])
@pytest.mark.parametrize("targets", [2, 4])
def test_the_relative_encoder_is_stored_with_the_weights(relative, targets, tmp_path):
    torch.manual_seed(0)
    small = {"dim": 24, "depth": 1, "heads": 3, "size": 24, "relative_encoder": relative, "targets": targets}
    model = Part(PartConfig(**small)).eval()
    write_weights(tmp_path / "model.safetensors", model.state_dict(), "part-vitt8", model.config)
    found = load(tmp_path / "model.safetensors", device="cpu", dtype="float32")
    patches = torch.randn(2, 9, 3, 8, 8)
    assert found.config == model.config
    assert model.relate(patches).shape == (2, 81, targets)
    torch.testing.assert_close(found.relate(patches), model.relate(patches))


def test_targets_are_two_or_four():
    with pytest.raises(UsageError, match="targets=3"):
        Part(PartConfig(targets=3))
