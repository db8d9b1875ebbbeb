"""``partzoo.convert`` and ``partzoo convert``: their inputs, messages and files."""

import argparse
import json
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo as command
from parity.published_mpae import TINY_CONFIG, TINY_ENCODER, backbone_shapes, drawn, image, linear, shapes_of
from parity.published_partformer import shapes_of as partformer_shapes
from parity.published_partformer import vit_shapes
from parity.synthetic import parameter
from safetensors.torch import save_file
from timm.models import build_model_with_cfg, register_model
from timm.models.vision_transformer import VisionTransformer

import partzoo
from partzoo.conversion.convert import recognize
from partzoo.errors import UnknownModelError, UsageError, WeightsError
from partzoo.hub import save_pretrained
from partzoo.images.preprocess import IMAGENET_MEAN, IMAGENET_STD
from partzoo.models.loading import build
from partzoo.models.registry import find
from partzoo.train.tasks.spatial import SpatialTask
from partzoo.weights.manifest import BUNDLED, PACKAGE
from partzoo.weights.tensors import write_weights

TINY = {"architecture": "mpae-vitb14reg", "encoder": TINY_ENCODER, "device": "cpu", "dtype": "float32"} | TINY_CONFIG
SETTINGS = [f"--set={key}={value}" for key, value in (TINY_CONFIG | {"encoder": TINY_ENCODER}).items()]


