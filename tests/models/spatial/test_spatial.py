from pathlib import Path

import numpy as np
import pytest
import torch
from parity.synthetic import image, normal, parameter
from torch.nn.functional import linear

import partzoo
from partzoo.conversion.spatial import from_published
from partzoo.errors import ShapeError, UsageError, WeightsError
from partzoo.models.loading import build
from partzoo.models.precision import set_precision
from partzoo.models.registry import find
from partzoo.models.spatial.model import WINDOWS, Spatial, SpatialConfig

CASES = Path(__file__).parents[2] / "parity" / "spatial"
SIDES = {"conv4": (32, 64), "resnet8": (32, 64), "resnet32": (32, 64), "resnet56": (32, 64), "resnet34": (96,)}
RELATION = ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")


def cases(name):
    return np.load(CASES / f"{name}.npz")


def published(backbone):
    """A checkpoint in the authors' layout: their names, with numbers from the names."""
    shapes = build(find(f"spatial-{backbone}"), find(f"spatial-{backbone}").config).state_dict()
    state = {"backbone": {}, "relation": {}, "optimizer": {}}
    for key, value in shapes.items():
        part, name = key.split(".", 1)
        drawn = parameter(name if part == "backbone" else key, tuple(value.shape))
        state[part][name] = torch.from_numpy(np.asarray(drawn))
    return state


def spatial(backbone, **config) -> Spatial:
    name, _, state = from_published(published(backbone))
    model = build(find(name), find(name).configure(config)).eval()
    model.load_state_dict(state)
    return model


def drawn(name, shape):
    return torch.from_numpy(image(name, shape))


def assert_near(found, expected, tolerance):
    """Compare within a share of the largest value, as the cases state."""
    found = np.asarray(found.detach() if isinstance(found, torch.Tensor) else found)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def tiny():
    pixels = (255 * drawn("spatial/tiny", (1, 3, 64, 64)) + 0.5).floor().byte()
    return SpatialConfig(), pixels


@pytest.mark.parametrize(("backbone", "side"), [(name, side) for name, sides in SIDES.items() for side in sides])
def test_features_are_the_published_ones(backbone, side):
    found = spatial(backbone).features(drawn(f"spatial/image{side}", (2, 3, side, side)))
    assert_near(found, cases("a_backbones_eval")[f"{backbone}_{side}_eval"], 1e-5)


@pytest.mark.parametrize(("backbone", "side"), [("conv4", 64), ("resnet32", 64), ("resnet34", 96)])
def test_features_and_statistics_in_training_are_the_published_ones(backbone, side):
    model, expected = spatial(backbone).train(), cases("a_backbones_train")
    assert_near(model.features(drawn(f"spatial/train{side}", (4, 3, side, side))), expected[f"{backbone}_train"], 1e-4)
    after = [key for key in expected.files if key.startswith(f"{backbone}_after:")]
    assert after
    for key in after:
        assert_near(model.backbone.state_dict()[key.partition(":")[2]], expected[key], 2e-5)


@pytest.mark.parametrize(("backbone", "dim"), [("resnet8", 64), ("resnet34", 512)])
def test_relations_are_the_published_ones(backbone, dim):
    model, expected = spatial(backbone), cases("b_relation")
    pairs = torch.from_numpy(normal(f"spatial/pairs{dim}", (16, 2 * dim))).chunk(2, dim=1)
    assert_near(model.relation(*pairs), expected[f"F{dim}_eval"], 1e-5)
    assert_near(model.train().relation(*pairs), expected[f"F{dim}_train"], 1e-5)
    for name in ("running_mean", "running_var"):
        assert_near(model.relation.state_dict()[f"bn1.{name}"], expected[f"F{dim}_after:bn1.{name}"], 1e-5)


