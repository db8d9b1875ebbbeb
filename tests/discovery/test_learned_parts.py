"""discover_parts and fit_parts with learned part models."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo as command
from helpers.part_models import THIRDS, Columns
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate

import partzoo
from partzoo.discovery.learned import LearnedFinder
from partzoo.discovery.vocabulary import Settings
from partzoo.errors import UsageError
from partzoo.images.preprocess import Preprocess
from partzoo.models.part_model import PartModel
from partzoo.models.sharing import save_pretrained


class Classes(PartModel):
    """A part model whose parts are halves of the image: upper and lower in class 0, left and right in class 1."""

    preprocess = Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1))
    config = SimpleNamespace(parts=2, classes=2)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def descriptors_and_maps(self, x, classes=None):
        rows, columns = x.shape[2:]
        lower = (torch.arange(rows) >= rows // 2)[:, None].expand(rows, columns)
        right = (torch.arange(columns) >= columns // 2).expand(rows, columns)
        second = torch.stack([lower, right])[classes].float()
        maps = torch.stack([torch.zeros_like(second), 1 - second, second], 1)
        return classes[:, None, None] + torch.arange(3.0)[None, :, None].expand(len(x), 3, 4), lambda size: maps


def bright(size=(30, 60), dark_rows=6):
    pixels = np.full((*size, 3), 250, np.uint8)
    pixels[:dark_rows] = 5
    return pixels


@pytest.fixture(scope="module")
def partformer():
    torch.manual_seed(0)
    model = partzoo.load("partformer-resnet18", pretrained=False, device="cpu", dtype="float32", parts=4, size=64)
    nn.init.normal_(model.transformer.part_embed)
    return model


def noise(count=3, size=(50, 70)):
    return list(np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8))


@pytest.mark.parametrize(("level", "quality"), [(255, 1), (102, 0.4), (0, 0)])
def test_quality_is_how_many_of_the_models_parts_there_are(level, quality):
    parts = partzoo.discover_parts(np.full((32, 32, 3), level, np.uint8), model=Columns(THIRDS))
    assert parts.quality == pytest.approx(quality, abs=1e-3)


@pytest.mark.parametrize("level", [255, 102, 0])
def test_confidences_are_the_mean_score_of_each_part(level):
    """Each part has this score in its own third of the image, and none elsewhere."""
    parts = partzoo.discover_parts(np.full((32, 32, 3), level, np.uint8), model=Columns(THIRDS))
    assert parts.confidences == pytest.approx([level / 255] * 3, abs=1e-3)


def test_a_part_that_the_image_lacks_lowers_the_quality():
    image = np.full((32, 32, 3), 255, np.uint8)
    image[:, 22:] = 0
    assert partzoo.discover_parts(image, model=Columns(THIRDS)).quality == pytest.approx(2 / 3, abs=0.01)
    image[5, 25] = 255  # a single cell is no part
    assert partzoo.discover_parts(image, model=Columns(THIRDS)).quality < 0.8


def test_a_model_of_faces_knows_what_is_not_a_face():
    examples = Path(__file__).parents[2] / "examples" / "images"
    with Image.open(examples / "astronaut.jpg") as photograph:
        face = photograph.convert("RGB").crop((150, 20, 310, 180))
    model = partzoo.load("partformer-resnet18.faces-k8")
    inside = partzoo.discover_parts(face, model=model).quality
    for other in ("ibis.jpg", "motorbike.jpg", "astronaut.jpg"):  # the last one shows the same face, but small
        assert inside > 0.7 > partzoo.discover_parts(examples / other, model=model).quality


def test_the_command_says_that_the_models_parts_are_missing():
    ibis = Path(__file__).parents[2] / "examples" / "images" / "ibis.jpg"
    ran = command("discover", ibis, "--model", "partformer-resnet18.faces-k8")
    assert "Few of the model's parts are in" in ran.err and "background" not in ran.err


def test_k_none_and_auto_are_the_models_own_parts():
    for k in (None, "auto", 3):
        parts = partzoo.discover_parts(bright(), k, model=Columns(THIRDS), refine=False)
        assert parts.k == 3 and not parts.labels[:4].any()
        assert [parts.labels[20, x] for x in (5, 30, 55)] == [1, 2, 3]


def test_a_smaller_k_joins_the_parts_that_look_most_alike():
    parts = partzoo.discover_parts(bright(), 2, model=Columns(THIRDS))
    assert [parts.labels[20, x] for x in (5, 30, 55)] == [1, 2, 2]


def test_a_larger_k_is_an_error_that_says_what_is_possible():
    for call in (partzoo.discover_parts, partzoo.fit_parts):
        with pytest.raises(UsageError, match=r"k=8: this model has 3 parts\. Use k <= 3, or k=None"):
            call(bright(), 8, model=Columns(THIRDS))


def test_without_k_a_part_model_gives_all_its_parts():
    assert partzoo.discover_parts(bright(), model=Columns(THIRDS)).k == 3
    assert partzoo.fit_parts(bright(), model=Columns(THIRDS)).k == 3
    sixteen = Columns(torch.randn(16, 5, generator=torch.Generator().manual_seed(0)).tolist())
    assert partzoo.discover_parts(bright(), model=sixteen).k == 16
    assert partzoo.discover_parts([bright()], model=sixteen)[0].k == 16


def test_parts_keep_the_models_numbers_whatever_their_areas(partformer):
    """Part i is the model's part i, alone, among others and in any order."""
    images = noise(4, (64, 64))
    together = partzoo.discover_parts(images, model=partformer, refine=False)
    turned = partzoo.discover_parts(images[::-1], None, model=partformer, refine=False)[::-1]
    for pixels, parts, again in zip(images, together, turned, strict=True):
        assert parts == again == partzoo.discover_parts(pixels, None, model=partformer, refine=False)
        x = partformer.preprocess.normalize(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])
        maps = partformer.part_maps(x, size=(64, 64))[0]
        assert (parts.labels == maps.argmax(0).numpy()).mean() > 0.9
        assert np.allclose(parts.descriptors, partformer.descriptors(x)[0, 1:], atol=1e-5)
    areas = sum(parts.areas for parts in together)
    assert (np.diff(areas) > 0).any()


