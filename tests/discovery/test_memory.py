"""Large photographs: memory grows with the image alone, as measured in a separate process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.versions import TORCH

import partzoo

SCRIPT = """
from pathlib import Path
import numpy as np, torch, partzoo
torch.set_num_threads(1)
def status(key):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(key))
def added(call):
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    found = call()
    return found, status("VmHWM") - before
y, x = np.mgrid[:3000, :4000]
image = np.stack([x % 256, y % 256, 255 * ((x - 2000) ** 2 + (y - 1500) ** 2 < 1000**2)], -1).astype(np.uint8)
del x, y
model = partzoo.load("toy-vit", device="cpu")
partzoo.discover_parts(image[::20, ::20].copy(), 3, model=model)
parts, labels = added(lambda: partzoo.discover_parts(image, 12, model=model))
scores, more = added(lambda: parts.scores)
del scores, parts._scores
drawn, drawing = added(lambda: (parts.boxes, parts.centroids, parts.overlay(numbers=False)))
print(labels / (image.nbytes / 2**20), more / (12_000_000 * 13 * 4 / 2**20), drawing / (image.nbytes / 2**20))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc to read a process's peak")
def test_labels_take_three_times_the_image_scores_twice_their_own_size_and_drawings_twice_the_image():
    environment = os.environ | {"PYTHONPATH": str(Path(partzoo.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    labels, scores, drawings = map(float, ran.stdout.split())
    assert labels < (3 if TORCH >= (2, 9) else 3.5) and scores < 2 and drawings < 2.2
