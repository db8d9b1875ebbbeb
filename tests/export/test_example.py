"""The example that runs an exported file needs neither torch nor partzoo."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import partzoo
from partzoo.export.export import export_model

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[2]
ALONE = """
import runpy, sys
sys.modules["torch"] = sys.modules["partzoo"] = None  # importing either is an error
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0])
"""


def test_the_example_draws_the_parts_without_torch(tmp_path):
    torch.manual_seed(0)
    model = partzoo.load(
        "mpae-patchresnet14", pretrained=False, device="cpu", dtype="float32", encoder="toy-vit", size=32, parts=3,
        width=16, depth=1, heads=2,
    )  # fmt: skip
    with torch.no_grad():
        model.extractor.proj.weight.mul_(8)
    file = export_model(model, tmp_path / "parts.onnx")
    photograph = ROOT / "examples" / "images" / "ibis.jpg"
    arguments = [ROOT / "examples" / "onnx_parts.py", file, photograph, tmp_path / "parts.png"]
    ran = subprocess.run([sys.executable, "-c", ALONE, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    parts = partzoo.discover_parts(photograph, model=model)
    with Image.open(tmp_path / "parts.png") as drawn:
        assert drawn.size == parts.size[::-1] and len(np.unique(np.asarray(drawn))) > 50
    for number, name in enumerate(("background", *parts.names)):
        line = next(line for line in ran.stdout.splitlines() if line.startswith(f"{name}: "))
        share = float(line.removeprefix(f"{name}: ").partition("%")[0])
        assert abs(share - 100 * (parts.labels == number).mean()) < 0.2
