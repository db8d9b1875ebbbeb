"""The programs that are exported compute what partzoo computes, before anything is written."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.versions import as_pillow_13
from PIL import Image

import partzoo
from partzoo.discovery import segmentation
from partzoo.discovery.descriptors import describe
from partzoo.discovery.numbering import by_area
from partzoo.errors import UsageError
from partzoo.export import resizing, segmenting
from partzoo.export.export import graph_of
from partzoo.features import DEFAULT_MODEL
from partzoo.images import preprocess, resampling
from partzoo.images.opening import open_image
from partzoo.light.cluster import merged_kmeans

IMAGES = Path(__file__).parents[2] / "examples" / "images"
FACES = "partformer-resnet18.faces-k8"
PHOTOGRAPHS = ("ibis.jpg", "cat.jpg", "astronaut.jpg")


def batch_of(name: str) -> torch.Tensor:
    return torch.from_numpy(open_image(IMAGES / name).pixels.transpose(2, 0, 1).copy())[None]


def run(graph, *given: torch.Tensor, **named: torch.Tensor) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        return {name: value.numpy() for name, value in zip(graph.outputs, graph(*given, **named), strict=True)}


@pytest.mark.parametrize("target, multiple", [(448, 32), (288, 32), (128, 16), (300, 64)])
def test_the_working_size_is_the_one_of_images(target, multiple):
    sizes = [(h, w) for h in range(1, 900, 83) for w in (1, 44, 333, 640, 1024)]
    sizes += [(3 * n, 4 * n) for n in range(50, 250)]  # 4:3, at which rows of 32 pixels often end in one half
    for size in sizes:
        rows, columns = preprocess.working_size(size, target, multiple)
        expected = max(rows, resizing.LEAST * multiple), max(columns, resizing.LEAST * multiple)
        assert resizing.working_size(size, target, multiple) == expected, size


@as_pillow_13
@pytest.mark.parametrize("interpolation", resampling.KERNELS)
@pytest.mark.parametrize(
    "size", [(64, 96), (320, 448), (169, 100), (200, 448), (160, 204), (64, 200), (168, 208), (169, 208), (3, 5)]
)
def test_images_are_resized_exactly_as_pillow_does(interpolation, size):
    image = Image.open(IMAGES / "ibis.jpg").convert("RGB")
    expected = np.asarray(image.resize(size[::-1], Image.Resampling[interpolation.upper()])).transpose(2, 0, 1)
    found = resizing.as_pillow(batch_of("ibis.jpg").float(), size, interpolation)[0].numpy()
    assert np.array_equal(found, expected)


def test_extremes_are_resized_exactly_as_pillow_does():
    """Black and white beside each other overshoot, and strong reduction has many weights."""
    image = (255 * (np.random.default_rng(0).random((700, 900, 3)) > 0.5)).astype(np.uint8)
    for size in ((32, 64), (699, 900), (1000, 901)):
        expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        found = resizing.as_pillow(torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float(), size, "bicubic")
        assert np.array_equal(found[0].numpy(), expected), size


@pytest.mark.parametrize("interpolation", resampling.KERNELS)
@pytest.mark.parametrize("size", [(28, 28), (7, 45), (60, 20), (1, 3)])
def test_products_resize_as_torch_does(interpolation, size):
    maps = torch.randn(2, 3, 28, 36, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(maps, size, mode=interpolation, antialias=True)
    torch.testing.assert_close(resampling.multiplied(maps, size, interpolation), expected, rtol=0, atol=1e-5)


def test_interpolations_that_no_program_has_are_refused():
    with pytest.raises(UsageError, match="lanczos"):
        resizing.as_pillow(torch.zeros(1, 3, 4, 4), (8, 8), "lanczos")


def spiral(side: int) -> np.ndarray:
    """A path of one cell's width that winds inwards, with one cell between its turns."""
    inside, y, x, (dy, dx) = np.zeros((side, side), bool), 0, 0, (0, 1)
    inside[0, 0] = True

    def is_free(y: int, x: int) -> bool:
        ahead_y, ahead_x = y + dy, x + dx
        if not (0 <= y < side and 0 <= x < side) or inside[y, x]:
            return False
        return not (0 <= ahead_y < side and 0 <= ahead_x < side and inside[ahead_y, ahead_x])

    for _ in range(side * side):
        if not is_free(y + dy, x + dx):
            dy, dx = dx, -dy
            if not is_free(y + dy, x + dx):
                break
        y, x = y + dy, x + dx
        inside[y, x] = True
    return inside


