"""Convert values of up to 16 bits to 8 bits.

A 16-bit file, array or tensor often holds data of 10, 12 or 14 bits. One rule applies to all: the range is the smallest
of 8, 10, 12, 14 and 16 bits that holds the largest value. It can be wrong for a dark image, so a warning states it.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
from typing import Literal

import numpy as np
from PIL import Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

BITS = (8, 10, 12, 14, 16)
BITS_PER_SAMPLE, PHOTOMETRIC, PLANES, EXTRA_SAMPLES = 258, 262, 284, 338  # TIFF tags
Order = Literal["B", "L"]


def to_8_bits(values: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Scale uint16 values to uint8, rounded.

    Args:
        values: uint16 values of any shape.
        bits: depth of the data, if known; by default the smallest of :data:`BITS` that holds the maximum,
            which a warning states if it is below 16.
    """
    top = int(values.max())
    if bits is None:
        bits = next(each for each in BITS if top < 2**each) if top else 16
        if bits < 16:
            _warn_of_range(bits)
    full = 2**bits - 1
    return ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)


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
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
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

    They are read twice from the file, in both byte orders: one yields the high bytes, the other one the low bytes.

    Args:
        image: opened image. If it is a TIFF that is decoded already, a warning states that the low bytes are lost.

    Returns:
        ``(H, W, 3)`` or ``(H, W, 4)``, alpha last, upright; uint16, or uint8 if the colours are CMYK or multiplied
        by alpha. None for other images, which Pillow decodes without loss.
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
    image.fp.seek(0)
    data = image.fp.read()
    image.fp.seek(position)
    if _arguments(image)[0] == "LA;16B":
        both, key = _decoded(data, image, None)
        values = np.ascontiguousarray(both).view(">u2")[..., [0, 0, 0, 1]]
    else:
        high, key = _decoded(data, image, order)
        low, _ = _decoded(data, image, "L" if order == "B" else "B")
        values = high.astype(np.uint16) << 8 | low
    if lacks_alpha(image):
        return values[..., :3]
    if _arguments(image)[0].startswith("RGBa"):
        return np.asarray(Image.fromarray(to_8_bits(values), "RGBa").convert("RGBA"))
    if image.mode == "CMYK":
        return np.asarray(Image.fromarray(to_8_bits(values), "CMYK").convert("RGB"))
    if isinstance(key, tuple):  # the colour that a PNG declares as transparent
        return np.dstack([values, np.where((values == key).all(2), 0, 65535).astype(np.uint16)])
    return values


def _decoded(data: bytes, image: Image.Image, order: Order | None) -> tuple[np.ndarray, object]:
    """Decode one byte of each value, or both if ``order`` is None; return them with the colour declared transparent."""
    with Image.open(io.BytesIO(data), formats=[image.format or ""]) as twin:
        if image.tell():
            twin.seek(image.tell())
        twin.tile = [_read_as(tile, order) for tile in twin.tile]
        twin.load()
        return np.asarray(upright(twin)), twin.info.get("transparency")


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


def upright(image: Image.Image) -> Image.Image:
    """Apply an image's EXIF orientation; images with a damaged EXIF block are returned unchanged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged blocks can raise errors of any type
        return image


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
