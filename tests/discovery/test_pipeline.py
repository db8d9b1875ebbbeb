"""The public behaviour of discover_parts and fit_parts."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import partzoo
from partzoo.errors import ImageError, UsageError, WeightsError
from partzoo.models import precision


@pytest.fixture(scope="module")
def encoder():
    return partzoo.load("toy-vit")


def scene(seed=0, size=(90, 120), at=(20, 30)):
    """Return a two-coloured object on a plain, noisy ground."""
    random = np.random.default_rng(seed)
    pixels = np.full((*size, 3), (60, 120, 70), np.uint8)
    y, x = at
    h, w = size[0] // 2, size[1] // 2
    pixels[y : y + h, x : x + w // 2] = (220, 60, 40)
    pixels[y : y + h, x + w // 2 : x + w] = (240, 220, 90)
    return np.clip(pixels + random.integers(-6, 7, pixels.shape), 0, 255).astype(np.uint8)


def stripes(count, size=(60, 120)):
    """Upright stripes of equal width, each of one colour, with a little noise."""
    colours = np.array([(220, 40, 40), (240, 230, 60), (30, 60, 210)])
    pixels = np.broadcast_to(colours[np.arange(size[1]) * count // size[1]], (*size, 3))
    return (pixels + np.random.default_rng(0).integers(-6, 7, pixels.shape)).clip(0, 255).astype(np.uint8)


def noise(seed=0, size=(48, 48)):
    """Return an image without any boundary between parts."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_the_object_is_separated_from_its_background_and_divided(encoder):
    parts = partzoo.discover_parts(scene(), model=encoder, background="boundary")
    thing = np.zeros((90, 120), bool)
    thing[20:65, 30:90] = True
    assert ((parts.labels > 0) == thing).mean() > 0.97
    left, right = parts.labels[40, 40], parts.labels[40, 80]
    assert left != right and (parts.labels[25:60, 35:55] == left).mean() > 0.95


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (1, 40), (17, 300), (300, 17), (224, 224), (500, 700)])
def test_labels_have_the_images_own_size(encoder, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    parts = partzoo.discover_parts(pixels, 1 if size == (1, 1) else 4, model=encoder)
    assert parts.labels.shape == size and parts.labels.max() <= 4


def test_labels_are_the_arg_max_of_the_scores(encoder):
    parts = partzoo.discover_parts(scene(), 3, model=encoder)
    assert parts.scores.shape == (4, 90, 120)
    assert np.allclose(parts.scores.sum(0), 1, atol=1e-5)
    assert (parts.scores.argmax(0) == parts.labels).mean() > 0.999


def test_the_same_image_gives_the_same_labels_in_another_process(encoder, tmp_path):
    np.save(tmp_path / "scene.npy", scene())
    code = (
        "import sys, numpy as np, partzoo; "
        "parts = partzoo.discover_parts(np.load(sys.argv[1]), 4, model='toy-vit'); np.save(sys.argv[2], parts.labels)"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "scene.npy", tmp_path / "labels.npy"],
        check=True, env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert np.array_equal(np.load(tmp_path / "labels.npy"), partzoo.discover_parts(scene(), 4, model=encoder).labels)


@pytest.mark.parametrize("name", ["toy-vit", "partformer-resnet18.faces-k8"])
def test_a_machine_with_fast_bfloat16_finds_the_same_labels(name, monkeypatch):
    reference = partzoo.load(name, device="cpu", dtype="float32")
    monkeypatch.setattr(precision, "has_amx", lambda: True)
    fast = partzoo.load(name, device="cpu")
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(fast.encode(x).patch.float(), reference.encode(x).patch)
    first = partzoo.discover_parts(scene(), model=reference)
    for model in (fast, name):
        parts = partzoo.discover_parts(scene(), model=model)
        assert np.array_equal(parts.labels, first.labels) and np.array_equal(parts.scores, first.scores)
    assert fast.autocast == torch.bfloat16


def test_batch_size_and_order_do_not_change_labels(encoder):
    images = [scene(i, at=(10 + 5 * i, 20)) for i in range(5)]
    first = partzoo.discover_parts(images, 3, model=encoder, batch_size=1)
    for batch_size in (2, 3, 64):
        again = partzoo.discover_parts(images[::-1], 3, model=encoder, batch_size=batch_size)[::-1]
        assert all(np.array_equal(a.labels, b.labels) for a, b in zip(first, again, strict=True))


def test_part_3_is_the_same_part_in_all_images(encoder):
    images = [scene(i, at=(10 + 5 * i, 20 + 4 * i)) for i in range(4)]
    for i, parts in enumerate(partzoo.discover_parts(images, 2, model=encoder)):
        centre = 10 + 5 * i + 22
        reds = parts.labels[centre, 20 + 4 * i + 10]
        assert reds == partzoo.discover_parts(images, 2, model=encoder)[0].labels[32, 30] and reds > 0


def test_a_saved_vocabulary_labels_alike(encoder, tmp_path):
    images = [scene(i) for i in range(3)]
    vocabulary = partzoo.fit_parts(images, 3, model="toy-vit")
    vocabulary.save(tmp_path / "v.safetensors")
    again = partzoo.PartVocabulary.load(tmp_path / "v.safetensors")
    for image, parts in zip(images, partzoo.discover_parts(images, 3, model=encoder), strict=True):
        assert np.array_equal(partzoo.discover_parts(image, vocabulary=again).labels, parts.labels)


def test_a_vocabulary_may_be_given_as_its_file(encoder, tmp_path):
    partzoo.fit_parts(scene(), 2, model="toy-vit").save(tmp_path / "v.safetensors")
    vocabulary = partzoo.PartVocabulary.load(tmp_path / "v.safetensors")
    found = partzoo.discover_parts(scene(), vocabulary=vocabulary)
    assert partzoo.discover_parts(scene(), vocabulary=tmp_path / "v.safetensors") == found
    assert partzoo.discover_parts(scene(), vocabulary=str(tmp_path / "v.safetensors")) == found
    with pytest.raises(WeightsError, match="No such file"):
        partzoo.discover_parts(scene(), vocabulary="absent.safetensors")
    with pytest.raises(UsageError, match="a dict: pass the result of fit_parts, or its file"):
        partzoo.discover_parts(scene(), vocabulary={})


def test_another_models_vocabulary_is_an_error(encoder):
    vocabulary = partzoo.fit_parts(scene(), 2, model="toy-vit")
    other = partzoo.load("toy-vit", dim=32)
    with pytest.raises(UsageError, match="the vocabulary was fitted with"):
        partzoo.discover_parts(scene(), vocabulary=vocabulary, model=other)


def test_one_image_is_divided_by_its_own_vocabulary(encoder):
    vocabulary = partzoo.fit_parts(scene(), 4, model="toy-vit")
    alone = partzoo.discover_parts(scene(), 4, model=encoder)
    assert np.array_equal(partzoo.discover_parts(scene(), vocabulary=vocabulary).labels, alone.labels)


def test_parts_are_numbered_by_area(encoder):
    for options in ({"background": None}, {}):
        areas = partzoo.discover_parts(scene(), 5, model=encoder, **options).areas
        assert (np.diff(areas) <= 0).all()


def test_a_blank_image_has_no_parts(encoder):
    blank = np.full((40, 60, 3), 130, np.uint8)
    for background in ("auto", None):
        parts = partzoo.discover_parts(blank, 8, model=encoder, background=background)
        assert parts.labels.shape == (40, 60) and not parts.labels.any() and not parts.present


def test_without_background_every_pixel_belongs_to_a_part(encoder):
    assert partzoo.discover_parts(scene(), 3, model=encoder, background=None).labels.min() == 1


def test_auto_k_is_in_its_range(encoder):
    assert 1 <= partzoo.discover_parts(scene(), "auto", model=encoder).k <= 12


@pytest.mark.parametrize("count", [1, 2, 3])
def test_auto_k_finds_as_many_large_parts_as_look_different(encoder, count):
    parts = partzoo.discover_parts(stripes(count), "auto", model=encoder, background=None)
    shares = np.array(parts.areas) / parts.labels.size
    assert (shares > 0.05).sum() == count and shares.sum() == pytest.approx(1)
    assert (shares[:count] > 0.9 / count).all()


def test_without_k_one_image_has_what_looks_different_and_many_have_eight_parts(encoder):
    one = partzoo.discover_parts(stripes(2), model=encoder, background=None)
    assert one == partzoo.discover_parts(stripes(2), "auto", model=encoder, background=None) and one.k == 2
    assert partzoo.fit_parts(stripes(2), model=encoder, background=None).k == 2
    for parts in partzoo.discover_parts([noise(0), noise(1)], model=encoder, background=None):
        assert parts.k == 8


@pytest.mark.parametrize("images", [noise(), [noise(), noise(1)]], ids=["one", "many"])
def test_the_seed_decides_where_the_clustering_starts(encoder, images):
    options = {"model": encoder, "background": None}
    first, again, other = (partzoo.discover_parts(images, 5, seed=seed, **options) for seed in (0, 0, 1))
    assert first == again and first != other
    first, again, other = (partzoo.fit_parts(images, 5, seed=seed, **options).centres for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    "option", [{"size": 64}, {"refine": False}, {"background": None}, {"background": "boundary"}], ids=str
)
def test_an_option_changes_the_labels_and_a_vocabulary_keeps_it(encoder, option):
    found = partzoo.discover_parts(scene(), 3, model=encoder, **option)
    assert found != partzoo.discover_parts(scene(), 3, model=encoder)
    vocabulary = partzoo.fit_parts(scene(), 3, model=encoder, **option)
    assert partzoo.discover_parts(scene(), vocabulary=vocabulary, model=encoder) == found


def test_progress_counts_the_images(encoder):
    seen = []
    partzoo.discover_parts([scene(0), scene(1)], 2, model=encoder, progress=lambda *pair: seen.append(pair))
    assert seen[-1] == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0"), ({"k": -3}, "k=-3"), ({"k": 2.5}, "k=2.5"), ({"k": "many"}, "'many'"),
        ({"k": 90 * 120 + 1}, "10,800 pixels"),
        ({"k": 4000, "size": 32}, "cells"), ({"size": 0}, "size=0"),
        ({"background": "sky"}, "'sky'"), ({"batch_size": 0}, "batch_size=0"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(encoder, arguments, message):
    with pytest.raises(UsageError, match=message):
        partzoo.discover_parts(scene(), model=encoder, **arguments)


def test_an_image_with_nan_is_an_error(encoder):
    with pytest.raises(ImageError, match="NaN"):
        partzoo.discover_parts(np.full((20, 20, 3), np.nan), model=encoder)


def test_another_number_of_parts_than_the_vocabulary_s_is_refused(encoder):
    words = partzoo.fit_parts(scene(), 3, model=encoder)
    assert partzoo.discover_parts(scene(), words.k, model=encoder, vocabulary=words).k == words.k
    with pytest.raises(UsageError, match=f"k=9: the vocabulary has {words.k} parts"):
        partzoo.discover_parts(scene(), 9, model=encoder, vocabulary=words)
