"""Feature pyramids, alone and under torchvision's detectors."""

import dataclasses
from collections import OrderedDict

import pytest
import torch
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

import partzoo
from partzoo.errors import UsageError
from partzoo.models.loading import build
from partzoo.models.part.classifier import PartClassifier
from partzoo.models.part.model import PartConfig
from partzoo.models.registry import find
from partzoo.pyramid import FeaturePyramid, feature_pyramid
from partzoo.train.tasks.finetune import layer_rate

TINY = {"dim": 24, "depth": 2, "heads": 2, "size": 32}


def encoder(patch=8):
    torch.manual_seed(0)
    return build(find("part-vitt8"), PartConfig(**TINY, patch=patch)).eval()


@pytest.mark.parametrize("patch", [4, 8, 16])
def test_maps_have_strides_4_to_64_whatever_the_patch(patch):
    pyramid = feature_pyramid(encoder(patch), 16)
    maps = pyramid(torch.randn(2, 3, 64, 128))
    assert isinstance(maps, OrderedDict) and list(maps) == ["0", "1", "2", "3", "pool"]
    assert [tuple(each.shape) for each in maps.values()] == [
        (2, 16, 64 // stride, 128 // stride) for stride in (4, 8, 16, 32, 64)
    ]
    assert list(pyramid.strides.values()) == [4, 8, 16, 32, 64] and pyramid.out_channels == 16
    assert torch.equal(maps["pool"], maps["3"][:, :, ::2, ::2])


def test_detectron2_s_names_shapes_and_strides():
    pyramid = feature_pyramid(encoder(), 16, style="detectron2")
    shapes = pyramid.output_shape()
    maps = pyramid(torch.randn(1, 3, 64, 64))
    assert list(maps) == list(shapes) == ["p2", "p3", "p4", "p5", "p6"]
    assert [shape.stride for shape in shapes.values()] == [4, 8, 16, 32, 64]
    assert {shape.channels for shape in shapes.values()} == {16} and pyramid.size_divisibility == 32


def test_a_patch_of_14_gives_strides_beside_the_usual_ones():
    pyramid = FeaturePyramid(build(find("part-vitt8"), PartConfig(**TINY | {"size": 28}, patch=14)), 8)
    assert list(pyramid.strides.values()) == [4, 7, 14, 28, 56]
    assert [m.shape[-1] for m in pyramid(torch.randn(1, 3, 56, 56)).values()] == [16, 8, 4, 2, 1]


def test_everything_is_trained_and_the_encoder_s_gradient_is_not_zero():
    part = encoder().requires_grad_(False)
    pyramid = feature_pyramid(part, 8)
    assert pyramid.encoder is part and pyramid.training
    assert all(parameter.requires_grad for parameter in pyramid.parameters())
    sum(each.square().sum() for each in pyramid(torch.randn(1, 3, 32, 32)).values()).backward()
    grown = [name for name, p in pyramid.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert [name for name in grown if "relative_encoder" not in name] == []


def test_a_part_model_gets_positions_for_detection_as_the_paper_says():
    part = encoder()
    pyramid = feature_pyramid(part, 8, positions=64, window=2, drop_path=0.1)
    backbone = pyramid.encoder
    assert isinstance(backbone, PartClassifier) and backbone.config.classes == 0
    assert backbone.pos_embed.shape == (1, 64, 24) and backbone.pos_embed.requires_grad
    assert torch.equal(backbone.blocks[1].attn.proj.weight, part.blocks[1].attn.proj.weight)
    assert pyramid(torch.randn(1, 3, 96, 64))["1"].shape == (1, 8, 12, 8)


@pytest.mark.parametrize("window", [0, 2])
def test_relative_positions_add_nothing_before_training_and_are_learned(window):
    def pyramid(relative):
        torch.manual_seed(1)
        return feature_pyramid(encoder(), 8, positions=32, window=window, relative=relative)

    x = torch.randn(2, 3, 32, 48)
    with_them, without = pyramid(True), pyramid(False)
    for found, expected in zip(with_them(x).values(), without(x).values(), strict=True):
        torch.testing.assert_close(found, expected)
    sum(each.square().sum() for each in with_them(x).values()).backward()
    tables = {name: each for name, each in with_them.named_parameters() if ".relative." in name}
    assert len(tables) == 2 * len(with_them.encoder.blocks)
    assert all(each.grad.abs().sum() > 0 for each in tables.values())
    assert layer_rate("backbone.encoder.blocks.1.relative.rows", 2, 0.5) == 0.5


def test_names_bring_trained_encoders_of_any_kind():
    pyramid = feature_pyramid("patchresnet14.tin", 8)
    assert pyramid.preprocess == partzoo.load("patchresnet14.tin").preprocess
    assert pyramid(torch.randn(1, 3, 64, 64))["0"].shape == (1, 8, 16, 16)
    assert {parameter.dtype for parameter in pyramid.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "mmdet"}, "style='mmdet'.*'torchvision' or 'detectron2'"),
        ({"out_channels": 0}, "out_channels at least 1"),
        ({"window": 4}, "need positions="),
        ({"relative": True}, "need positions="),
    ],
)
def test_what_cannot_be_is_one_clear_error(options, message):
    with pytest.raises(UsageError, match=message):
        feature_pyramid(encoder(), **options)