@pytest.mark.parametrize("patches", [0, 1, 3, 5, 9])
def test_representations_and_windows_are_the_published_ones(patches):
    model, expected = spatial("resnet32"), cases("e_inference")
    x = model.preprocess.normalize(tiny()[1])
    assert_near(model.represent(x, patches)[0], expected[f"n{patches}_features"], 1e-5)
    if patches:
        boxes = [(*window, 64, 64) for window in model.windows(patches)]
        assert boxes == [tuple(map(int, box)) for box in expected[f"n{patches}_boxes"]]


def test_seven_patches_are_the_plus_and_two_stated_corners():
    model, expected = spatial("resnet32"), cases("e_inference")
    windows = model.windows(7)
    assert windows[:5] == model.windows(5) and windows[5:] == [(0, 0), (104, 104)]
    x = model.preprocess.normalize(tiny()[1])
    assert torch.equal(model.represent(x, 7), model.represent(x, 7))
    published_windows = [tuple(map(int, box[:2])) for box in expected["n7_boxes"]]
    crops = torch.cat([x[:, None], model.crops(x, published_windows)], dim=1)[0]
    assert_near(model.features(crops).flatten(), expected["n7_features"], 1e-5)


def test_patches_are_cut_from_the_enlarged_image_as_published():
    model, expected = spatial("conv4"), cases("e_inference")
    x = model.preprocess.normalize(tiny()[1])
    assert_near(model.crops(x, model.windows(9))[0, 4], expected["centre_patch"], 1e-5)
    for key in expected.files:
        if key.startswith("grid_ps"):
            model = Spatial(SpatialConfig("conv4", patch_size=int(key.removeprefix("grid_ps"))))
            (top, _), _, _, (middle, _), _, _, (last, _), _, _ = model.windows(9)
            assert [model.config.enlarged, top, middle, last] == expected[key].tolist(), key


def test_representations_of_a_batch_and_their_classes_are_the_published_ones():
    model, expected = spatial("conv4"), cases("e2_inference_batch")
    whole = drawn("spatial/batch/image", (2, 3, 64, 64))[:, None]
    patches = drawn("spatial/batch/patches", (6, 3, 64, 64)).reshape(2, 3, 3, 64, 64)
    for count, x in ((0, whole), (3, torch.cat([whole, patches], dim=1))):
        found = model.features(x.flatten(0, 1)).reshape(2, -1)
        assert_near(found, expected[f"n{count}_features"], 1e-5)
        weight, bias = (
            torch.from_numpy(parameter(f"classifier.{name}", shape))
            for name, shape in (("weight", (10, 64 * (count + 1))), ("bias", (10,)))
        )
        assert_near(linear(found, weight, bias), expected[f"n{count}_logits"], 1e-5)


def test_a_batch_is_represented_as_its_images_one_by_one():
    model = spatial("conv4")
    x = torch.randn(3, 3, 64, 64)
    found = model.represent(x, 5)
    assert found.shape == (3, 6 * 64)
    torch.testing.assert_close(found, torch.cat([model.represent(each[None], 5) for each in x]))
    assert model.represent(x).shape == (3, 10 * 64)


def test_a_model_of_additive_patches_sees_an_image_once():
    model = spatial("conv4", additive=True)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.represent(x), model.features(x))
    with pytest.raises(UsageError, match="whole images only: use patches=0"):
        model.represent(x, 9)


def test_positions_are_in_the_published_unit():
    assert SpatialConfig().unit * 64 == pytest.approx(128 / 170 * 64)
    assert SpatialConfig(additive=True).unit * 64 == pytest.approx(40)


def test_images_are_related_in_sides_of_an_image_x_first():
    model = spatial("conv4")
    a, b = torch.randn(2, 3, 3, 64, 64)
    found, raw = model.relate_images(a, b), model.relation(model.features(a), model.features(b))
    torch.testing.assert_close(found.shift, model.config.unit * raw[:, [1, 0]])
    torch.testing.assert_close(found.distance, found.shift.square().sum(1).sqrt())
    torch.testing.assert_close(found.same, 1 / (1 + raw[:, 2].exp()))
    with pytest.raises(ShapeError, match="3 images cannot be paired with 2"):
        model.relate_images(a, b[:2])


