"""Memory that it takes to open an image, as a multiple of its pixels, measured in a separate process."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.image_files import png, tiff
from PIL import Image, features

import partzoo

SIDE = 2400
SCRIPT = """
import io, json, sys, warnings
from pathlib import Path
import numpy as np
from PIL import Image
from partzoo.images.opening import open_image
warnings.simplefilter("ignore")
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
def times(source):
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    pixels = open_image(source).pixels
    assert pixels.flags.owndata and pixels.flags.c_contiguous
    return (status("VmHWM") - before) / pixels.nbytes
found = {}
for file in sorted(Path(sys.argv[1]).iterdir()):
    small = file.read_bytes()
    open_image(Image.open(io.BytesIO(small)).resize((9, 9)))  # loads the libraries
    times(file)
    found[file.name] = times(file)
small = (Path(sys.argv[1]) / "rgb.bmp").read_bytes()
found["bytes"], found["stream"] = times(small), times(io.BytesIO(small))
found["grey"] = times(np.zeros((2400, 2400), np.uint8))
found["float"], found["double"] = times(np.zeros((2400, 2400, 3), np.float32)), times(np.zeros((2400, 2400, 3)))
found["deep"] = times(np.zeros((2400, 2400, 4), np.uint16))
print(json.dumps(found))
"""
# What the decoders themselves take, see docs/strangers.md: they hold coefficients, planes or canvases of their own.
MORE = {"16rgba.png": 2.9, "progressive444.jpg": 3.5, "turned.tif": 2.8, "rgb.webp": 5.5, "rgb.avif": 4, "rgb.jp2": 7}


def adam7(rgb):
    """The rows of an interlaced PNG, pass by pass."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = (row for x, y, right, down in passes for row in rgb[y::down, x::right])
    return b"".join(b"\0" + row.tobytes() for row in rows)


def draw(folder):
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.uint16)
    rgb = np.dstack([x // 8 % 256, y // 8 % 256, (x + y) // 16 % 256]).astype(np.uint8)
    image = Image.fromarray(rgb)
    transparent = image.copy()
    transparent.putalpha(Image.fromarray((x // 16 % 256).astype(np.uint8)))
    palette = image.quantize(64)
    turned = Image.Exif()
    turned[274] = 6

    def save(name, each, **options):
        each.save(folder / name, compress_level=1, **options)

    save("rgb.png", image)
    save("turned.png", image, exif=turned)
    save("rgba.png", transparent)
    save("palette.png", palette, transparency=3)
    save("grey.png", image.convert("L"))
    save("grey-alpha.png", transparent.convert("LA"))
    save("rgb.jpg", image)
    save("cmyk.jpg", image.convert("CMYK"))
    save("progressive.jpg", image, progressive=True)
    save("progressive444.jpg", image, progressive=True, subsampling=0)
    for orientation in range(2, 9):
        turned[274] = orientation
        save(f"turned{orientation}.jpg", image, exif=turned)
    save("rgb.bmp", image)
    save("rgb.tif", image)
    save("lzw.tif", transparent, compression="tiff_lzw")
    save("frames.gif", palette, save_all=True, append_images=[palette.rotate(90)])
    save("rgb.webp", image, method=0)
    if features.check("avif"):
        save("rgb.avif", image, speed=10)
    if features.check("jpg_2000"):
        save("rgb.jp2", image)
    deep = rgb.astype(np.uint16) * 257
    with_alpha = np.dstack([deep, x * 16])
    files = {"16rgb.png": png(deep, 2), "16rgba.png": png(with_alpha, 6), "16grey.png": png(deep[..., 0], 0)}
    files |= {
        "16rgb.tif": tiff(deep, 2),
        "turned.tif": tiff(rgb, 2, orientation=6),
        "16grey.tif": tiff(deep[..., 0], 1),
    }
    files["float.tif"] = tiff((rgb[..., 0] / 255).astype(np.float32), 1, kind=3)
    plain = png(deep, 2)
    whole = plain.index(b"IDAT")
    head = bytearray(plain[: whole - 4])
    head[24], head[28] = 8, 1
    head[29:33] = zlib.crc32(head[12:29]).to_bytes(4, "big")
    body = b"IDAT" + zlib.compress(adam7(rgb), 1)
    files["interlaced.png"] = (
        bytes(head) + (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big") + plain[-12:]
    )
    for name, data in files.items():
        (folder / name).write_bytes(data)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc to read a process's peak")
def test_an_image_takes_two_and_a_half_times_its_pixels(tmp_path):
    draw(tmp_path)
    # glibc would keep freed memory of one image for the next, which then seems to take none.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": str(Path(partzoo.__file__).parents[1])}
    ran = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert min(found.values()) > 0.9
    assert {name: times for name, times in found.items() if times > MORE.get(name, 2.5)} == {}
