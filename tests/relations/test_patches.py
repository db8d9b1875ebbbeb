import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo as command
from helpers.versions import lean_einops
from PIL import Image

import partzoo
from partzoo.errors import ShapeError, UsageError
from partzoo.relations.figures import assemblies
from partzoo.relations.patches import PatchRelations
from partzoo.weights.tensors import write_weights

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    return partzoo.load("toy-vit", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def image():
    """Make an image of blurred noise, 90 pixels high and 120 wide."""
    noise = Image.fromarray(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return np.asarray(noise.resize((120, 90), Image.Resampling.BICUBIC))


def known(count=7, noise=0.0):
    """Relations of patches whose translations are true but for noise."""
    corners = RNG.uniform(0, (80, 50), (count, 2))
    boxes = np.concatenate([corners, corners + 10], 1)
    true = corners[None] - corners[:, None]
    patches = [np.full((10, 10, 3), i, np.uint8) for i in range(count)]
    image = np.zeros((60, 90, 3), np.uint8)
    return PatchRelations(true + noise * RNG.standard_normal(true.shape), patches, boxes=boxes, image=image)


@pytest.mark.parametrize("reference", [0, 3, "median", "least-squares"])
def test_true_translations_rebuild_the_image(reference):
    relations = known()
    np.testing.assert_allclose(relations.positions(reference), relations.centres, atol=1e-6)
    found = relations.assemble(reference)
    assert found.error == pytest.approx(0, abs=1e-6)
    assert found.image.tobytes() == found.truth.tobytes()
    assert relations.error == pytest.approx(0, abs=1e-6)
    assert relations.symmetry_error() == pytest.approx(0, abs=1e-6)
    assert relations.symmetry_correlation() == pytest.approx((1, 1))
    np.testing.assert_allclose(relations.uncertainty(), 0, atol=1e-6)


def test_all_references_average_their_noise_out():
    relations = known(40, noise=5.0)
    single = np.mean([relations.assemble(i).error for i in range(40)])
    assert relations.assemble("least-squares").error < single / 3
    assert relations.assemble("median").error < single / 3


def test_least_squares_are_least():
    relations = known(12, noise=4.0)

    def cost(places):
        return ((places[None] - places[:, None] - relations.translations) ** 2).sum()

    best = relations.positions("least-squares")
    assert all(cost(best) < cost(best + 0.1 * RNG.standard_normal(best.shape)) for _ in range(10))


def test_the_median_is_not_disturbed_by_references_that_err():
    relations = known(15)
    broken = relations.translations.copy()
    broken[:3] += 500 * RNG.standard_normal((3, 15, 2))
    relations = PatchRelations(broken, relations.patches, boxes=relations.boxes, image=relations.image)
    honest = slice(3, None)

    def distance(way):  # beyond a common shift
        off = (relations.positions(way) - relations.centres)[honest]
        return np.linalg.norm(off - off.mean(0), axis=1).max()

    assert distance("median") < 0.5 < 5 < distance("least-squares")


def test_uncertainty_is_the_spread_over_references_by_hand():
    translations = np.zeros((3, 3, 2))
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [0, 30, 10, 40]], float)
    relations = PatchRelations(
        translations, [np.zeros((10, 10, 3), np.uint8)] * 3, boxes=boxes, image=np.zeros((50, 40, 3), np.uint8)
    )
    # Patch 0 is seen at (25, 5) and at (5, 35): their mean is (15, 20), from which both are 18.03 away.
    assert relations.uncertainty()[0] == pytest.approx(np.hypot(10, 15))
    found = relations.uncertainty_map()
    assert found.shape == (50, 40)
    assert found[5, 5] == pytest.approx(np.hypot(10, 15)) and np.isnan(found[20, 20])


def test_symmetry_error_by_hand():
    translations = np.zeros((2, 2, 2))
    translations[0, 1], translations[1, 0] = (3, 4), (0, 0)
    relations = PatchRelations(translations, [np.zeros((4, 4, 3), np.uint8)] * 2)
    assert relations.symmetry_error() == 5


def test_the_order_is_from_top_left_to_bottom_right():
    boxes = np.array([[50, 3, 60, 13], [0, 20, 10, 30], [5, 0, 15, 10], [30, 22, 40, 32]], float)
    relations = PatchRelations(np.zeros((4, 4, 2)), [np.zeros((10, 10, 3), np.uint8)] * 4, boxes=boxes)
    assert relations.order().tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize("sampling", ["off-grid", "on-grid", "multi-scale"])
def test_an_image_is_related_in_its_own_pixels(image, model, sampling):
    relations = partzoo.relate(image, n=12, model=model, sampling=sampling)
    side = 120 * 8 / 32
    sizes = relations.boxes[:, 2:] - relations.boxes[:, :2]
    assert len(relations) == 12 and relations.translations.shape == (12, 12, 2)
    assert (relations.boxes >= 0).all() and (relations.boxes <= [120, 90, 120, 90]).all()
    if sampling == "multi-scale":
        assert (sizes >= side / 2 - 1e-3).all() and (sizes <= 2 * side).all() and sizes.std() > 1
    else:
        np.testing.assert_allclose(sizes, side, atol=1e-4)
    if sampling == "on-grid":
        assert {tuple(box) for box in relations.boxes[:, :2]} == {(30 * x, 30 * y) for x in range(4) for y in range(3)}
    again = partzoo.relate(image, n=12, model=model, sampling=sampling)
    np.testing.assert_array_equal(relations.translations, again.translations)


