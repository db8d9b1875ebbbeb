"""Encoded images of random pixels, and tars of them."""

import io
import tarfile

import numpy as np
from PIL import Image


def encoded(seed, size=(24, 32), mode="RGB"):
    """Return a PNG of random pixels, in colour or grey (mode ``L``)."""
    shape = (*size, 3) if mode == "RGB" else size
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write_tar(file, members):
    """Write a tar of these names and contents."""
    with tarfile.open(file, "w") as tar:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
