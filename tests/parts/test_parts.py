import copy
import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from partzoo import errors
from partzoo.errors import MissingExtraError, ShapeError, UsageError
from partzoo.parts import drawing
from partzoo.parts.parts import Parts

label_maps = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 5))


@pytest.fixture
def parts():
    """A 6 x 8 image: part 1 a 2 x 3 block, part 2 one pixel, part 3 absent, part 4 in two pieces."""
    labels = np.zeros((6, 8), int)
    labels[1:3, 2:5] = 1
    labels[4, 7] = 2
    labels[5, [0, 6]] = 4
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return Parts(labels, k=4, image=image, descriptors=np.eye(4, 3), names=["beak", "eye", "wing", "feet"])


def test_geometry_by_hand(parts):
    assert parts.size == (6, 8)
    assert parts.present == (1, 2, 4)
    assert parts.areas.tolist() == [6, 1, 0, 2]
    np.testing.assert_allclose(parts.centroids, [[3, 1.5], [7, 4], [np.nan, np.nan], [3, 5]])
    assert parts.boxes.tolist() == [[2, 1, 5, 3], [7, 4, 8, 5], [0, 0, 0, 0], [0, 5, 7, 6]]
    assert parts.mask(0).sum() == 48 - 9
    assert parts.mask(2).sum() == 1
    for wrong in (-1, 5):
        with pytest.raises(UsageError, match=r"1\.\.4"):
            parts.mask(wrong)


@given(label_maps)
def test_geometry_agrees_with_the_masks(labels):
    parts = Parts(labels, k=5)
    for part in range(1, 6):
        mask = parts.mask(part)
        assert parts.areas[part - 1] == mask.sum()
        assert (part in parts.present) == mask.any()
        if mask.any():
            y, x = np.nonzero(mask)
            np.testing.assert_allclose(parts.centroids[part - 1], [x.mean(), y.mean()])
            assert parts.boxes[part - 1].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        else:
            assert np.isnan(parts.centroids[part - 1]).all()


def test_labels_are_as_wide_as_k_needs():
    assert Parts(np.zeros((2, 2), np.int64), k=255).labels.dtype == np.uint8
    assert Parts(np.zeros((2, 2), np.int64), k=256).labels.dtype == np.uint16
    assert Parts(np.array([[0, 3]])).k == 3
    assert Parts(np.zeros((2, 2), int)).k == 0


def test_wrong_arguments_are_refused():
    labels = np.array([[0, 1], [2, 2]])
    for kwargs, error in [
        ({"k": 1}, UsageError),
        ({"k": 70_000}, UsageError),
        ({"image": np.zeros((2, 3, 3), np.uint8)}, ShapeError),
        ({"image": np.zeros((2, 2, 3))}, ShapeError),
        ({"descriptors": np.zeros((3, 4))}, ShapeError),
        ({"names": ["only one"]}, ShapeError),
        ({"scores": np.zeros((2, 2, 2))}, ShapeError),
    ]:
        with pytest.raises(error):
            Parts(labels, **kwargs)
    for wrong in (labels - 1, labels / 1.0, labels[0], np.zeros((0, 3), int), labels > 1):
        with pytest.raises(UsageError):
            Parts(wrong)


def test_immutable(parts):
    labels = np.array([[0, 1]])
    held = Parts(labels)
    labels[:] = 0
    assert held.labels.tolist() == [[0, 1]]
    for array in (parts.labels, parts.image, parts.areas, parts.centroids, parts.boxes, parts.descriptors):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        parts.labels = labels


def test_equal_by_value(parts):
    same = Parts(parts.labels.astype(np.int64), k=4, descriptors=np.eye(4, 3), names=parts.names)
    assert same == parts
    assert hash(same) == hash(parts)
    other = parts.labels.copy()
    other[0, 0] = 1
    assert Parts(other, k=4, descriptors=np.eye(4, 3), names=parts.names) != parts
    assert Parts(parts.labels, k=5) != Parts(parts.labels, k=4)
    assert Parts(parts.labels, k=4, names=parts.names) != parts
    assert Parts(parts.labels, k=4) != Parts(parts.labels, k=4, names=parts.names)
    assert parts != "parts"


def test_scores_are_computed_once_and_on_demand():
    calls = []

    def compute():
        calls.append(1)
        return np.ones((3, 2, 2))

    parts = Parts(np.array([[0, 1], [2, 2]]), scores=compute)
    repr(parts)
    assert not calls
    assert parts.scores.shape == (3, 2, 2) and parts.scores.dtype == np.float32
    assert parts.scores is parts.scores
    assert calls == [1]
    assert Parts(np.array([[1]])).scores is None
    with pytest.raises(ShapeError, match=r"\(2, 1, 1\)"):
        Parts(np.array([[1]]), scores=lambda: np.ones((2, 2, 2))).scores  # noqa: B018


