"""timm's models: one of each family, images of any size, and equality with timm's results."""

import warnings

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import partzoo
from partzoo.errors import ShapeError, UsageError
from partzoo.images.preprocess import IMAGENET_MEAN
from partzoo.models.frozen import frozen_encoder
from partzoo.models.loading import load
from partzoo.models.timm_encoder import squashed
from partzoo.pyramid import feature_pyramid

# Of families that take one size alone: those that accept any size on request, are set to it, or get squashed images.
ANY = ("swin_tiny_patch4_window7_224", "vit_tiny_r_s16_p8_224", "vitamin_small_224")
SETTABLE = ("test_coatnet", "test_maxvit", "test_vit_relpos")
SQUASHING = ("pit_ti_224", "levit_128s", "convit_tiny")

# A small model of each of the 98 families, by the module of timm that defines it.
FAMILIES = """
    test_byobnet botnet26t_256 beit_base_patch16_224 cait_xxs24_224 coat_lite_tiny convit_tiny convmixer_768_32
    convnext_atto cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_s cspnext_tiny davit_tiny deepseek_vit_412m
    deit_tiny_distilled_patch16_224 densenet121 dla46_c dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0
    efficientnet_lite0 efficientvim_m1 efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8
    focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m ghostnet_050 hardcorenas_a hgnetv2_b0 hiera_tiny_224 sam2_hiera_tiny
    hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small levit_128s
    lowformer_b0 test_mambaout test_coatnet poolformer_s12 resmlp_12_224 lcnet_035 mobilenetv5_300m mobilevit_xxs
    mvitv2_tiny naflexvit_base_patch16_gap nasnetalarge nest_tiny nextvit_small eca_nfnet_l0 pit_ti_224 pnasnet5large
    pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 repghostnet_050 repvit_m0_9 res2net50_14w_8s resnest14d resnet18
    resnetv2_18 rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18 starnet_s050 swiftformer_xs
    swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m
    twins_svt_small vgg11 visformer_tiny test_vit vit_tiny_r_s16_p8_224 test_vit_relpos samvit_base_patch16_224
    vitamin_small_224 volo_d1_224 ese_vovnet19b_slim_dw legacy_xception xception41 xcit_nano_12_p16_224
""".split()


def random(name):
    torch.manual_seed(0)
    return load(f"timm/{name}", pretrained=False, dtype="float32")


def disc(height, width):
    """A bright disc in two tones on a dark ground."""
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 3) ** 2
    values = np.where(inside, np.where(y < height / 2, 230, 140), 25) + np.random.default_rng(0).integers(0, 8, y.shape)
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def check_parts_and_features(model):
    for size in ((100, 160), (96, 96)):
        parts = partzoo.discover_parts(disc(*size), k=3, model=model, background="none", size=160)
        assert parts.labels.shape == size and parts.labels.any()
    features = partzoo.extract_features(disc(200, 120), model=model)
    assert features.dense.shape[2] == model.dim and np.isfinite(features.dense).all()
    x = torch.randn(1, 3, 224, 160)
    tokens, maps = model.encode(x), model.forward_intermediates(x)
    last = maps[model.config.stage]
    torch.testing.assert_close(tokens.maps(), last)
    assert len(maps) == len(model.model.feature_info)
    seen = model.fixed or tuple(side + -side % model.preprocess.multiple for side in x.shape[2:])
    return tokens.grid, seen


