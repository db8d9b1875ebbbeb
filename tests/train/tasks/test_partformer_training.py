import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers.resuming import check_resumed_run
from parity.synthetic import image, normal, parameter

from partzoo.data.image_sets import ImageSet
from partzoo.data.warp import warp
from partzoo.errors import UsageError
from partzoo.images.preprocess import Preprocess
from partzoo.models.loading import build, load
from partzoo.models.registry import find
from partzoo.train.augmentation.geometry import random_flip, random_similarity, similarity_matrices
from partzoo.train.loop import LoopOptions
from partzoo.train.losses.partformer import (
    VGG_WEIGHTS,
    anchor_loss,
    area_loss,
    concentration_loss,
    consistency_loss,
    mask_loss,
    perceptual_loss,
)
from partzoo.train.part_images import PartOptions
from partzoo.train.perceptual import perceptual_levels
from partzoo.train.tasks.partformer import PartFormerTask

CASES = Path(__file__).parents[2] / "parity" / "partformer"
BOXES = {"celeba": (0, 0, 256), "celeba_flipped": (-1, 0, 256), "cub": (0, 0, 255)}


@pytest.fixture(scope="module")
def published():
    return np.load(CASES / "losses.npz")


@pytest.fixture(scope="module")
def maps():
    coarse = normal("partformer/loss/V_coarse", (3, 5, 4, 4)).repeat(8, 2).repeat(8, 3)
    return torch.from_numpy(2 * normal("partformer/loss/V", (3, 5, 32, 32)) + 3 * coarse).softmax(1)


def test_concentration_and_area_are_the_published_ones(published, maps):
    for name, alpha, channels in (("celeba", 2.0, 4), ("cub", 0.5, 4), ("partimage", 1.5, 5)):
        assert concentration_loss(maps[:, :4]).item() == pytest.approx(published[f"concentration_{name}"], rel=1e-5)
        assert area_loss(maps[:, :channels], alpha).item() == pytest.approx(published[f"area_{name}"], rel=1e-5)


def test_consistency_is_the_published_one(published):
    parts = torch.from_numpy(normal("partformer/loss/G", (3, 4, 64)))
    prototypes = torch.from_numpy(parameter("ArcMarginProduct.weight", (4, 64)))
    assert consistency_loss(parts, prototypes).item() == pytest.approx(published["arc_random"], rel=1e-5)
    aligned, opposed = 5 * prototypes + 0.1 * parts, -5 * prototypes + 0.05 * parts
    assert consistency_loss(aligned, prototypes).item() == pytest.approx(published["arc_aligned"], abs=1e-6)
    assert consistency_loss(opposed, prototypes).item() == pytest.approx(published["arc_opposed"], rel=1e-5)
    several = torch.from_numpy(parameter("ArcMarginProduct.weight", (440, 64))).view(110, 4, 64)
    chosen = several[torch.tensor([0, 3, 109])]
    assert consistency_loss(parts, chosen).item() == pytest.approx(published["arc_partimage"], rel=1e-5)


def test_the_perceptual_loss_is_the_published_one(published):
    features = timm.create_model("vgg19", num_classes=0).features.eval()
    for name, value in features.state_dict().items():
        value.copy_(torch.from_numpy(parameter(f"vgg19.features.{name}", tuple(value.shape))))

    @torch.no_grad()
    def layers(name):
        x = Preprocess().normalize(255 * torch.from_numpy(image(f"partformer/loss/{name}", (2, 3, 256, 256))))
        x, kept = x[..., ::2, ::2], []
        for index, layer in enumerate(features[:30]):
            x = layer(x)
            if index in (1, 6, 11, 20, 29):
                kept.append(x.clone())
        return kept

    real, fake = layers("real"), layers("fake")
    each = [perceptual_loss([a], [b], [1]).item() for a, b in zip(fake, real, strict=True)]
    assert each == pytest.approx(published["vgg_layer_l1"], rel=1e-5)
    assert perceptual_loss(fake, real, VGG_WEIGHTS).item() == pytest.approx(published["perceptual"], rel=1e-5)
    relative = sum(published["vgg_layer_l1"] / published["vgg_layer_mean_abs"])
    assert perceptual_loss(fake, real).item() == pytest.approx(relative, rel=1e-5)


def test_concentration_by_hand():
    # Two cells side by side lie at -1 and 0: variance 1/4. One cell alone: none.
    both = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    one = torch.tensor([[[[0.0, 0.5], [0.0, 0.0]]]])
    assert concentration_loss(both).item() == pytest.approx(0.25)
    assert concentration_loss(one).item() == pytest.approx(0)
    assert concentration_loss(torch.cat([both, one], 1)).item() == pytest.approx(0.25)
    assert concentration_loss(torch.cat([both, one], 0)).item() == pytest.approx(0.125)
    # All four cells: 1/4 each way.
    assert concentration_loss(torch.ones(1, 1, 2, 2)).item() == pytest.approx(0.5)


