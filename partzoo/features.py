"""Compute dense and pooled features of images, with any encoder."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from partzoo.errors import UsageError
from partzoo.images.ahead import PassOver, Progress, work_ahead
from partzoo.images.opening import OpenedImage, OpenedImages, open_images
from partzoo.images.preprocess import to_tensor, working_size
from partzoo.limits import MAX_BYTES, MAX_PIXELS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from partzoo.models.base import Model
    from partzoo.models.engines.running import Engine
    from partzoo.system.device import Device

Module = TypeVar("Module", bound="nn.Module")

DEFAULT_MODEL = "efficientnet-lite0.in1k"


@dataclass(frozen=True, eq=False)
class Features:
    """An encoder's features of one image.

    Attributes:
        dense: ``(h, w, C)`` float32, one vector for each cell of the grid.
        pooled: ``(C,)`` float32, the mean of ``dense`` over the grid.
        size: ``(H, W)`` of the image, in pixels.
        working: ``(height, width)`` in pixels to which the image was resized for the encoder.
    """

    dense: np.ndarray
    pooled: np.ndarray
    size: tuple[int, int]
    working: tuple[int, int]

    @property
    def grid(self) -> tuple[int, int]:
        """Size ``(rows, columns)`` of the grid of cells."""
        return self.dense.shape[0], self.dense.shape[1]

    def centres(self) -> np.ndarray:
        """Return the centre of each cell, ``(h, w, 2)`` float32, as x and y in pixels of the image."""
        (rows, columns), (height, width) = self.grid, self.size
        x = (np.arange(columns, dtype=np.float32) + 0.5) * (width / columns) - 0.5
        y = (np.arange(rows, dtype=np.float32) + 0.5) * (height / rows) - 0.5
        return np.stack(np.meshgrid(x, y), axis=-1)


def extract_features(
    images: Any,
    *,
    model: str | nn.Module | None = None,
    size: int | None = None,
    layer: int | None = None,
    device: Device = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Features | list[Features]:
    """Compute dense and pooled features of one image or many.

    Args:
        images: one image or many, in any form that :func:`partzoo.images.opening.open_images` accepts.
        model: name of an encoder, or an encoder; None uses the bundled default.
        size: longer side to which an image is resized, in pixels; None uses the size that the encoder was trained on.
            The aspect ratio is kept as closely as whole patches allow.
        layer: number of an intermediate layer, as in ``forward_intermediates`` (-1 is the last); None uses the
            encoder's output.
        device: where the model runs, as for :func:`partzoo.load`; a module is moved there, None leaves it where it is.
        max_pixels, max_bytes: largest image to decode and largest file to read; see
            :func:`partzoo.images.opening.open_image`.

    Returns:
        The features of the image, or a list for many images. A list holds all dense maps in memory: for large sets,
        load the model once and pass one image at a time.

    Raises:
        ImageError: an image cannot be read.
        UsageError: the model, the layer or the device does not exist, the model is not an encoder of images, or
            ``size`` is below 1.
    """
    encoder = encoder_of(model, device)
    opened, single = open_images(images, max_pixels=max_pixels, max_bytes=max_bytes)
    found = [each for _, each in each_features(encoder, opened, size=size, layer=layer)]
    return found[0] if single else found


def each_features(
    encoder: Model,
    images: OpenedImages,
    *,
    size: int | None = None,
    layer: int | None = None,
    order: Sequence[int] | None = None,
    progress: Progress | None = None,
    pass_over: PassOver | None = None,
    then: Callable[[int, Features], Any] = lambda _, features: features,
) -> Generator[tuple[int, Any]]:
    """Compute the features of images, several at a time, holding only a few in memory.

    Args:
        encoder: the encoder.
        images: the images.
        size, layer: as for :func:`extract_features`.
        order: indices of the images; None takes all.
        progress: function that is called with the number of finished images and the total.
        pass_over: function that is called for each unreadable image, which is then left out; None raises the error.
        then: function of an index and the features, which runs in the thread that has computed them.

    Yields:
        The index of an image, and what ``then`` returns, by default its features; in the order of the images.
    """

    from partzoo.models.base import threads_for

    def work(index: int, image: OpenedImage) -> Any:
        return then(index, _features(image, encoder, size, layer))

    return work_ahead(
        images.__getitem__,
        work,
        range(len(images)) if order is None else order,
        progress=progress,
        pass_over=pass_over,
        threads=threads_for(encoder),
        one_by_one=images.one_by_one,
    )


def _features(image: OpenedImage, encoder: Model, size: int | None, layer: int | None) -> Features:
    import torch

    x = model_input(image, encoder, size)
    with torch.inference_mode():
        maps = encoder.encode(x).maps() if layer is None else _layer_maps(encoder, x, layer)
    dense = maps[0].float().permute(1, 2, 0).cpu().numpy().copy()
    return Features(dense, dense.mean((0, 1)), image.size, (x.shape[2], x.shape[3]))


def _layer_maps(encoder: Model, x: Tensor, layer: int) -> Tensor:
    """Return the maps of an intermediate layer; an error names the valid range."""
    try:
        return encoder.forward_intermediates(x, [layer])[0]
    except UsageError as error:
        count = len(encoder.forward_intermediates(x))
        if -count <= layer < count:
            raise
        raise UsageError(f"layer={layer} must be {-count}..{count - 1}, among the model's layers.") from error


def model_input(image: OpenedImage, model: Model, size: int | None = None) -> Tensor:
    """Preprocess an image to ``(1, 3, h, w)`` on the model's device; ``size`` as in :func:`extract_features`."""
    working = working_size(image.size, size or model.preprocess.size, model.preprocess.multiple)
    return to_tensor(image, working, model.preprocess)[None].to(next(model.parameters()).device)


def encoder_of(model: str | nn.Module | None, device: Device = None, engine: Engine = "torch") -> Model:
    """Return the encoder with this name, or the given module itself, on a device; None returns the bundled default.

    ``engine`` is what runs a model given by name, as for :func:`partzoo.load`.

    Raises:
        UsageError: the model is not an encoder, or this machine does not have the device.
    """
    from partzoo.models.foreground import ForegroundModel

    found = loaded(DEFAULT_MODEL if model is None else model, device, engine)
    if isinstance(found, ForegroundModel):
        raise UsageError(
            f"{name_of(found)} is a foreground model, not an encoder: pass an encoder, or pass background= with this "
            "model to discover parts."
        )
    if not hasattr(found, "encode"):  # modules that only have the methods of an encoder work as well
        raise UsageError(
            f"{name_of(found)} is not an encoder: pass a model that partzoo.list_models(family='encoder') lists."
        )
    return found


def loaded(model: str | nn.Module, device: Device = None, engine: Engine = "torch") -> Model:
    """Return the model with this name, or the given module itself, on a device and in evaluation mode.

    Raises:
        UsageError: this machine does not have the device.
    """
    if isinstance(model, str):
        from partzoo.models.loading import load

        return load(model, device=device, engine=engine)
    return cast("Model", placed(model.eval(), device))


def name_of(model: object) -> str:
    """Return the name of a model's architecture, or the class of a module that is not partzoo's."""
    return getattr(model, "architecture", "") or type(model).__name__


def placed(module: Module, device: Device) -> Module:
    """Move a module to a device and return it; None leaves it where it is.

    Raises:
        UsageError: this machine does not have the device.
    """
    from partzoo.system.device import device_of

    return module if device is None else module.to(device_of(device))