@pytest.mark.parametrize(("how", "expected"), [("sum", [4.0, 1.0]), ("mean", [2.0, 0.5]), ("max", [3.0, 2.0])])
def test_features_are_joined_otherwise(how, expected):
    relation = Spatial(SpatialConfig("conv4", aggregation=how)).eval().relation
    assert relation.linear1.in_features == 64
    a, b = torch.tensor([[1.0, 2.0]]).repeat(1, 32), torch.tensor([[3.0, -1.0]]).repeat(1, 32)
    joined = torch.tensor([expected]).repeat(1, 32)
    plain = relation.linear2(torch.nn.functional.leaky_relu(relation.bn1(relation.linear1(joined))))
    torch.testing.assert_close(relation(a, b), plain)


@pytest.mark.parametrize(
    ("backbone", "parameters", "entries"),
    [("conv4", 24_648, 24), ("resnet8", 77_392, 54), ("resnet32", 466_256, 198), ("resnet56", 855_120, 342),
     ("resnet34", 21_284_672, 216)],
)  # fmt: skip
def test_sizes_are_the_published_ones(backbone, parameters, entries):
    with torch.device("meta"):
        model = find(f"spatial-{backbone}").build(find(f"spatial-{backbone}").config)
    assert sum(p.numel() for p in model.backbone.parameters()) == parameters
    assert len(model.backbone.state_dict()) == entries
    assert sum(p.numel() for p in model.relation.parameters()) == (263_683 if backbone == "resnet34" else 34_307)


def test_published_checkpoints_name_their_architecture():
    for backbone in SIDES:
        name, config, state = from_published(published(backbone))
        assert (name, config) == (f"spatial-{backbone}", {})
        assert not any(key.startswith("optimizer") for key in state)
    for wrong in ({}, {"backbone": {}}, {"backbone": {}, "relation": {}}, {"backbone": 3, "relation": 3}):
        with pytest.raises(WeightsError, match="not a checkpoint of Spatial Reasoning"):
            from_published(wrong)


def test_resnet34_has_the_names_of_torchvision():
    from torchvision.models import resnet34

    wanted = {key: value.shape for key, value in resnet34().state_dict().items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in spatial("resnet34").backbone.state_dict().items()} == wanted


