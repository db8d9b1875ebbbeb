"""Convert values of up to 16 bits to 8 bits.

A 16-bit file, array or tensor often holds data of 10, 12 or 14 bits. One rule applies to all: the range is the smallest
of 8, 10, 12, 14 and 16 bits that holds the largest value. It can be wrong for a dark image, so a warning states it.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from partzoo.images.strips import empty, orientation_of, strips_of

BITS = (8, 10, 12, 14, 16)
BITS_PER_SAMPLE, PHOTOMETRIC, PLANES, EXTRA_SAMPLES = 258, 262, 284, 338  # TIFF tags
TIFF = {b"II*\0": "<", b"MM\0*": ">"}  # byte order, by the first bytes of the file
Order = Literal["B", "L"]


def to_8_bits(values: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Scale uint16 values to uint8, rounded.

    Args:
        values: uint16 values of any shape.
        bits: depth of the data, if known; by default the smallest of :data:`BITS` that holds the maximum,
            which a warning states if it is below 16.
    """
    full = 2 ** (bits or bits_for(int(values.max()))) - 1
    return ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)


def bits_for(top: int) -> int:
    """Return the smallest of :data:`BITS` that holds a maximum, which a warning states if it is below 16."""
    bits = next(each for each in BITS if top < 2**each) if top else 16
    if bits < 16:
        _warn_of_range(bits)
    return bits


def known_bits(image: Image.Image) -> int | None:
    """Return the bit depth of the grey values if the file states it, otherwise None; must be called before decoding."""
    if isinstance(image, TiffImageFile) and image.tag_v2.get(BITS_PER_SAMPLE) == (12,):
        return 12
    if image.format == "PPM" and _codec(image) in ("ppm", "ppm_plain"):
        return 16  # Pillow scales the values so that the largest one stated in the header becomes that of 16 bits
    return None


def is_white_zero(image: Image.Image) -> bool:
    """Return whether an image is a TIFF with white as zero that Pillow does not invert (16 bits or floats)."""
    if not isinstance(image, TiffImageFile) or image.mode not in ("I;16", "I;16B", "F"):
        return False
    return image.tag_v2.get(PHOTOMETRIC, 0) == 0