@pytest.mark.parametrize("name", (*ANY, *SETTABLE, *SQUASHING))
def test_families_of_one_size_give_parts_and_features_of_any(name):
    model = random(name)
    grid, seen = check_parts_and_features(model)
    assert grid == tuple(-(-side // model.patch) for side in seen)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_parts_and_features(name):
    check_parts_and_features(random(name))


def test_the_stride_of_a_hybrid_is_that_of_its_map():
    model = random("vit_tiny_r_s16_p8_224")
    assert model.patch == model.preprocess.multiple == 32
    assert model.encode(torch.randn(1, 3, 100, 160)).grid == (4, 5)


@pytest.mark.parametrize("name", SETTABLE)
def test_a_network_that_is_set_to_a_size_is_not_changed(name):
    model = random(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(1, 3, *model.settable)
    wider = torch.nn.functional.pad(x, (0, 32))
    own = model.encode(x).patch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of timm's resampling
        found = model.encode(wider).maps()
        peer = timm.create_model(name, num_classes=0).eval()
        peer.load_state_dict(model.model.state_dict())
        peer.set_input_size(tuple(wider.shape[2:]))
    expected = peer.forward_intermediates(wider, 1, norm=not model.reductions, intermediates_only=True)
    torch.testing.assert_close(found, expected[0])
    assert torch.equal(model.encode(x).patch, own)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ("resnet18", "convnext_atto", "inception_v3", "test_mambaout"))
def test_the_grid_is_that_of_the_map_whatever_layout_and_rounding(name):
    model = random(name)
    x = torch.randn(1, 3, 255, 351)
    tokens, maps = model.encode(x), model.forward_intermediates(x)
    assert tokens.grid == tuple(maps[-1].shape[2:]) and tokens.patch.shape == (1, np.prod(tokens.grid), model.dim)
    assert [each.shape[1] for each in maps] == [layer["num_chs"] for layer in model.model.feature_info]


@pytest.mark.parametrize("name", ("tf_efficientnet_lite0", "resnet18", "vit_tiny_patch16_224"))
def test_mean_and_deviation_are_those_of_the_weights(name):
    data = timm.get_pretrained_cfg(name)
    chosen = random(name).preprocess
    assert (chosen.mean, chosen.std) == (data.mean, data.std)
    assert (chosen.mean == IMAGENET_MEAN) == (name == "resnet18")


def test_images_are_squashed_to_the_one_size_of_a_network():
    model = random("pit_ti_224")
    x = torch.randn(1, 3, 100, 300)
    assert model.fixed == (224, 224)
    assert torch.equal(model.encode(x).patch, model.encode(squashed(x, (224, 224))).patch)
    own = torch.randn(1, 3, 224, 224)
    assert squashed(own, (224, 224)) is own


def test_networks_that_squash_are_no_base_for_parts_and_pyramids():
    for build in (frozen_encoder, lambda name: feature_pyramid(random(name.removeprefix("timm/")))):
        with pytest.raises(UsageError, match=r"squashes images to 224x224 pixels.*takes any size"):
            build("timm/pit_ti_224")


def test_an_image_too_small_for_unpadded_convolutions_is_one_sentence():
    with pytest.raises(ShapeError, match="A 40x64 image is too small for inception_v3: resize it to about 299"):
        random("inception_v3").encode(torch.randn(1, 3, 40, 64))


@pytest.mark.slow  # torch.export traces every layer
@pytest.mark.parametrize("name", ("dino-vits16", "partformer-resnet18", "mpae-patchresnet14"))
def test_exported_programs_serve_other_sizes_and_batches(name):
    torch.manual_seed(0)
    model = load(name, pretrained=False, dtype="float32")
    own = torch.rand(2, 3, model.preprocess.size, model.preprocess.size)
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(model, (own,), dynamic_shapes=(free,), strict=False).module()
    for x in (own, torch.rand(3, 3, 96, 160)):
        torch.testing.assert_close(program(x), model(x), rtol=0, atol=1e-5)


QUICK = "spatial-resnet8"
SLOW = (  # with that, one encoder of each class, and of timm's kinds of networks
    "patchresnet14", "toy-vit", "part-vitt8", "part-classifier-vitn8", "part-vit1d", "efficientnet-lite0",
    "partformer-resnet18", "mpae-patchresnet14", "foreground-lite0", "dino-vits16", "timm/resnet18", "timm/test_vit",
    "timm/test_vit_relpos", "timm/test_coatnet", "timm/test_mambaout", "timm/levit_128s",
    "timm/swin_tiny_patch4_window7_224",
)  # fmt: skip


@pytest.mark.parametrize("name", (QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)))
def test_exported_programs_leave_the_batch_open(name):
    torch.manual_seed(0)
    model = load(name, pretrained=False, dtype="float32")
    shape = (6, 3000) if name == "part-vit1d" else (3, model.preprocess.size, model.preprocess.size)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.rand(2, *shape),), dynamic_shapes=({0: batch},), strict=False).module()
    x = torch.rand(3, *shape)
    torch.testing.assert_close(program(x), model(x), rtol=0, atol=1e-5)
