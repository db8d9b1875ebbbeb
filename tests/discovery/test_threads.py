"""Several threads find what one finds, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import partzoo
from partzoo.discovery import judging, kept
from partzoo.discovery.factory import make_finder
from partzoo.discovery.pipeline import fitted, label_images
from partzoo.errors import ImageError
from partzoo.images.opening import open_images
from partzoo.models.base import threads_for

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture
def images():
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (*draw.integers(40, 90, 2), 3), dtype=np.uint8) for _ in range(7)]


@pytest.fixture
def with_threads(monkeypatch):
    """A function that calls another with some threads."""

    def call(count, function):
        with monkeypatch.context() as patch:
            patch.setattr("partzoo.models.base.worker_threads", lambda: count)
            return function()

    return call


def alike(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == other and np.array_equal(one.scores, other.scores) and one.quality == other.quality
        assert np.array_equal(one.confidences, other.confidences)


@pytest.mark.parametrize("room", [2**27, 0])
def test_labels_of_the_default(with_threads, monkeypatch, room):
    monkeypatch.setattr(kept, "KEPT_BYTES", room)
    files = sorted(EXAMPLES.glob("*.jpg"))[:4]
    one, several = (with_threads(count, lambda: partzoo.discover_parts(files, 5)) for count in (1, 3))
    alike(several, one)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "toy-vit", "background": "none"},
        {"model": "toy-vit", "background": "boundary"},
        {"model": "partformer-resnet18.faces-k8"},
        {"model": "partformer-resnet18.faces-k8", "k": 3},
    ],
)
def test_labels_of_other_models_and_methods(images, with_threads, options):
    one, several = (with_threads(count, lambda: partzoo.discover_parts(images, **options)) for count in (1, 4))
    alike(several, one)


def test_features(images, with_threads):
    one, several = (with_threads(count, lambda: partzoo.extract_features(images)) for count in (1, 4))
    for found, expected in zip(several, one, strict=True):
        assert np.array_equal(found.dense, expected.dense) and found.size == expected.size


def test_doubts(images, with_threads):
    words = partzoo.fit_parts(images, 3, model="toy-vit", background="none")
    one, several = (with_threads(count, lambda: judging.suggest_images(images, words, count=7)) for count in (1, 4))
    assert several == one


def test_a_damaged_image_in_the_middle_is_left_out(images, with_threads, tmp_path):
    finder = make_finder("toy-vit", "none")
    opened, _ = open_images([*images[:3], b"\xff\xd8\xff damaged", *images[3:]])

    def found():
        passed = []
        skip = lambda index, error: passed.append(index)  # noqa: E731
        words = fitted(finder, opened, [3], [0], pass_over=skip)[3, 0]
        labelled = label_images(finder, opened, words, [None] * 8, pass_over=skip)
        return passed, list(labelled)

    (passed, one), (others, several) = (with_threads(count, found) for count in (1, 4))
    assert passed == others == [3, 3]
    assert [index for index, _ in several] == [0, 1, 2, 4, 5, 6, 7]
    alike([parts for _, parts in several], [parts for _, parts in one])
    with pytest.raises(ImageError, match="image 4"):
        with_threads(4, lambda: partzoo.discover_parts(opened, 3, model="toy-vit", background="none"))


def test_parts_are_passed_on_in_the_thread_that_found_them(images, with_threads):
    finder = make_finder("toy-vit", "none")
    opened, _ = open_images(images)
    words = fitted(finder, opened, [3], [0])[3, 0]

    def then(index, parts):
        return index, torch.get_num_threads(), parts.k

    found = with_threads(3, lambda: list(label_images(finder, opened, words, [None] * 7, then=then)))
    assert found == [(index, (index, 1, words.k)) for index in range(7)]


def test_modules_of_others_run_in_one_thread(with_threads):
    assert with_threads(4, lambda: threads_for(partzoo.load("toy-vit", device="cpu"))) == 4
    assert with_threads(4, lambda: threads_for(nn.Linear(1, 1))) == 1
