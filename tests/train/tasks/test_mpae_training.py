import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.resuming import check_resumed_run
from parity.published_mpae import converted, image
from parity.published_vgg import drawn_vgg
from parity.synthetic import normal
from PIL import Image

from partzoo.conversion.mpae import RENAMED
from partzoo.data.image_sets import ImageSet
from partzoo.errors import UsageError
from partzoo.images.preprocess import Preprocess
from partzoo.models.loading import build, load
from partzoo.models.mpae.masked_autoencoder import visible_patches
from partzoo.models.registry import find
from partzoo.models.timm_encoder import TimmConfig, TimmEncoder
from partzoo.train.loop import LoopOptions
from partzoo.train.losses.mpae import (
    background_loss,
    entropy_loss,
    foreground_loss,
    present_parts,
    region_features,
    semantic_loss,
    variation_loss,
)
from partzoo.train.losses.partformer import perceptual_loss
from partzoo.train.part_images import PartOptions
from partzoo.train.perceptual import perceptual_levels
from partzoo.train.recipe import read_recipe
from partzoo.train.run import train
from partzoo.train.tasks.mpae import VGG_WEIGHTS, MpaeTask, random_view

CASES = Path(__file__).parents[2] / "parity" / "mpae"
FIXED = ("autoencoder.positions", "autoencoder.decoder_positions")


@pytest.fixture(scope="module")
def published():
    return np.load(CASES / "losses.npz")


@pytest.fixture(scope="module")
def vgg():
    return drawn_vgg()


def background_first(logits):
    return torch.from_numpy(logits).roll(1, dims=1).softmax(1)


@pytest.fixture(scope="module")
def maps():
    logits = 2 * normal("mpae/losses/logits", (8, 6, 16, 16))
    logits[0, 1] -= 40
    logits[3, 2] -= 40
    return background_first(logits)


def test_presence_and_background_are_the_published_ones(published, maps):
    for group in (2, 3, 8, 64):
        found = foreground_loss(maps[:, 1:], group).item()
        assert found == pytest.approx(published[f"foreground_group{group}"], rel=1e-5)
    assert background_loss(maps[:, 0]).item() == pytest.approx(published["background"], rel=1e-5)
    sharp = background_first(20 * normal("mpae/losses/logits", (8, 6, 16, 16)))
    assert background_loss(sharp[:, 0]).item() == pytest.approx(published["background_sharp"], rel=1e-5)


def test_variation_and_entropy_are_the_published_ones(published, maps):
    assert variation_loss(maps).item() == pytest.approx(published["variation"], rel=1e-5)
    assert variation_loss(maps[:3]).item() == pytest.approx(published["variation_batch3_fresh"], rel=1e-5)
    assert entropy_loss(maps).item() == pytest.approx(published["entropy"], rel=1e-5)
    sharp = background_first(20 * normal("mpae/losses/logits", (8, 6, 16, 16)))
    assert entropy_loss(sharp).item() == pytest.approx(published["entropy_sharp"], rel=1e-5)


def test_the_semantic_loss_is_the_published_one(published, maps):
    features = torch.from_numpy(normal("mpae/losses/feature", (8, 32, 16, 16)))
    descriptors = torch.from_numpy(normal("mpae/losses/descriptors", (8, 6, 32)))[:, :5]
    near = torch.from_numpy(normal("mpae/losses/near", (8, 5, 32)))
    present = present_parts(maps[:, 1:])
    assert not present[0, 1] and not present[3, 2] and present.sum() == 38
    regions = region_features(maps[:, 1:], features)
    assert semantic_loss(regions, descriptors, present).item() == pytest.approx(published["semantic"], rel=1e-5)
    for name, parts in (("near", near + 0.5 * descriptors), ("far", 0.5 * descriptors - near)):
        assert semantic_loss(near, parts, present).item() == pytest.approx(published[f"semantic_{name}"], rel=1e-5)