class Coarse(Classes):
    """A part model of one class with given maps on a grid of 4 x 4 cells of 8 pixels."""

    config = SimpleNamespace(parts=3, classes=1)
    maps = torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(0)).softmax(1)

    def descriptors_and_maps(self, x, classes=None):
        return torch.zeros(1, 4, 2), lambda size: self.maps


def test_without_refinement_maps_are_upsampled_once():
    found = partzoo.discover_parts(bright((32, 32)), model=Coarse(), refine=False)
    expected = interpolate(Coarse.maps, (32, 32), mode="bilinear", align_corners=False)[0].argmax(0)
    np.testing.assert_array_equal(found.labels, expected.numpy())


def test_joined_parts_keep_the_order_of_the_first_of_each():
    looks = [[0, 1], [1, 0], [0, 1.1], [1, 0.1]]
    parts = partzoo.discover_parts(bright((30, 80)), 2, model=Columns(looks), refine=False)
    assert [parts.labels[20, x] for x in (5, 30, 50, 75)] == [1, 2, 1, 2]
    assert np.allclose(parts.descriptors, [[0, 1.05], [1, 0.05]])


@pytest.mark.parametrize("k", [1, 3, 6])
def test_every_part_has_a_place_after_joining(k):
    """Equal cosines may be found in any order: matrix products are not symmetric to the last bit."""
    finder = LearnedFinder(Columns([[0.0]] * 7), Settings("", 32))
    for seed in range(40):
        descriptors = torch.randn(7, 64, generator=torch.Generator().manual_seed(seed))
        numbering = finder.fit([descriptors], k, 0).numbering
        assert len(numbering) == 7 and set(numbering) == set(range(1, k + 1))


def test_a_models_own_vocabulary_needs_no_images():
    model = Columns(THIRDS)
    for images in (bright(), [bright(), bright()]):
        assert partzoo.fit_parts(images, model=model).numbering == (1, 2, 3)
    assert model.seen == 0
    partzoo.discover_parts([bright(), bright()], None, model=model)
    assert model.seen == 2


def test_a_vocabulary_labels_as_the_call_that_it_is_from():
    model, images = Columns(THIRDS), [bright(), bright((20, 20), 3)]
    for k in (None, 2):
        vocabulary = partzoo.fit_parts(images, k, model=model)
        for pixels, parts in zip(images, partzoo.discover_parts(images, k, model=model), strict=True):
            assert parts == partzoo.discover_parts(pixels, vocabulary=vocabulary, model=model)
    with pytest.raises(UsageError, match="no name"):
        partzoo.discover_parts(images, vocabulary=vocabulary)


@pytest.mark.parametrize("k", [None, 2])
def test_a_saved_vocabulary_determines_model_and_numbering(partformer, tmp_path, k):
    name = str(save_pretrained(partformer, tmp_path / "partformer"))
    pixels = noise(1)[0]
    partzoo.fit_parts(pixels, k, model=name).save(tmp_path / "v.safetensors")
    vocabulary = partzoo.PartVocabulary.load(tmp_path / "v.safetensors")
    assert (vocabulary.k, vocabulary.settings.model) == (k or 4, name)
    found = partzoo.discover_parts(pixels, vocabulary=vocabulary)
    assert np.array_equal(found.labels, partzoo.discover_parts(pixels, k, model=name).labels)


def test_a_vocabulary_of_another_number_of_parts_is_an_error():
    vocabulary = partzoo.fit_parts(bright(), model=Columns(THIRDS))
    with pytest.raises(UsageError, match="3 learned parts, but this one has 2: use the model that"):
        partzoo.discover_parts(bright(), vocabulary=vocabulary, model=Columns(THIRDS[:2]))
    with pytest.raises(UsageError, match="this one has 0"):
        partzoo.discover_parts(bright(), vocabulary=vocabulary, model="toy-vit")


