"""Draw an image as a part model reconstructs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from partzoo.errors import UsageError
from partzoo.features import loaded, model_input, name_of
from partzoo.images.opening import open_image

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from partzoo.models.base import Model
    from partzoo.system.device import Device

GAP = 4  # pixels between two images in Reconstruction.draw
GREY = 128  # of hidden patches
HIDDEN = 0.9  # share of the patches that MPAE hides in training


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """An image as a part model sees it, and as the model reconstructs it.

    Attributes:
        seen: ``(H, W, 3)`` uint8, RGB, the image at the model's working size.
        visible: ``(rows, columns)`` bool, whether the model saw each patch of the image.
        image: ``(h, w, 3)`` uint8, RGB, the reconstruction; PartFormer and MPAE draw smaller images than they see.
    """

    seen: np.ndarray
    visible: np.ndarray
    image: np.ndarray

    def draw(self, *, side: int = 256) -> Image.Image:
        """Draw the image, the image with hidden patches in grey if there are any, and the reconstruction.

        Args:
            side: longer side of each of them, in pixels.
        """
        height, width = self.seen.shape[:2]
        patch = np.ones((height // self.visible.shape[0], width // self.visible.shape[1]), bool)
        masked = np.where(np.kron(self.visible, patch)[..., None], self.seen, np.uint8(GREY))
        images = [self.seen, self.image] if self.visible.all() else [self.seen, masked, self.image]
        scale = side / max(height, width)
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        page = Image.new("RGB", (len(images) * (size[0] + GAP) - GAP, size[1]), "white")
        for number, pixels in enumerate(images):
            tile = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
            page.paste(tile, (number * (size[0] + GAP), 0))
        return page


def reconstruct(
    image: Any,
    *,
    model: str | nn.Module,
    hidden: float | None = None,
    seed: int = 0,
    classes: int | None = None,
    device: Device = None,
) -> Reconstruction:
    """Reconstruct an image from its parts, with PartFormer's or MPAE's decoder.

    PartFormer draws the whole image from its part representations and part maps. MPAE also sees a few patches, and
    fills in the others from its part descriptors.

    Args:
        image: one image, in any form that :func:`partzoo.images.opening.open_image` accepts.
        model: name of a PartFormer or MPAE model, or the module itself.
        hidden: share of the patches that MPAE does not see, 0..1; None hides 0.9 of them, as in training.
        seed: random seed of the choice of these patches.
        classes: class of the image, for a model that has separate parts for each class.
        device: where the model runs, as for :func:`partzoo.load`; a module is moved there, None leaves it where it is.

    Raises:
        ImageError: the image cannot be read.
        UsageError: the model has no decoder of parts, the share is not between 0 and 1 or is given for a PartFormer,
            or the class does not exist.

    Source: PartFormer, section 3.1; MPAE, section 3.1 and equation 2.
    """
    import torch

    from partzoo.models.mpae.masked_autoencoder import visible_patches
    from partzoo.models.mpae.model import Mpae
    from partzoo.models.partformer.model import PartFormer

    found = loaded(model, device)
    if not isinstance(found, (Mpae, PartFormer)):
        raise UsageError(f"{name_of(found)} cannot reconstruct images: pass a PartFormer or an MPAE.")
    if isinstance(found, PartFormer) and hidden is not None:
        raise UsageError(f"hidden={hidden}: a PartFormer hides no patches. Leave it out, or pass an MPAE.")
    ratio = HIDDEN if hidden is None else hidden
    if not 0 <= ratio <= 1:
        raise UsageError(f"hidden={ratio} must be between 0 and 1.")
    x = model_input(open_image(image), found)
    chosen = None if classes is None else torch.tensor([classes], device=x.device)
    visible = torch.ones(x.shape[2] // found.patch, x.shape[3] // found.patch, dtype=torch.bool)
    with torch.inference_mode():
        if isinstance(found, PartFormer):
            drawn = found.reconstruct(x, classes=chosen)
        else:
            # The model draws the same numbers from this generator to choose the patches that stay visible.
            noise = torch.rand(1, visible.numel(), generator=_seeded(x.device, seed), device=x.device)
            kept = visible_patches(noise, ratio)[0].cpu()
            visible = torch.zeros_like(visible).flatten().index_fill_(0, kept, True).view_as(visible)
            drawn = found.reconstruct(x, ratio, generator=_seeded(x.device, seed), classes=chosen)
    return Reconstruction(_pixels(x, found), visible.numpy(), _pixels(drawn, found))


def _seeded(device: torch.device, seed: int) -> torch.Generator:
    import torch

    return torch.Generator(device).manual_seed(seed)


def _pixels(x: Tensor, model: Model) -> np.ndarray:
    """Return the pixels ``(H, W, 3)`` uint8 of a normalized image ``(1, 3, H, W)``."""
    levels = model.preprocess.denormalize(x[0].float().cpu()).round().clamp(0, 255)
    return levels.byte().permute(1, 2, 0).numpy()
