"""The base classes of all models and encoders of the zoo."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import torch
from einops import rearrange
from torch import Tensor, nn

from partzoo.errors import ShapeError, UsageError, counted
from partzoo.images.preprocess import Preprocess
from partzoo.system.cores import worker_threads

Options = ParamSpec("Options")
Result = TypeVar("Result")
Kind = TypeVar("Kind", bound="Encoder")


@dataclass(frozen=True)
class Tokens:
    """The output of an encoder: patch and prefix tokens with their grid.

    Attributes:
        patch: ``(B, N, C)``, row by row over the grid.
        prefix: ``(B, P, C)``, class and register tokens; P may be 0.
        grid: ``(rows, columns)``, N = rows * columns.
    """

    patch: Tensor
    prefix: Tensor
    grid: tuple[int, int]

    def maps(self) -> Tensor:
        """Return the patch tokens as a map ``(B, C, rows, columns)``."""
        return rearrange(self.patch, "b (h w) c -> b c h w", h=self.grid[0])

    @classmethod
    def from_maps(cls, maps: Tensor) -> Tokens:
        """Convert the cells of maps ``(B, C, rows, columns)`` to patch tokens, without prefix tokens."""
        batch, channels, rows, columns = maps.shape
        patch = rearrange(maps, "b c h w -> b (h w) c")
        return cls(patch, maps.new_zeros(batch, 0, channels), (rows, columns))


def in_precision(
    method: Callable[Concatenate[Kind, Tensor, Options], Result],
) -> Callable[Concatenate[Kind, Tensor, Options], Result]:
    """Decorate an encoder's method so that it runs on ``x`` in the precision chosen by ``load(dtype=...)``."""

    @functools.wraps(method)
    def run(self: Kind, x: Tensor, *args: Options.args, **kwargs: Options.kwargs) -> Result:
        self.check_input(x)
        if self.autocast is None:
            return method(self, x.to(next(self.parameters()).dtype), *args, **kwargs)
        with torch.autocast(x.device.type, self.autocast):
            return method(self, x, *args, **kwargs)

    return run


class Model(nn.Module):
    """The base class of all models of the zoo.

    Attributes:
        architecture: registered name.
        config: the frozen dataclass that the model was built from.
        preprocess: size and normalization of the input.
        autocast: dtype of mixed precision; None computes in the parameters' dtype.
        keep_float: submodules that ``dtype="int8"`` does not quantize, because their weights are read directly or
            because they must be exact.
    """

    architecture: str = ""
    config: Any
    preprocess: Preprocess
    autocast: torch.dtype | None = None
    keep_float: tuple[str, ...] = ()

    if TYPE_CHECKING:
        # A name decides at run time which class partzoo.load returns, and therefore which methods exist.
        def __getattr__(self, name: str) -> Any: ...


def threads_for(model: nn.Module) -> int:
    """Return the number of threads that may run a model at a time.

    Modules that are not of the zoo may keep values from one method to the next, so one thread runs them. On a GPU there
    are two, of which one prepares an image while the other's is computed.
    """
    if not isinstance(model, Model):
        return 1
    return worker_threads() if next(model.parameters()).device.type == "cpu" else 2


class Encoder(Model):
    """A backbone that computes dense features of images of any size.

    Attributes:
        dim: channels C of the tokens.
        patch: pixels between neighbouring tokens of :meth:`encode`.
        reductions: strides of the maps of :meth:`forward_intermediates`, in pixels; empty if all are ``patch``.
        fixed: ``(height, width)`` to which images of every size are squashed, so that all share one grid; None for
            encoders whose grid grows with the image.
    """

    dim: int
    patch: int
    reductions: tuple[int, ...] = ()
    fixed: tuple[int, int] | None = None

    def check_input(self, x: Tensor) -> None:
        """Raise a ShapeError if ``x`` does not have the shape of the encoder's input."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise ShapeError(f"The input must be (B, 3, H, W), not {tuple(x.shape)}.")
        if min(x.shape[2:]) < self.patch:
            raise ShapeError(
                f"A {x.shape[2]}x{x.shape[3]} image is smaller than one patch of {self.patch} pixels: "
                f"resize it to at least {self.patch} pixels each way."
            )

    def encode(self, x: Tensor) -> Tokens:
        """Compute the tokens of normalized images ``x`` (B, 3, H, W); H and W must be at least one patch."""
        raise NotImplementedError

    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        """Compute the feature maps ``(B, C, h, w)`` of intermediate layers, first to last.

        Args:
            x: normalized images ``(B, 3, H, W)``.
            indices: blocks or stages to return: None for all, an integer n for the last n, or a list of numbers, each
                of which is returned once, in the order of the layers.
            output_fmt: ``"NCHW"``, or ``"NLC"`` for ``(B, h * w, C)``.
        """
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute all tokens ``(B, P + N, C)``, prefix first."""
        tokens = self.encode(x)
        return torch.cat([tokens.prefix, tokens.patch], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad ``(B, C, H, W)`` at the right and bottom with zeros, which are the mean of a normalized image."""
    height, width = x.shape[-2:]
    return nn.functional.pad(x, (0, -width % multiple, 0, -height % multiple))


def choose(indices: int | list[int] | None, count: int) -> list[int]:
    """Return the numbers of the layers that ``indices`` selects among ``count``, in order and each once, as in timm."""
    if indices is None:
        return list(range(count))
    if isinstance(indices, int) and 1 <= indices <= count:
        return list(range(count - indices, count))
    if isinstance(indices, (list, tuple)) and all(-count <= i < count for i in indices):
        return sorted({range(count)[i] for i in indices})
    raise UsageError(
        f"indices={indices!r} must select among {counted(count, 'layer')}: pass None, 1..{count}, or their numbers."
    )


def as_format(maps: list[Tensor], output_fmt: str) -> list[Tensor]:
    """Return maps ``(B, C, h, w)`` unchanged for ``"NCHW"``, or flattened to ``(B, h * w, C)`` for ``"NLC"``."""
    if output_fmt not in ("NCHW", "NLC"):
        raise UsageError(f"output_fmt={output_fmt!r} must be 'NCHW' or 'NLC'.")
    return maps if output_fmt == "NCHW" else [rearrange(m, "b c h w -> b (h w) c") for m in maps]