def test_batch_size_does_not_change_labels(partformer):
    images = [*noise(3), *noise(2, (64, 40))]
    one = partzoo.discover_parts(images, 3, model=partformer, batch_size=1)
    for batch_size in (2, 64):
        assert partzoo.discover_parts(images, 3, model=partformer, batch_size=batch_size) == one


def test_an_image_smaller_than_the_parts_are_many_is_no_error():
    assert partzoo.discover_parts(np.full((1, 1, 3), 250, np.uint8), model=Columns(THIRDS)).labels.shape == (1, 1)


def test_the_class_of_each_image_says_which_parts_are_meant():
    pixels = bright((40, 40), 0)
    upper, left = partzoo.discover_parts([pixels, pixels], model=Classes(), classes=[0, 1], refine=False)
    assert upper.labels[5, 5] == upper.labels[5, 35] == 1 and upper.labels[35, 5] == 2
    assert left.labels[5, 5] == left.labels[35, 5] == 1 and left.labels[5, 35] == 2
    assert (left.descriptors - upper.descriptors == 1).all()
    for classes in (1, np.int64(1), torch.tensor(1)):
        assert partzoo.discover_parts(pixels, model=Classes(), classes=classes, refine=False) == left
    both = partzoo.discover_parts([pixels, pixels], model=Classes(), classes=1, refine=False)
    assert both == [left, left]
    vocabulary = partzoo.fit_parts([pixels], model=Classes(), refine=False)
    assert partzoo.discover_parts(pixels, model=Classes(), vocabulary=vocabulary, classes=1) == left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"parts for 2 classes of objects: state the class of each image with classes=, 0 to 1"),
        ({"classes": 2}, "classes=2: this model has the classes 0 to 1"),
        ({"classes": -1}, "classes=-1"), ({"classes": "bird"}, "'bird'"), ({"classes": 0.5}, "0.5"),
        ({"classes": [0, 1]}, r"one for each image \(1\)"),
        ({"classes": 0, "k": 1}, "k=1: the parts of several classes cannot be joined"),
        ({"classes": 0, "model": Columns(THIRDS)}, "which this is not: omit it"),
    ],
)  # fmt: skip
def test_a_wrong_or_missing_class_is_an_error(arguments, message):
    with pytest.raises(UsageError, match=message):
        partzoo.discover_parts(bright(), **({"model": Classes()} | arguments))


def test_a_partformer_of_several_classes_needs_the_class():
    torch.manual_seed(0)
    model = partzoo.load(
        "partformer-resnet18", pretrained=False, device="cpu", dtype="float32", parts=3, classes=5, size=64
    )
    nn.init.normal_(model.transformer.part_embed)
    found = [partzoo.discover_parts(noise(1)[0], model=model, classes=c) for c in (0, 4, 4)]
    assert found[1] == found[2] and found[0] != found[1] and found[0].k == 3


def test_a_model_of_one_class_needs_no_class():
    model = partzoo.load(
        "partformer-resnet18", pretrained=False, device="cpu", dtype="float32", parts=3, classes=1, size=64
    )
    assert partzoo.discover_parts(noise(1)[0], model=model).k == 3
    with pytest.raises(UsageError, match="which this is not: omit it"):
        partzoo.discover_parts(noise(1)[0], model=model, classes=0)


def test_the_command_needs_the_class_and_finds_all_parts_by_default(tmp_path):
    torch.manual_seed(0)
    model = partzoo.load("partformer-resnet18", pretrained=False, dtype="float32", parts=3, classes=2, size=64)
    name, image = save_pretrained(model, tmp_path / "model"), tmp_path / "noise.png"
    Image.fromarray(noise(1)[0]).save(image)
    out = tmp_path / "parts.npz"
    assert "parts for 2 classes" in command("discover", image, "--model", name).err
    assert command("discover", image, "--model", name, "--class", 1, "-o", out).code == 0
    assert partzoo.Parts.load(out) == partzoo.discover_parts(image, model=str(name), classes=1)
    own = command("discover", image, "--model", name, "--class", 1, "-k", "own", "--json")
    assert own.code == 0 and '"k": 3' in own.out
    assert "neither a whole number nor 'auto' nor 'own'" in command("discover", image, "-k", "all").err
    refused = command("discover", image, "--model", name, "--class", 1, "-k", 8)
    assert refused.code == 2 and "has 3 parts" in refused.err


def test_the_parts_of_a_model_are_renamed_joined_dropped_and_not_split(tmp_path):
    model, image = Columns(THIRDS), np.full((32, 48, 3), 255, np.uint8)
    words = partzoo.fit_parts(image, model=model).rename({1: "left"})
    found = partzoo.discover_parts(image, vocabulary=words.join([2, 3]), model=model)
    assert found.k == 2 and found.names == ("left", "part 2") and set(np.unique(found.labels)) == {1, 2}
    dropped = words.drop(2)
    dropped.save(tmp_path / "v.safetensors")
    found = partzoo.discover_parts(image, vocabulary=tmp_path / "v.safetensors", model=model)
    assert set(np.unique(found.labels)) == {0, 1, 3} and found.names[0] == "left"
    with pytest.raises(UsageError, match="learned part model cannot be split"):
        words.split(1, images=image, model=model)
