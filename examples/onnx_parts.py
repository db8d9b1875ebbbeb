"""Draw the parts of an image with ONNX Runtime, NumPy and Pillow alone, from a file written by ``partzoo export``.

python examples/onnx_parts.py parts.onnx photo.jpg parts.png
"""

import colorsys
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

file, source, out = sys.argv[1:]
session = onnxruntime.InferenceSession(file)
names = json.loads(session.get_modelmeta().custom_metadata_map["names"])  # background first

image = ImageOps.exif_transpose(Image.open(source)).convert("RGB")
pixels = np.asarray(image).transpose(2, 0, 1)[None]  # (1, 3, height, width), 0 to 255, not resized or normalized
scores, quality = session.run(["parts", "quality"], {"image": pixels})
labels = scores[0].argmax(0)

hues = [number * 0.618 % 1 for number in range(len(names))]
colours = np.array([colorsys.hsv_to_rgb(hue, 0.8, 0.9) for hue in hues])
blended = 0.4 * np.asarray(image) + 0.6 * 255 * np.where(labels[..., None] > 0, colours[labels], 0)
Image.fromarray(blended.astype(np.uint8)).save(out)

for number, name in enumerate(names):
    print(f"{name}: {(labels == number).mean():.1%} of the image")
print(f"certainty: {quality[0]:.2f}. Written: {out}")
