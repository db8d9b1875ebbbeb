"""Published PartFormers through ``partzoo.convert``, compared with the published code's results."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from parity.published_mpae import drawn, image
from parity.published_partformer import published, vit_shapes
from parity.published_vgg import drawn_vgg
from parity.synthetic import normal
from PIL import Image

import partzoo
from partzoo.models.precision import set_precision
from partzoo.models.timm_encoder import dino_positions
from partzoo.train.losses.partformer import VGG_WEIGHTS
from partzoo.train.tasks.partformer import PartFormerTask

CASES = Path(__file__).parent.parent / "parity" / "partformer"
IMAGES = Path(__file__).parents[2] / "examples" / "images"
PUBLISHED = [
    ("celeba", "celeba", 4), ("celeba_k8", "celeba", 8), ("cub", "cub", 4), ("partimage", "partimage", 4),
]  # fmt: skip
CLASSES = torch.tensor([3, 107])  # of PartImageNet's two images
ALPHAS = {"celeba": 2.0, "cub": 0.5, "partimage": 1.5}
WEIGHTS = {"reconstruction": 1, "concentration": 0.3, "area": 0.5, "consistency": 0.01}


def case(name):
    return np.load(CASES / f"{name}.npz")


def near(found, expected, tolerance):
    found = np.asarray(found.detach() if isinstance(found, torch.Tensor) else found)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < tolerance


def published_order(x):
    return x.detach().roll(-1, dims=1)


class Seen:
    """The frozen encoder shared by all cases, which encodes each image once."""

    def __init__(self, encoder):
        self.encoder, self.tokens = encoder, {}

    def __call__(self, x):
        key = (x.shape, float(x.double().sum()))
        if key not in self.tokens:
            self.tokens[key] = type(self.encoder).encode(self.encoder, x)
        return self.tokens[key]


@cache
def seen():
    state = drawn({f"backbone1.{name}": shape for name, shape in vit_shapes().items()})
    return Seen(partzoo.convert({n.removeprefix("backbone1."): v for n, v in state.items()}, dtype="float32"))


def converted(variant, parts=4):
    model = partzoo.convert(published(variant, parts), device="cpu", dtype="float32")
    shared = seen()
    for name, value in shared.encoder.state_dict().items():
        assert torch.equal(value, model.encoder.get_parameter(name))
    model.encoder.encode = shared
    return model


@cache
def inference_images():
    blocks = torch.from_numpy(normal("partformer/infer/blocks", (1, 3, 16, 16)))
    blocks = blocks.repeat_interleave(16, dim=2).repeat_interleave(16, dim=3)
    return torch.cat([image("partformer/infer/image", (1, 3, 256, 256)), blocks])


def test_positions_by_dino_s_rule_are_the_published_ones():
    table = torch.from_numpy(normal("partformer/dino/pos_embed", (1, 785, 384)))
    near(dino_positions(table, (28, 28), (32, 32))[0, :, ::24], case("dino")["pos_256_subset"], 5e-5)
    assert torch.equal(dino_positions(table, (28, 28), (28, 28)), table)
    assert dino_positions(table, (28, 28), (7, 40)).shape == (1, 281, 384)


@pytest.mark.parametrize("strong", [False, True])
def test_dino_s_features_are_the_published_ones(strong):
    shapes = {f"backbone1.{name}": shape for name, shape in vit_shapes().items()}
    state = {name.removeprefix("backbone1."): value for name, value in drawn(shapes).items()}
    if strong:
        state["pos_embed"] = 0.5 * torch.from_numpy(normal("partformer/dino/pos_embed", (1, 785, 384)))
    encoder = partzoo.convert(state, device="cpu", dtype="float32")
    assert encoder.architecture == "dino-vits8" and encoder.config.positions == "dino"
    maps = encoder.encode(image("partformer/dino/image", (1, 3, 256, 256))).maps()
    near(maps[:, ::6, ::4, ::4], case("dino")["feature_subset_strong_pos" if strong else "feature_subset"], 2e-5)


@pytest.mark.parametrize(("name", "variant", "parts"), PUBLISHED)
def test_maps_and_representations_are_the_published_ones(name, variant, parts):
    expected, x, model = case(f"infer_{name}"), inference_images(), converted(variant, parts)
    several = {"classes": CLASSES} if variant == "partimage" else {}
    near(model.encoder.encode(x).maps()[:, ::12, ::4, ::4], expected["dino_subset"], 3e-5)
    near(model.features(x)[:, :, ::4, ::4], expected["F_subset"], 3e-5)
    near(published_order(model.descriptors(x, **several)), expected["G"], 3e-5)
    maps = published_order(model.part_maps(x, size=(128, 128), **several))
    near(maps[:, :, 1::6, 2::6], expected["P_subset"], 3e-5)
    near(maps.mean((2, 3)), expected["P_mean"], 3e-5)
    best = maps.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > 1e-4
    wrong = maps.argmax(1) != torch.from_numpy(expected["argmax"]).long()
    assert not wrong[clear].any() and wrong.sum() <= 3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant", "parts"), PUBLISHED)
def test_nearly_all_labels_are_the_published_ones_in_low_precision(name, variant, parts):
    expected, x = torch.from_numpy(case(f"infer_{name}")["argmax"]).long(), inference_images()
    several = {"classes": CLASSES} if variant == "partimage" else {}
    model = partzoo.convert(published(variant, parts), device="cpu", dtype="float32")

    @torch.inference_mode()
    def alike():
        found = published_order(model.part_maps(x, size=(128, 128), **several)).argmax(1)
        return (found == expected).float().mean((1, 2)).min().item()

    model.autocast = torch.bfloat16  # what dtype="auto" chooses on GPUs and CPUs that are fast at it
    assert alike() > 0.99
    model.autocast = None
    assert (
        set_precision(model, "int8", torch.device("cpu")).transformer.blocks[0].attn.qkv.weight.dtype == torch.float32
    )
    assert 0.96 < alike() < 1


@pytest.mark.parametrize("variant", ["celeba", "cub", "partimage"])
def test_a_training_step_has_the_published_terms_and_gradients(variant, monkeypatch):
    expected, several = case(f"train_{variant}"), variant == "partimage"
    model, state = converted(variant), published(variant)
    for name, p in model.named_parameters():
        p.requires_grad_(not name.startswith("encoder.") and (several or name != "transformer.positions"))
    brought = {"dino-vits8": model.encoder, "timm/vgg19.tv_in1k": drawn_vgg()}
    monkeypatch.setattr("partzoo.train.tasks.partformer.load", lambda name, **_: brought[name])
    options = {"network": "timm/vgg19.tv_in1k", "network_weights": VGG_WEIGHTS, "alpha": ALPHAS[variant]}
    task = PartFormerTask(model, **options, background_area=several).train()
    with torch.no_grad():
        task.prototypes.copy_(state["ArcMarginProduct.weight"].view_as(task.prototypes))
    kept = {}
    model.decoder.register_forward_hook(lambda _, given, made: kept.update(S=given[0], R=made))
    match = model.match
    monkeypatch.setattr(model, "match", lambda *given: kept.setdefault("V", match(*given)))
    views = [image(f"partformer/train/image{i}", (2, 3, 256, 256)) for i in (1, 2)]
    terms = task.losses(*views, CLASSES if several else None)
    terms["loss"].backward()

    for direction, at in (("2to1", slice(0, 2)), ("1to2", slice(2, 4))):
        near(published_order(kept["V"][at])[:, :, ::2, ::2], expected[f"V_{direction}"], 5e-4)
        near(kept["S"][at][:, ::4, ::4, ::4], expected[f"S_{direction}_subset"], 5e-4)
        near(kept["R"][at][:, :, 1::8, 3::8], expected[f"R_{direction}_subset"], 5e-4)
    found = [terms[name].item() for name in ("area", "reconstruction", "concentration", "consistency", "loss")]
    assert found == pytest.approx(expected["area_rec_con_sc_total"].tolist(), rel=1e-5)

    def gradient(found, name, tolerance=1e-3):
        wanted = expected[f"grad_{name}"]
        near(found, wanted, tolerance * np.abs(wanted).max())

    prototypes = task.prototypes.grad.flatten(0, 1)
    gradient(prototypes[::13] if several else prototypes, "ArcMarginProduct.weight")
    gradient(model.decoder[7].weight.grad[..., 0, 0], "Reconstruct_Block.7.weight")
    gradient(model.transformer.proj.weight.grad[::4, ::8], "Transformer.proj.weight_subset")
    # Before CUB's first ReLU some values are next to zero, where gradients jump: 1.04e-3 in float32, 1.5e-5 in float64.
    gradient(model.compress[0].weight.grad[::8, ::12, 0, 0], "compress_layer.0.weight_subset", 2e-3)
    parts = model.transformer.part_embed.grad
    if several:
        gradient(parts[1 + 13], "Transformer.foreground_embedding_row13")
        gradient(parts[:1].flatten() if expected["grad_Transformer.background_embedding"].ndim == 1 else parts[:1],
                 "Transformer.background_embedding")  # fmt: skip
        gradient(model.scale.grad, "logit_scale")
        assert (parts[1:].abs().sum(1) > 0).nonzero().flatten().tolist() == [12, 13, 14, 15, 428, 429, 430, 431]
    else:
        gradient(parts.roll(-1, dims=0)[:, ::4], "Transformer.class_embedding_subset")
    for name, value in expected.items():
        if name.endswith("_after"):
            place = name.removeprefix("compress_layer.").removesuffix("_after")
            near(model.compress.get_buffer(place), value, 1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_lower_precision_finds_the_same_parts(dtype):
    x, expected = inference_images()[:1], torch.from_numpy(case("infer_celeba")["argmax"][:1]).long()
    model = partzoo.convert(published("celeba"), device="cpu", dtype=dtype)
    maps = published_order(model.part_maps(x, size=(128, 128)))
    assert (maps.argmax(1) == expected).float().mean() > 0.99


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_trained_weights_find_the_same_parts_in_lower_precision(dtype):
    pixels = [Image.open(path).convert("RGB").resize((128, 128)) for path in sorted(IMAGES.glob("*.jpg"))]
    pixels = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    exact, rough = (partzoo.load("partformer-resnet18.faces-k8", device="cpu", dtype=d) for d in ("float32", dtype))
    x = exact.preprocess.normalize(pixels)
    expected, found = (model.part_maps(x, size=(128, 128)).argmax(1) for model in (exact, rough))
    assert (found == expected).float().mean() > 0.99
