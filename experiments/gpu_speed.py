"""Measure images per second, memory and agreement with the CPU's labels on a GPU, in about five minutes.

    python experiments/gpu_speed.py                       the default, ViT-S/14 and MPAE ViT-B/14, 448 pixels
    python experiments/gpu_speed.py --device cpu --quick  tiny models: shows that everything runs

The encoder's forward pass is compared with timm's of the same network, in float32 and, where the GPU multiplies
bfloat16, in bfloat16; batches lie on the device. ``discover`` takes a folder of photographs from files to labels, with
one vocabulary. The weights of ViT-S and MPAE are random.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import timm
import torch
from rows import markdown
from torch import Tensor, nn

import partzoo
from partzoo.bench.folder import SIDES
from partzoo.bench.growth import write_images
from partzoo.models.base import Encoder

HEAD = ("what", "device", "images/s", "timm, images/s", "MiB", "equal labels, %")
SIDE, BATCH, IMAGES = 448, 16, 64
TRIALS = 5


def rate(work: Callable[[], Any], images: int, device: torch.device) -> tuple[float, float]:
    """Return images per second, the median of runs after one that is not counted, and the peak memory in MiB."""
    seconds = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(TRIALS + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else float("nan")
    return images / float(np.median(seconds[1:])), memory


@torch.inference_mode()
def encoder_rows(name: str, dtypes: list[str], device: torch.device, side: int, batch: int) -> list[list[str]]:
    """Return a row for the encoder in each precision, beside timm's."""
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=0, img_size=side).eval().to(device)
    x = torch.randn(batch, 3, side, side, device=device)
    peer, _ = rate(lambda: theirs.forward_features(x), batch, device)
    rows = []
    for dtype in dtypes:
        ours = partzoo.load(f"timm/{name}", pretrained=False, device=device, dtype=dtype)
        found, memory = rate(lambda model=ours: cast(Encoder, model).encode(x), batch, device)
        rows.append([f"{name}, {dtype}", str(device), f"{found:.1f}", f"{peer:.1f}", f"{memory:.0f}", ""])
    return rows


@torch.inference_mode()
def maps_row(name: str, model: nn.Module, device: torch.device, side: int, batch: int) -> list[str]:
    """Return a row for a part model's maps at the image's size."""
    x = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    of_cpu = _labels(model.cpu(), x[:4])
    placed = model.to(device)
    found, memory = rate(lambda: _labels(placed, x.to(device)), batch, device)
    equal = 100 * (_labels(placed, x[:4].to(device)).cpu() == of_cpu).float().mean().item()
    return [f"{name}, maps", str(device), f"{found:.1f}", "", f"{memory:.0f}", f"{equal:.2f}"]


def _labels(model: Any, x: Tensor) -> Tensor:
    return model.part_maps(x, size=x.shape[2:]).argmax(1)


def discover_row(folder: Path, model: str | None, device: torch.device, images: int) -> list[str]:
    """Return a row for finding the parts of a folder of photographs with one vocabulary."""
    vocabulary = partzoo.fit_parts(folder, k=6, model=model, device="cpu")

    def labels(place: torch.device | str) -> list[np.ndarray]:
        found = partzoo.discover_parts(folder, vocabulary=vocabulary, model=model, device=place)
        return [each.labels for each in found]

    of_cpu, of_device = labels("cpu"), labels(device)
    equal = 100 * np.mean([np.mean(a == b) for a, b in zip(of_cpu, of_device, strict=True)])
    found, memory = rate(lambda: labels(device), images, device)
    name = model or "default"
    return [f"discover, {name}", str(device), f"{found:.1f}", "", f"{memory:.0f}", f"{equal:.2f}"]


@click.command()
@click.option("--device", default="cuda", show_default=True, help="Device to measure.")
@click.option("--quick", is_flag=True, help="Use tiny models and inputs, which measure nothing.")
def main(device: str, quick: bool) -> None:
    """Print the table."""
    place = torch.device(device)
    side, batch, images = (64, 2, 2) if quick else (SIDE, BATCH, IMAGES)
    encoder = "test_vit" if quick else "vit_small_patch14_dinov2"
    dtypes = ["float32"] + (["bfloat16"] if place.type == "cuda" and torch.cuda.is_bf16_supported() else [])
    part_model = "mpae-patchresnet14" if quick else "mpae-vitb14reg"
    rows = encoder_rows(encoder, dtypes, place, side, batch)
    torch.manual_seed(0)
    options = {"pretrained": False, "device": "cpu", "dtype": "float32"}
    rows.append(maps_row(part_model, partzoo.load(part_model, **options), place, side, batch))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "photographs")
        write_images(folder, images, SIDES)
        for model in ["toy-vit"] if quick else [None, "part-vitt8.tin"]:
            rows.append(discover_row(folder, model, place, images))
    click.echo(markdown(HEAD, rows))


if __name__ == "__main__":
    main()
