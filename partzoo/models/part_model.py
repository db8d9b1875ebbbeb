"""The base class of part models, which compare part descriptors with features to compute part maps."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from partzoo.models.base import Encoder, Tokens, as_format, choose, in_precision, pad_to_multiple

Size = tuple[int, int]


class PartModel(Encoder):
    """A model with K learned parts and a background; ``forward`` returns the part maps."""

    def parts_of(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        """Compute part descriptors ``(B, K + 1, dim)``, background first, of images that :meth:`features` accepts."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """Compute features ``(B, dim, h, w)`` of images whose sides are multiples of ``preprocess.multiple``."""
        raise NotImplementedError

    def look(self, x: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute :meth:`parts_of` and :meth:`features` of the same images."""
        return self.parts_of(x, classes), self.features(x)

    def match(self, parts: Tensor, features: Tensor, size: Size | None = None) -> Tensor:
        """Compute the probability of each part at each position.

        Args:
            parts: ``(B, K + 1, dim)``, background first.
            features: ``(B, dim, h, w)``.
            size: ``(rows, columns)`` of the result; None uses the grid of the features.

        Returns:
            ``(B, K + 1, *size)``, at least float32.
        """
        raise NotImplementedError

    @in_precision
    def descriptors_and_maps(
        self, x: Tensor, classes: Tensor | None = None
    ) -> tuple[Tensor, Callable[[Size | None], Tensor]]:
        """Return descriptors, and a function from a size to part maps, as the methods do, but run the networks once."""
        padded = pad_to_multiple(x, self.preprocess.multiple)
        parts, features = self.look(padded, classes)
        inner, outer = x.shape[2:], padded.shape[2:]

        def maps(size: Size | None = None) -> Tensor:
            if size is None:
                rows, columns = (-(-side // self.patch) for side in inner)
                return self.match(parts, features)[..., :rows, :columns]
            height, width = (round(n * o / i) for n, o, i in zip(size, outer, inner, strict=True))
            return self.match(parts, features, (height, width))[..., : size[0], : size[1]]

        return parts, maps

    def part_maps(self, x: Tensor, size: Size | None = None, classes: Tensor | None = None) -> Tensor:
        """Compute probabilities ``(B, K + 1, h, w)`` of background and parts at each position of normalized images.

        Args:
            x: ``(B, 3, H, W)``; any size, padded at the right and bottom to whole patches.
            size: ``(rows, columns)`` of the maps; None uses the grid of the features.
            classes: ``(B,)`` int64, classes of the images, for a model that has separate parts for each class.
        """
        return self.descriptors_and_maps(x, classes)[1](size)

    @in_precision
    def descriptors(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        """Compute part descriptors ``(B, K + 1, dim)`` of normalized images of any size, background first."""
        return self.parts_of(pad_to_multiple(x, self.preprocess.multiple), classes)

    @in_precision
    def encode(self, x: Tensor) -> Tokens:
        return Tokens.from_maps(self.features(pad_to_multiple(x, self.preprocess.multiple)))

    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        return as_format([self.encode(x).maps() for _ in choose(indices, 1)], output_fmt)

    def forward(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.part_maps(x, classes=classes)
