import dataclasses

import pytest
import torch
from torch.nn.functional import pad

import partzoo
from partzoo.errors import UsageError
from partzoo.models.loading import build
from partzoo.models.part.classifier import PartClassifier, PartClassifierConfig, RelativePositions, classifier_of
from partzoo.models.part.model import PartConfig
from partzoo.models.registry import architectures, find
from partzoo.weights.tensors import write_weights

TINY = {"dim": 24, "depth": 4, "heads": 2, "size": 32}


@pytest.fixture(scope="module")
def part():
    torch.manual_seed(0)
    return build(find("part-vitt8"), PartConfig(**TINY)).eval()


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_finetunable_model_is_the_part_model_but_for_positions_and_class_token(part, x):
    backbone = PartClassifier.from_part(part, classes=0).eval()
    assert backbone.pos_embed.std() > 0.01
    with torch.no_grad():
        backbone.pos_embed.zero_()
    assert torch.allclose(backbone.encode(x).patch, part.encode(x).patch, atol=1e-5)
    assert backbone.architecture == "part-classifier-vitt8" and backbone.encode(x).prefix.shape == (2, 0, 24)
    classifier = PartClassifier.from_part(part, classes=5)
    assert torch.equal(classifier.blocks[2].attn.qkv.weight, part.blocks[2].attn.qkv.weight)
    assert classifier.classify(x).shape == (2, 5)
    assert not hasattr(classifier, "relative_encoder")


def test_positions_matter_and_every_one_is_learned(part, x):
    model = PartClassifier.from_part(part, classes=5).eval()
    turned = torch.rot90(x.unflatten(2, (4, 8)).unflatten(4, (4, 8)), 1, (2, 4)).flatten(4, 5).flatten(2, 3)
    assert turned.shape == x.shape  # the same patches, elsewhere
    assert not torch.allclose(model.classify(x), model.classify(turned), atol=1e-3)
    with torch.no_grad():
        model.pos_embed.zero_()
    assert torch.allclose(model.classify(x), model.classify(turned), atol=1e-5)
    model.classify(x).square().sum().backward()
    assert (model.pos_embed.grad.abs().sum((0, 2)) > 0).all() and model.cls_token.grad.abs().sum() > 0


def test_any_size_and_what_load_promises(part, tmp_path):
    model = PartClassifier.from_part(part, classes=3, names=("ant", "bee", "cat"), size=40).eval()
    write_weights(tmp_path / "m.safetensors", model.state_dict(), model.architecture, dataclasses.asdict(model.config))
    loaded = partzoo.load(tmp_path / "m.safetensors", device="cpu", dtype="float32")
    assert loaded.config == model.config and loaded.config.names == ("ant", "bee", "cat")
    x = torch.randn(1, 3, 27, 50)
    assert torch.equal(loaded.classify(x), model.classify(x)) and not loaded.classify(x).requires_grad
    tokens = loaded.encode(x)
    assert tokens.grid == (4, 7) and tokens.patch.shape == (1, 28, 24) and tokens.prefix.shape == (1, 1, 24)
    assert torch.equal(loaded.forward_intermediates(x, [3])[0], tokens.maps())


def test_windows_keep_blocks_apart_but_for_four(part):
    backbone = PartClassifier.from_part(part, classes=0, window=2).eval()
    assert backbone.windowed == [False] * 4  # one in every block of four that there are
    deep = PartClassifier(PartClassifierConfig(**(TINY | {"depth": 12}), classes=0, window=2)).eval()
    assert [i for i, each in enumerate(deep.windowed) if not each] == [2, 5, 8, 11]
    x = torch.randn(1, 3, 24, 40)
    changed = x.clone()
    changed[..., :8, :8] += 1
    first, other = (deep.forward_intermediates(each, [0, 2]) for each in (x, changed))
    near = (first[0] != other[0]).any(1)[0]
    assert near[:2, :2].all() and not near[2:].any() and not near[:, 2:].any()
    assert (first[1] != other[1]).any(1).all()


def test_a_window_as_large_as_the_image_is_no_window():
    torch.manual_seed(0)
    model = PartClassifier(PartClassifierConfig(**(TINY | {"depth": 8}), classes=0, window=3)).eval()
    x = torch.randn(1, 3, 24, 24)
    padded = pad(x, (0, 24, 0, 24))
    plain = PartClassifier(dataclasses.replace(model.config, window=0)).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.encode(x).patch, plain.encode(x).patch)
    assert not torch.allclose(model.encode(padded).patch, plain.encode(padded).patch, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dim": 48}, r"dim=48 for 24: the encoder keeps the sizes that part-vitt8 was trained with"),
        ({"classs": 5}, r"classs: the options are dim, depth"),
        ({"classes": 3, "window": 2}, r"a class token has no position"),
        ({"classes": 3, "names": ("a",)}, r"1 names for classes=3"),
    ],
)
def test_what_cannot_be_is_one_clear_error(part, config, message):
    with pytest.raises(UsageError, match=message):
        PartClassifier.from_part(part, **config)


def test_a_backbone_cannot_classify(part, x):
    with pytest.raises(UsageError, match="has no classes"):
        PartClassifier.from_part(part, classes=0).classify(x)


def test_a_quantized_model_is_not_finetuned_from_random_weights():
    part = partzoo.load("part-vitt8", pretrained=False, device="cpu", dtype="int8", depth=1)
    with pytest.raises(UsageError, match="quantized or replaced: load it with dtype='float32'"):
        PartClassifier.from_part(part)


def test_every_part_model_can_be_finetuned():
    for name in partzoo.list_models("part-vit*"):
        config, finetuned = find(name).config, architectures().get(classifier_of(name))
        if isinstance(config, PartConfig):
            assert finetuned is not None, name
            shared = [each.name for each in dataclasses.fields(PartClassifierConfig) if hasattr(config, each.name)]
            assert [getattr(finetuned.config, each) for each in shared] == [getattr(config, each) for each in shared]


@pytest.mark.parametrize("grid", [(3, 4), (5, 2)])
def test_relative_positions_are_the_queries_times_the_vectors_of_the_way(grid):
    torch.manual_seed(0)
    positions, queries = RelativePositions(5, 6), torch.randn(2, 3, grid[0] * grid[1], 6)
    for table in positions.parameters():
        torch.nn.init.normal_(table)
    # The longest ways of the grid are the table's first and last only where it was made for it.
    tables = [
        torch.nn.functional.interpolate(table.T[None], 2 * side - 1, mode="linear")[0].T
        for table, side in zip((positions.rows, positions.columns), grid, strict=True)
    ]
    found, (row, column) = positions(queries, grid), divmod(7, grid[1])
    for key in range(grid[0] * grid[1]):
        down, across = row - key // grid[1] + grid[0] - 1, column - key % grid[1] + grid[1] - 1
        expected = queries[:, :, 7] @ (tables[0][down] + tables[1][across])
        torch.testing.assert_close(found[:, :, 7, key], expected)


def test_without_positions_patches_are_a_set(part, x):
    torch.manual_seed(0)
    model = PartClassifier.from_part(part, classes=5, positions=False).eval()
    assert not any("pos_embed" in name for name in model.state_dict())
    swapped = x.roll(8, 3)  # by a whole patch
    torch.testing.assert_close(model.classify(x), model.classify(swapped), atol=1e-5, rtol=1e-4)
    placed = PartClassifier.from_part(part, classes=5).eval()
    assert (placed.classify(x) - placed.classify(swapped)).abs().max() > 1e-4
