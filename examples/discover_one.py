"""Find the parts of one photograph: python examples/discover_one.py [IMAGE]"""

import sys
from pathlib import Path

import partzoo

image = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "images" / "cat.jpg"

parts = partzoo.discover_parts(image, k=6)
for number in parts.present:
    x, y = parts.centroids[number - 1]
    print(f"part {number}: {parts.areas[number - 1]} pixels around ({x:.0f}, {y:.0f})")

parts.overlay(scale=2).save("parts.png")
print("Written: parts.png")