def test_concentration_in_the_paper_s_cells_is_256_times_as_large(maps):
    share = maps[:, :4] / maps[:, :4].sum((2, 3), keepdim=True)
    place = torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij"))[:, None, None]
    centre = (share * place).sum((3, 4), keepdim=True)
    equation_4 = ((place - centre) ** 2 * share).sum((0, 2, 3, 4)).mean()
    assert equation_4.item() == pytest.approx(256 * concentration_loss(maps[:, :4]).item(), rel=1e-5)


def test_area_by_hand():
    maps = torch.zeros(1, 2, 2, 2)
    maps[0, 0], maps[0, 1, 0, 0] = 0.75, 1.0
    assert area_loss(maps, 1.0).item() == pytest.approx(1 / 4 + 1 / 2)
    assert area_loss(maps, 0.5).item() == pytest.approx(1 / 7 + 1 / 3)


def test_consistency_by_hand():
    parts = torch.eye(2)[None]
    # Right pairs: cos(0 + 0.5); others 0.
    expected = math.log(1 + math.exp(-2 * math.cos(0.5)))
    assert consistency_loss(parts, 3 * torch.eye(2), scale=2.0).item() == pytest.approx(expected, rel=1e-4)
    beyond = -1 - 0.5 * math.sin(math.pi - 0.5)
    expected = math.log(1 + math.exp(-2 * beyond))
    assert consistency_loss(-parts, torch.eye(2), scale=2.0).item() == pytest.approx(expected, rel=1e-4)


def test_consistency_has_a_gradient_where_the_angle_is_zero():
    parts = torch.eye(2)[None].requires_grad_()
    consistency_loss(parts, torch.eye(2)).backward()
    assert parts.grad.isfinite().all()


def test_the_perceptual_loss_by_hand():
    found = [torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 1, 1)]
    target = [torch.full((1, 1, 2, 2), 4.0), torch.full((1, 1, 1, 1), 2.0)]
    assert perceptual_loss(found, target, (0.5, 3)).item() == pytest.approx(0.5 * 4 + 3 * 1)
    assert perceptual_loss(found, target).item() == pytest.approx(1 + 0.5)
    with pytest.raises(UsageError, match="network_weights has 3 values, and the network has 2 levels"):
        perceptual_loss(found, target, (1, 2, 3))


def test_warps_are_the_published_matrices():
    case = np.load(CASES / "pairs.npz")
    scale, angle, shift = (
        torch.tensor(values, dtype=torch.float64)
        for values in ([1, 0.97, 1.05], [0, 0.2, -math.pi / 6], [[0, 0], [0.03, -0.04], [-0.05, 0.05]])
    )
    last = torch.tensor([[[0, 0, 1.0]]], dtype=torch.float64).expand(3, 1, 3)
    for name, box in BOXES.items():
        matrices = torch.cat([similarity_matrices(scale, angle, shift, 256, box), last], dim=1)
        assert np.abs(matrices.inverse()[:, :2].numpy() - case[f"matrix_{name}"]).max() < 1e-4
    photo = np.round(255 * image("partformer/pair/photo", (1, 3, 200, 180))).astype(np.uint8)
    resized = torch.nn.functional.interpolate(torch.from_numpy(photo).float(), (256, 256), mode="bilinear")
    resized = resized.round().expand(3, -1, -1, -1)
    warped = warp(resized, similarity_matrices(scale, angle, shift, 256)).round()
    for i in range(3):
        found = warped[i].permute(1, 2, 0)[::4, ::4].numpy()
        assert np.abs(found - case[f"warped_{i}_subset"]).max() <= 2


def test_views_differ_and_their_border_is_black():
    pixels = torch.full((64, 3, 32, 32), 200.0)
    views = random_similarity(pixels, generator=torch.Generator().manual_seed(0))
    assert views[:, :, 16, 16].min() > 199 and views.min() == 0
    assert len({view.sum().item() for view in views}) > 60
    still = random_similarity(pixels, degrees=0, scale=0, shift=0)
    assert torch.allclose(still[..., 1:, 1:], pixels[..., 1:, 1:])
    flipped = random_flip(torch.arange(4.0).expand(64, 1, 1, 4), torch.Generator().manual_seed(0))
    assert 10 < (flipped[:, 0, 0, 0] == 3).sum() < 54


