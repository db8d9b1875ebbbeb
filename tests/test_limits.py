"""Environment variables set the limits of a server."""

import io
import os
import subprocess
import sys

import pytest
from PIL import Image

from partzoo.errors import ImageError, UsageError
from partzoo.images.opening import open_image
from partzoo.limits import MAX_PARTS, MAX_SIZE, check_parts, check_size

SHOW = "import partzoo.limits as limits; print(limits.MAX_PIXELS, limits.MAX_BYTES)"


def python(*command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_pixels_and_bytes_come_from_the_environment():
    assert python("-c", SHOW, PARTZOO_MAX_PIXELS="1000", PARTZOO_MAX_BYTES="").stdout == "1000 536870912\n"
    assert python("-c", SHOW, PARTZOO_MAX_BYTES="77").stdout == "178956970 77\n"


@pytest.mark.parametrize("value", ["many", "0", "-1", "1e6", "9" * 30, "\u0663"])
def test_a_limit_that_is_no_number_ends_every_command_with_one_sentence(value):
    ran = python("-m", "partzoo", "list", PARTZOO_MAX_PIXELS=value, PYTHONIOENCODING="utf-8")
    assert ran.returncode == 2
    assert ran.stderr.startswith("Error: The environment variable PARTZOO_MAX_PIXELS is ")
    assert ran.stderr.count("\n") == 1


def encoded(form: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, form)
    return data.getvalue()


def test_formats_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("PARTZOO_FORMATS", "png, jpeg")
    assert open_image(encoded("PNG")).size == (8, 8) and open_image(encoded("JPEG")).size == (8, 8)
    for form in ("GIF", "BMP", "TIFF"):
        with pytest.raises(ImageError, match="PARTZOO_FORMATS allows only jpeg, png"):
            open_image(encoded(form))


def test_eps_is_never_read(monkeypatch):
    monkeypatch.setenv("PARTZOO_FORMATS", "eps")
    with pytest.raises(ImageError, match="is not an image that Pillow can read"):
        open_image(encoded("EPS"))


def test_sizes_and_parts_at_their_limits():
    check_size(1), check_size(MAX_SIZE), check_parts("auto"), check_parts(MAX_PARTS)
    for check, value in ((check_size, 0), (check_size, MAX_SIZE + 1), (check_parts, MAX_PARTS + 1)):
        with pytest.raises(UsageError, match=f"={value} "):
            check(value)
