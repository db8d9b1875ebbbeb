from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo
from helpers.part_models import THIRDS, Columns
from PIL import Image

from partzoo import UsageError, swap_parts
from partzoo.features import model_input
from partzoo.images.opening import OpenedImage
from partzoo.models.loading import build, load
from partzoo.models.registry import find
from partzoo.weights.tensors import write_weights


def partformer(**config):
    torch.manual_seed(0)
    entry = find("partformer-resnet18")
    values = {"parts": 3, "size": 64, "reconstruction": 32} | config
    return build(entry, entry.configure(values)).eval().requires_grad_(False)


def photograph(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


A, B = photograph(60, 90, 0), photograph(120, 70, 1)


def test_chosen_parts_come_from_the_other_image():
    model = partformer()
    a, b = (model_input(OpenedImage(image), model) for image in (A, B))
    mixed = model.descriptors(a)
    mixed[:, 2] = model.descriptors(b)[:, 2]
    expected = model.preprocess.denormalize(model.reconstruct(a, mixed))[0].round().clamp(0, 255).permute(1, 2, 0)
    found = swap_parts(model, A, B, [2])
    assert found.dtype == np.uint8 and np.array_equal(found, expected.numpy())
    assert (found != swap_parts(model, A, B, [])).any() and (found != swap_parts(model, A, B)).any()
    assert np.array_equal(swap_parts(model, A, B), swap_parts(model, A, B, (3, 1, 2)))


def test_no_parts_leave_the_image_as_the_model_draws_it():
    model = partformer()
    own = model.preprocess.denormalize(model.reconstruct(model_input(OpenedImage(A), model)))[0].round().clamp(0, 255)
    assert np.array_equal(swap_parts(model, A, B, []), own.permute(1, 2, 0).numpy())
    assert np.array_equal(swap_parts(model, A, A), own.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("size", "expected"), [((60, 90), (24, 32)), ((90, 60), (32, 24)), ((64, 64), (32, 32))])
def test_the_aspect_is_the_first_image_s(size, expected):
    assert swap_parts(partformer(), photograph(*size, 0), B, [1]).shape == (*expected, 3)


def test_of_several_classes_one_is_named():
    model = partformer(classes=3)
    first, second = (swap_parts(model, A, B, [1], classes=number) for number in (0, 2))
    assert (first != second).any()
    with pytest.raises(UsageError, match="parts for 3 classes"):
        swap_parts(model, A, B, [1])
    with pytest.raises(UsageError, match=r"in 0\.\.2"):
        swap_parts(model, A, B, [1], classes=3)


def test_other_models_and_parts_are_refused():
    with pytest.raises(UsageError, match="toy-vit is not a PartFormer"):
        swap_parts("toy-vit", A, B)
    for parts in ([0], [4], [1, -1]):
        with pytest.raises(UsageError, match=r"this model's parts are 1\.\.3"):
            swap_parts(partformer(), A, B, parts)


def test_parts_are_pasted_at_the_size_of_the_first_image():
    model = Columns(THIRDS)
    a, b = (np.full((40, 60, 3), level, np.uint8) for level in (250, 200))
    b[15:25, 25:35] = 150
    mixed = swap_parts(model, a, b, [2], paste=True).astype(int)
    assert mixed.shape == a.shape and mixed[20, 30] == pytest.approx(200, abs=8)  # as much darker as in b
    assert np.abs(mixed - a)[:, [5, 55]].max() == 0
    assert np.array_equal(swap_parts(model, a, b, [], paste=True), a)
    with pytest.raises(UsageError, match=r"parts=\[4\]: the parts of both images are 1\.\.3"):
        swap_parts(model, a, b, [4], paste=True)


def test_the_command_writes_the_image(tmp_path):
    model = partformer()
    write_weights(tmp_path / "model.safetensors", model.state_dict(), model.architecture, vars(model.config))
    for name, image in (("a.png", A), ("b.png", B)):
        Image.fromarray(image).save(tmp_path / name)
    arguments = ("swap", tmp_path / "a.png", tmp_path / "b.png", "--model", tmp_path / "model.safetensors")
    ran = partzoo(*arguments, "--parts", "1,3", "-o", tmp_path / "out.png")
    assert ran.code == 0 and "24 x 32 pixels" in ran.out, ran.err
    with Image.open(tmp_path / "out.png") as written:
        expected = swap_parts(load(tmp_path / "model.safetensors"), A, B, [1, 3])
        assert np.array_equal(np.asarray(written), expected)
    for wrong in (("--parts", "1;3", "-o", tmp_path / "x.png"), ("--parts", "9", "-o", tmp_path / "x.png")):
        assert partzoo(*arguments, *wrong).code == 2
    assert "must end in .png" in partzoo(*arguments, "-o", tmp_path / "x.jpg").err


def test_the_command_pastes(tmp_path):
    with Image.open(Path(__file__).parents[1] / "examples" / "images" / "astronaut.jpg") as photograph:
        face = photograph.convert("RGB").crop((130, 20, 310, 200))
    face.save(tmp_path / "a.png")
    face.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "b.png")
    files = (tmp_path / "a.png", tmp_path / "b.png")
    ran = partzoo("swap", *files, "--paste", "--parts", "4,5", "--model", "faces", "-o", tmp_path / "out.png")
    assert "180 x 180 pixels" in ran.out, ran.err
    with Image.open(tmp_path / "out.png") as written:
        assert np.array_equal(np.asarray(written), swap_parts("faces", *files, [4, 5], paste=True))


def test_the_command_takes_the_class(tmp_path):
    model = partformer(classes=2)
    write_weights(tmp_path / "model.safetensors", model.state_dict(), model.architecture, vars(model.config))
    Image.fromarray(A).save(tmp_path / "a.png")
    arguments = ("swap", tmp_path / "a.png", tmp_path / "a.png", "--model", tmp_path / "model.safetensors")
    assert "parts for 2 classes" in partzoo(*arguments, "-o", tmp_path / "out.png").err
    assert partzoo(*arguments, "--class", 1, "-o", tmp_path / "out.png").code == 0
    with Image.open(tmp_path / "out.png") as written:
        assert np.array_equal(np.asarray(written), swap_parts(load(tmp_path / "model.safetensors"), A, A, classes=1))