def comb(side: int) -> np.ndarray:
    inside = np.zeros((side, side), bool)
    inside[::2], inside[:, 0] = True, True
    return inside


def scattered(share: float) -> np.ndarray:
    return np.random.default_rng(0).random((112, 90)) < share


SHAPES = {
    **{f"spiral{turn}": np.rot90(spiral(112), turn).copy() for turn in range(4)},
    "comb": comb(111), "comb across": comb(111).T.copy(), "nothing": np.zeros((9, 7), bool),
    "all": np.ones((3, 40), bool), "one cell": np.ones((1, 1), bool),
    **{f"scattered {share}": scattered(share) for share in (0.1, 0.3, 0.4, 0.41, 0.5, 0.7)},
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_connected_pieces_are_those_of_discovery(name):
    inside = torch.from_numpy(SHAPES[name])
    both = torch.stack([inside, inside.flip(0)])[:, None].float()
    found = segmenting.piece_areas(both)
    for each, expected in zip(found[:, 0], (inside, inside.flip(0)), strict=True):
        assert torch.equal(each, segmentation.piece_areas(expected).float())


def test_the_foreground_is_scored_as_in_discovery():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 1, 9, 7, generator=generator) * torch.tensor([1.0, 0.3, 1.0, 0.8]).view(-1, 1, 1, 1)
    found = torch.nn.functional.interpolate(coarse, (45, 35), mode="bilinear")
    lab = 50 * torch.rand(4, 3, 45, 35, generator=generator)
    lab[2] = 7  # a blank image
    score, quality = segmenting.scored(found, lab)
    for number in (0, 1, 3):
        one = found[number, 0]
        expected = segmentation.without_crumbs(segmentation.at_least_something(one))
        torch.testing.assert_close(score[number, 0], expected, rtol=0, atol=1e-6)
        assert quality[number] == pytest.approx(segmentation.certainty(one), abs=1e-5)
    assert not score[2].any() and quality[2] == 0


