"""Files that Pillow cannot write: TIFF of any layout, PNG with 16-bit colours."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np


def tiff(
    values: np.ndarray,
    photometric: int,
    *,
    extra: Sequence[int] | None = None,
    order: str = "<",
    planar: bool = False,
    deflate: bool = False,
    strips: int = 1,
    orientation: int | None = None,
    kind: int = 1,
    bits: int | None = None,
    width: int | None = None,
) -> bytes:
    """A TIFF file.

    Args:
        values: ``(H, W)`` or ``(H, W, C)``.
        photometric: 0 zero is white, 1 grey, 2 RGB, 5 CMYK.
        extra: what the bands beyond these are; None leaves the tag out.
        order: ``"<"`` little-endian, ``">"`` big-endian.
        planar: each band by itself.
        deflate: compress.
        strips: number of strips of each plane.
        orientation: EXIF orientation.
        kind: 1 unsigned integers, 3 floats.
        bits: per sample, and
        width: in pixels, where ``values`` are packed bytes.
    """
    values = values[..., None] if values.ndim == 2 else values
    height, columns, count = values.shape
    planes = np.moveaxis(values, 2, 0)[..., None] if planar else [values]
    rows = -(-height // strips)
    parts = [plane[y : y + rows] for plane in planes for y in range(0, height, rows)]
    chunks = [part.astype(values.dtype.newbyteorder(order)).tobytes() for part in parts]
    chunks = [zlib.compress(chunk) if deflate else chunk for chunk in chunks]
    offsets = [8 + sum(map(len, chunks[:i])) for i in range(len(chunks))]
    short, long = "H", "I"
    tags = {
        256: (long, [width or columns]),
        257: (long, [height]),
        258: (short, [bits or values.dtype.itemsize * 8] * count),
        259: (short, [8 if deflate else 1]),
        262: (short, [photometric]),
        273: (long, offsets),
        274: (short, [orientation or 1]),
        277: (short, [count]),
        278: (long, [rows]),
        279: (long, [len(chunk) for chunk in chunks]),
        284: (short, [2 if planar else 1]),
        338: (short, extra),
        339: (short, [kind] * count),
    }
    tags = {tag: content for tag, content in tags.items() if content[1] is not None}
    body = b"".join(chunks)
    body += b"\0" * (len(body) % 2)
    start = 8 + len(body)
    after, fields, more = start + 2 + 12 * len(tags) + 4, b"", b""
    for tag, (form, content) in tags.items():
        packed = struct.pack(f"{order}{len(content)}{form}", *content)
        fields += struct.pack(f"{order}HHI", tag, {short: 3, long: 4}[form], len(content))
        if len(packed) > 4:
            fields += struct.pack(f"{order}I", after + len(more))
            more += packed + b"\0" * (len(packed) % 2)
        else:
            fields += packed.ljust(4, b"\0")
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, start)
    return head + body + struct.pack(f"{order}H", len(tags)) + fields + bytes(4) + more


def png(values: np.ndarray, kind: int, transparent: Sequence[int] | None = None) -> bytes:
    """A PNG file of 16 bits.

    Args:
        values: ``(H, W)`` or ``(H, W, C)`` uint16.
        kind: 0 grey, 2 RGB, 4 grey and alpha, 6 RGB and alpha.
        transparent: colour that counts as transparent.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    key = b"" if transparent is None else chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