def test_positions_are_for_part_alone():
    with pytest.raises(UsageError, match="patchresnet14 is not one"):
        feature_pyramid("patchresnet14.tin", positions=64)


def fitted(detector, steps, lr):
    """Losses of a detector that sees one image with one bright square."""
    image = torch.zeros(3, 64, 64)
    image[:, 16:48, 8:40] = 1
    targets = [{"boxes": torch.tensor([[8.0, 16, 40, 48]]), "labels": torch.tensor([1])}]
    optimizer = torch.optim.AdamW(detector.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        loss = sum(detector([image], targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_torchvision_s_faster_rcnn_trains_over_it():
    torch.manual_seed(0)
    pyramid = feature_pyramid(encoder(), 16, positions=64)
    anchors = AnchorGenerator(tuple((size,) for size in (8, 16, 32, 64, 128)), ((1.0,),) * 5)
    sizes = {"min_size": 64, "max_size": 64, "image_mean": pyramid.preprocess.mean}
    sizes |= {"rpn_post_nms_top_n_train": 50, "box_batch_size_per_image": 32}
    before = {name: value.clone() for name, value in pyramid.encoder.state_dict().items()}
    losses = fitted(FasterRCNN(pyramid, 2, rpn_anchor_generator=anchors, **sizes), steps=8, lr=1e-3)
    assert min(losses[-3:]) < 0.7 * losses[0]
    after = pyramid.encoder.state_dict()
    assert not torch.equal(before["blocks.0.attn.qkv.weight"], after["blocks.0.attn.qkv.weight"])
    assert not torch.equal(before["pos_embed"], after["pos_embed"])


def test_torchvision_s_retinanet_trains_over_it():
    torch.manual_seed(0)
    anchors = AnchorGenerator(tuple((size,) for size in (8, 16, 32, 64, 128)), ((1.0,),) * 5)
    detector = RetinaNet(feature_pyramid(encoder(), 16), 2, anchor_generator=anchors, min_size=64, max_size=64)
    losses = fitted(detector, steps=6, lr=1e-2)  # its heads begin with weights of 0.01: they learn slowly
    assert losses[-1] < losses[0] and detector.backbone.encoder.patch_embed.weight.grad.abs().sum() > 0
    found = detector.eval()([torch.zeros(3, 64, 64)])[0]
    assert set(found) == {"boxes", "scores", "labels"}


def test_configurations_survive_a_round_trip():
    backbone = feature_pyramid(encoder(), 8, positions=64, window=4, relative=True).encoder
    again = find(backbone.architecture).configure(dataclasses.asdict(backbone.config))
    assert again == backbone.config