@pytest.mark.parametrize(("degrees", "most"), [(0.0, 30.0), (5.0, 30.0), (20.0, 40.0), (20.0, 10.0)])
def test_angles_deviate_by_degrees_and_are_cut(degrees, most):
    slopes = torch.arange(64.0)[:, None].expand(400, 1, 64, 64)
    turned = random_similarity(slopes, degrees=degrees, max_degrees=most, generator=torch.Generator().manual_seed(0))
    found = angles(turned)
    assert found.abs().max() <= most + 0.1
    if degrees < most:
        assert found.std().item() == pytest.approx(degrees, rel=0.15, abs=0.1)


@pytest.mark.parametrize("degrees", [0.0, 5.0, 20.0])
def test_views_are_turned_as_much_as_degrees_says(degrees, monkeypatch):
    trained, views = task(degrees=degrees, reconstruction="none"), []
    monkeypatch.setattr(trained, "losses", lambda *given: views.extend(given[:2]))
    trained((2 * torch.arange(64)).byte()[:, None].expand(400, 3, 64, 64), None, 0.5, torch.Generator().manual_seed(0))
    first, second = (angles(view) for view in views)
    for found in (first, second):
        assert found.std().item() == pytest.approx(degrees, rel=0.15, abs=0.1)
        assert found.abs().max() <= 2 * degrees + 0.1
    assert degrees == 0 or (first - second).abs().median() > 1


def angles(views):
    """Compute the rotation in degrees of views of a slope, from its gradient at their middle."""
    middle = views[:, 0, 24:40, 24:40]
    return torch.atan2(middle.diff(dim=2).mean((1, 2)), middle.diff(dim=1).mean((1, 2))).rad2deg()


def task(config=None, architecture="partformer-resnet18", **options):
    torch.manual_seed(0)
    entry = find(architecture)
    config = {"parts": 3, "size": 64, "reconstruction": 32} | (config or {})
    return PartFormerTask(build(entry, entry.configure(config)), **options).train()


def faces(count=4):
    x = torch.from_numpy(image("train/partformer", (count, 3, 64, 64)))
    return (255 * x).to(torch.uint8)


def step(task, seed=0, labels=None):
    return task(faces(), labels, 0.5, torch.Generator().manual_seed(seed))


FIXED = ("network.", "model.transformer.positions")


@pytest.mark.parametrize(
    ("architecture", "frozen"),
    [("partformer-resnet18", FIXED), ("partformer-patchresnet14", (*FIXED, "model.encoder."))],
)
def test_every_trained_parameter_gets_a_gradient_and_no_frozen_one(architecture, frozen):
    trained = task(architecture=architecture)
    for name, p in trained.named_parameters():
        if name.endswith("bn2.weight") and not name.startswith(frozen):
            # A residual block's last norm starts at zero, which its convolutions see no gradient through.
            torch.nn.init.ones_(p)
    step(trained)["loss"].backward()
    for name, p in trained.named_parameters():
        if name.startswith(frozen):
            assert p.grad is None, name
        else:
            assert p.grad is not None and p.grad.abs().sum() > 0, name


@pytest.mark.parametrize("term", ["reconstruction", "concentration", "area", "consistency"])
def test_one_step_lowers_the_loss_it_is_for(term):
    trained = task()
    before = step(trained)[term]
    before.backward()
    torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], lr=1e-4).step()
    assert step(trained)[term] < before


def test_the_loss_is_the_weighted_sum_and_each_direction_counts_alike():
    trained = task(concentration=2.0, area=0.0, consistency=0.5).eval()
    x = Preprocess().normalize(faces())
    with torch.no_grad():
        terms, swapped = trained.losses(x[:2], x[2:]), trained.losses(x[2:], x[:2])
    total = terms["reconstruction"] + 2 * terms["concentration"] + 0.5 * terms["consistency"]
    assert terms["loss"].item() == pytest.approx(total.item())
    assert terms["loss"].item() == pytest.approx(swapped["loss"].item(), rel=1e-5)


def test_without_exchange_each_view_uses_its_own_representations():
    x = Preprocess().normalize(faces())
    with torch.no_grad():
        alone = task(exchange=False).eval().losses(x[:2], x[2:])
        same = [task(exchange=True).eval().losses(half, half)["reconstruction"] for half in (x[:2], x[2:])]
        mixed = task(exchange=True).eval().losses(x[:2], x[2:])
    assert alone["reconstruction"].item() == pytest.approx((sum(same) / 2).item(), rel=1e-2)
    assert mixed["reconstruction"].item() != pytest.approx(alone["reconstruction"].item(), rel=1e-3)


def test_pixels_may_be_compared_instead_of_features():
    trained = task(reconstruction="mse")
    assert trained.network is None and step(trained)["loss"].isfinite()
    found, view = torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 2, 2)
    view[0, 0, 0], view[0, 1] = 3, 2  # means 1.5, 2 and 0
    assert trained._difference(found, view).item() == pytest.approx((1.5**2 + 2**2) / 3)
    with pytest.raises(UsageError, match="'mse' or 'none'"):
        task(reconstruction="ssim")


