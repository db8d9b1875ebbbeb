"""Parts of objects that fill a small share of the image, by the alias of a part model's weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo as command
from helpers.part_models import THIRDS, Columns

import partzoo
from partzoo.discovery.framed import FramedFinder, frames, neighbours
from partzoo.discovery.pipeline import divided
from partzoo.discovery.vocabulary import Settings
from partzoo.images.opening import OpenedImage
from partzoo.weights.manifest import manifest, short_names

ASTRONAUT = Path(__file__).parents[2] / "examples" / "images" / "astronaut.jpg"
FACE = (190, 75, 270, 190)  # left, top, right, bottom of the middle of the face in the photograph


@pytest.fixture
def finder():
    return FramedFinder(Columns(THIRDS), Settings("", 32))


def bright_square(size=(90, 130), top=40, left=70, side=36):
    pixels = np.full((*size, 3), 5, np.uint8)
    pixels[top : top + side, left : left + side] = 250
    return OpenedImage(pixels)


def test_a_small_object_is_framed_and_its_parts_are_put_back(finder):
    image = bright_square()
    parts = divided(finder, image, None, None, 3, 0)
    bright = image.pixels[..., 0] > 100
    assert (parts.labels > 0)[bright].mean() > 0.65 and (parts.labels > 0)[~bright].mean() < 0.02
    assert np.diff(parts.centroids[:, 0]).min() > 8 and parts.quality > 0.8  # thirds of the square, from the left
    assert np.allclose(parts.scores.sum(0), 1, atol=1e-5) and parts.scores[0, 0, 0] == 1
    assert (parts.scores.argmax(0) == parts.labels).mean() > 0.99
    assert np.array_equal(parts.image, image.pixels)
    alone = partzoo.discover_parts(image.pixels, model=finder.model)
    assert alone.quality < 0.7  # one of the three parts lies beside the object


def test_an_object_that_fills_the_image_is_not_framed(finder):
    image = bright_square((40, 40), 0, 0, 40)
    look = finder.look(image)
    assert look.box == (0, 0, 40, 40) and finder.model.seen == 1
    whole = partzoo.discover_parts(image.pixels, model=finder.model)
    assert np.array_equal(divided(finder, image, None, None, 3, 0).labels, whole.labels)


def test_a_given_mask_is_the_foreground_of_the_whole_image(finder):
    image, mask = bright_square(), np.zeros((90, 130), bool)
    mask[10:20, 10:120] = True
    parts = divided(finder, image, None, mask.astype(int), 3, 0)
    assert np.array_equal(parts.labels > 0, mask)


def test_scores_and_foreground_have_any_size(finder):
    image = bright_square()
    look = finder.look(image)
    vocabulary = finder.fit([], 3, 0)
    small = finder.scores(look, vocabulary, (45, 65))
    assert torch.allclose(small.sum(0), torch.ones(45, 65), atol=1e-5)
    labels = finder.label(image, look, vocabulary).labels[::2, ::2]
    assert (small.argmax(0).numpy() == labels).mean() > 0.97
    assert np.abs(finder.foreground(look, (45, 65)) - 1 + small[0].numpy()).mean() < 0.02


def test_parts_in_a_frame_keep_the_names_of_a_shaped_vocabulary(finder):
    image, vocabulary = bright_square(), finder.fit([], 3, 0)
    look, shaped = finder.look(image), vocabulary.rename({3: "right"}).join([1, 2], name="left")
    expected = finder.label(image, look, vocabulary).labels
    parts = finder.label(image, look, shaped)
    assert parts.names == ("left", "part 2", "right") and look.box != (0, 0, 130, 90)
    assert (parts.labels == np.array([0, 1, 1, 3])[expected]).mean() > 0.99


@pytest.mark.parametrize("size", [(90, 130), (40, 400), (3, 5), (1, 1)])
def test_frames_cover_the_image_and_stay_inside(size):
    height, width = size
    covered = np.zeros(size, bool)
    for box in frames(size):
        for left, top, right, bottom in (box, *neighbours(box, size, 0.2)):
            assert 0 <= left < right <= width and 0 <= top < bottom <= height and right - left == bottom - top
        left, top, right, bottom = box
        covered[top:bottom, left:right] = True
    assert covered.all()


def test_an_alias_names_weights():
    (record,) = (record for record in manifest().values() if record.alias == "faces")
    assert short_names()["faces"] == record.name
    named, short = (partzoo.load(name, device="cpu", dtype="float32") for name in (record.name, "faces"))
    assert all(value.equal(short.state_dict()[name]) for name, value in named.state_dict().items())


def test_faces_are_found_in_a_photograph_and_kept_in_a_vocabulary(tmp_path):
    parts = partzoo.discover_parts(ASTRONAUT, model="faces")
    left, top, right, bottom = FACE
    inside = parts.labels[top:bottom, left:right] > 0
    assert parts.quality > 0.7 and inside.mean() > 0.9
    vocabulary = partzoo.fit_parts(ASTRONAUT, model="faces")
    vocabulary.save(tmp_path / "faces.safetensors")
    again = partzoo.discover_parts(ASTRONAUT, vocabulary=tmp_path / "faces.safetensors")
    assert np.array_equal(again.labels, parts.labels)
    ran = command("discover", ASTRONAUT, "--model", "faces", "-o", tmp_path / "parts.npz")
    assert ran.code == 0, ran.err
    with np.load(tmp_path / "parts.npz") as stored:
        assert np.array_equal(stored["labels"], parts.labels)
