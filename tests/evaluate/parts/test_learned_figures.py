"""Figures of learned part models."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers.drawn_faces import write_faces
from torch import nn

import partzoo
from partzoo.data.reading import Example
from partzoo.discovery.factory import make_finder
from partzoo.discovery.views import view_image
from partzoo.errors import UsageError
from partzoo.evaluate import run
from partzoo.evaluate.parts.figures import part_figures
from partzoo.evaluate.protocols import get
from partzoo.evaluate.protocols.base import PartProtocol
from partzoo.images.opening import OpenedImage
from partzoo.models.sharing import save_pretrained


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_faces(tmp_path_factory.mktemp("faces"), {"train": 4, "report": 3})


def partformer(**config):
    torch.manual_seed(0)
    model = partzoo.load("partformer-resnet18", pretrained=False, device="cpu", dtype="float32", size=64, **config)
    nn.init.normal_(model.transformer.part_embed)
    return model


def test_own_parts_need_no_pass_over_the_fitting_images_but_the_regressions(faces):
    told = []
    finder = make_finder(partformer(parts=3))
    runs, _ = part_figures(
        finder, get("faces68"), faces, k=[None, 3], seeds=range(5), progress=lambda *said: told.append(said[0])
    )
    assert set(told) == {"regression", "report"}
    assert [(each["k"], each["seed"]) for each in runs] == [(3, 0)]


@pytest.mark.parametrize(("parts", "asked"), [(3, [3]), (6, [4, 6]), (8, [4, 8])])
def test_without_k_a_model_uses_all_its_parts(faces, tmp_path, parts, asked):
    name = str(save_pretrained(partformer(parts=parts), tmp_path / "model"))
    record = run.evaluate(name, "faces68", faces, seeds=1, limit=2)
    assert record["k"] == asked == [each["k"] for each in record["runs"]]
    with pytest.raises(UsageError, match=f"k=16: this model has {parts} parts"):
        run.evaluate(name, "faces68", faces, k=[16], seeds=1, limit=2)


@pytest.mark.parametrize("k", [3, 2])
def test_unrefined_scores_are_the_maps_as_the_model_upsamples_them(faces, k):
    """The papers read maps as softmax of upsampled similarities, added up over joined parts."""
    model, image = partformer(parts=3), OpenedImage(get("faces68").load(faces, "report")[0].image[:128, :128])
    finder = make_finder(model, refine=False, size=64)
    view = finder.look(image)
    vocabulary = finder.fit([finder.sample(view, 0, 0)], k, 0)
    x = view_image(image, model, 64).batch
    maps = model.part_maps(x, size=(128, 128))[0]
    numbers = np.array([0, *vocabulary.numbering])
    maps = torch.stack([maps[numbers == number].sum(0) for number in range(k + 1)])
    assert torch.allclose(finder.scores(view, vocabulary, (128, 128)), maps, atol=1e-6)


def test_the_record_states_that_nothing_was_refined(faces):
    options = {"k": [2], "seeds": 1, "size": 64}
    coarse = run.evaluate("toy-vit", "faces68", faces, refine=False, **options)
    assert coarse["command"].endswith("--size 64 --no-refine")
    assert coarse["runs"] != run.evaluate("toy-vit", "faces68", faces, **options)["runs"]


def test_a_model_of_several_classes_needs_the_class_of_each_image():
    draw = np.random.default_rng(0)
    image, mask = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8), draw.integers(0, 3, (16, 16))
    rules = PartProtocol(
        "drawn", lambda *_: [], 3, source="", rules="", get="", grid=16, background=2, classes=2
    )  # fmt: skip

    def figures(model, *categories):
        examples = [Example(image, mask=mask, category=category) for category in categories]
        changed = PartProtocol(**(vars(rules) | {"load": lambda *_: examples}))
        return part_figures(make_finder(model), changed, ".", k=[None], seeds=[0])[0][0]["metrics"]

    of = partial(figures, partformer(parts=3, classes=2))
    assert of(0) != of(1) and of(0, 1) != of(0, 0)
    with pytest.raises(UsageError, match="state the class of each image"):
        of(None)