def test_translations_are_the_model_s_in_patches_of_the_image(image, model):
    boxes = [[0, 0, 30, 30], [60, 30, 90, 60], [10, 50, 50, 70]]
    relations = partzoo.relate(image, boxes, model=model)
    crops = [np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BICUBIC, box=tuple(b))) for b in boxes]
    x = model.preprocess.normalize(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))[None]
    expected = model.relate(x)[0].reshape(3, 3, 2) * 30
    np.testing.assert_allclose(relations.translations, expected.numpy(), rtol=1e-5, atol=1e-5)
    assert relations.true[0, 2].tolist() == [15, 45]
    assert relations.patches[2].shape == (20, 40, 3)


def test_four_targets_are_measured_by_the_reference(image):
    torch.manual_seed(0)
    model = partzoo.load(
        "part-vitt8", pretrained=False, device="cpu", dtype="float32", dim=24, depth=1, heads=3, targets=4
    )
    boxes = np.array([[0, 0, 30, 30], [60, 30, 80, 70]], float)
    relations = partzoo.relate(image, boxes, model=model)
    crops = [np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BICUBIC, box=tuple(b))) for b in boxes]
    x = model.preprocess.normalize(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))[None]
    expected = model.relate(x)[0].reshape(2, 2, 4).numpy()
    np.testing.assert_allclose(relations.translations[1], expected[1, :, :2] * [20, 40], rtol=1e-5)
    np.testing.assert_allclose(relations.ratios, expected[..., 2:], rtol=1e-5)


def test_patches_lie_where_the_weights_are(image, model):
    weights = np.zeros((90, 120))
    weights[30:50, 40:80] = 1
    x, y = partzoo.relate(image, n=30, model=model, weights=weights).centres.T
    assert ((x >= 40) & (x <= 80) & (y >= 30) & (y <= 50)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 200), (300, 9), (8, 8), (64, 64)])
@pytest.mark.parametrize("sampling", ["off-grid", "on-grid", "multi-scale"])
def test_images_of_any_shape(size, sampling, model):
    pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    relations = partzoo.relate(pixels, n=6, model=model, sampling=sampling)
    assert np.isfinite(relations.uncertainty()).all()
    assert relations.assemble().image.size == size[::-1]
    assert relations.uncertainty_map().shape == size


def test_patches_of_different_images_are_assembled(image, model):
    patches = [image[:30, :30], image[::-1][20:60, 50:80], Image.fromarray(255 - image[30:60, 60:90])]
    found = partzoo.assemble(patches, model=model)
    assert found.truth is None and found.error is None and found.side_by_side() is found.image
    halves = np.array([[15, 15], [15, 20], [15, 15]])
    low, high = (found.centres - halves).min(0), (found.centres + halves).max(0)
    np.testing.assert_allclose(low, 0, atol=1e-6)
    assert found.image.size == tuple(np.ceil(high).astype(int))
    single = partzoo.assemble(patches, model=model, reference=1)
    assert single.centres.shape == (3, 2)


def test_the_figures_show_what_they_say(image, model):
    off_grid = partzoo.relate(image, n=9, model=model)
    on_grid = partzoo.relate(image, model=model, sampling="on-grid")
    assert assemblies(off_grid, on_grid).width > 4 * 512
    assert off_grid.draw_uncertainty().width > 3 * 512
    beside = off_grid.assemble().side_by_side()
    assert beside.width > 240 and off_grid.assemble()._repr_png_().startswith(b"\x89PNG")
    ordered = known(5)
    found = np.asarray(ordered.draw_matrices())
    predicted, true = found[30:280, 8:264], found[30:280, 272:528]
    assert np.array_equal(predicted, true) and predicted.std() > 10
    assert ordered.draw_matrices().width > PatchRelations(ordered.translations, ordered.patches).draw_matrices().width


def test_the_command_draws_all_figures(tmp_path, image):
    Image.fromarray(image).save(tmp_path / "photo.png")
    ran = command("relate", tmp_path / "photo.png", "-o", tmp_path / "out", "-n", 9, "--model", "toy-vit")
    assert ran.code == 0, ran.err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [f"figure-{i}.png" for i in (4, 5, 6)]
    assert "9 patches" in ran.out
    shown = json.loads(command("relate", tmp_path / "photo.png", "-n", 9, "--model", "toy-vit", "--json").out)
    relations = partzoo.relate(image, n=9, model="toy-vit")
    assert shown["error"] == pytest.approx(relations.error, rel=1e-4)
    assert shown["symmetry_error"] == pytest.approx(relations.symmetry_error(), rel=1e-4)