@register_model
def vit_partzoo_test_patch8(pretrained=False, **kwargs):
    shape = {"img_size": 224, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return build_model_with_cfg(VisionTransformer, "vit_partzoo_test_patch8", pretrained, **shape, **kwargs)


@cache
def tiny():
    return drawn(shapes_of("tiny"))


def fixed_positions(width, side, first):
    """A table of sines and cosines, the ``first`` axis's ("rows" or "columns") in the first half; 0 for the class."""
    rate = 10_000 ** (-torch.arange(width // 4) / (width // 4))
    axes = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [axis.reshape(-1, 1) * rate for axis in (axes if first == "rows" else axes[::-1])]
    table = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return torch.nn.functional.pad(table, (0, 0, 1, 0))[None]


def moco(encoder):
    """A checkpoint of MoCo v3, by the names that its authors' training script writes."""
    width = encoder["cls_token"].shape[-1]
    mlp = drawn(linear("head.0", 64, width, bias=False) | linear("head.3", 8, 64, bias=False))
    mlp |= {"head.1.num_batches_tracked": torch.tensor(3)}
    state = prefixed(encoder | mlp, "base_encoder.") | prefixed(drawn(linear("predictor.0", 8, 8)), "")
    state |= {name.replace("base_", "momentum_"): -value for name, value in state.items() if name.startswith("base_")}
    return {"epoch": 300, "arch": "vit_base", "state_dict": prefixed(state), "optimizer": {}, "scaler": {}}


def mae(encoder, decoder=True):
    """A checkpoint of MAE, by the names that its authors' training script writes."""
    names = ("mask_token", "decoder_pos_embed", "decoder_embed.weight", "decoder_blocks.0.norm1.weight",
             "decoder_norm.bias", "decoder_pred.weight")  # fmt: skip
    return {"model": encoder | {name: torch.zeros(4) for name in names if decoder}, "args": argparse.Namespace(lr=1e-3)}


def without_backbone(state):
    return {name: value for name, value in state.items() if not name.startswith("backbone1.")}


def spatial(backbone="conv4"):
    """A checkpoint of Spatial Reasoning, by the names that the authors' state dicts have."""
    entry, state = find(f"spatial-{backbone}"), {"backbone": {}, "relation": {}}
    for key, value in build(entry, entry.config).state_dict().items():
        part, name = key.split(".", 1)
        drawn_value = parameter(name if part == "backbone" else key, tuple(value.shape))
        state[part][name] = torch.from_numpy(np.asarray(drawn_value))
    return state


def on_meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def prefixed(state, prefix="module."):
    return {prefix + name: value for name, value in state.items()}


def equal(model, other):
    state, wanted = model.state_dict(), other.state_dict()
    return state.keys() == wanted.keys() and all(torch.equal(state[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("wrap", [
    lambda state: prefixed(state),
    lambda state: {"epoch": 3, "model": "MPAE", "state_dict": prefixed(state), "best_state_dict": state,
                   "perf": np.float64(70.2), "optimizer": {"state": {}, "param_groups": []}},
    lambda state: {"best_state_dict": state, "args": argparse.Namespace(lr=1e-3)},
    lambda state: {"pytorch-lightning_version": "2.5.0", "global_step": 7, "state_dict": prefixed(state, "model.")},
], ids=["module", "checkpoint", "best", "lightning"])  # fmt: skip
@pytest.mark.parametrize("how", ["memory", "torch", "legacy"])
def test_a_checkpoint_is_the_same_model_however_it_is_wrapped(wrap, how, tmp_path):
    source = wrap(tiny())
    if how != "memory":
        torch.save(source, tmp_path / "c.pth", _use_new_zipfile_serialization=how == "torch")
        source = tmp_path / "c.pth"
    model = partzoo.convert(source, **TINY)
    assert equal(model, partzoo.convert(tiny(), **TINY))
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_a_small_checkpoint_may_be_overwritten_once_it_is_read(tmp_path):
    path = tmp_path / "c.pth"
    torch.save(tiny(), path)
    model = partzoo.convert(path, **TINY)
    with open(path, "r+b") as opened:  # in place, as cp does it
        opened.write(bytes(path.stat().st_size))
    assert equal(model, partzoo.convert(tiny(), **TINY))


def test_safetensors_are_read_too(tmp_path):
    save_file(tiny(), tmp_path / "c.safetensors")
    assert equal(partzoo.convert(tmp_path / "c.safetensors", **TINY), partzoo.convert(tiny(), **TINY))


def test_the_caller_s_tensors_stay_the_caller_s():
    state = {name: value.clone().requires_grad_() for name, value in tiny().items()}
    model = partzoo.convert(state, **TINY)
    before = model.compress.weight.clone()
    with torch.no_grad():
        state["compress_layer.weight"].zero_()
    assert torch.equal(model.compress.weight, before) and state["compress_layer.weight"].requires_grad


@pytest.mark.parametrize(("state", "architecture", "config"), [
    (shapes_of((16, 448)), "mpae-vitb14reg", {"parts": 16, "size": 448}),
    (shapes_of((8, 224)), "mpae-vitb14reg", {"parts": 8, "size": 224}),
    (partformer_shapes("celeba"), "partformer-vits8", {"parts": 4, "size": 256, "compress": "norm-relu", "classes": 0,
                                                       "reconstruction": 128, "upsampling": "bilinear"}),
    (partformer_shapes("celeba", 8), "partformer-vits8", {"parts": 8, "compress": "norm-relu", "cosine": False}),
    (partformer_shapes("cub"), "partformer-vits8", {"parts": 4, "compress": "relu-norm", "stride": 2, "dim": 64}),
    (partformer_shapes("partimage"), "partformer-vits8",
     {"parts": 4, "classes": 110, "compress": "linear", "cosine": True, "upsampling": "nearest", "size": 256}),
], ids=["mpae-k16", "mpae-k8", "celeba", "celeba-k8", "cub", "partimagenet"])  # fmt: skip
@pytest.mark.parametrize("backbone", [True, False])
def test_shapes_say_what_it_is(state, architecture, config, backbone):
    state = on_meta(state)
    found = recognize(state if backbone else without_backbone(state))
    assert found.architecture == architecture and config.items() <= found.config.items()
    entry = find(architecture)
    with torch.device("meta"):
        wanted = entry.build(entry.configure(found.config)).state_dict()
    wanted = {name: v.shape for name, v in wanted.items() if backbone or not name.startswith("encoder.")}
    assert {name: value.shape for name, value in found.state.items()} == wanted
    assert "ArcMarginProduct.weight" in found.unused and len(found.unused) <= 4


@pytest.mark.parametrize("backbone", ["conv4", "resnet8", "resnet32"])
def test_spatial_reasoning_is_recognized_by_its_backbone(backbone):
    state = spatial(backbone)
    model = partzoo.convert({"backbone": prefixed(state["backbone"]), "relation": state["relation"], "optimizer": {}},
                            device="cpu", dtype="float32", size=32, patch_size=12)  # fmt: skip
    assert model.architecture == f"spatial-{backbone}" and model.preprocess.size == 32
    for name, value in state["relation"].items():
        assert torch.equal(model.relation.state_dict()[name], value)


@pytest.mark.parametrize("wrap", [
    lambda state: state,
    lambda state: {"backbone": prefixed(state)},
    lambda state: {"backbone": state, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
], ids=["bare", "backbone", "training"])  # fmt: skip
@pytest.mark.parametrize("backbone", ["conv4", "resnet8", "resnet32", "resnet56", "resnet34"])
def test_a_backbone_alone_gives_features_and_refuses_relations(backbone, wrap, tmp_path):
    state = spatial(backbone)
    named = {"architecture": "spatial-resnet34"} if backbone == "resnet34" else {}
    options = {"device": "cpu", "dtype": "float32"} | named
    torch.save(wrap(state["backbone"]), tmp_path / "b.tar")
    whole, model = partzoo.convert(state, **options), partzoo.convert(tmp_path / "b.tar", **options)
    save_pretrained(model, tmp_path / "model")
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    for found in (model, partzoo.load(tmp_path / "model", device="cpu", dtype="float32")):
        assert found.architecture == f"spatial-{backbone}"
        assert torch.equal(found.features(x), whole.features(x)) and found.features(x).shape == (2, model.dim)
        assert torch.equal(found(x), whole(x)) and found(x).shape == (2, 96 * 64 // model.patch**2, model.dim)
        image = np.zeros((32, 32, 3), np.uint8)
        with pytest.raises(UsageError, match="has a backbone alone and cannot relate images"):
            partzoo.relate_images(image, image, model=found)


def test_a_resnet_34_is_spatial_reasoning_s_only_where_it_is_named():
    state = spatial("resnet34")["backbone"]
    with pytest.raises(WeightsError, match=r"a ResNet.*pass architecture='spatial-resnet34'\."):
        partzoo.convert(state)
    with pytest.raises(WeightsError, match=r"1 unexpected \(backbone\.fc\.weight\)"):
        partzoo.convert(state | {"fc.weight": torch.zeros(1000, 512)}, architecture="spatial-resnet34")


def test_an_unknown_architecture_is_named_before_the_checkpoint_is_judged():
    with pytest.raises(UnknownModelError, match="resnet5"):
        partzoo.convert(spatial("resnet34")["backbone"], architecture="resnet5")


def test_a_backbone_of_another_family_may_be_wrapped_likewise():
    assert recognize({"backbone": on_meta(vit_shapes())}).architecture == "dino-vits8"


def test_a_model_without_relations_is_not_trained_to_relate():
    entry = find("spatial-conv4")
    model = build(entry, entry.configure({"related": False, "size": 32, "patch_size": 12}))
    with pytest.raises(UsageError, match="has a backbone alone"):
        SpatialTask(model)(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), None, 0.0, torch.Generator())


@pytest.mark.parametrize(("shapes", "architecture"), [
    (vit_shapes(), "dino-vits8"), (vit_shapes(patch=16, side=14), "dino-vits16"),
    ({n.removeprefix("backbone1."): s for n, s in backbone_shapes(768, 12, 4, 37).items()}, "dinov2-vitb14reg"),
], ids=["dino-8", "dino-16", "dinov2-reg"])  # fmt: skip
@pytest.mark.parametrize("wrap", [dict, lambda state: {
    "student": {}, "teacher": prefixed(state, "backbone.") | {"head.last_layer.weight_g": torch.zeros(2)}, "epoch": 1
}, lambda state: {"state_dict": prefixed(state, "net.encoder.")}], ids=["bare", "training", "attributes"])  # fmt: skip
def test_backbones_become_encoders_of_the_zoo(shapes, architecture, wrap):
    found = recognize(wrap(on_meta(shapes)))
    assert found.architecture == architecture
    entry = find(architecture)
    with torch.device("meta"):
        wanted = entry.build(entry.config).state_dict()
    assert {name: value.shape for name, value in found.state.items()} == {n: v.shape for n, v in wanted.items()}


def test_moco_s_base_encoder_is_the_zoo_s():
    state = on_meta(vit_shapes(768, 16, 14))
    found = recognize(moco(state))
    assert found.architecture == "mocov3-vitb16" and set(found.state) == {f"model.{name}" for name in state}
    assert found.tensors == 2 * len(state) + 8 and len(found.unused) == len(state) + 8
    with torch.device("meta"):
        wanted = build(find("mocov3-vitb16"), find("mocov3-vitb16").config).state_dict()
    assert {name: v.shape for name, v in found.state.items()} == {name: v.shape for name, v in wanted.items()}


@pytest.mark.parametrize("decoder", [True, False])
@pytest.mark.parametrize(("shape", "architecture"), [
    ((768, 16, 14), "mae-vitb16"), ((1024, 16, 14), "timm/vit_large_patch16_224.mae"),
    ((1280, 14, 16), "timm/vit_huge_patch14_224.mae"),
], ids=["base", "large", "huge"])  # fmt: skip
def test_mae_is_the_zoo_s_with_and_without_its_decoder(shape, architecture, decoder):
    width, _, side = shape
    state = on_meta(vit_shapes(*shape, depth=1)) | {"pos_embed": fixed_positions(width, side, "columns")}
    found = recognize(mae(state, decoder))
    assert found.architecture == architecture and set(found.state) == {f"model.{name}" for name in state}
    assert len(found.unused) == 6 * decoder


@pytest.mark.parametrize(("table", "architecture"), [("rows", "mocov3-vitb16"), ("columns", "mae-vitb16")])
def test_bare_backbones_are_distinguished_by_their_fixed_positions(table, architecture):
    state = on_meta(vit_shapes(768, 16, 14)) | {"pos_embed": fixed_positions(768, 14, table)}
    assert recognize(state).architecture == architecture
    state["pos_embed"][:, 0] = 0.01
    with pytest.raises(WeightsError, match="fits several encoders"):
        recognize(state)


@pytest.mark.parametrize("wrap", [moco, mae])
def test_moco_and_mae_give_the_features_of_their_encoder(wrap, tmp_path):
    state = drawn(vit_shapes(16, 8, 28, depth=1))
    options = {"architecture": "timm/vit_partzoo_test_patch8", "device": "cpu", "dtype": "float32"}
    torch.save(wrap(state), tmp_path / "c.pth.tar")
    model = partzoo.convert(tmp_path / "c.pth.tar", **options)
    own = partzoo.load(options["architecture"], pretrained=False, device="cpu", dtype="float32")
    own.load_state_dict(prefixed(state, "model."))
    x = image("partformer/dino/rule", (1, 3, 64, 96))
    assert torch.equal(model(x), own(x))
    ran = command("convert", tmp_path / "c.pth.tar", "-o", tmp_path / "m", "--architecture", options["architecture"])
    assert ran.code == 0 and f"{len(state)} used, {len(state) + 8 if wrap is moco else 6} left out (" in ran.out
    assert torch.equal(partzoo.load(tmp_path / "m", device="cpu", dtype="float32")(x), model(x))


def test_a_part_model_is_trained_over_a_converted_encoder(tmp_path):
    from partzoo.train.tasks.mpae import MpaeTask
    from partzoo.train.tasks.partformer import PartFormerTask

    state, out = drawn(vit_shapes(16, 8, 28, depth=1)), tmp_path / "encoder"
    torch.save(mae(state), tmp_path / "c.pth")
    assert command("convert", tmp_path / "c.pth", "-o", out, "--architecture", "timm/vit_partzoo_test_patch8").code == 0
    for name, task, shape in (("mpae-patchresnet14", MpaeTask, {"levels": ()}),
                              ("partformer-vits8", PartFormerTask, {"compress": "linear", "stride": 1})):  # fmt: skip
        entry = find(name)
        model = build(entry, entry.configure({"encoder": str(out), "parts": 2, "size": 64} | shape))
        assert model.encoder.architecture == "timm/vit_partzoo_test_patch8"
        task(model, network="toy-vit")
        assert equal(model.encoder.model, partzoo.load(out, device="cpu", dtype="float32").model)
        write_weights(tmp_path / "m.safetensors", model.state_dict(), name, asdict(model.config))
        assert equal(partzoo.load(tmp_path / "m.safetensors", device="cpu", dtype="float32"), model)


def test_moco_s_small_transformer_has_other_heads():
    with pytest.raises(WeightsError, match="12 heads"):
        recognize(moco(on_meta(vit_shapes(384, 16, 14))), "timm/vit_small_patch16_224")


def test_moco_s_weights_come_by_convert_alone():
    model = partzoo.load("mocov3-vitb16", pretrained=False, device="cpu", dtype="float32")
    assert (model.dim, model.patch, model.preprocess.size) == (768, 16, 224)
    assert (model.preprocess.mean, model.preprocess.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert model(torch.zeros(1, 3, 32, 48)).shape == (1, 7, 768)
    with pytest.raises(WeightsError, match=r"download vit-b-300ep\.pth\.tar .* 'partzoo convert FILE -o DIR'"):
        partzoo.load("mocov3-vitb16")
    assert "weights: by 'partzoo convert' from vit-b-300ep.pth.tar" in command("info", "mocov3-vitb16").out
    assert "weights by partzoo convert from vit-b-300ep.pth.tar" in " ".join(command("list", "moco*").out.split())
    with pytest.raises(UnknownModelError, match=r"vit_base_patch16_224 tagged 'mocov3'; its tags are .*mae"):
        partzoo.load("timm/vit_base_patch16_224.mocov3", pretrained=False)


def test_blocks_in_chunks_are_blocks():
    state = {name.replace("blocks.", "blocks.0.") if name.startswith("blocks.") else name: value
             for name, value in on_meta(vit_shapes()).items()}  # fmt: skip
    assert recognize(state).state.keys() == recognize(on_meta(vit_shapes())).state.keys()


def test_registers_move_the_class_token_s_position():
    shapes = {n.removeprefix("backbone1."): s for n, s in backbone_shapes(64, 2, 4, 10).items()}
    state = drawn(shapes)
    model = partzoo.convert(state, architecture=TINY_ENCODER, device="cpu", dtype="float32").model
    torch.testing.assert_close(model.cls_token, state["cls_token"] + state["pos_embed"][:, :1])
    assert torch.equal(model.pos_embed, state["pos_embed"][:, 1:])


@pytest.mark.parametrize(("content", "words"), [
    (lambda: {"state": {}, "param_groups": []}, "the state of an optimizer"),
    (lambda: {"features.0.weight": torch.zeros(1), "features.0.bias": torch.zeros(1)}, "a VGG: 2 tensors"),
    (lambda: on_meta(vit_shapes() | {"head.weight": (1000, 384)}), "a vision transformer of timm or MAE: 151 tensors"),
    (lambda: {"model": {"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)}}, "a ResNet"),
    (lambda: {"a": torch.zeros(1), "b": 3}, "a dictionary of 2 entries"),
    (lambda: {}, "a dictionary of 0 entries"),
    (lambda: {"relation": {}, "backbone": {}}, "a dictionary of 2 entries"),
    (lambda: [1, 2], "a list"),
    (lambda: torch.zeros(2), "a Tensor"),
], ids=["optimizer", "vgg", "timm", "resnet", "mixed", "empty", "empty-spatial", "list", "tensor"])  # fmt: skip
def test_something_else_is_refused_by_what_it_looks_like(content, words):
    with pytest.raises(WeightsError, match=f"looks like {words}.* Pass a checkpoint of .*PartFormer"):
        partzoo.convert(content())


def test_indistinguishable_backbones_must_be_named():
    with pytest.raises(WeightsError, match=r"a ViT 768 wide, with patches of 16 .*architecture="):
        recognize(on_meta(vit_shapes(768, 16, 14)))
    assert recognize(on_meta(vit_shapes(768, 16, 14)), "mae-vitb16").architecture == "mae-vitb16"
    with pytest.raises(WeightsError, match="encoder is a ViT 64 wide, with patches of 14 pixels and 4 registers"):
        recognize(tiny())


@pytest.mark.parametrize(("change", "words"), [(lambda v: v / 0, "NaN or infinite"), (lambda v: v.to("meta"), "meta")])
def test_weights_that_are_not_finite_or_have_no_values_are_refused(change, words):
    state = tiny() | {"compress_layer.weight": change(tiny()["compress_layer.weight"])}
    with pytest.raises(WeightsError, match=f"cannot be converted: .*{words}"):
        partzoo.convert(state, **TINY)


def test_what_does_not_fit_names_tensors_and_options():
    with pytest.raises(WeightsError, match=r"not an MPAE, as it lacks compress_layer\.weight"):
        partzoo.convert({n: v for n, v in tiny().items() if n != "compress_layer.weight"}, **TINY)
    with pytest.raises(WeightsError, match=r"does not fit mpae-vitb14reg: .*extractor\.proj\.weight"):
        partzoo.convert(tiny() | {"Transformer.proj.weight": torch.zeros(3, 3)}, **TINY)
    with pytest.raises(UsageError, match="no option 'head'; its options are parts"):
        partzoo.convert(tiny(), head=3, **TINY)


@pytest.mark.parametrize(("content", "words"), [
    (b"P\x00\x01\x02 not a checkpoint at all", "unlike files of torch and safetensors"),
    (b"", "is empty"), (b"<html>quota exceeded</html>", "is a web page, not the file itself"),
], ids=["noise", "empty", "html"])  # fmt: skip
def test_files_of_another_kind_say_so(content, words, tmp_path):
    (tmp_path / "f.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        partzoo.convert(tmp_path / "f.pth")


def test_a_model_of_partzoo_needs_no_conversion():
    with pytest.raises(WeightsError, match=r"is already a model of partzoo, part-vitn8: load it with partzoo\.load"):
        partzoo.convert(PACKAGE / BUNDLED / "part-vitn8.tin.safetensors")


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_damaged_files_and_programs_are_refused(tmp_path):
    torch.save(tiny(), tmp_path / "c.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "c.pth").read_bytes()[:5000])
    with pytest.raises(WeightsError, match="is not a complete checkpoint"):
        partzoo.convert(tmp_path / "half.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(WeightsError, match=r"more than tensors \(torch\.nn\.modules\.linear\.Linear\).*could run"):
        partzoo.convert(tmp_path / "module.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(WeightsError, match="is a TorchScript program"):
        partzoo.convert(tmp_path / "script.pt")
    with pytest.raises(WeightsError, match="There is no file"):
        partzoo.convert(tmp_path / "none.pth")


def test_the_command_writes_what_load_takes(tmp_path):
    torch.save({"state_dict": prefixed(tiny())}, tmp_path / "c.pth")
    out = tmp_path / "model"
    options = ("--with-backbone", "--architecture", "mpae-vitb14reg", *SETTINGS)
    ran = command("convert", tmp_path / "c.pth", "-o", out, *options)
    assert ran.code == 0, ran.err
    assert "recognized: mpae-vitb14reg (mpae), K = 4, 112 pixels" in ran.out
    assert "tensors: 108 in" in ran.out and "104 used, 4 left out (" in ran.out
    assert "ArcMarginProduct.weight" in ran.out
    assert "stored in the folder" in ran.out
    loaded = partzoo.load(out, device="cpu", dtype="float32")
    assert equal(loaded, partzoo.convert(tiny(), **TINY))
    assert command("convert", tmp_path / "c.pth", "-o", out, *options).code == 0  # ours: replaced
    (out / "notes.txt").write_text("mine")
    ran = command("convert", tmp_path / "c.pth", "-o", out, *options)
    assert ran.code == 2 and "holds files other than a model of partzoo" in ran.err
    assert command("convert", tmp_path / "c.pth", "-o", tmp_path / "no" / "model").code == 1


def test_of_several_files_a_bad_one_is_passed_over_and_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one.pth", "two.pth"):
        torch.save(prefixed(tiny()), name)
    (tmp_path / "bad.pth").write_bytes(b"not a checkpoint")
    files, options = (
        ("one.pth", "bad.pth", "two.pth"),
        ("--with-backbone", "--architecture", "mpae-vitb14reg", *SETTINGS),
    )
    ran = command("convert", *files, "-o", "models", *options)
    assert ran.code == 1 and ran.err.count("bad.pth") == 1
    assert "1 of the 3 files could not be used and was skipped. It is listed in 'models/failed.csv'." in ran.err
    assert sorted(each.name for each in (tmp_path / "models").iterdir()) == ["failed.csv", "one", "two"]
    assert (tmp_path / "models" / "failed.csv").read_text().splitlines()[1].startswith("bad.pth,")
    assert equal(
        partzoo.load(tmp_path / "models" / "two", device="cpu", dtype="float32"), partzoo.convert(tiny(), **TINY)
    )

    ran = command("convert", *files, "-o", "strict", "--strict", *options)
    assert ran.code == 1 and "Error: bad.pth" in ran.err
    assert [each.name for each in (tmp_path / "strict").iterdir()] == ["one"]
    assert command("convert", "bad.pth", "-o", "alone", *options).code == 1 and not (tmp_path / "alone").exists()
    (tmp_path / "bad.pth").unlink()
    torch.save(prefixed(tiny()), "bad.pth")
    assert command("convert", *files, "-o", "models", *options).code == 0
    assert sorted(each.name for each in (tmp_path / "models").iterdir()) == ["bad", "one", "two"]


def test_a_conversion_never_replaces_what_it_reads(tmp_path):
    torch.save(tiny(), tmp_path / "c.pth")
    options = ("--with-backbone", "--architecture", "mpae-vitb14reg", *SETTINGS)
    assert command("convert", tmp_path / "c.pth", "-o", tmp_path / "m", *options).code == 0
    (weights,) = (tmp_path / "m").glob("*.safetensors")
    before = weights.read_bytes()
    ran = command("convert", weights, "-o", tmp_path / "m", *options)
    assert ran.code == 2 and "would replace" in ran.err and weights.read_bytes() == before


def test_the_frozen_encoder_is_named_unless_it_is_another(tmp_path, monkeypatch):
    torch.save(tiny(), tmp_path / "c.pth")
    own = partzoo.convert(tiny(), **TINY)
    options = ("--architecture", "mpae-vitb14reg", *SETTINGS)
    ran = command("convert", tmp_path / "c.pth", "-o", tmp_path / "unknown", *options)
    assert ran.code == 0 and "whether they equal those in the file is unknown: --with-backbone" in ran.out
    with pytest.raises(WeightsError, match="vit_partzoo_test_patch14_reg4"):
        partzoo.load(tmp_path / "unknown")

    from partzoo.models import loading

    load = loading.load
    encoders = {"same": own.encoder, "other": build(find(TINY_ENCODER), find(TINY_ENCODER).config)}
    for name, encoder in encoders.items():
        monkeypatch.setattr(
            loading, "load", lambda what, e=encoder, **kw: e if what == TINY_ENCODER else load(what, **kw)
        )
        ran = command("convert", tmp_path / "c.pth", "-o", tmp_path / name, *options)
        assert (ran.code, (tmp_path / name).exists()) == ((0, True) if name == "same" else (1, False))
        assert ("its weights equal those in the file" in ran.out) == (name == "same")
    assert "has other weights than" in ran.err and "--with-backbone" in ran.err
    with monkeypatch.context() as patched:
        patched.setattr(loading, "load", lambda what, **kw: own.encoder if what == TINY_ENCODER else load(what, **kw))
        assert equal(load(tmp_path / "same", device="cpu", dtype="float32"), own)
    names = json.loads((tmp_path / "same" / "config.json").read_text())["config"]
    assert names["encoder"] == TINY_ENCODER
    assert (tmp_path / "same" / "model.safetensors").stat().st_size < 1.1 * sum(
        v.nbytes for n, v in own.state_dict().items() if not n.startswith("encoder.")
    )


@pytest.mark.parametrize("name", ["partformer-resnet18", "mpae-patchresnet14"])
def test_part_models_of_both_families_load_without_their_encoder_s_tensors(name, tmp_path):
    from partzoo.models.sharing import save_pretrained

    entry = find(name)
    shape = {"parts": 2, "encoder": "toy-vit", "size": 64}
    shape |= {"compress": "linear", "stride": 2} if "compress" in vars(entry.config) else {}
    shape |= {"reconstruction": 64} if "reconstruction" in vars(entry.config) else {}
    model = build(entry, entry.configure(shape)).eval()
    model.encoder = partzoo.load("toy-vit", device="cpu", dtype="float32")
    assert equal(partzoo.load(save_pretrained(model, tmp_path, backbone=False), device="cpu", dtype="float32"), model)
    with pytest.raises(UsageError, match="no frozen encoder"):
        save_pretrained(partzoo.load("toy-vit", device="cpu", dtype="float32"), tmp_path, backbone=False)


def test_errors_of_the_command_are_one_sentence(tmp_path):
    ran = command("convert", tmp_path / "none.pth", "-o", tmp_path / "m")
    assert ran.code == 1 and ran.err.count("\n") == 1 and "There is no file" in ran.err
    torch.save({"state": {}, "param_groups": []}, tmp_path / "o.pth")
    ran = command("convert", tmp_path / "o.pth", "-o", tmp_path / "m")
    assert ran.code == 1 and ran.err.startswith("Error: ") and "the state of an optimizer" in ran.err
    assert "Traceback" in command("convert", tmp_path / "o.pth", "-o", tmp_path / "m", "--debug").err
    torch.save(spatial(), tmp_path / "s.tar")
    ran = command("convert", tmp_path / "s.tar", "-o", tmp_path / "m", "--set", "size=wide")
    assert ran.code == 2 and "size='wide' must be a whole number" in ran.err
    ran = command("convert", tmp_path / "s.tar", "-o", tmp_path / "m", "--set", "size=32", "--set", "patch_size=12")
    assert ran.code == 0 and "spatial-conv4 (spatial), 32 pixels" in ran.out


@pytest.mark.parametrize("side", [(224, 224), (64, 96)])
def test_an_encoder_by_dino_s_rule_is_timm_s_at_its_size_alone(side):
    torch.manual_seed(0)
    name = "timm/vit_partzoo_test_patch8"
    dino = partzoo.load(name, pretrained=False, positions="dino", device="cpu", dtype="float32")
    own = partzoo.load(name, pretrained=False, device="cpu", dtype="float32")
    own.load_state_dict(dino.state_dict())
    torch.nn.init.normal_(own.model.pos_embed)
    dino.model.pos_embed.data.copy_(own.model.pos_embed)
    x = image("partformer/dino/rule", (2, 3, *side))
    assert torch.allclose(dino(x), own(x), atol=1e-5) == (side == (224, 224))
    assert torch.equal(dino.forward_intermediates(x, 1)[0], dino.encode(x).maps())
    with pytest.raises(UsageError, match="one class token, not resnet18"):
        partzoo.load("timm/resnet18", pretrained=False, positions="dino")