def with_black_zero(data: bytes) -> bytes | None:
    """Return a TIFF file with white as zero, rewritten to declare zero as black; None for all other files.

    It is needed for files that Pillow cannot open otherwise: big-endian ones of 16 bits, and those of 12 bits.
    """
    order = TIFF.get(data[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}HHIH", data, place) == (PHOTOMETRIC, 3, 1, 0):
                return data[: place + 8] + struct.pack(f"{order}H", 1) + data[place + 10 :]
    except struct.error:  # truncated file
        return None
    return None


def lacks_alpha(image: Image.Image) -> bool:
    """Return whether an image is a TIFF of four bands with an undeclared fourth band, which Pillow takes for alpha."""
    return isinstance(image, TiffImageFile) and image.mode == "RGBA" and not image.tag_v2.get(EXTRA_SAMPLES)


def leave_fourth_band(image: Image.Image) -> None:
    """Decode only three of four compressed planes: Pillow would divide the colours by the fourth as if by alpha."""
    if isinstance(image, TiffImageFile) and _codec(image) == "libtiff" and image.tag_v2.get(PLANES) == 2:
        image._mode = "RGB"
        image.tile = [tile._replace(args=("RGB", *_arguments(image)[1:])) for tile in image.tile]


def colours_of_16_bits(image: Image.Image) -> np.ndarray | None:
    """Read all bits of 16-bit colours, of which Pillow keeps only the high byte.

    They are read twice from the file, in both byte orders: one yields the high bytes, the other one the low bytes. The
    8 bits that come of both are written in the place of the high bytes.

    Args:
        image: opened image. If it is a TIFF that is decoded already, a warning states that the low bytes are lost.

    Returns:
        ``(H, W, 3)`` or ``(H, W, 4)`` uint8, alpha last, upright. None for other images, which Pillow decodes without
        loss.
    """
    order = _byte_order(image)
    if order is None or not isinstance(image, ImageFile.ImageFile):
        return None
    if not image.tile or image.fp is None:
        _warn_of_loss("pass the file itself")
        return None
    if isinstance(image, TiffImageFile) and _codec(image) == "libtiff" and image.tag_v2.get(PLANES) == 2:
        _warn_of_loss("save the TIFF with interleaved colours")  # this decoder ignores the requested byte order
        return None
    position = image.fp.tell()
    try:
        if _arguments(image)[0] == "LA;16B":
            return _grey_with_alpha(_decoded(image, None))
        upright, stored, key = _high_bytes(_decoded(image, order))
        low = _decoded(image, "L" if order == "B" else "B")
    finally:
        image.fp.seek(position)

    def both() -> Iterator[tuple[slice, np.ndarray]]:
        for rows, strip in strips_of(low):
            low_bytes = np.asarray(strip)
            yield rows, stored[rows, :, : low_bytes.shape[2]].astype(np.uint16) << 8 | low_bytes

    if image.mode == "CMYK" or _arguments(image)[0].startswith("RGBa"):  # bands that are mixed have one range
        bits = bits_for(max(int(values.max()) for _, values in both()))
        mode, final = ("CMYK", "RGB") if image.mode == "CMYK" else ("RGBa", "RGBA")
        for rows, values in both():
            strip = np.asarray(Image.fromarray(to_8_bits(values, bits), mode).convert(final))
            stored[rows, :, : strip.shape[2]] = strip
        return upright if final == "RGBA" else upright[..., :3].copy()
    opaque = lacks_alpha(image) or low.mode == "RGB"
    tops = np.max([values.max((0, 1)) for _, values in both()], axis=0)
    bits = bits_for(int(tops[:3].max()))
    bits_of_alpha = 16 if opaque else bits_for(int(tops[3]))
    for rows, values in both():
        stored[rows, :, :3] = to_8_bits(values[..., :3], bits)
        if key is not None:
            stored[rows, :, 3] = np.where((values == key).all(2), 0, 255)
        elif not opaque:
            stored[rows, :, 3] = to_8_bits(values[..., 3], bits_of_alpha)
    return upright[..., :3].copy() if lacks_alpha(image) else upright


def _grey_with_alpha(both: Image.Image) -> np.ndarray:
    """Return ``(H, W, 4)`` uint8 from the four bytes of each pixel, high bytes first, of grey and alpha."""

    def deep() -> Iterator[tuple[slice, np.ndarray]]:
        for rows, strip in strips_of(both):
            yield rows, np.asarray(strip).view(">u2")

    bits = [bits_for(int(top)) for top in np.max([values.max((0, 1)) for _, values in deep()], axis=0)]
    upright, stored = empty(both.height, both.width, 4, orientation_of(both))
    for rows, values in deep():
        stored[rows, :, :3] = to_8_bits(values[..., :1], bits[0])
        stored[rows, :, 3] = to_8_bits(values[..., 1], bits[1])
    return upright


def _high_bytes(high: Image.Image) -> tuple[np.ndarray, np.ndarray, tuple[int, ...] | None]:
    """Return the high bytes upright, a view of them as they are stored, and the colour declared transparent or None.

    If a colour is declared transparent, there is a fourth band without content, for alpha.
    """
    key = high.info.get("transparency")
    key = key if isinstance(key, tuple) else None  # the colour that a PNG declares as transparent
    bands = len(high.getbands())
    upright, stored = empty(high.height, high.width, 4 if key else bands, orientation_of(high))
    for rows, strip in strips_of(high):
        stored[rows, :, :bands] = np.asarray(strip)
    return upright, stored, key


def _decoded(image: ImageFile.ImageFile, order: Order | None) -> Image.Image:
    """Decode one byte of each value, or both if ``order`` is None."""
    assert image.fp is not None
    image.fp.seek(0)
    # The decoder of libtiff reads a file past Python's buffer, whose position would no longer be known.
    stream = io.BytesIO(image.fp.read()) if _codec(image) == "libtiff" else image.fp
    with Image.open(stream, formats=[image.format or ""]) as twin:
        if image.tell():
            twin.seek(image.tell())
        twin.tile = [_read_as(tile, order) for tile in twin.tile]
        twin.load()
        return twin


def _read_as(tile: ImageFile._Tile, order: Order | None) -> ImageFile._Tile:
    mode, *rest = (tile.args,) if isinstance(tile.args, str) else tile.args or ()
    if tile.codec_name == "ppm":
        return tile._replace(codec_name="raw", args=(f"RGB;16{order}", 0, 1))
    # "a" marks colours multiplied by alpha, which Pillow would divide again, byte by byte.
    raw_mode = "RGBA" if order is None else f"{str(mode).partition(';')[0].replace('a', 'A')};16{order}"
    return tile._replace(args=(raw_mode, *rest) if rest else raw_mode)


def _byte_order(image: Image.Image) -> Order | None:
    """Return the byte order of 16-bit colours as the decoder receives them, or None for all other images."""
    if isinstance(image, TiffImageFile):
        if image.mode not in ("RGB", "RGBA", "CMYK") or 16 not in image.tag_v2.get(BITS_PER_SAMPLE, ()):
            return None
        if _codec(image) == "libtiff":
            return "L" if sys.byteorder == "little" else "B"
        return "L" if image.tag_v2.prefix == b"II" else "B"
    of_png = image.format == "PNG" and image.mode != "I;16" and _arguments(image)[0].endswith(";16B")
    of_ppm = image.format == "PPM" and image.mode == "RGB" and _codec(image) == "ppm" and _arguments(image)[1] == 65535
    return "B" if of_png or of_ppm else None


def _codec(image: Image.Image) -> str:
    """Return the name of Pillow's decoder, or an empty string once the image is decoded."""
    return image.tile[0].codec_name if isinstance(image, ImageFile.ImageFile) and image.tile else ""


def _arguments(image: Image.Image) -> tuple:
    """Return the arguments of Pillow's decoder, the raw mode first; empty once the image is decoded."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return ("",)
    args = image.tile[0].args
    return (args,) if isinstance(args, str) else tuple(args or ("",))


def _warn_of_range(bits: int) -> None:
    # The message omits the image's name, so that Python shows it once for any number of images.
    warnings.warn(
        f"A 16-bit image without a value above {2**bits - 1} is read as {bits}-bit data, 0..{2**bits - 1}: "
        "if it is a dark image of a larger range, convert it to 8 bits first.",
        stacklevel=3,
    )


def _warn_of_loss(fix: str) -> None:
    warnings.warn(f"Pillow kept only the high bytes of 16-bit colours: {fix}.", stacklevel=4)
