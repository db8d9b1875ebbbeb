"""Compute pooled features of held-out images, and the figures that a release's record states."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from partzoo.data.image_sets import ImageSet
from partzoo.errors import UsageError
from partzoo.evaluate.probes.knn import knn_accuracy
from partzoo.evaluate.probes.positions import antisymmetry, position_error
from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder
from partzoo.models.part.model import Part
from partzoo.models.part.sampling import Sampling, sample
from partzoo.models.spatial.model import Spatial
from partzoo.models.spatial.pairs import PairSampler


def batches(model: Encoder, images: ImageSet, size: int, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of image indices and uint8 pixels, at the model's size and on its device."""
    preprocess: Preprocess = model.preprocess
    device = next((each.device for each in model.parameters()), None)
    count = len(images) if limit is None else min(limit, len(images))
    for numbers in torch.arange(count).split(size):
        pixels = images.batch(numbers).to(device)
        if images.side != preprocess.size:
            mode = preprocess.interpolation if preprocess.interpolation != "lanczos" else "bicubic"
            resized = interpolate(pixels.float(), (preprocess.size,) * 2, mode=mode, antialias=True)
            pixels = resized.round().clamp(0, 255).byte()
        yield numbers, pixels


def normalized_batches(
    model: Encoder, images: ImageSet, size: int, limit: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of image indices and normalized pixels, at the model's size and on its device."""
    for numbers, pixels in batches(model, images, size, limit):
        yield numbers, model.preprocess.normalize(pixels)


@torch.inference_mode()
def part_positions(
    model: Part,
    images: ImageSet,
    *,
    sampling: Sampling = "off-grid",
    seed: int = 0,
    batch_size: int = 50,
    limit: int | None = None,
) -> dict[str, float]:
    """Compute the errors of predicted translations over all ordered pairs of patches, at off-grid or grid positions.

    Args:
        model: PART model with encoder and relative encoder.
        images: held-out images; resized to the model's size.
        sampling: see :func:`partzoo.models.part.sampling.sample`.
        seed: random seed of the positions.
        batch_size: number of images in a batch.
        limit: number of images to use, the first ones; None uses all.

    Returns:
        ``mse_x``, ``mse_y`` and ``distance`` in patches, the same for the constant predictor, ``loss``, the
        ``antisymmetry`` of the predictions, and ``random_antisymmetry``, which is computed from unrelated pairs of
        patches. A model with four targets adds ``mse_w`` and ``mse_h`` for the relative sizes, and the same for a
        predictor of their mean.

    Source: PART, sections 5.1 (figure 6) and 5.3 (table 5).
    """
    parameter = next(model.parameters())
    generator = torch.Generator(parameter.device).manual_seed(seed)
    totals: dict[str, float] = {}
    seen = 0
    for _, pixels in normalized_batches(model, images, batch_size, limit):
        drawn = sample(pixels, model.patch, sampling, sizes=model.config.targets == 4, generator=generator)
        predicted = model.relate(drawn.patches.to(parameter.dtype))
        matrices = predicted[..., :2].unflatten(1, (drawn.boxes.shape[1],) * 2)
        figures = position_error(predicted, drawn.targets) | {
            "antisymmetry": antisymmetry(matrices),
            # Patches have no order, so shifting the indices pairs each translation with an unrelated reverse one.
            "random_antisymmetry": antisymmetry(matrices, matrices.roll((2, 2), (1, 2))),
        }
        if model.config.targets == 4:
            true = drawn.targets[..., 2:].flatten(0, 1)
            errors = (predicted[..., 2:].flatten(0, 1) - true).square().mean(0).tolist()
            figures |= dict(zip(("mse_w", "mse_h"), errors, strict=True))
            constant = true.var(0, correction=0).tolist()
            figures |= dict(zip(("constant_mse_w", "constant_mse_h"), constant, strict=True))
        for name, value in figures.items():
            totals[name] = totals.get(name, 0.0) + value * len(pixels)
        seen += len(pixels)
    means = {name: value / seen for name, value in totals.items()}
    return means | {"loss": (means["mse_x"] + means["mse_y"]) / 2}


@torch.inference_mode()
def spatial_relations(
    model: Spatial, images: ImageSet, *, seed: int = 0, batch_size: int = 50, limit: int | None = None
) -> dict[str, float]:
    """Evaluate a Spatial Reasoning model on four views and two patches of each image, drawn as in training.

    Args:
        model: backbone and relation module.
        images: held-out images; resized to the model's size.
        seed: random seed of views and patches.
        batch_size: number of images in a batch, M; negatives are views of other images in the batch.
        limit: number of images to use, the first ones; None uses all.

    Returns:
        ``same``, the accuracy in per cent on pairs of views, half of which show one image; ``shift_error``, the mean
        distance between the predicted and the true shift of two patches of an image, in per cent of the image's side,
        where the patches do not overlap if the image has room for two; and ``constant_shift_error``, the same for
        always predicting the mean, (0, 0). A last batch of a single image, which has no negatives, is left out.

    Source: Spatial Reasoning, section 3.2.
    """
    sampler = PairSampler(model, apart=2 * model.config.patch_size <= model.config.size)
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    totals, seen = torch.zeros(3), 0
    for _, pixels in batches(model, images, batch_size, limit):
        if len(pixels) == 1:
            break
        pairs, predicted, targets = sampler.related(pixels, generator)
        views = pairs.first < pairs.views
        right = ((predicted[:, 2] > 0) == (targets[:, 2] > 0))[views]
        true = targets[~views, :2] * model.config.unit
        errors = (predicted[~views, :2].float() * model.config.unit - true).norm(dim=1)
        means = torch.stack([right.float().mean(), errors.mean(), true.norm(dim=1).mean()])
        totals, seen = totals + 100 * len(pixels) * means.cpu(), seen + len(pixels)
    return dict(zip(("same", "shift_error", "constant_shift_error"), (totals / seen).tolist(), strict=True))


@torch.inference_mode()
def pooled_features(
    model: Encoder,
    images: ImageSet,
    *,
    batch_size: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Average the patch tokens of every image to ``(N, C)`` float32; images are resized to the model's size."""
    found = torch.empty(len(images), model.dim)
    for numbers, x in normalized_batches(model, images, batch_size):
        found[numbers] = model.encode(x).patch.mean(1).float().cpu()
        if progress:
            progress(int(numbers[-1]) + 1, len(images))
    return found


def labels_of(images: ImageSet) -> Tensor:
    """Return the labels of images.

    Raises:
        UsageError: the images have no labels.
    """
    if images.labels is None:
        raise UsageError("These images have no labels. Give one subfolder per class.")
    return images.labels


def knn(model: Encoder, bank: ImageSet, queries: ImageSet, *, neighbours: int = 20) -> float:
    """Compute the top-1 accuracy, in per cent, of a weighted nearest-neighbour vote on frozen pooled features."""
    return knn_accuracy(
        pooled_features(model, queries), labels_of(queries), pooled_features(model, bank), labels_of(bank),
        neighbours=neighbours,
    )  # fmt: skip


@torch.inference_mode()
def top1(model: Encoder, images: ImageSet, *, batch_size: int = 100) -> float:
    """Compute the top-1 accuracy, in per cent, of the classifier inside the model."""
    labels = labels_of(images)
    hits = sum(
        (model.classify(x).argmax(1).cpu() == labels[numbers]).sum().item()
        for numbers, x in normalized_batches(model, images, batch_size)
    )
    return 100 * hits / len(images)
