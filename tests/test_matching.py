from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import partzoo
from partzoo.errors import ShapeError, UsageError

IBIS = Path(__file__).parents[1] / "examples" / "images" / "ibis.jpg"


@pytest.fixture(scope="module")
def encoder():
    return partzoo.load("toy-vit", device="cpu")


@pytest.fixture(scope="module")
def parts(encoder):
    """Parts of an image that is not symmetric, at the size at which the encoder sees it."""
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    image = np.asarray(Image.fromarray(image).resize((224, 168), Image.Resampling.BICUBIC))
    labels = np.zeros((168, 224), int)
    labels[20:100, 10:90], labels[60:150, 90:180], labels[110:150, 30:80] = 1, 2, 4
    return partzoo.Parts(labels, image=image)


def mirrored(parts):
    return partzoo.Parts(parts.labels[:, ::-1], k=parts.k, image=parts.image[:, ::-1])


def test_embeddings_are_unit_vectors_and_zero_for_absent_parts(parts, encoder):
    found = partzoo.embed_parts(parts, model=encoder)
    assert found.shape == (4, encoder.dim) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 0, 1], atol=1e-6)
    both = partzoo.embed_parts([parts, mirrored(parts)], model=encoder)
    np.testing.assert_array_equal(both[0], found)
    np.testing.assert_allclose(both[1], found, atol=1e-5)


def test_an_embedding_depends_on_the_pixels_of_its_part(parts, encoder):
    moved = partzoo.Parts(np.roll(parts.labels, 60, axis=1) * (parts.labels != 1), k=4, image=parts.image)
    assert not np.allclose(partzoo.embed_parts(moved, model=encoder), partzoo.embed_parts(parts, model=encoder))


def test_an_image_matches_itself_point_by_point(parts, encoder):
    found = partzoo.match_parts(parts, parts, model=encoder)
    assert found.pairs.tolist() == [[1, 1], [2, 2], [4, 4]] and len(found) == 3
    np.testing.assert_allclose(found.scores, 1, atol=1e-5)
    np.testing.assert_allclose(found.point_scores, 1, atol=1e-5)
    np.testing.assert_array_equal(found.points_a, found.points_b)
    assert not found.mirrored
    x, y = found.points_a.round().astype(int).T
    np.testing.assert_array_equal(found.pairs[found.point_pairs, 0], parts.labels[y, x])
    assert repr(found).startswith("<PartMatches: 1-1 1.00, 2-2 1.00, 4-4 1.00; ")


def test_an_image_matches_its_mirror_image_point_by_point(parts, encoder):
    found = partzoo.match_parts(parts, mirrored(parts), model=encoder)
    assert found.mirrored and found.pairs.tolist() == [[1, 1], [2, 2], [4, 4]]
    assert len(found.points_a) == len(partzoo.match_parts(parts, parts, model=encoder).points_a)
    np.testing.assert_allclose(found.points_b, [parts.size[1] - 1, 0] + found.points_a * [-1, 1], atol=1e-3)


def test_renumbered_parts_are_matched_by_appearance_and_not_by_number(parts, encoder):
    numbers = np.array([0, 3, 1, 2, 5])
    other = partzoo.Parts(numbers[parts.labels], image=parts.image)
    assert partzoo.match_parts(parts, other, model=encoder).pairs.tolist() == [[1, 3], [2, 1], [4, 5]]
    with pytest.raises(ShapeError, match="k=4 and k=5"):
        partzoo.match_parts(parts, other, by="number", model=encoder)
    same = partzoo.Parts(np.array([0, 2, 1, 0, 4])[parts.labels], image=parts.image)
    found = partzoo.match_parts(parts, same, by="number", model=encoder)
    assert found.pairs.tolist() == [[1, 1], [2, 2], [4, 4]]
    assert found.scores[2] > found.scores[:2].max()


def test_points_are_pixels_of_each_image(parts, encoder):
    large = partzoo.Parts(
        parts.labels.repeat(2, 0).repeat(3, 1), image=np.asarray(parts.image).repeat(2, 0).repeat(3, 1)
    )
    found = partzoo.match_parts(parts, large, by="number", model=encoder)
    x, y = found.points_b.round().astype(int).T
    np.testing.assert_array_equal(found.pairs[found.point_pairs, 1], large.labels[y, x])
    assert found.points_b[:, 0].max() > parts.size[1]


def test_a_tiny_part_has_a_cell_and_an_image_without_parts_has_no_match(parts, encoder):
    labels = np.array(parts.labels)
    labels[160, 200] = 3
    tiny = partzoo.Parts(labels, image=parts.image)
    found = partzoo.match_parts(tiny, tiny, model=encoder)
    assert [3, 3] in found.pairs.tolist() and 2 in found.point_pairs
    blank = partzoo.Parts(np.zeros_like(labels), k=4, image=parts.image)
    none = partzoo.match_parts(blank, parts, model=encoder)
    assert len(none) == 0 and none.pairs.shape == (0, 2) and none.points_a.shape == (0, 2) and "none" in repr(none)


def test_what_cannot_be_compared_says_why(parts, encoder):
    bare = partzoo.Parts(parts.labels)
    with pytest.raises(UsageError, match="do not hold their image"):
        partzoo.match_parts(parts, bare, model=encoder)
    with pytest.raises(UsageError, match="do not hold their image"):
        partzoo.embed_parts(bare, model=encoder)
    with pytest.raises(UsageError, match="'appearance' or 'number'"):
        partzoo.match_parts(parts, parts, by="colour", model=encoder)
    with pytest.raises(UsageError, match="at least 1 pixel"):
        partzoo.embed_parts(parts, size=0, model=encoder)


def test_the_default_model_matches_a_photograph_with_its_mirror_image():
    parts = partzoo.discover_parts(IBIS, k=4)
    flipped = mirrored(parts)
    found = partzoo.match_parts(parts, flipped)
    assert found.mirrored and found.pairs.tolist() == [[part, part] for part in parts.present]
    expected = [parts.size[1] - 1, 0] + found.points_a * [-1, 1]
    distance = np.linalg.norm(found.points_b - expected, axis=1)
    assert np.median(distance) < 1 and (distance < 16).mean() > 0.95
