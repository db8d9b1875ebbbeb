#!/usr/bin/env bash
# Pillow 13.0.0, with Python 3.11 on Linux: a TIFF of grey and alpha whose ExtraSamples tag states that grey is
# multiplied by alpha (1, associated alpha) opens in mode La. That image converts to LA alone: to L, RGB and RGBA,
# convert() raises a ValueError that speaks of L, whichever mode was asked for, although has_transparency_data is True.
# The same file with three equal colours opens in mode RGBA, already divided by alpha, and converts to all of them.
# One would expect both to open alike, and what opens to convert to L and RGB.
# Observed:
#   La True
#   L: conversion from La to L not supported
#   LA: [[198, 100]]
#   RGB: conversion from La to L not supported
#   RGBA: conversion from La to L not supported
#   RGBA [[198, 198, 198, 100]] L ok LA ok RGB ok
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6 tifffile==2026.3.3
cd "$place"
cat >seen.py <<'END'
import numpy as np
import tifffile
from PIL import Image

GREY, ALPHA = 78, 100  # 78 * 255 / 100 = 198.9
for bands, photometric in ((1, "minisblack"), (3, "rgb")):
    pixels = np.array([[[GREY] * bands + [ALPHA]]], np.uint8)
    tifffile.imwrite("a.tif", pixels, photometric=photometric, extrasamples=["assocalpha"], planarconfig="contig")
    with Image.open("a.tif") as image:
        if bands == 1:
            print(image.mode, image.has_transparency_data)
            for mode in ("L", "LA", "RGB", "RGBA"):
                try:
                    print(f"{mode}:", np.asarray(image.convert(mode))[0].tolist())
                except ValueError as error:
                    print(f"{mode}: {error}")
        else:
            print(image.mode, np.asarray(image)[0].tolist(), *(f"{m} ok" for m in ("L", "LA", "RGB") if image.convert(m)))
END
seen=$(venv/bin/python seen.py)
expected=$(cat <<'END'
La True
L: conversion from La to L not supported
LA: [[198, 100]]
RGB: conversion from La to L not supported
RGBA: conversion from La to L not supported
RGBA [[198, 198, 198, 100]] L ok LA ok RGB ok
END
)
if [ "$seen" != "$expected" ]; then
    echo "It has changed: $seen"
    exit 1
fi