def test_restoration_is_the_published_one(published, vgg):
    found, target = (image(f"mpae/losses/{name}", (2, 3, 64, 64)) for name in ("restored", "target"))
    levels = [perceptual_levels(vgg, x) for x in (found, target)]
    for i, (a, b) in enumerate(zip(*levels, strict=True), 1):
        difference, mean = perceptual_loss([a], [b], [1]).item(), torch.cat([a, b]).abs().mean().item()
        assert difference == pytest.approx(published[f"vgg{i}_mean_abs_diff"], rel=1e-5)
        assert mean == pytest.approx(published[f"vgg{i}_mean_abs"], rel=1e-5)
    for i, name in ((2, "vgg_relu3_1"), (4, "vgg_relu5_1")):
        expected = published[name]
        assert np.abs(levels[0][i][0, ::16].numpy() - expected).max() <= 1e-5 * np.abs(expected).max()
    pixels = (found - target).abs().mean().item()
    assert pixels == pytest.approx(published["l1_mean_abs_diff"], rel=1e-5)
    restoration = 0.1 * pixels + perceptual_loss(*levels, VGG_WEIGHTS).item()
    assert restoration == pytest.approx(published["restoration"], rel=1e-5)


def test_other_networks_give_all_their_levels():
    network = build(find("patchresnet14"), find("patchresnet14").config).eval()
    assert [level.shape for level in perceptual_levels(network, torch.zeros(1, 3, 64, 64))] == [
        (1, 96, 16, 16), (1, 192, 8, 8)
    ]  # fmt: skip


def test_vgg_has_five_levels():
    with torch.device("meta"):
        for name in ("vgg11", "vgg16", "vgg19_bn"):
            network = TimmEncoder(TimmConfig(name)).eval()
            assert [level.shape[1] for level in perceptual_levels(network, torch.zeros(1, 3, 32, 32))] == [
                64, 128, 256, 512, 512
            ]  # fmt: skip


def test_presence_by_hand():
    maps = torch.zeros(3, 2, 2, 2)
    maps[0, 0, 0, 0], maps[0, 1, 0, 0], maps[1, 0, 1, 1], maps[2, 1, 0, 1] = 0.8, 0.2, 0.6, 0.4
    # Groups (0, 1) and (2,): parts at best (0.8, 0.2) and (0, 0.4), images at best (0.8, 0.6) and (0.4,).
    expected = ((1 - 0.5 + 1 - 0.7) + (1 - 0.2 + 1 - 0.4)) / 2
    assert foreground_loss(maps, 2, pool=1).item() == pytest.approx(expected)
    # The whole batch: parts (0.8, 0.4), images (0.8, 0.6, 0.4).
    assert foreground_loss(maps, None, pool=1).item() == pytest.approx(1 - 0.6 + 1 - 0.6)
    assert foreground_loss(maps, None, pool=1, every_image=False).item() == pytest.approx(1 - 0.6)
    # Averages of all four cells: parts (0.2, 0.1), images (0.2, 0.15, 0.1).
    assert foreground_loss(maps, None, pool=2).item() == pytest.approx(1 - 0.15 + 1 - 0.15)


def test_background_by_hand():
    background = torch.zeros(2, 3, 3)
    background[0, 1, 1], background[0, 0, 0] = 1, 0.5  # the centre counts nothing, a corner all
    background[1, 0, 1] = 0.8  # the middle of a side counts half
    expected = -(math.log(0.5) + math.log(0.4)) / 2
    assert background_loss(background, pool=1).item() == pytest.approx(expected)
    corners = torch.tensor([[[0.1, 0.7], [0.2, 0.3]]])  # of 2 x 2 cells all are corners
    assert background_loss(corners, pool=1).item() == pytest.approx(-math.log(0.7))


def test_background_that_is_nowhere_has_a_finite_loss_and_gradient():
    nowhere = torch.zeros(1, 4, 4, requires_grad=True)
    loss = background_loss(nowhere)
    loss.backward()
    assert loss.item() > 80 and nowhere.grad.isfinite().all()


def test_semantics_by_hand():
    regions, descriptors = torch.eye(2)[None], torch.tensor([[[3.0, 0], [0, 2]]])
    # Right pairs: cos(0 + 0.5); others 0. The second part is absent.
    each = math.log(1 + math.exp(-2 * math.cos(0.5)))
    both, one = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    for over in (False, True):
        found = semantic_loss(regions, descriptors, both, scale=2.0, over_regions=over)
        assert found.item() == pytest.approx(each, rel=1e-4)
    assert semantic_loss(regions, descriptors, one, scale=2.0).item() == pytest.approx(each / 2, rel=1e-4)
    # Among present regions there is one only: nothing to confuse it with.
    assert semantic_loss(regions, descriptors, one, scale=2.0, over_regions=True).item() == pytest.approx(0, abs=1e-6)


