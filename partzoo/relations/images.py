"""``relate_images`` predicts whether two images or patches come from one image, and how far apart they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from partzoo.errors import UsageError
from partzoo.features import loaded
from partzoo.images.opening import OpenedImages, open_images
from partzoo.images.preprocess import to_tensor

if TYPE_CHECKING:
    from torch import Tensor, nn

    from partzoo.models.spatial.model import Spatial
    from partzoo.system.device import Device

DEFAULT_MODEL = "spatial-resnet32.tin"
BATCH = 64


@dataclass(frozen=True)
class ImageRelation:
    """The predicted relation of one image or patch to another.

    Attributes:
        same: probability, 0..1, that both come from the same image.
        shift: x and y from the second patch to the first, in units of the image's side: (0.5, 0) is half an image to
            the right. For whole images it has no meaning beyond ``same``, because models are trained to predict (0, 0)
            for two views of one image, and a fixed shift to the lower right for views of different images.
        distance: length of ``shift``, in units of the image's side.
    """

    same: float
    shift: tuple[float, float]
    distance: float


def relate_images(
    a: Any, b: Any, *, model: str | nn.Module | None = None, patches: bool = False, device: Device = None
) -> ImageRelation | list[ImageRelation]:
    """Predict whether two images or patches come from one image, and the shift between them.

    Each is resized to the square on which the model was trained. The model is not symmetric, so relating ``b`` to ``a``
    may give a slightly different result.

    Args:
        a, b: images, in any form that :func:`partzoo.images.opening.open_images` accepts: one each, equally many,
            or one and many.
        model: name of a Spatial Reasoning model, or the module; None uses ``spatial-resnet32.tin``.
        patches: whether the images are patches cut out of larger ones. This matters only to models of additive patches,
            which place a patch on an empty image.
        device: where the model runs, as for :func:`partzoo.load`; a module is moved there, None leaves it where it is.

    Returns:
        One relation for two images, otherwise a list with one relation for each pair.

    Raises:
        ImageError: an image cannot be read.
        UsageError: the numbers of images do not agree, or the model is of another family or has no relation module.

    Source: Spatial Reasoning (Albert, Eskofier, Zanca 2024), section 3.2.
    """
    import torch

    from partzoo.models.spatial.model import Spatial

    spatial = loaded(DEFAULT_MODEL if model is None else model, device)
    if not isinstance(spatial, Spatial):
        raise UsageError(f"relate_images needs a model of Spatial Reasoning, not {type(spatial).__name__}.")
    (first, one), (second, other) = open_images(a), open_images(b)
    count = max(len(first), len(second))
    if any(len(side) not in (1, count) for side in (first, second)):
        raise UsageError(
            f"{len(first)} and {len(second)} images do not form pairs: pass equally many, or one and many."
        )
    found = []
    with torch.inference_mode():
        for start in range(0, count, BATCH):
            chunk = range(start, min(start + BATCH, count))
            related = spatial.relate_images(*(_batch(spatial, side, chunk, patches) for side in (first, second)))
            rows = torch.cat([related.same[:, None], related.shift, related.distance[:, None]], dim=1).tolist()
            found += [ImageRelation(same, (x, y), distance) for same, x, y, distance in rows]
    return found[0] if one and other else found


def _batch(model: Spatial, images: OpenedImages, chunk: range, patches: bool) -> Tensor:
    """Preprocess the images with these numbers into a batch; a single image is repeated."""
    import torch

    config = model.config
    side = config.patch_size if patches and config.additive else config.size
    numbers = chunk if len(images) > 1 else range(1)
    x = torch.stack([to_tensor(images[i], (side, side), model.preprocess) for i in numbers])
    low = (config.size - side) // 2
    x = torch.nn.functional.pad(x, (low, config.size - side - low) * 2)
    return x.expand(len(chunk), -1, -1, -1).to(next(model.parameters()).device)