@lean_einops
def test_the_command_imports_nothing_slow_but_torch(tmp_path, image):
    Image.fromarray(image).save(tmp_path / "photo.png")
    code = (
        "import sys; from partzoo.cli.relate import relate\n"
        f"relate.callback({str(tmp_path / 'photo.png')!r}, {str(tmp_path)!r}, 64, 0, None, None, 10**6, 10**6, False)\n"
        "names = 'timm', 'torchvision', 'torch._dynamo', 'matplotlib', 'partzoo.train', 'partzoo.evaluate'\n"
        "print([name for name in names if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": [[0, 0, 10, 10], [5, 5, 5, 9]]}, "Box 1 is"),
        ({"boxes": [[0, 0, 10, 10], [0, 0, 500, 9]]}, "120 wide and 90 high"),
        ({"boxes": [[0, 0, 10, 10]]}, "two or more"),
        ({"boxes": [[0, 0, 10, 10]] * 2, "weights": np.ones((90, 120))}, "leave one of the two out"),
        ({"n": 1}, "n=1"),
        ({"n": 2.5}, "n=2.5"),
        ({"boxes": [[0, 0, np.nan, 10], [0, 0, 10, 10]]}, "Box 0 is"),
        ({"boxes": [[-1, 0, 10, 10], [0, 0, 10, 10]]}, "inside the image"),
        ({"sampling": "hexagonal"}, "off-grid, on-grid, multi-scale"),
        ({"weights": np.ones((3, 3))}, r"size \(90, 120\)"),
        ({"weights": -np.ones((90, 120))}, "non-negative"),
        ({"sampling": "on-grid", "weights": np.ones((90, 120))}, "leave weights out"),
    ],
)
def test_wrong_arguments_are_named(image, model, options, message):
    with pytest.raises(UsageError, match=message):
        partzoo.relate(image, model=model, **options)


def test_other_models_and_references_are_named(image, model):
    with pytest.raises(UsageError, match=r"patchresnet14 does not relate patches: pass a PART model"):
        partzoo.relate(image, model=partzoo.load("patchresnet14", pretrained=False))
    with pytest.raises(UsageError, match=r"'mean' must be a patch, 0\.\.6, or 'median' or 'least-squares'"):
        known().assemble("mean")
    with pytest.raises(UsageError, match="two or more"):
        partzoo.assemble([image], model=model)
    loose = PatchRelations(np.zeros((2, 2, 2)), [image[:8, :8]] * 2)
    with pytest.raises(UsageError, match="needs patches of one image"):
        loose.uncertainty_map()
    with pytest.raises(ShapeError, match=r"translations have shape \(2, 2, 2\)"):
        PatchRelations(np.zeros((2, 2, 2)), [image] * 3)
    with pytest.raises(ShapeError, match="at least two patches, not 1"):
        PatchRelations(np.zeros((1, 1, 2)), [image])
    with pytest.raises(UsageError, match="not finite"):
        PatchRelations(np.full((2, 2, 2), np.nan), [image] * 2)


def test_images_are_turned_upright_and_grey_ones_related_too(model):
    grey = Image.fromarray(RNG.integers(0, 256, (60, 90), dtype=np.uint8))
    turned, file = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6  # a quarter to the right
    grey.save(file, "PNG", exif=turned)
    found = partzoo.relate(file.getvalue(), n=5, model=model)
    upright = partzoo.relate(np.asarray(grey.rotate(-90, expand=True)), n=5, model=model)
    assert found.image.shape == (90, 60, 3)
    np.testing.assert_array_equal(found.translations, upright.translations)


def test_a_model_may_be_a_file(image, tmp_path):
    torch.manual_seed(0)
    sizes = {"dim": 24, "depth": 1, "heads": 3}
    part = partzoo.load("part-vitt8", pretrained=False, device="cpu", dtype="float32", **sizes)
    write_weights(tmp_path / "part.safetensors", part.state_dict(), "part-vitt8", part.config)
    found, patches = partzoo.relate(image, n=5, model=tmp_path / "part.safetensors"), [image[:30, :30], image]
    np.testing.assert_allclose(found.translations, partzoo.relate(image, n=5, model=part).translations, atol=1e-4)
    assert partzoo.assemble(patches, model=tmp_path / "part.safetensors").centres.shape == (2, 2)


def test_patches_that_look_alike_lie_nowhere_in_particular(tmp_path):
    Image.new("RGB", (70, 50), "grey").save(tmp_path / "blank.png")
    ran = command("relate", tmp_path / "blank.png", "-n", 9, "--model", "toy-vit", "--json", "-o", tmp_path)
    assert ran.code == 0 and ran.err == ""
    assert json.loads(ran.out)["symmetry_correlation"] == {"x": None, "y": None}


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_any_precision_relates_nearly_the_same(image, model, dtype):
    exact = partzoo.relate(image, n=9, model=model).translations
    coarse = partzoo.relate(image, n=9, model=partzoo.load("toy-vit", device="cpu", dtype=dtype)).translations
    assert np.abs(exact - coarse).max() < 0.05 * np.abs(exact).max() + 0.5