def test_semantics_distinguish_regions_of_a_descriptor_from_descriptors_of_a_region():
    regions = torch.tensor([[[1.0, 0], [1, 0]]])
    descriptors = torch.tensor([[[1.0, 0], [0, 1]]])
    both = torch.tensor([[True, True]])
    right, wrong = math.cos(0.5), math.cos(math.pi / 2 + 0.5)

    def of(own, other):
        return math.log(1 + math.exp(other - own))

    # Region 0 with descriptors (right, 0), region 1 with (1, wrong).
    found = semantic_loss(regions, descriptors, both, scale=1.0).item()
    assert found == pytest.approx((of(right, 0) + of(wrong, 1)) / 2, rel=1e-4)
    # Descriptor 0 with regions (right, 1), descriptor 1 with (0, wrong).
    found = semantic_loss(regions, descriptors, both, scale=1.0, over_regions=True).item()
    assert found == pytest.approx((of(right, 1) + of(wrong, 0)) / 2, rel=1e-4)


def test_semantics_have_a_gradient_where_the_angle_is_zero():
    regions = torch.eye(2)[None].requires_grad_()
    semantic_loss(regions, torch.eye(2)[None], torch.tensor([[True, False]])).backward()
    assert regions.grad.isfinite().all()


def test_regions_by_hand():
    maps = torch.tensor([[[[1.0, 0], [0, 0.5]]]])
    features = torch.tensor([[[[4.0, 9], [9, 0]], [[0.0, 9], [9, 8]]]])
    assert region_features(maps, features).tolist() == [[[1, 1]]]
    assert present_parts(torch.tensor([[[[1e-3]], [[2e-3]]]])).tolist() == [[False, True]]


def test_shares_of_the_network_and_of_the_pixels_by_hand(small):
    class Doubled(torch.nn.Module):
        preprocess = Preprocess()

        def forward_intermediates(self, x):
            return [x, 2 * x[..., :1, :1]]

    task = small(pixels=0.5, perceptual=0.25, network_weights=(0, 3))
    task.network = Doubled()
    restored = torch.zeros(1, 3, 2, 2)
    x = torch.zeros(1, 3, 4, 4)
    x[..., :2, :2], x[..., 0, 3] = 8, 4  # as 2 x 2: 8, 1, 0, 0
    assert task._difference(restored, x).item() == pytest.approx(0.5 * 9 / 4 + 0.25 * 3 * 16)
    task.network_weights = (0.5, 0)
    assert task._difference(restored, x).item() == pytest.approx(0.5 * 9 / 4 + 0.25 * 0.5 * 9 / 4)
    task.network = None
    assert task._difference(restored, x).item() == pytest.approx(0.5 * 9 / 4)


def test_variation_and_entropy_by_hand():
    part = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    maps = torch.stack([1 - part, part])[None]
    assert variation_loss(maps).item() == pytest.approx(2 * (1 + 0.5 + 0.5 + 0) / 4)
    assert entropy_loss(maps).item() == pytest.approx(math.log(2) / 4, rel=1e-5)


def published_task(size, vgg, monkeypatch, **options):
    """A published model with drawn weights, ready for training."""
    model = converted(size)
    for name, p in model.named_parameters():
        p.requires_grad_(not name.startswith("encoder.") and not name.startswith(FIXED))
    brought = {model.config.encoder: model.encoder, "timm/vgg19.tv_in1k": vgg}
    monkeypatch.setattr("partzoo.train.tasks.mpae.load", lambda name, **_: brought[name])
    return MpaeTask(model, network="timm/vgg19.tv_in1k", network_weights=VGG_WEIGHTS, **options).train()


CASES_OF_A_STEP = [
    ("train_tiny", "tiny", (4, 112), 2, 0.75),
    ("train_vitb_224", (8, 224), (2, 224), 64, 0.9),
]


