"""Teach an encoder what a thing is, from pictures without labels or masks.

    python -m partzoo.train.objectness patchresnet14.tin PICTURES -o RUN

The teacher is the classical boundary prior, picture by picture, weighted by how sure it is; the pupil,
:class:`partzoo.models.objectness.Objectness`, sees all pictures together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits
from tqdm import tqdm

from partzoo.discovery.describe import CELL, at_work, cielab, cropped, within_frame
from partzoo.discovery.foreground import boundary_prior, otsu, superpixels
from partzoo.discovery.refine import resize
from partzoo.image import Picture, open_pictures
from partzoo.loading import build, load
from partzoo.models.objectness import PatchResNetFg
from partzoo.registry import find
from partzoo.weights import write_weights

SIZE = 256
CELLS = 400  # drawn from each picture
BATCH, RATE, DECAY = 4096, 3e-3, 0.05


def lesson(picture: Picture, model: PatchResNetFg, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Evidence ``(n, inputs)`` of cells of a picture, what the teacher says of them ``(n,)``, and how sure it is."""
    pixels, batch = at_work(picture, model, SIZE)
    inside = within_frame(pixels, model.preprocess.multiple)
    maps = [layer[0].float() for layer in model.forward_intermediates(batch)]
    lab = cielab(avg_pool2d(pixels, CELL))
    rows, columns = (slice(s.start // CELL, s.stop // CELL) for s in inside)
    regions = superpixels(lab[:, rows, columns].permute(1, 2, 0).numpy())
    score, sure = boundary_prior(regions)
    score = score[regions.labels]
    maps, colours = cropped(maps, lab, inside, pixels.shape[1:])
    truth = resize(torch.from_numpy(score)[None], maps[-1].shape[1:]).flatten() > otsu(score)
    evidence = model.objectness.evidence(maps, colours)
    drawn = torch.randperm(len(truth), generator=generator)[:CELLS]
    return evidence[drawn].half(), truth[drawn], sure


def teach(
    model: PatchResNetFg, pictures: Any, *, steps: int = 1500, seed: int = 0, progress: Callable = tqdm
) -> float:
    """Fit a model's objectness, in place; its features stay as they are.

    Args:
        model: with a trained encoder.
        pictures: what :func:`partzoo.image.open_pictures` takes; some hundreds or more, one thing in most.
        steps: of 4096 cells.
        seed: of the head's weights and of what is drawn.
        progress: wraps the pictures.

    Returns:
        The loss at the end, mean binary cross-entropy against the teacher.
    """
    generator = torch.Generator().manual_seed(seed)
    pictures, _ = open_pictures(pictures)
    with torch.inference_mode():
        lessons = [lesson(picture, model, generator) for picture in progress(pictures)]
    evidence = torch.cat([each for each, _, _ in lessons]).clone()
    truth = torch.cat([each for _, each, _ in lessons]).float()
    weights = torch.cat([torch.full((len(t),), sure**2 / len(t)) for _, t, sure in lessons])
    weights /= weights.mean()
    head = model.objectness
    sample = evidence[torch.randperm(len(evidence), generator=generator)[:100_000]].float()
    head.mean.copy_(sample.mean(0))
    head.scale.copy_(1 / sample.std(0).clamp(min=1e-3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in head.layers:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    head.requires_grad_(True)
    optimizer = torch.optim.AdamW(head.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    losses = []
    for _ in range(steps):
        drawn = torch.randint(len(evidence), (BATCH,), generator=generator)
        logits = head.layers((evidence[drawn].float() - head.mean) * head.scale)[:, 0]
        loss = binary_cross_entropy_with_logits(logits, truth[drawn], weights[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    head.requires_grad_(False)
    return float(np.mean(losses[-100:]))


def with_objectness(encoder: nn.Module, hidden: int = 32) -> PatchResNetFg:
    """The encoder, with an untaught head beside it."""
    entry = find(f"{encoder.architecture}-fg")
    model = build(entry, dataclasses.replace(entry.config, **dataclasses.asdict(encoder.config), hidden=hidden))
    missing, unexpected = model.load_state_dict(encoder.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("objectness.") for name in missing)
    return model.eval().requires_grad_(False)


@click.command(help=__doc__.partition("\n")[0])
@click.argument("encoder")
@click.argument("pictures")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder for model.safetensors.")
@click.option("--steps", default=1500, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(encoder: str, pictures: str, out: Path, steps: int, seed: int) -> None:
    model = with_objectness(load(encoder, device="cpu", dtype="float32"))
    loss = teach(model, pictures, steps=steps, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    write_weights(out / "model.safetensors", model.state_dict(), model.architecture, model.config)
    click.echo(f"{out / 'model.safetensors'}: loss {loss:.3f}")


if __name__ == "__main__":
    main()
