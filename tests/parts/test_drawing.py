import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from partzoo.errors import UsageError
from partzoo.parts import drawing

label_maps = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 4))

# Machado, Oliveira, Fernandes (2009), "A physiologically-based model for simulation of color vision
# deficiency", severity 1, on linear RGB.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}


def lab(colours: np.ndarray, sight: str) -> np.ndarray:
    """CIELAB (D65) of sRGB colours 0..255, as seen by ``sight``."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(SIGHTS[sight]), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / to_xyz.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize(("k", "least"), [(8, 20), (12, 15)])
def test_colours_can_be_distinguished(sight, k, least):
    seen = lab(drawing.palette(k)[1:] * 0.55 + 128 * 0.45, sight)
    apart = np.linalg.norm(seen[:, None] - seen, axis=-1)
    assert apart[~np.eye(k, dtype=bool)].min() >= least


@pytest.mark.parametrize("k", [0, 1, 12, 13, 100, 1000])
def test_palette_has_k_different_colours_and_keeps_its_beginning(k):
    colours = drawing.palette(k)
    assert colours.shape == (k + 1, 3) and colours.dtype == np.uint8
    assert not colours[0].any()
    np.testing.assert_array_equal(drawing.palette(2000)[: k + 1], colours)
    assert len(np.unique(colours[:101], axis=0)) == min(k + 1, 101)


def test_part_colours_do_not_depend_on_the_images_hue():
    labels = np.ones((20, 20), int)
    red, green = np.zeros((2, 20, 20, 3), np.uint8)
    red[..., 0], green[..., 1] = 196, 100  # equally bright
    seen = [np.asarray(drawing.overlay(image, labels, 1)).astype(int) for image in (red, green)]
    assert abs(seen[0] - seen[1]).max() <= 2


def test_alpha():
    labels = np.array([[0, 1]] * 4)
    image = np.full((4, 2, 3), 100, np.uint8)
    plain = np.asarray(drawing.overlay(image, labels, 1, alpha=0, outlines=False))
    np.testing.assert_array_equal(plain[:, 1], 100)
    assert (plain[:, 0] < 100).all()
    opaque = np.asarray(drawing.overlay(image, labels, 1, alpha=1, outlines=False))
    np.testing.assert_array_equal(opaque[0, 1], drawing.palette(1)[1])
    with pytest.raises(UsageError, match=r"0\.\.1"):
        drawing.overlay(image, labels, 1, alpha=1.5)


def test_outlines_run_between_labels_only():
    labels = np.zeros((40, 50), np.uint8)
    labels[10:20, 10:30] = 1
    labels[20:30, 10:30] = 2
    lines = drawing.outline(labels)
    assert not lines[12:19, 12:29].any() and not lines[:9].any() and not lines[32:].any()
    assert lines[20, 10:30].all() and lines[10, 10:30].all() and lines[10:30, 10].all() and lines[30, 10:30].all()
    assert not drawing.outline(np.ones((5, 5), np.uint8), 9).any()
    for width in (1, 2, 3, 5, 6, 7):
        assert drawing.outline(labels, width)[20:, 20][:5].sum() >= 1
        assert drawing.outline(labels, width)[:, 20].sum() == 3 * width


@given(label_maps, st.integers(1, 9))
def test_wide_outlines_contain_thin_ones(labels, width):
    assert (drawing.outline(labels, width) >= drawing.outline(labels)).all()


@given(label_maps)
def test_number_points_lie_inside_their_parts(labels):
    points = drawing.number_points(labels)
    assert set(points) == set(np.unique(labels[labels > 0]).tolist())
    for part, (x, y) in points.items():
        assert labels[y, x] == part


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1), (700, 900), (17, 300), (2048, 2048)])
def test_number_points_of_any_size(size):
    labels = np.arange(size[0] * size[1]).reshape(size) * 5 // (size[0] * size[1])
    labels[-1, -1] = 9
    for part, (x, y) in drawing.number_points(labels).items():
        assert labels[y, x] == part


def test_numbers_stand_in_the_middle_and_not_in_a_hole():
    y, x = np.mgrid[:200, :200]
    disc = (np.hypot(y - 80, x - 120) < 50).astype(int)
    assert np.hypot(*np.subtract(drawing.number_points(disc)[1], (120, 80))) < 18
    ring = disc * (np.hypot(y - 80, x - 120) > 30)
    px, py = drawing.number_points(ring)[1]
    assert 35 < np.hypot(py - 80, px - 120) < 45


def test_numbers_are_written_where_there_is_room():
    image, labels = np.zeros((100, 100, 3), np.uint8), np.ones((100, 100), int)
    assert drawing.overlay(image, labels, 1) != drawing.overlay(image, labels, 1, numbers=False)
    small = np.s_[:20, :20]
    assert drawing.overlay(image[small], labels[small], 1) == drawing.overlay(
        image[small], labels[small], 1, numbers=False
    )


def test_scale_enlarges():
    image, labels = np.full((8, 9, 3), 100, np.uint8), np.zeros((8, 9), int)
    labels[2:6, 3:8] = 1
    plain = {"outlines": False, "numbers": False}
    large = drawing.overlay(image, labels, 1, scale=3, **plain)
    assert large.size == (27, 24)
    np.testing.assert_array_equal(np.asarray(large)[1::3, 1::3], drawing.overlay(image, labels, 1, **plain))
    assert drawing.overlay(None, labels, 1, scale=10).size == (90, 80)
    with pytest.raises(UsageError, match="scale"):
        drawing.overlay(image, labels, 1, scale=0)


def test_enlarged_labels_have_smooth_outlines_and_no_others():
    y, x = np.mgrid[:40, :40]
    labels = ((y + x > 40) + 2 * (y > 30)).astype(np.uint8)
    large = drawing.enlarged(labels, 8)
    assert large.shape == (320, 320) and set(np.unique(large)) == set(np.unique(labels))
    assert (large[4::8, 4::8] == labels).mean() > 0.98
    blocks = labels.repeat(8, 0).repeat(8, 1)
    assert drawing.outline(large).sum() < drawing.outline(blocks).sum() and (large != blocks).any()


@pytest.mark.parametrize("scale", [2, 3, 7])
def test_enlarged_labels_are_the_highest_of_the_enlarged_masks(scale):
    labels = np.random.default_rng(0).integers(0, 5, (9, 11)).repeat(4, 0).repeat(3, 1)
    labels[labels == 1] = 0
    size = (33 * scale, 36 * scale)
    masks = [
        Image.fromarray((labels == part) * np.uint8(255)).resize(size, Image.Resampling.BICUBIC) for part in range(5)
    ]
    np.testing.assert_array_equal(drawing.enlarged(labels, scale), np.argmax(masks, 0))


def test_a_saved_overlay_is_large_enough_to_see():
    assert drawing.scale_to_see((200, 100)) == 4 and drawing.scale_to_see((3000, 2000)) == 1
    assert drawing.scale_to_see((1, 1)) == 800


def test_overlay_does_not_write_into_the_image():
    image = np.full((300, 60, 3), 100, np.uint8)
    labels = np.arange(300 * 60).reshape(300, 60) // 6000
    drawing.overlay(image, labels, 2)
    assert (image == 100).all()


def test_an_overlay_is_grey_under_the_parts_faded_around_them_and_light_along_the_lines():
    image = np.zeros((4, 6, 3), np.uint8)
    image[...] = (200, 40, 100)
    grey = np.asarray(Image.fromarray(image).convert("L"))[0, 0].astype(np.float64)
    labels = np.array([[0, 0, 0, 1, 1, 1]] * 4)
    colour = drawing.palette(1)[1]
    plain = np.asarray(drawing.overlay(image, labels, 1, outlines=False))
    np.testing.assert_allclose(plain[0, 5], 0.45 * grey + 0.55 * colour, atol=1)
    np.testing.assert_allclose(plain[0, 0], 0.35 * (image[0, 0] + grey), atol=1)
    lined = np.asarray(drawing.overlay(image, labels, 1))
    line = drawing.outline(labels)
    np.testing.assert_array_equal(lined[line], plain[line] // 4 + 191)
    np.testing.assert_array_equal(lined[~line], plain[~line])


def test_lines_are_as_wide_as_a_four_hundredth_of_the_longer_side():
    labels = np.zeros((10, 1200), np.uint8)
    labels[:, 600:] = 1
    drawn = np.asarray(drawing.overlay(None, labels, 1, numbers=False))
    assert np.flatnonzero((drawn != np.where(labels[..., None], drawing.palette(1)[1], 255)).any((0, 2))).size == 3


@given(label_maps)
def test_depth_is_the_number_of_steps_to_the_edge_of_a_part(labels):
    depth = drawing._depth(labels)
    around = np.pad(labels, 1)
    for (y, x), label in np.ndenumerate(labels):
        other_y, other_x = np.nonzero(around != label) if label else ([y + 1], [x + 1])
        nearest = (np.abs(np.subtract(other_y, y + 1)) + np.abs(np.subtract(other_x, x + 1))).min()
        assert depth[y, x] == max(nearest - 1, 0)