@pytest.mark.parametrize(("name", "size", "images", "group", "ratio"), CASES_OF_A_STEP)
def test_a_step_has_the_published_terms_and_gradients(name, size, images, group, ratio, vgg, monkeypatch):
    case, (count, side) = np.load(CASES / f"{name}.npz"), images
    task = published_task(size, vgg, monkeypatch, group=group)
    noise = torch.from_numpy(normal(f"mpae/{name}/noise", (count, (side // 14) ** 2)))
    terms = task.losses(image(f"mpae/{name}/image", (count, 3, side, side)), visible_patches(noise, ratio))
    terms["loss"].backward()
    found = {name: term.item() for name, term in terms.items()}
    found |= {"presence": found["foreground"] + found["background"], "total": found["loss"]}
    for name in ("presence", "restoration", "variation", "entropy", "semantic", "total"):
        assert found[name] == pytest.approx(case[name], rel=1e-5)
    check_gradients(task.model, case)


def check_gradients(model, case):
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    assert total == pytest.approx(case["grad_total_norm"], rel=1e-4)
    expected = {ours(name): norm for name, norm in zip(case["grad_keys"].tolist(), case["grad_norms"], strict=True)}
    assert set(norms) == set(expected) == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, norm in expected.items():
        assert norms[name] == pytest.approx(norm, rel=1e-4, abs=1e-5 * case["grad_total_norm"]), name


def ours(name):
    for published, new in RENAMED:
        name = name.replace(published, new)
    return name.replace("extractor.pos_embed", "extractor.positions").replace("class_embedding", "part_embed")


@pytest.fixture
def small(monkeypatch):
    def make(**options):
        torch.manual_seed(0)
        shape = {"parts": 3, "encoder": "toy-vit", "size": 64, "dim": 32, "width": 32, "depth": 2, "heads": 2}
        shape |= {"masked_width": 32, "masked_heads": 2, "decoder_heads": 2}
        shape |= {
            name: options.pop(name) for name in ("classes", "levels", "restored", "standardize") if name in options
        }
        entry = find("mpae-patchresnet14")
        options = {"network": "toy-vit"} | options
        return MpaeTask(build(entry, entry.configure(shape)), **options).train()

    return make


def drawn_pixels(count=4):
    return torch.randint(0, 256, (count, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def step_of(task, step=0):
    return task(drawn_pixels(), torch.arange(4) % 2, 0.0, torch.Generator().manual_seed(step))


LOSSES = ("restoration", "foreground", "background", "semantic", "variation", "entropy", "concentration")
ALONE = [
    *((name, {}) for name in LOSSES),
    ("restoration", {"perceptual": 0.0}),
    ("restoration", {"mask_ratio": 1.0}),
    ("foreground", {"presence": "batch"}),
    ("foreground", {"presence": "area"}),
    ("foreground", {"group": 3}),
    ("foreground", {"pool": 1}),
    ("background", {"pool": 1}),
    ("semantic", {"over_regions": True}),
    ("semantic", {"classes": 2}),
]


@pytest.mark.parametrize(("name", "options"), ALONE)
def test_a_step_reduces_the_loss_it_is_meant_to_reduce(small, name, options):
    task = small(augment=False, **({other: 0.0 for other in LOSSES} | {name: 1.0} | options))
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=1e-2)
    before = step_of(task)
    assert set(before) == {"loss", name, "background_area"}
    before["loss"].backward()
    torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
    optimizer.step()
    assert step_of(task)[name] < before[name]


@pytest.mark.parametrize("options", [{}, {"classes": 2, "levels": (0, 1)}, {"concentration": 1.0, "presence": "area"}])
def test_gradients_reach_all_that_is_trained_and_nothing_frozen(small, options):
    task = small(**options)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=1.0)
    step_of(task)["loss"].backward()
    optimizer.step()
    frozen = ("model.encoder.", "network.", "model.autoencoder.positions", "model.autoencoder.decoder_positions")
    for name, value in task.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(frozen), name


def test_losses_are_exact_where_the_forward_is_in_bfloat16(small):
    task = small(augment=False)
    with torch.autocast("cpu", torch.bfloat16):
        terms = step_of(task)
    exact = step_of(task)
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert terms["semantic"].item() == pytest.approx(exact["semantic"].item(), rel=0.05)


ABLATIONS = [
    *({"mask_ratio": ratio} for ratio in (0.5, 0.75, 0.95, 1.0)),
    *({loss: 0.0} for loss in LOSSES[:-1]),
    {"presence": "area", "alpha": 1.0},
    {"presence": "batch"},
    {"variation": 0.0, "entropy": 0.0, "concentration": 0.5},
    {"classes": 2},
    {"group": 3},
    {"group": 64},
    {"perceptual": 0.0},
    {"pixels": 0.5, "perceptual": 0.5, "network_weights": (0, 1), "pool": 1, "over_regions": True},
    {"restored": 4},
]


@pytest.mark.parametrize("options", ABLATIONS)
def test_ablations_train(small, options):
    terms = step_of(small(**options))
    terms["loss"].backward()
    assert terms["loss"].isfinite()
    assert not {name for name, value in options.items() if name in LOSSES and not value} & set(terms)


def test_with_parts_of_each_class_an_image_trains_those_of_its_own(small):
    task = small(classes=3)
    step_of(task)["loss"].backward()
    reached = task.model.extractor.part_embed.grad.abs().sum(1) > 0
    assert reached.tolist() == [True] + 6 * [True] + 3 * [False]
    with pytest.raises(UsageError, match="classes=3, but the images have no labels"):
        task(drawn_pixels(), None, 0.0, torch.Generator())


def test_a_resumed_run_equals_an_undisturbed_one(small, tmp_path):
    images = ImageSet.from_pixels(drawn_pixels(8), None, [])
    options = LoopOptions(steps=4, batch_size=4, log_steps=1, lr=1e-3, precision="fp32")
    check_resumed_run(small, images, options, tmp_path)
    logs = [(tmp_path / run / "log.csv").read_text().splitlines() for run in ("whole", "half")]
    without_clock = [[line.split(",")[:2] + line.split(",")[3:] for line in log] for log in logs]
    assert without_clock[0] == without_clock[1]


def test_wrong_options_are_refused(small):
    with pytest.raises(UsageError, match="presence='often', but it must be 'group', 'batch' or 'area'"):
        small(presence="often")
    with pytest.raises(UsageError, match="mask_ratio=90"):
        small(mask_ratio=90)


def test_views_are_drawn_within_their_bounds():
    pixels = torch.full((64, 3, 40, 40), 100.0)
    views = random_view(pixels, torch.Generator().manual_seed(0))
    assert views.shape == pixels.shape and torch.equal(views, random_view(pixels, torch.Generator().manual_seed(0)))
    assert (views[:, :, 15:25, 15:25] > 99).all()
    assert (views[:, :, 0, 0] < 50).any() and views[:, :, ::39, ::39].std() > 0


def test_a_folder_of_images_becomes_a_model_that_loads(tmp_path):
    for i, pixels in enumerate(drawn_pixels(6)):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    recipe = read_recipe("mpae-patchresnet14.faces-k8")
    small = {"size": 64, "dim": 32, "width": 32, "depth": 1, "heads": 2, "masked_width": 32, "masked_heads": 2}
    recipe = replace(recipe, config=recipe.config | small | {"decoder_heads": 2})
    options = {"data": tmp_path, "recipe": recipe, "k": 3, "steps": 2, "progress": False, "batch_size": 4}
    trained, state = train("mpae", out=tmp_path / "run", **options)
    loaded = load(tmp_path / "run" / "model.safetensors", dtype="float32")
    assert state.finished and loaded.config.parts == 3
    encoder = load("patchresnet14.tin", device="cpu", dtype="float32").state_dict()
    assert all(torch.equal(value, loaded.encoder.state_dict()[name]) for name, value in encoder.items())
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(x), trained.cpu()(x))


def test_training_starts_from_clusters_inside_the_foreground(small):
    task = small(standardize=True, start="clusters", anchor=2.0, masks=1.0)
    mask = torch.zeros(4, 1, 64, 64, dtype=torch.uint8)
    mask[..., 16:48, 16:48] = 255
    examples = ImageSet.from_pixels(torch.cat([drawn_pixels(), mask], dim=1), None, [])
    task.prepare("", PartOptions(foreground="given"), examples)
    x = task.model.preprocess.normalize(drawn_pixels())
    with torch.no_grad():
        maps, encoded = task.eval().model.part_maps(x), task.model.encoded(x)
    assert maps.argmax(1).equal(task.first.labels(encoded))
    terms = task.train()(examples.batch(torch.arange(4)), None, 0.5, torch.Generator().manual_seed(0))
    rest = sum(task.weights[name] * terms[name] for name in terms if name in task.weights)
    assert {"anchor", "masks"} <= terms.keys() and terms["loss"].item() == pytest.approx(rest.item(), rel=1e-5)
