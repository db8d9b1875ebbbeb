"""The contract of design section 6, over every kind of encoder the zoo has."""

import pytest
import timm
import torch

from partzoo.errors import ShapeError, UsageError
from partzoo.models.base import Encoder
from partzoo.models.loading import load
from partzoo.models.part_model import PartModel
from partzoo.models.precision import explain, has_amx, set_precision
from partzoo.models.registry import architectures

SIGNALS = "part-vit1d"  # takes signals instead of images, and has a test of its own below
LARGE = 10_000_000  # parameters; larger networks take seconds each, and differ from a smaller one in numbers alone
TIMM = ("timm/vit_tiny_patch16_224", "timm/resnet18")  # timm's models have no registration of their own


def kinds() -> dict[str, Encoder]:
    """Return every registered encoder, without memory for its weights."""
    with torch.device("meta"):
        built = {name: entry.build(entry.config) for name, entry in architectures().items()}
    return {name: model for name, model in built.items() if isinstance(model, Encoder)}


def chosen(encoders: dict[str, Encoder]) -> list[str]:
    """Return all of these encoders that are not large, and the smallest of each class."""
    sizes = {name: sum(each.numel() for each in model.parameters()) for name, model in encoders.items()}
    by_size = sorted(encoders, key=sizes.__getitem__)
    smallest = {type(encoders[name]): name for name in reversed(by_size)}
    return [name for name in by_size if name != SIGNALS and (sizes[name] <= LARGE or name in smallest.values())]