@pytest.mark.parametrize("term", ["reconstruction", "concentration", "area", "consistency"])
def test_each_loss_can_be_left_out(term):
    terms = step(task(**{term: "none" if term == "reconstruction" else 0.0}))
    assert set(terms) == {"loss", "reconstruction", "concentration", "area", "consistency", "background"} - {term}
    assert terms["loss"].isfinite()


def test_alpha_and_the_background_s_area_are_options():
    few, many = (step(task(alpha=alpha))["area"] for alpha in (0.1, 5.0))
    assert few < many < step(task(alpha=5.0, background_area=True))["area"]


def test_a_network_of_other_pixels_sees_them_as_it_is_used_to():
    class Network:
        preprocess = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

        def forward_intermediates(self, x):
            return [x]

    pixels = faces().float()
    x = Preprocess().normalize(pixels)
    assert perceptual_levels(Network(), x)[0] is x
    expected = Network.preprocess.normalize(pixels)
    torch.testing.assert_close(perceptual_levels(Network(), x, Preprocess())[0], expected, atol=1e-5, rtol=1e-5)


def test_labels_choose_the_parts_and_classes_never_compete():
    trained = task({"classes": 3})
    step(trained, labels=torch.tensor([0, 2, 2, 0]))["loss"].backward()
    used = trained.model.transformer.part_embed.grad.abs().sum(1) > 0
    assert used.tolist() == [True] + [True] * 3 + [False] * 3 + [True] * 3
    used = trained.prototypes.grad.abs().sum((1, 2)) > 0
    assert used.tolist() == [True, False, True]
    with pytest.raises(UsageError, match="classes=3, but the images have no labels"):
        step(trained)
    with pytest.raises(UsageError, match=r"in 0\.\.2"):
        step(trained, labels=torch.tensor([0, 1, 2, 3]))
    assert step(task(), labels=torch.tensor([0, 1, 2, 3]))["loss"].isfinite()


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path):
    options = LoopOptions(steps=4, batch_size=4, log_steps=1, lr=1e-3, precision="fp32", channels_last=True)
    images = ImageSet.from_pixels(faces(8), None, [])
    check_resumed_run(task, images, options, tmp_path)


def test_a_trained_encoder_starts_from_random_weights_and_a_frozen_one_from_its_own():
    own = load("patchresnet14.tin", dtype="float32").stem[0].weight
    for frozen in (True, False):
        trained = task({"frozen": frozen}, architecture="partformer-patchresnet14")
        assert torch.equal(trained.model.encoder.stem[0].weight, own) == frozen


def test_masks_and_anchor_by_hand():
    maps = torch.tensor([[[[0.9, 0.2]], [[0.1, 0.8]]]])
    masks = torch.tensor([[[[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]]])
    expected = -(math.log(0.1) + math.log(0.2)) / 2
    assert mask_loss(maps, masks).item() == pytest.approx(expected, rel=1e-5)
    assert anchor_loss(maps, torch.tensor([[[0, 1]]])).item() == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)
    assert mask_loss(maps.round(), masks).isfinite() and anchor_loss(maps.round(), torch.tensor([[[1, 0]]])).isfinite()


def test_training_starts_from_clusters_inside_the_foreground():
    model = {"compress": "linear", "levels": (0, 1)}
    trained = task(model, "partformer-patchresnet14", start="clusters", anchor=1.0, masks=1.0)
    mask = torch.zeros(4, 1, 64, 64, dtype=torch.uint8)
    mask[..., 16:48, 16:48] = 255
    examples = ImageSet.from_pixels(torch.cat([faces(), mask], dim=1), None, [])
    trained.prepare("", PartOptions(foreground="given"), examples)
    x = trained.model.preprocess.normalize(faces())
    with torch.no_grad():
        maps, encoded = trained.eval().model.part_maps(x), trained.model.encoded(x)
    found = trained.first.labels(encoded)
    assert maps.argmax(1).equal(found) and set(found.unique().tolist()) <= set(range(4))
    inside = torch.nn.functional.interpolate(mask.float(), found.shape[1:], mode="area")[:, 0] > 127
    assert ((found > 0) == inside).float().mean() > 0.8
    drawn = torch.Generator().manual_seed(0)
    terms = trained.train()(examples.batch(torch.arange(4)), None, 0.5, drawn)
    assert terms["anchor"] < 0.5 and 0 < terms["masks"].item() < math.inf
    rest = sum(trained.weights[name] * terms[name] for name in terms if name in trained.weights)
    assert terms["loss"].item() == pytest.approx(rest.item(), rel=1e-5)