def test_crops_are_the_boxes_of_the_image(parts):
    crops = parts.crops()
    assert list(crops) == [1, 2, 4]
    np.testing.assert_array_equal(crops[1], parts.image[1:3, 2:5])
    np.testing.assert_array_equal(parts.crops(margin=0.4)[1], parts.image[0:4, 1:6])
    np.testing.assert_array_equal(parts.crops(margin=9)[2], parts.image)
    masked = np.asarray(parts.crops(masked=True)[4])
    np.testing.assert_array_equal(masked[0, 0], parts.image[5, 0])
    assert (masked[0, 1:6] == 255).all()
    with pytest.raises(UsageError, match="image="):
        Parts(parts.labels).crops()
    with pytest.raises(UsageError, match="margin"):
        parts.crops(margin=-1)


def test_copies_and_pickles_are_equal_and_read_only(parts):
    scored = Parts(parts.labels, k=4, image=parts.image, scores=lambda: np.ones((5, 6, 8)), source="heron.jpg")
    for first in (parts, scored):
        for again in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
            assert again == first
            assert again.source == first.source
            assert not again.labels.flags.writeable
            np.testing.assert_array_equal(again.image, first.image)
            np.testing.assert_array_equal(again.scores, first.scores)


def test_reprs(parts):
    assert repr(parts) == "<Parts: 3 of 4 parts in 6x8 pixels: beak 12%, eye 2%, feet 4%>"
    assert repr(Parts(np.zeros((2, 3), int), k=0)) == "<Parts: 0 of 0 parts in 2x3 pixels>"
    assert parts._repr_png_().startswith(b"\x89PNG")
    page = Parts(parts.labels, k=4, names=["<b>", "x", "y", "z"])._repr_html_()
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert "data:image/png;base64," in page


def test_notebook_image_is_small():
    with Image.open(io.BytesIO(Parts(np.ones((1000, 2000), int))._repr_png_())) as image:
        assert image.size == (640, 320)


@pytest.mark.parametrize("k", [0, 1, 8, 40])
def test_plot_draws_every_part_in_the_legend(k):
    pytest.importorskip("matplotlib")
    labels = np.arange(k + 1).repeat(100).reshape(-1, 10)
    for image in (None, np.zeros((*labels.shape, 3), np.uint8)):
        figure = Parts(labels, k=k, image=image).plot()
        figure.canvas.draw()
        assert len(figure.axes) == (1 if image is None else 2)
        assert sum(len(legend.get_texts()) for legend in figure.legends) == k


def test_missing_extras_name_the_command(parts, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r'pip install "partzoo\[plot\]"'):
        parts.plot()
    with pytest.raises(MissingExtraError, match=r'pip install "partzoo\[coco\]"'):
        parts.to_coco()
    assert parts.to_coco("polygons")["annotations"]


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 300))
def test_everything_works_for_any_size_and_k(height, width, k):
    labels = np.random.default_rng(k).integers(0, k + 1, (height, width))
    parts = Parts(labels, k=k, image=np.zeros((height, width, 3), np.uint8))
    assert parts.overlay().size == (width, height)
    assert len(parts.crops()) == len(parts.present)
    assert parts._repr_html_()
    assert len(parts.to_coco("polygons")["annotations"]) == len(parts.present)


def test_an_overlay_is_drawn_as_it_is_asked_for():
    labels = np.arange(60 * 80).reshape(60, 80) // 1600
    parts = Parts(labels, k=3, image=np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    asked = ({}, {"alpha": 0.2}, {"outlines": False}, {"numbers": False}, {"scale": 2})
    drawn = [parts.overlay(**options) for options in asked]
    assert drawn == [drawing.overlay(parts.image, parts.labels, 3, **options) for options in asked]
    assert all(drawn[0] != other for other in drawn[1:])


def test_read_only_arrays_are_kept_and_others_are_copied():
    def frozen(array):
        array.setflags(write=False)
        return array

    labels, image = frozen(np.ones((4, 6), np.uint8)), frozen(np.zeros((4, 6, 3), np.uint8))
    parts = Parts(labels, image=image)
    assert parts.labels is labels and parts.image is image
    owner = np.ones((4, 12), np.uint8)
    view = owner[:, :6]
    view.setflags(write=False)
    for other in (labels.astype(np.int64), frozen(np.ones((6, 4), np.uint8).T), view, np.ones((4, 6), np.uint8)):
        again = Parts(other).labels
        assert again.dtype == np.uint8 and not np.shares_memory(again, other) and not again.flags.writeable


@pytest.mark.parametrize("k", [3, 40])
def test_the_legend_of_a_plot_lies_below_the_images_and_within_the_figure(k):
    pytest.importorskip("matplotlib")
    labels = np.arange(k + 1).repeat(100).reshape(-1, 10)
    figure = Parts(labels, image=np.zeros((*labels.shape, 3), np.uint8)).plot()
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0 and legend.x1 <= figure.bbox.x1 and figure.bbox.y0 <= legend.y0
    assert all(legend.y1 <= axis.get_window_extent().y0 for axis in figure.axes)