@pytest.mark.parametrize(
    ("backbone", "strides"), [("conv4", (2, 4, 8, 8)), ("resnet8", (1, 2, 4)), ("resnet34", (4, 8, 16, 32))]
)
def test_images_of_any_size_have_dense_features(backbone, strides):
    model = spatial(backbone)
    height, width = 3 * model.patch, 5 * model.patch
    x = torch.randn(1, 3, height - 1, width)
    tokens = model.encode(x)
    assert tokens.grid == (3, 5) and model.patch == strides[-1] == model.preprocess.multiple
    maps = model.forward_intermediates(x)
    assert [m.shape[2:] for m in maps] == [(height // s, width // s) for s in strides]
    torch.testing.assert_close(maps[-1], tokens.maps())
    whole = torch.randn(1, 3, height, width)
    torch.testing.assert_close(model.encode(whole).patch.mean(1), model.features(whole))
    with pytest.raises(ShapeError, match="smaller than one patch"):
        model.encode(torch.randn(1, 3, 1, 64) if model.patch > 1 else x[..., :0, :])


def test_wrong_arguments_are_one_clear_error():
    model = spatial("conv4")
    with pytest.raises(UsageError, match="patches=2 must be one of 0, 1, 3, 5, 7, 9"):
        model.represent(torch.randn(1, 3, 64, 64), 2)
    for wrong in ([9], True, 9.0):
        with pytest.raises(UsageError, match="must be one of 0, 1, 3, 5, 7, 9"):
            model.represent(torch.randn(1, 3, 64, 64), wrong)
    with pytest.raises(ShapeError, match=r"Two \(P, 64\) features are needed, not \(64,\) and \(64,\)"):
        model.relation(torch.randn(64), torch.randn(64))
    with pytest.raises(ShapeError, match=r"not \(2, 64\) and \(3, 64\)"):
        model.relation(torch.randn(2, 64), torch.randn(3, 64))
    with pytest.raises(ShapeError, match="takes images of 64x64 pixels, not 32x64"):
        model.represent(torch.randn(1, 3, 32, 64))
    with pytest.raises(UsageError, match="patch_size=63 must be 1 to 62 pixels"):
        Spatial(SpatialConfig(patch_size=63))
    Spatial(SpatialConfig("conv4", patch_size=62))
    with pytest.raises(UsageError, match="backbone='resnet18'"):
        Spatial(SpatialConfig("resnet18"))
    with pytest.raises(UsageError, match="aggregation='product'"):
        Spatial(SpatialConfig(aggregation="product"))


def test_parts_and_features_come_from_spatial_models():
    model = spatial("resnet8")
    pixels = (255 * image("spatial/photograph", (1, 3, 80, 100))[0].transpose(1, 2, 0)).astype(np.uint8)
    features = partzoo.extract_features(pixels, model=model)
    assert features.dense.shape[2] == 64 and features.grid == (13, 16)
    parts = partzoo.discover_parts(pixels, k=3, model=model, size=64)
    assert parts.labels.shape == (80, 100) and parts.labels.max() <= 3


@pytest.mark.parametrize("backbone", SIDES)
def test_every_architecture_is_loaded_by_name_and_represents_its_own_images(backbone):
    model = partzoo.load(f"spatial-{backbone}", pretrained=False, device="cpu", dtype="float32")
    config = model.config
    assert (config.size, config.patch_size) == ((96, 36) if backbone == "resnet34" else (64, 24))
    x = torch.randn(1, 3, config.size, config.size)
    found = {n: model.represent(x, n) for n in (0, 1, 3, 5, 7, 9)}
    assert {n: tuple(each.shape) for n, each in found.items()} == {n: (1, (n + 1) * model.dim) for n in found}
    assert torch.equal(found[9], model.represent(x))
    nine = found[9].unflatten(1, (10, -1))
    for n, windows in WINDOWS.items():
        chosen = nine[:, [0, *(1 + w for w in windows)]]
        torch.testing.assert_close(found[n].unflatten(1, (n + 1, -1)), chosen, rtol=1e-4, atol=1e-4)
    assert model(x).shape == (1, model.encode(x).patch.shape[1], model.dim)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_relations_are_predicted_in_every_precision(dtype):
    torch.manual_seed(0)
    model = partzoo.load("spatial-conv4", pretrained=False, device="cpu", dtype="float32")
    state = model.state_dict()
    low = partzoo.load("spatial-conv4", pretrained=False, device="cpu", dtype="float32")
    low.load_state_dict(state)
    low = set_precision(low, dtype, torch.device("cpu"))
    a, b = torch.randn(2, 4, 3, 64, 64)
    full, found = model.relate_images(a, b), low.relate_images(a, b)
    assert found.same.dtype == found.shift.dtype == torch.float32
    torch.testing.assert_close(found.same, full.same, atol=0.02, rtol=0)
    torch.testing.assert_close(found.shift, full.shift, atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [(4, 4), (70, 33), (200, 64)])
def test_features_need_no_square_and_no_multiple(size):
    model = spatial("resnet8")
    x = torch.randn(1, 3, *size)
    assert model.features(x).shape == (1, 64)
    assert model.encode(x).grid == tuple(-(-side // 4) for side in size)


def test_joined_features_other_than_by_cat_know_no_order():
    torch.manual_seed(0)
    a, b = torch.randn(2, 5, 64)
    for how, ordered in (("cat", True), ("sum", False), ("mean", False), ("max", False)):
        relation = Spatial(SpatialConfig("conv4", aggregation=how)).eval().relation
        assert torch.equal(relation(a, b), relation(b, a)) is not ordered
