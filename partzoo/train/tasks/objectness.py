"""Train an objectness head on a trained encoder, with images that have neither labels nor masks.

The teacher is the classical boundary prior of each image, weighted by its confidence; the student,
:class:`partzoo.models.objectness.Objectness`, sees all images together. In a second round a new student learns from the
first, whose predictions are refined along the images' edges.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits
from tqdm import tqdm

from partzoo.data.folders import image_files
from partzoo.data.image_sets import ImageSet, at_most
from partzoo.discovery.colours import cielab
from partzoo.discovery.foreground import boundary_prior, object_scores, smoothed_objectness, superpixels
from partzoo.discovery.frames import cropped, within_frame
from partzoo.discovery.refine import resize
from partzoo.discovery.views import CELL, view_image
from partzoo.errors import UsageError
from partzoo.files import expand_user
from partzoo.images.finding import relative
from partzoo.images.opening import OpenedImage, open_images
from partzoo.locks import locked
from partzoo.models.base import Model
from partzoo.models.loading import build, load
from partzoo.models.objectness import Objectness, PatchResNetFg, PatchResNetFgConfig
from partzoo.models.registry import Architecture, find
from partzoo.system.device import Device, device_of
from partzoo.train.loop import MODEL, NO_SHARDS, LoopOptions, Progress, run_folder
from partzoo.train.processes import processes
from partzoo.train.recipe import DataRecord
from partzoo.train.tasks.base import Task
from partzoo.weights.tensors import write_weights

SIZE = 224  # longer side of an image at working size, in pixels
CELLS = 400  # number of cells drawn from each image
CERTAIN = 0.9  # share of Otsu's threshold above which the teacher sees an object


@dataclass(frozen=True)
class ObjectnessOptions(DataRecord):
    """The images that an objectness head is trained on.

    Attributes:
        exclude: names of subfolders to leave out.
        limit: use at most this many images, evenly spaced.
    """

    exclude: tuple[str, ...] = ()
    limit: int | None = None


class ObjectnessTask(Task):
    """A task that trains an objectness head on a trained encoder, with :func:`teach` instead of the common loop.

    Args:
        model: encoder with a head.
        rounds: number of rounds of teaching; see :func:`teach`.
    """

    METHOD = "objectness"
    TITLE = "objectness head"
    RECIPE = "patchresnet14-fg.caltech101"
    CONFIG = PatchResNetFgConfig
    DATA = ObjectnessOptions
    START = "model"
    model: PatchResNetFg

    def __init__(self, model: PatchResNetFg, *, rounds: int = 2) -> None:
        super().__init__()
        self.model, self.rounds = model, rounds

    @classmethod
    def inherit(cls, parent: str) -> tuple[str, dict[str, Any]]:
        encoder = load(parent, device="cpu", dtype="float32")
        return f"{encoder.architecture}-fg", dataclasses.asdict(encoder.config)

    @staticmethod
    def read(folder: str | Path, options: ObjectnessOptions, config: PatchResNetFgConfig, seed: int) -> ImageSet:
        """Read all images of a folder and its subfolders; none is held out, as nothing is measured on them."""
        folder = expand_user(folder)
        files = [file for file in image_files(folder) if not set(relative(file, folder).parts) & set(options.exclude)]
        images = ImageSet(files, config.size, None, [])
        return images if options.limit is None else at_most(images, options.limit)

    @classmethod
    def start(cls, entry: Architecture, config: PatchResNetFgConfig, parent: str | None) -> PatchResNetFg:
        """Return the parent with an untrained objectness head.

        Raises:
            UsageError: there is no parent, or the configuration differs from the parent's.
        """
        if parent is None:
            raise UsageError("'objectness' needs a trained encoder. Name one with model=.")
        model = with_objectness(load(parent, device="cpu", dtype="float32"), config.hidden)
        if model.config != config:
            raise UsageError(f"The configuration of the encoder {parent} is fixed. Only config.hidden can be set.")
        return model

    def fit(
        self,
        examples: ImageSet,
        options: LoopOptions,
        out: str | Path,
        *,
        resume: bool = False,
        progress: bool = True,
        record: Callable[[], None] | None = None,
        device: Device = None,
    ) -> Progress:
        """Train the head. The budget is the number of steps in each round, and the batch size counts cells, not images.

        Raises:
            UsageError: the budget is not in steps, the device is not the CPU, or parameters should be shared.
        """
        if options.shard:
            raise UsageError(NO_SHARDS.format(self.METHOD))
        if device_of("cpu" if device is None else device).type != "cpu":
            raise UsageError(f"device={str(device)!r}: 'objectness' is trained on the CPU. Leave device out.")
        began = time.monotonic()
        out = run_folder(out)
        main = processes().is_main_process
        with locked(out) if main else contextlib.nullcontext():
            if main and record:
                record()
            loss = teach(self.model, examples.files, options, rounds=self.rounds, progress=progress)
            if main:
                write_weights(out / MODEL, self.model.state_dict(), self.model.architecture, self.model.config)
        return Progress(_steps(options), len(examples), time.monotonic() - began, loss, finished=True)


def lesson(
    image: OpenedImage, model: PatchResNetFg, generator: torch.Generator, *, taught: bool = False
) -> tuple[Tensor, Tensor, float]:
    """Return evidence ``(n, inputs)`` at cells of an image, the teacher's labels ``(n,)``, and its confidence.

    The teacher is the boundary prior, or the model itself once it is ``taught``.
    """
    view = view_image(image, model, SIZE)
    pixels, batch = view.pixels, view.batch
    inside = within_frame(pixels, model.preprocess.multiple)
    maps = [layer[0].float() for layer in model.forward_intermediates(batch)]
    lab = cielab(avg_pool2d(pixels, CELL))
    rows, columns = (slice(s.start // CELL, s.stop // CELL) for s in inside)
    regions = superpixels(lab[:, rows, columns].permute(1, 2, 0).numpy())
    height, width = pixels.shape[1:]
    maps, colours = cropped(maps, lab, inside, (height, width))
    evidence = model.objectness.evidence(maps, colours)
    if taught:
        probability = model.objectness.score(evidence).view(maps[-1].shape[1:])
        probability = resize(probability[None], regions.labels.shape)[0]
        score, sure = smoothed_objectness(regions, probability.numpy())
    else:
        score, sure = boundary_prior(regions)
    grid = maps[-1].shape[1], maps[-1].shape[2]
    truth = resize(torch.from_numpy(object_scores(regions, score, CERTAIN))[None], grid).flatten() >= 0.5
    drawn = torch.randperm(len(truth), generator=generator)[:CELLS]
    return evidence[drawn].half(), truth[drawn], sure


def teach(model: PatchResNetFg, images: Any, options: LoopOptions, *, rounds: int = 2, progress: bool = True) -> float:
    """Train a model's objectness head in place; its features are not changed.

    Args:
        model: model with a trained encoder.
        images: images, in any form that :func:`partzoo.images.opening.open_images` accepts; some hundreds or more, most
            of which show one object.
        options: steps of a round, batch size (in cells), learning rate, weight decay and seed.
        rounds: number of rounds; the first learns from the boundary prior, each later one from the one before.
        progress: whether to show a bar over the images.

    Returns:
        The final loss, which is the mean binary cross-entropy against the last teacher.
    """
    _steps(options)  # raises before the lessons are prepared, which takes minutes
    generator = torch.Generator().manual_seed(options.seed)
    images, _ = open_images(images)
    for done in range(rounds):
        lessons = _lessons(model, images, options.seed * rounds + done, taught=done > 0, progress=progress)
        loss = _learn(model.objectness, lessons, options, generator)
    return loss


def _lessons(model: PatchResNetFg, images: Sequence[OpenedImage], seed: int, *, taught: bool, progress: bool) -> list:
    """Compute the lesson of each image, in the order of the images; several processes share the work."""
    rank, ranks = processes().process_index, processes().num_processes
    found = []
    for number in tqdm(range(rank, len(images), ranks), "lessons", disable=not progress or rank > 0):
        drawn = torch.Generator().manual_seed(seed * len(images) + number)  # an image's cells depend on no other image
        with torch.inference_mode():
            found.append(lesson(images[number], model, drawn, taught=taught))
    if ranks == 1:
        return found
    shares: list[list] = [[] for _ in range(ranks)]
    dist.all_gather_object(shares, found)
    return [shares[number % ranks][number // ranks] for number in range(len(images))]


def _learn(
    head: Objectness, lessons: Sequence[tuple[Tensor, Tensor, float]], options: LoopOptions, generator: torch.Generator
) -> float:
    """Train a head with new random weights on the lessons, and return the mean loss of the last steps."""
    evidence = torch.cat([each for each, _, _ in lessons]).clone()
    truth = torch.cat([each for _, each, _ in lessons]).float()
    weights = torch.cat([torch.full((len(t),), sure**2 / len(t)) for _, t, sure in lessons])
    weights /= weights.mean()
    sample = evidence[torch.randperm(len(evidence), generator=generator)[:100_000]].float()
    head.mean.copy_(sample.mean(0))
    head.scale.copy_(1 / sample.std(0).clamp(min=1e-3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        for layer in head.layers:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    head.requires_grad_(True)
    optimizer = torch.optim.AdamW(head.parameters(), options.lr, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=_steps(options))
    losses = []
    for _ in range(_steps(options)):
        drawn = torch.randint(len(evidence), (options.batch_size,), generator=generator)
        loss = binary_cross_entropy_with_logits(head.logits(evidence[drawn]), truth[drawn], weights[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    head.requires_grad_(False)
    return float(np.mean(losses[-100:]))


def _steps(options: LoopOptions) -> int:
    if options.steps is None:
        raise UsageError("'objectness' needs its budget as steps=, not as minutes= or epochs=.")
    return options.steps


def with_objectness(encoder: Model, hidden: int = 32) -> PatchResNetFg:
    """Return the encoder with an untrained objectness head."""
    entry = find(f"{encoder.architecture}-fg")
    config = dataclasses.replace(entry.config, **dataclasses.asdict(encoder.config), hidden=hidden)
    model = cast(PatchResNetFg, build(entry, config))
    missing, unexpected = model.load_state_dict(encoder.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("objectness.") for name in missing)
    return model.eval().requires_grad_(False)
