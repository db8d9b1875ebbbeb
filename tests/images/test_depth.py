"""Images of more than 8 bits, and TIFF files whose bands Pillow takes for others."""

import io
import struct
import warnings
import zlib

import numpy as np
import PIL
import pytest
import torch
from helpers.image_files import png, tiff
from PIL import Image

import partzoo
from partzoo.errors import ImageError
from partzoo.images.depth import to_8_bits
from partzoo.images.opening import open_image

SIZE = (21, 33)
PILLOW = int(PIL.__version__.partition(".")[0])


def pixels(source) -> np.ndarray:
    return open_image(source).pixels


def noise(bits: int, channels: int = 3, dtype=np.uint16) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 2**bits, (*SIZE, channels)).astype(dtype)
    values[0, 0] = 2**bits - 1
    return values


def in_8_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Compute the expected pixels ``(H, W, 3)`` by the rule, with floats."""
    values = np.repeat(values[..., None], 3, 2) if values.ndim == 2 else values
    return np.rint(values / (2**bits - 1) * 255).astype(np.uint8)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


COLOUR = {
    "array": lambda rgb: rgb,
    "big-endian array": lambda rgb: rgb.astype(">u2"),
    "tensor": lambda rgb: torch.from_numpy(rgb).permute(2, 0, 1),
    "PNG": lambda rgb: png(rgb, 2),
    "PIL image of a PNG": lambda rgb: opened(png(rgb, 2)),
    "PIL image of a TIFF": lambda rgb: opened(tiff(rgb, 2)),
    "PPM": lambda rgb: b"P6\n%d %d\n65535\n" % SIZE[::-1] + rgb.astype(">u2").tobytes(),
    "TIFF": lambda rgb: tiff(rgb, 2),
    "big-endian TIFF": lambda rgb: tiff(rgb, 2, order=">"),
    "TIFF in strips": lambda rgb: tiff(rgb, 2, strips=4),
    "deflated TIFF": lambda rgb: tiff(rgb, 2, deflate=True, strips=4),
    "big-endian deflated TIFF": lambda rgb: tiff(rgb, 2, order=">", deflate=True),
    "TIFF in planes": lambda rgb: tiff(rgb, 2, planar=True),
    "big-endian TIFF in planes": lambda rgb: tiff(rgb, 2, order=">", planar=True),
}
GREY = {
    "array": lambda grey: grey,
    "tensor": lambda grey: torch.from_numpy(grey),
    "PIL image": Image.fromarray,
    "32-bit PIL image": lambda grey: Image.fromarray(grey.astype(np.int32)),
    "PNG": lambda grey: png(grey, 0),
    "PGM": lambda grey: b"P5\n%d %d\n65535\n" % SIZE[::-1] + grey.astype(">u2").tobytes(),
    "TIFF": lambda grey: tiff(grey, 1),
    "big-endian deflated TIFF": lambda grey: tiff(grey, 1, order=">", deflate=True),
}


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_range_is_the_smallest_that_holds_the_maximum_and_is_said(bits, channels):
    values = noise(bits, channels).squeeze()
    for what, make in (GREY if channels == 1 else COLOUR).items():
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            found = pixels(make(values))
        np.testing.assert_array_equal(found, in_8_bits(values, bits), err_msg=what)
        told = [str(each.message) for each in seen if each.category is UserWarning]
        assert len(told) == (bits < 16), what
        assert all(f"{bits}-bit data, 0..{2**bits - 1}" in sentence for sentence in told)


def test_a_range_between_two_depths_is_the_deeper_one_and_black_has_none():
    with pytest.warns(UserWarning, match="10-bit"):
        assert to_8_bits(np.array([0, 256, 800], np.uint16)).tolist() == [0, 64, 199]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not pixels(np.zeros(SIZE, np.uint16)).any()
        assert to_8_bits(np.array([100], np.uint16), bits=16) == 0


@pytest.mark.filterwarnings("ignore:A 16-bit image")
def test_deep_data_give_the_parts_of_their_8_bit_copy():
    y, x = np.mgrid[:60, :80]
    inside = (x - 40) ** 2 + (y - 30) ** 2 < 20**2
    grey = np.where(inside, np.where(y < 30, 0.9, 0.55), 0.1)
    labels = [
        partzoo.discover_parts(values, k=2, model="toy-vit", background=None).labels
        for values in ((grey * 255).astype(np.uint8), np.rint((grey * 255).astype(np.uint8) / 255 * 4095).astype("u2"))
    ]
    np.testing.assert_array_equal(*labels)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.filterwarnings("ignore:A 16-bit image")
def test_alpha_has_its_own_range(bits):
    rgb = noise(bits)
    alpha = np.full(SIZE, 65535, np.uint16)
    alpha[:5] = 0
    rgba = np.dstack([rgb, alpha])
    expected = in_8_bits(rgb, bits)
    expected[:5] = 255
    for source in (rgba, torch.from_numpy(rgba).permute(2, 0, 1), png(rgba, 6), tiff(rgba, 2, extra=[2])):
        np.testing.assert_array_equal(pixels(source), expected)
    top = 2**bits - 1
    multiplied = np.where(alpha[..., None] > 0, np.dstack([rgb, np.full(SIZE, top, np.uint16)]), 0).astype(np.uint16)
    np.testing.assert_array_equal(pixels(tiff(multiplied, 2, extra=[1])), expected)
    grey = in_8_bits(rgb[..., 0], bits)
    grey[:5] = 255
    np.testing.assert_array_equal(pixels(png(rgba[..., [0, 3]], 4)), grey)


def test_a_16_bit_colour_that_counts_as_transparent_is_white():
    rgb = noise(16)
    rgb[3:6, 4:9] = (0x1234, 0x0034, 0xFFFF)
    expected = in_8_bits(rgb, 16)
    expected[3:6, 4:9] = 255
    np.testing.assert_array_equal(pixels(png(rgb, 2, transparent=(0x1234, 0x0034, 0xFFFF))), expected)


def test_16_bit_cmyk_and_orientation():
    cmyk = noise(16, 4)
    by_pillow = Image.fromarray(in_8_bits(cmyk, 16), "CMYK").convert("RGB")
    np.testing.assert_array_equal(pixels(tiff(cmyk, 5)), np.asarray(by_pillow))
    rgb = noise(16)
    np.testing.assert_array_equal(pixels(tiff(rgb, 2, orientation=6)), np.rot90(in_8_bits(rgb, 16), -1))


@pytest.mark.parametrize("make", [lambda rgb: tiff(rgb, 2, planar=True, deflate=True), lambda rgb: tiff(rgb, 2)])
def test_where_low_bytes_are_lost_a_warning_says_so(make):
    rgb = noise(16)
    image = opened(make(rgb))
    image.load()
    with pytest.warns(UserWarning, match="only the high bytes"):
        np.testing.assert_array_equal(pixels(image), rgb >> 8)


def test_a_range_that_the_file_states_is_taken_without_a_warning():
    dark = noise(8, 1).squeeze()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pgm = b"P5\n%d %d\n4095\n" % SIZE[::-1] + dark.astype(">u2").tobytes()
        assert np.abs(pixels(pgm).astype(int) - in_8_bits(dark, 12)).max() <= 1
        packed = np.repeat([[[0x12, 0x30, 0xFF]]], 4, axis=0).astype(np.uint8).reshape(4, 3)  # 0x123, 0x0FF
        twelve = tiff(packed, 1, bits=12, width=2)
        assert pixels(twelve)[0, :, 0].tolist() == [18, 16]
        assert pixels(tiff(packed, 0, bits=12, width=2))[0, :, 0].tolist() == [237, 239]


@pytest.mark.filterwarnings("ignore:A 16-bit image")
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_where_zero_is_white_the_image_is_inverted(bits, deflate):
    grey = noise(bits, 1, np.uint8 if bits == 8 else np.uint16).squeeze()
    for order in "<>":
        white = tiff(2**bits - 1 - grey, 0, deflate=deflate, order=order)
        np.testing.assert_array_equal(pixels(white), in_8_bits(grey, bits))
    values = (grey / (2**bits - 1)).astype(np.float32)
    found = pixels(tiff(1 - values, 0, kind=3, deflate=deflate)).astype(int)
    assert np.abs(found - in_8_bits(grey, bits)).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("extra", [None, [0]])
def test_a_fourth_band_that_is_not_said_to_be_alpha_is_left_out(order, planar, deflate, extra):
    if planar and extra and (not deflate or PILLOW < 12):
        pytest.skip("Pillow cannot open it")
    four = noise(8, 4, np.uint8)
    form = {"order": order, "planar": planar, "deflate": deflate, "extra": extra}
    np.testing.assert_array_equal(pixels(tiff(four, 2, **form)), four[..., :3])
    np.testing.assert_array_equal(pixels(opened(tiff(four, 2, **form))), four[..., :3])
    if not (planar and deflate):  # of which Pillow keeps the high bytes
        deep = noise(16, 4)
        np.testing.assert_array_equal(pixels(tiff(deep, 2, **form)), in_8_bits(deep[..., :3], 16))


def test_damaged_16_bit_files_are_one_clear_error():
    whole = tiff(noise(16), 2)
    assert len(whole) > 600
    cut_strip = whole.replace(struct.pack("<I", SIZE[0] * SIZE[1] * 6), struct.pack("<I", 10**6), 1)
    data = png(noise(16), 2)
    for damaged in (cut_strip[:-3], data[:1000], zlib.compress(data)):
        try:
            assert pixels(damaged).shape == (*SIZE, 3)
        except ImageError as error:
            assert "\n" not in str(error)
