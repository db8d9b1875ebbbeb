"""Vocabularies whose parts are renamed, joined, split, dropped and reordered."""

import json

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo as command
from PIL import Image

import partzoo
from partzoo.discovery.labels import argmax_inside, grouped
from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import UsageError, WeightsError
from partzoo.locks import locked
from partzoo.weights.tensors import read_tensors, save_tensors


def stripes(count, size=(64, 128)):
    """Upright stripes of equal width, each of one colour, with a little noise."""
    colours = np.array([(220, 40, 40), (240, 230, 60), (30, 60, 210), (60, 200, 90)])
    pixels = np.broadcast_to(colours[np.arange(size[1]) * count // size[1]], (*size, 3))
    return (pixels + np.random.default_rng(0).integers(-6, 7, pixels.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def encoder():
    return partzoo.load("toy-vit")


@pytest.fixture(scope="module")
def words(encoder):
    """A vocabulary with a part for each of four stripes."""
    return partzoo.fit_parts([stripes(4)], 4, model=encoder, background="none", refine=False)


def labels(words, encoder, image=None):
    return partzoo.discover_parts(stripes(4) if image is None else image, vocabulary=words, model=encoder).labels


def nearly(found, expected):
    """Return whether labels differ only along outlines, whose pixels depend on neighbouring cells."""
    different = found != expected
    edges = np.zeros_like(different)
    edges[:, 1:] |= expected[:, 1:] != expected[:, :-1]
    edges[1:] |= expected[1:] != expected[:-1]
    near = edges | np.roll(edges, -1, 0) | np.roll(edges, -1, 1)
    return not (different & ~near).any() and different.mean() < 0.02


def named(count=4):
    settings = Settings("toy-vit", 64, (-1,), (0.5, 0.25, 0.25), "none", False)
    return PartVocabulary(torch.eye(count, 6), settings)


def test_joining_two_parts_leaves_the_others_as_they_are(words, encoder):
    before = labels(words, encoder)
    joined = words.join([3, 2], name="wheel")
    assert joined.k == 4 and joined.used == (1, 2, 4) and joined.names == ("part 1", "wheel", "part 3", "part 4")
    assert nearly(labels(joined, encoder), np.where(before == 3, 2, before))
    assert words.used == (1, 2, 3, 4) and not words.history


def test_a_dropped_part_becomes_background_and_the_others_stay_as_they_are(words, encoder):
    before = labels(words, encoder)
    after = labels(words.drop(1, 4), encoder)
    assert nearly(after, np.where((before == 1) | (before == 4), 0, before))
    assert labels(words.drop(1, 2, 3, 4), encoder).max() == 0


def test_a_new_order_only_exchanges_numbers(words, encoder):
    before = labels(words, encoder)
    after = labels(words.rename({4: "last"}).reorder([4, 2, 3, 1]), encoder)
    assert np.array_equal(after, np.array([0, 4, 2, 3, 1])[before])


def test_gaps_close_only_when_asked_for(words, encoder):
    dropped = words.rename({3: "wing"}).drop(2)
    assert dropped.k == 4 and dropped.names[2] == "wing"
    closed = dropped.reorder()
    assert closed.k == 3 and closed.names == ("part 1", "wing", "part 3") and closed.used == (1, 2, 3)
    assert set(np.unique(labels(closed, encoder))) == {0, 1, 2, 3}


def test_a_joined_part_is_split_into_the_two_that_it_was_made_of(words, encoder):
    before = labels(words, encoder)
    again = words.join([2, 3], name="wheel").split(2, images=[stripes(4)], model=encoder)
    after = labels(again, encoder)
    assert again.used == (1, 2, 4, 5) and again.names[1] == "wheel" and again.names[4] == "part 5"
    for part in (2, 3):
        pieces = after[before == part]
        assert np.bincount(pieces).max() > 0.9 * len(pieces)
    assert len({int(np.bincount(after[before == part]).argmax()) for part in (2, 3)}) == 2
    assert (after == before)[(before == 1) | (before == 4)].mean() > 0.95


def test_names_reach_the_parts_and_what_is_made_of_them(words, encoder):
    found = words.rename({1: "red", 2: "gold"})
    parts = partzoo.discover_parts(stripes(4), vocabulary=found, model=encoder)
    assert parts.names == ("red", "gold", "part 3", "part 4") and "gold 1" in repr(parts)
    assert [each["name"] for each in parts.to_coco()["categories"]] == list(parts.names)
    assert {shape["label"] for shape in parts.to_labelme()["shapes"]} == {*parts.names}
    assert ">gold<" in parts._repr_html_()


def test_overlays_show_names_that_fit_and_otherwise_numbers():
    image, areas = np.zeros((100, 200, 3), np.uint8), np.ones((100, 200), np.uint8)

    def overlay(name):
        return partzoo.Parts(areas, image=image, names=[name]).overlay()

    assert overlay("beak") != overlay("part 1") != overlay("tail")
    assert overlay("a name that is much too long for an image as small as this") == overlay("part 1")


def test_shaped_vocabularies_are_saved_with_names_numbers_and_history(words, encoder, tmp_path):
    shaped = words.rename({1: "red"}).join([2, 3], name="wheel").drop(4)
    shaped.save(tmp_path / "v.safetensors")
    again = PartVocabulary.load(tmp_path / "v.safetensors")
    assert (again.names, again.rows, again.history) == (shaped.names, shaped.rows, shaped.history)
    assert shaped.history == ("rename({1: 'red'})", "join([2, 3], name='wheel')", "drop(4)")
    assert np.array_equal(labels(again, encoder), labels(shaped, encoder))


def test_vocabularies_without_names_of_the_version_before_are_read(tmp_path):
    named().save(tmp_path / "v.safetensors")
    tensors, metadata = read_tensors(tmp_path / "v.safetensors")
    old = {key: value for key, value in metadata.items() if key not in ("names", "history")}
    save_tensors(tmp_path / "v.safetensors", tensors, old | {"format": "partzoo-vocabulary-2"})
    assert PartVocabulary.load(tmp_path / "v.safetensors").names == ("part 1", "part 2", "part 3", "part 4")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", ["a"]),
        ("names", ["a", "a", "b", "c"]),
        ("numbering", [1, 2]),
        ("numbering", [-1] * 4),
        ("numbering", [10**9] * 4),
    ],
)
def test_files_whose_names_or_numbers_do_not_fit_are_damaged(tmp_path, key, value):
    named().save(tmp_path / "v.safetensors")
    tensors, metadata = read_tensors(tmp_path / "v.safetensors")
    save_tensors(tmp_path / "v.safetensors", tensors, metadata | {key: json.dumps(value)})
    with pytest.raises(WeightsError, match=r"v\.safetensors.*save the vocabulary again"):
        PartVocabulary.load(tmp_path / "v.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.rename({5: "x"}), "part=5 does not exist: the parts are 1, 2, 3, 4"),
        (lambda v: v.rename({1: "x", 2: "x"}), "both be named 'x'"),
        (lambda v: v.rename({1: " "}), "not empty"),
        (lambda v: v.rename(["a"]), "a name for each of 4 parts"),
        (lambda v: v.join([2, 2]), "at least two different parts"),
        (lambda v: v.join([1, 2], name="part 3"), "both be named 'part 3'"),
        (lambda v: v.drop(2).drop(2), "part=2 does not exist: the parts are 1, 3, 4"),
        (lambda v: v.reorder([1, 2, 3]), "must name each part once"),
        (lambda v: v.split(1, images=[], into=1), "at least 2 pieces"),
        (lambda v: v.split(1, images=[], seed=-1), "seed=-1 is out of range"),
    ],
)
def test_impossible_changes_are_named(change, message):
    with pytest.raises(UsageError, match=message):
        change(named())


def test_a_part_that_the_images_do_not_show_is_not_split(words, encoder):
    with pytest.raises(UsageError, match=r"part=4 has 0 cells in 1 image.*show more of it"):
        words.split(4, images=[stripes(2)], model=encoder)


def test_the_joined_maps_of_a_batch_find_the_cells_of_each_centre():
    maps = torch.rand(2, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    rows = (2, 0, 1, 2, 4)
    for one, joined in zip(maps, grouped(maps, rows), strict=True):
        assert np.array_equal(argmax_inside(joined), np.array([0, *rows])[argmax_inside(one)])


def test_the_command_changes_one_file_or_writes_another(words, encoder, tmp_path):
    file, other = tmp_path / "v.safetensors", tmp_path / "w.safetensors"
    words.save(file)
    done = command("vocabulary", file, "--rename", "1=beak", "--rename", "3=left wing")
    assert done.code == 0 and "left wing" in done.out
    done = command("vocabulary", file, "--join", "1,2", "--name", "head", "-o", other)
    assert done.code == 0 and PartVocabulary.load(file).k == PartVocabulary.load(other).k == 4
    assert PartVocabulary.load(other).names == ("head", "part 2", "left wing", "part 4")
    assert command("vocabulary", other, "--reorder", "gaps").code == 0
    shown = json.loads(command("vocabulary", other, "--json").out)
    assert [each["name"] for each in shown["parts"]] == ["head", "left wing", "part 3"]
    assert len(shown["history"]) == 3
    for wrong in (("--join", "1,2", "--drop", "1"), ("--name", "x"), ("-o", "x"), ("--split", "1"), ("--rename", "x")):
        done = command("vocabulary", other, *wrong)
        assert done.code == 2 and "Traceback" not in done.err, wrong
    image = tmp_path / "image.png"
    Image.fromarray(stripes(2)).save(image)
    done = command("vocabulary", file, "--split", 1, "--images", image, "-o", image)
    assert done.code == 2 and "is an input" in done.err
    with locked(file):
        done = command("vocabulary", file, "--drop", 1)
        assert done.code == 2 and PartVocabulary.load(file).used == (1, 2, 3, 4)
