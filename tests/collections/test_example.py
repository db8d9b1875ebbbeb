"""``examples/large_collection.py`` on a few images, on this machine and on Ray."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import partzoo
from partzoo.collections.manifest import verify

pytest.importorskip("duckdb")
pytest.importorskip("pycocotools")

SCRIPT = Path(__file__).parents[2] / "examples" / "large_collection.py"


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_the_example_finds_neighbours_and_cuts_out_parts(engine, images, tmp_path):
    if engine == "ray":
        pytest.importorskip("ray")
    environment = os.environ | {"PYTHONPATH": str(Path(partzoo.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    words = [images, tmp_path / "out", "--class", "a/", "--model", "toy-vit", "--background", "none"]
    words += ["--run-on", engine, "--workers", "2"]
    ran = subprocess.run(
        [sys.executable, SCRIPT, *map(str, words)], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    first, *neighbours, last = ran.stdout.splitlines()
    assert first == "features of 6 images, 0 failures"
    found = {file.stem: partzoo.extract_features(file, model="toy-vit").pooled for file in images.rglob("[0-9].png")}
    unit = {name: vector / np.linalg.norm(vector) for name, vector in found.items()}
    nearest = max("12345", key=lambda name: unit["0"] @ unit[name])
    assert neighbours[0].startswith(f"a/0.png resembles {'ab'[int(nearest) % 2]}/{nearest}.png (cosine ")
    assert len(neighbours) == 5
    crops = list((tmp_path / "out" / "crops").rglob("*.png"))
    assert last == f"{len(crops)} crops of 3 images in {tmp_path / 'out' / 'crops'}" and crops
    for crop in crops:
        whole = np.asarray(Image.open(images / crop.stem.replace("-", "/")))
        pixels = np.asarray(Image.open(crop))
        windows = np.lib.stride_tricks.sliding_window_view(whole, pixels.shape)
        assert (windows == pixels).all(axis=(-3, -2, -1)).any()
    for name in ("features", "parts"):
        assert {each.state for each in verify(tmp_path / "out" / name)} == {"ok"}