@pytest.fixture(scope="module", params=[*chosen(kinds()), *TIMM])
def encoder(request):
    torch.manual_seed(0)
    return load(request.param, pretrained=request.param == "toy-vit", dtype="float32")


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 160)])
def test_tokens_lie_on_the_padded_grid(encoder, size):
    x = torch.randn(2, 3, *size)
    tokens = encoder.encode(x)
    multiple = encoder.preprocess.multiple
    assert tokens.grid == tuple(-(-side // multiple) * multiple // encoder.patch for side in size)
    assert tokens.patch.shape == (2, tokens.grid[0] * tokens.grid[1], encoder.dim)
    assert tokens.maps().shape == (2, encoder.dim, *tokens.grid)
    assert encoder.forward_features(x).shape[1] == tokens.patch.shape[1] + tokens.prefix.shape[1]


def test_padding_is_to_the_right_and_bottom(encoder):
    x = torch.randn(1, 3, 64, 70)
    padded = torch.nn.functional.pad(x, (0, -70 % encoder.preprocess.multiple))
    assert torch.equal(encoder.encode(x).patch, encoder.encode(padded).patch)


def test_the_last_intermediate_is_what_encode_gives(encoder):
    x = torch.randn(1, 3, 64, 96)
    last = encoder.forward_intermediates(x, 1)
    assert len(last) == 1
    torch.testing.assert_close(last[0], encoder.encode(x).maps())
    every = encoder.forward_intermediates(x)
    assert len(every) > 1 or isinstance(encoder, PartModel)  # whose features are one map
    torch.testing.assert_close(encoder.forward_intermediates(x, [0])[0], every[0])
    assert encoder.forward_intermediates(x, [0], "NLC")[0].shape == every[0].flatten(2).mT.shape


def check_layers(encoder):
    x = torch.randn(1, 3, 64, 96)
    every = encoder.forward_intermediates(x)
    last = len(every) - 1
    for asked in ([last, 0, last], [-1, 0], [0, last, -1, 0], (-1, -len(every))):
        found = encoder.forward_intermediates(x, asked)
        for one, expected in zip(found, [every[i] for i in sorted({0, last})], strict=True):
            torch.testing.assert_close(one, expected)


def test_layers_come_in_block_order_and_once_whatever_was_requested(encoder):
    check_layers(encoder)


@pytest.mark.parametrize("name", [
    "test_vit", "test_vit_relpos", "test_coatnet", "test_mambaout", "xcit_nano_12_p16_224", "convnext_atto",
    "swin_tiny_patch4_window7_224", "levit_128s",
])  # fmt: skip
def test_layers_of_timm_s_families_do_too(name):
    torch.manual_seed(0)
    check_layers(load(f"timm/{name}", pretrained=False, dtype="float32"))


def test_signals_layers_come_in_block_order_and_once():
    model = load("part-vit1d", pretrained=False, dtype="float32", depth=3)
    x = torch.randn(1, model.config.channels, 2 * model.patch)
    first, _, last = model.forward_intermediates(x)
    found = model.forward_intermediates(x, [2, 0, -1])
    assert len(found) == 2 and torch.equal(found[0], first) and torch.equal(found[1], last)


def test_every_class_of_encoder_is_tested():
    encoders = kinds()
    names = chosen(encoders)
    assert {type(encoders[name]) for name in (*names, SIGNALS)} == {type(model) for model in encoders.values()}
    assert {"toy-vit", "part-vitt8", "patchresnet14", "spatial-resnet8", "mpae-patchresnet14"} <= set(names)


def test_wrong_input_is_one_clear_error(encoder):
    with pytest.raises(ShapeError, match=r"must be \(B, 3, H, W\), not \(3, 64, 64\)"):
        encoder.encode(torch.randn(3, 64, 64))
    with pytest.raises(ShapeError, match="smaller than one patch"):
        encoder.encode(torch.randn(1, 3, 2, 64))
    with pytest.raises(UsageError, match="must select among"):
        encoder.forward_intermediates(torch.randn(1, 3, 64, 64), 99)
    with pytest.raises(UsageError, match="'NCHW' or 'NLC'"):
        encoder.forward_intermediates(torch.randn(1, 3, 64, 64), 1, "CHW")


def test_loaded_models_are_frozen_and_in_evaluation_mode(encoder):
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())


def test_timm_features_are_timm_s_own():
    torch.manual_seed(0)
    ours = load("timm/vit_tiny_patch16_224", pretrained=False, dtype="float32")
    peer = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    peer.load_state_dict(ours.model.state_dict())
    x = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(ours.forward_features(x), peer.forward_features(x))


def test_int8_is_close_to_float32_and_only_for_a_cpu():
    x = torch.randn(2, 3, 64, 64)
    reference, quantized = (load("toy-vit", dtype=dtype).encode(x).patch for dtype in ("float32", "int8"))
    assert torch.cosine_similarity(reference, quantized, dim=-1).min() > 0.99
    assert not torch.equal(reference, quantized)
    with pytest.raises(UsageError, match="runs on a CPU"):
        set_precision(load("toy-vit"), "int8", torch.device("cuda"))


def test_int8_keeps_what_is_read_directly():
    torch.manual_seed(0)
    relative = load("part-vitt8", pretrained=False, dtype="int8", depth=1).relate(torch.randn(1, 4, 3, 8, 8))
    assert relative.shape == (1, 16, 2) and relative.isfinite().all()


@pytest.mark.parametrize("name", ["patchresnet14-fg", "efficientnet-lite0", "foreground-lite0", "spatial-resnet8"])
def test_int8_refuses_models_that_gain_nothing(name):
    with pytest.raises(UsageError, match=rf"quantize \d+ % of the weights of {name} .*: use dtype='float32'"):
        load(name, pretrained=False, device="cpu", dtype="int8")


def test_auto_precision_is_what_the_machine_has():
    chosen, why = explain(torch.device("cpu"))
    assert chosen == ("bfloat16 autocast" if has_amx() else "float32")
    assert "AMX" in why
    assert load("toy-vit", device="cpu").autocast == (torch.bfloat16 if has_amx() else None)
    with pytest.raises(UsageError, match="dtype='float31'"):
        load("toy-vit", dtype="float31")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["toy-vit", "part-classifier-vitn8", "timm/test_vit", "timm/convit_tiny"])
def test_half_precision_resamples_positions_and_images_that_torch_cannot_on_a_cpu(name, dtype):
    torch.manual_seed(0)
    encoder = load(name, pretrained=False, dtype=dtype, device="cpu")
    assert encoder.encode(torch.randn(1, 3, 96, 160)).patch.isfinite().all()


def test_bfloat16_on_request():
    tokens = load("toy-vit", dtype=torch.bfloat16).encode(torch.randn(1, 3, 64, 64))
    assert tokens.patch.dtype == torch.bfloat16