@pytest.mark.parametrize("centre", [False, True])
def test_descriptors_of_a_batch_are_those_of_its_images(centre):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 3, 64, 96, generator=generator)
    layers = [torch.randn(3, 8, side, 3 * side // 2, generator=generator) for side in (16, 8)]
    layers = [torch.nn.functional.normalize(layer, dim=1) for layer in layers]
    score = torch.rand(3, 16, 24, generator=generator)
    score[1] = 0  # no foreground
    score[2] = 0
    score[2, 3] = 1  # a line that vanishes on the coarser grid
    many = describe(pixels, layers, score, centre=centre)
    weights = (0.4, 0.3, 0.2, 0.1)
    centres = torch.randn(5, 26, generator=generator)
    for number in range(3):
        one = describe(pixels[number], [layer[number] for layer in layers], score[number], centre=centre)
        pairs = [*zip(many.blocks, one.blocks, strict=True), (many.joined(weights), one.joined(weights))]
        pairs.append((many.similarities(centres, weights), one.similarities(centres, weights)))
        for of_many, of_one in pairs:
            torch.testing.assert_close(of_many[number], of_one, rtol=0, atol=1e-5)
        assert torch.equal(many.inside[number], one.inside)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_part_model_s_program_labels_as_discovery_does(name):
    graph, _ = graph_of(FACES)
    found, expected = run(graph, batch_of(name)), partzoo.discover_parts(IMAGES / name, model=FACES)
    assert (found["parts"][0].argmax(0) == expected.labels).mean() >= 0.999
    assert np.abs(found["parts"][0] - expected.scores).max() < 0.01
    assert found["quality"][0] == pytest.approx(expected.quality, abs=1e-3)


def test_joined_parts_are_joined_in_the_program():
    vocabulary = partzoo.fit_parts(IMAGES / "astronaut.jpg", k=3, model=FACES)
    graph, named = graph_of(None, vocabulary=vocabulary)
    found = run(graph, batch_of("astronaut.jpg"))["parts"][0]
    expected = partzoo.discover_parts(IMAGES / "astronaut.jpg", vocabulary=vocabulary)
    assert len(found) == 4 and list(named) == [FACES]
    assert (found.argmax(0) == expected.labels).mean() >= 0.999


def test_a_vocabulary_s_program_labels_as_discovery_does(tmp_path):
    vocabulary = partzoo.fit_parts([IMAGES / name for name in PHOTOGRAPHS], k=6)
    graph, named = graph_of(None, vocabulary=vocabulary)
    assert list(named) == ["efficientnet-lite0.in1k", "foreground-lite0.masks"]
    for name in PHOTOGRAPHS:
        found, expected = run(graph, batch_of(name)), partzoo.discover_parts(IMAGES / name, vocabulary=vocabulary)
        assert (found["parts"][0].argmax(0) == expected.labels).mean() >= 0.999
        assert ((found["foreground"][0, 0] >= 0.5) == (expected.labels > 0)).mean() >= 0.999
        assert found["quality"][0] == pytest.approx(expected.quality, abs=1e-3)


def test_a_shaped_vocabulary_s_program_labels_and_names_as_discovery_does():
    vocabulary = partzoo.fit_parts([IMAGES / name for name in PHOTOGRAPHS], k=6).join([2, 5], name="wheel").drop(1)
    graph, _ = graph_of(None, vocabulary=vocabulary)
    assert graph.facts["names"] == ["background", *vocabulary.names]
    for name in PHOTOGRAPHS:
        found, expected = run(graph, batch_of(name)), partzoo.discover_parts(IMAGES / name, vocabulary=vocabulary)
        assert (found["parts"][0].argmax(0) == expected.labels).mean() >= 0.999


@as_pillow_13
def test_the_default_s_programs_label_as_discovery_does():
    before, _ = graph_of(None)
    after, _ = graph_of(DEFAULT_MODEL, "labels")
    for name in PHOTOGRAPHS:
        found = run(before, batch_of(name))
        centres, numbers = merged_kmeans(found["descriptors"][0][:, found["inside"][0]].T, 8)
        centres = centres[by_area(numbers, len(centres))]
        expected = partzoo.discover_parts(IMAGES / name, k=8)
        rows = np.arange(expected.size[0])
        given = {key: found[key] for key in after.inputs() if key in found}
        given |= {"centres": centres, "size": np.array(expected.size), "rows": rows}
        labelled = run(after, **{key: torch.from_numpy(value) for key, value in given.items()})
        labels = labelled["labels"][0]
        order = by_area(labels, len(centres) + 1, start=1)
        numbered = np.concatenate([[0], order.argsort() + 1])[labels]
        assert (numbered == expected.labels).mean() >= 0.999
        assert np.allclose(labelled["confidences"][0][order - 1], expected.confidences, atol=1e-4)
        some = run(after, **{key: torch.from_numpy(value) for key, value in (given | {"rows": rows[40:45]}).items()})
        assert np.array_equal(some["labels"][0], labels[40:45])


def test_images_may_be_resized_before_the_program():
    whole, (sized, _) = graph_of(None)[0], graph_of(None, resize=False)
    image = open_image(IMAGES / "ibis.jpg")
    given = {}
    for name, size in sized.facts["sizes"].items():
        target = preprocess.working_size(image.size, size["longer"], size["multiple"])
        pixels = preprocess.resized(image.pixels, target, size["interpolation"])
        given[name] = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    expected, found = run(whole, batch_of("ibis.jpg")), run(sized, **given)
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
    with pytest.raises(UsageError, match="resize=False is for task='descriptors'"):
        graph_of(FACES, resize=False)


def test_an_image_s_values_do_not_depend_on_its_batch():
    graph, _ = graph_of(FACES)
    images = torch.cat([batch_of("ibis.jpg"), batch_of("ibis.jpg").flip(3), 255 - batch_of("ibis.jpg")])
    together = run(graph, images)
    for number, image in enumerate(images):
        alone = run(graph, image[None])
        for name, value in alone.items():
            assert np.abs(together[name][number] - value[0]).max() < 1e-5, name


def test_methods_without_a_network_cannot_be_exported():
    with pytest.raises(UsageError, match="background='boundary' is not a network"):
        graph_of("toy-vit", "descriptors", background="boundary")
    graph, named = graph_of("toy-vit", "descriptors", background="none")
    assert list(named) == ["toy-vit"]
    assert (run(graph, batch_of("ibis.jpg"))["foreground"] == 1).all()


@pytest.mark.parametrize(
    "model, task, said",
    [
        ("toy-vit", "parts", "without a vocabulary"),
        ("foreground-lite0.masks", "parts", "Its tasks are 'foreground'"),
        ("toy-vit", "masks", "task='masks' must be one of"),
        (FACES, "foreground", "Its tasks are 'parts', 'features'"),
    ],
)
def test_tasks_that_a_model_cannot_do_are_refused(model, task, said):
    with pytest.raises(UsageError, match=said):
        graph_of(model, task)


def test_a_vocabulary_has_its_own_size_and_task():
    vocabulary = dataclasses.replace(partzoo.fit_parts(IMAGES / "ibis.jpg", model=FACES))
    for more in ({"task": "features"}, {"size": 64}, {"resize": False}):
        with pytest.raises(UsageError, match="A vocabulary is for task='parts'"):
            graph_of(None, vocabulary=vocabulary, **more)


def test_the_caller_s_module_stays_as_it_is():
    model = partzoo.load("toy-vit", dtype="bfloat16").train()
    graph, named = graph_of(model)
    assert next(model.parameters()).dtype == torch.bfloat16 and model.training
    assert next(graph.parameters()).dtype == torch.float32 and list(named) == [""]


@pytest.mark.parametrize("background", ["auto", None])
def test_taught_parts_are_those_of_discovery(background):
    image = open_image(IMAGES / "ibis.jpg").pixels
    labels = np.full(image.shape[:2], 255, np.uint8)
    height, width = labels.shape
    labels[: height // 8], labels[height // 2 : height // 2 + 20, width // 2 :], labels[-20:] = 0, 1, 2
    options = {"names": ["bird", "ground"], "model": "toy-vit", "background": background}
    words = partzoo.fit_parts([image, image[:, ::-1]], labels=[labels, labels], **options)
    assert words.network is not None
    for shaped in (words, words.join([1, 2])):
        graph, named = graph_of(None, vocabulary=shaped)
        assert [*named] == ["toy-vit", *(["foreground-lite0.masks"] if background else [])]
        assert [*graph.inputs()] == ["image"]
        found = run(graph, batch_of("cat.jpg"))
        expected = partzoo.discover_parts(IMAGES / "cat.jpg", vocabulary=shaped)
        np.testing.assert_allclose(found["parts"][0], expected.scores, rtol=0, atol=1e-3)
        np.testing.assert_allclose(found["foreground"][0, 0], 1 - expected.scores[0], rtol=0, atol=1e-3)
        assert (found["parts"][0].argmax(0) == expected.labels).mean() > 0.999
        assert found["quality"][0] == pytest.approx(expected.quality, abs=1e-3)
