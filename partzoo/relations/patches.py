"""Predicted translations between an image's patches, and quantities derived from them.

Source: Ayoughi et al., "How PARTs assemble into wholes" (PART), section 5.1, figures 4, 5 and 6.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image

from partzoo.errors import ShapeError, UsageError
from partzoo.relations import figures

ROUNDS = 50  # largest number of iterations of the medians, which converge in about ten

Reference = int | Literal["median", "least-squares"]
Value = TypeVar("Value")


class PatchRelations:
    """The translations between all pairs of N patches, in pixels, and quantities derived from them.

    Element (i, j) of a matrix is the translation from patch i, the reference, to patch j, the target. Positions are
    (x, y) in pixel edges: the image's top-left corner is (0, 0).

    Args:
        translations: ``(N, N, 2)``, x and y in pixels from centre to centre.
        patches: N images ``(h, w, 3)`` uint8, in the size at which they are drawn.
        boxes: ``(N, 4)`` left, top, right, bottom of the patches in pixels, if known.
        image: ``(H, W, 3)`` uint8, the image that the patches come from, if any.
        ratios: ``(N, N, 2)``, predicted width and height of j divided by those of i, for models with four targets.

    Raises:
        ShapeError: the shapes do not agree, or there are fewer than two patches.
        UsageError: translations are not finite.
    """

    def __init__(
        self,
        translations: np.ndarray,
        patches: Sequence[np.ndarray],
        *,
        boxes: np.ndarray | None = None,
        image: np.ndarray | None = None,
        ratios: np.ndarray | None = None,
    ) -> None:
        translations = np.array(translations, np.float64)
        count = len(patches)
        if count < 2:
            raise ShapeError(f"Relations need at least two patches, not {count}: pass more.")
        for name, value, shape in (
            ("translations", translations, (count, count, 2)),
            ("boxes", boxes, (count, 4)),
            ("ratios", ratios, (count, count, 2)),
        ):
            if value is not None and np.shape(value) != shape:
                raise ShapeError(f"{name} have shape {np.shape(value)}; for {count} patches they must have {shape}.")
        if not np.isfinite(translations).all():
            raise UsageError("translations are not finite: check the weights of the model that predicted them.")
        translations.setflags(write=False)
        self.translations = translations
        self.patches = tuple(patches)
        self.boxes = None if boxes is None else np.asarray(boxes, np.float64)
        self.image = image
        self.ratios = ratios

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def centres(self) -> np.ndarray | None:
        """True centres of the patches, ``(N, 2)``; None if unknown."""
        return None if self.boxes is None else (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @property
    def true(self) -> np.ndarray:
        """True translations, ``(N, N, 2)`` in pixels.

        Raises:
            UsageError: the patches' positions are unknown.
        """
        centres = self._known(self.centres, "The true translations")
        return centres[None] - centres[:, None]

    @property
    def error(self) -> float:
        """Mean distance, in pixels, between predicted and true translations over all pairs of different patches."""
        return float(np.linalg.norm(self.translations - self.true, axis=-1)[self._pairs].mean())

    def positions(self, reference: Reference = "least-squares") -> np.ndarray:
        """Compute the predicted positions of the patches' centres, ``(N, 2)`` in pixels.

        Args:
            reference: number of a patch, which keeps its true position while the others are placed relative to it
                (the paper's method). ``"least-squares"`` minimizes the squared deviations from all N * N translations;
                ``"median"`` minimizes the absolute deviations along x and y, which makes it robust to single bad
                references. The last two determine positions up to a common shift, so they are centred on the mean of
                the true centres, or on (0, 0) if these are unknown.

        Raises:
            UsageError: the patch or the method does not exist.

        Source: PART, section 5.1 (i), for a single reference.
        """
        centres = self.centres
        if reference in ("median", "least-squares"):
            # Normal equations of sum (p_j - p_i - t_ij)^2: 2 N p_j = sum_i (t_ij - t_ji) for p of mean 0.
            places = (self.translations - self.translations.swapaxes(0, 1)).mean(0) / 2
            if reference == "median":
                places = self._medians(places)
            return places if centres is None else places + centres.mean(0)
        index = self._patch(reference)
        places = self.translations[index].copy()
        places[index] = 0
        return places if centres is None else places + centres[index]

    def assemble(self, reference: Reference = "least-squares") -> Assembly:
        """Assemble the image from its patches at their predicted positions, and at their true ones if known.

        Args:
            reference: see :meth:`positions`.

        Source: PART, section 5.1 (i) and figure 4.
        """
        places, centres = self.positions(reference), self.centres
        if self.image is None or centres is None:
            halves = np.array([patch.shape[1::-1] for patch in self.patches]) / 2
            low, high = (places - halves).min(0), (places + halves).max(0)
            size = np.ceil(high - low).astype(int)
            return Assembly(figures.place(self.patches, places - low, tuple(size[::-1])), places - low)
        size = self.image.shape[:2]
        distance = np.linalg.norm(places - centres, axis=1)
        return Assembly(
            figures.place(self.patches, places, size),
            places,
            figures.place(self.patches, centres, size),
            float(distance.mean()),
        )

    def seen_from(self) -> np.ndarray:
        """Return positions ``(N, N, 2)``: element (i, j) is the centre of patch j as predicted from reference i.

        References are at their true positions, or at the least-squares positions if the true ones are unknown.

        Source: PART, section 5.1 (iii) and figure 5.
        """
        centres = self.centres
        places = self.positions() if centres is None else centres
        return places[:, None] + self.translations

    def uncertainty(self) -> np.ndarray:
        """Compute the spread of each patch's positions as predicted from all others, ``(N,)`` in pixels.

        It is the root mean square distance of these positions from their mean.

        Source: PART, section 5.1 (iii).
        """
        seen = np.where(self._pairs[..., None], self.seen_from(), np.nan)
        return np.sqrt(np.nanmean(((seen - np.nanmean(seen, axis=0)) ** 2).sum(-1), axis=0))

    def uncertainty_map(self) -> np.ndarray:
        """Average the uncertainty of the patches that cover each pixel, ``(H, W)`` float32; NaN where there are none.

        Raises:
            UsageError: the patches do not come from one image.
        """
        image, boxes = (self._known(value, "The map of uncertainty") for value in (self.image, self.boxes))
        total, count = np.zeros((2, *image.shape[:2]), np.float32)
        for value, (left, top, right, bottom) in zip(self.uncertainty(), whole_pixels(boxes), strict=True):
            total[top:bottom, left:right] += value
            count[top:bottom, left:right] += 1
        with np.errstate(invalid="ignore"):
            return total / count

    def symmetry_error(self) -> float:
        """Compute the mean length of ``t_ij + t_ji`` over all pairs of different patches, in pixels; 0 if symmetric.

        Source: PART, section 5.1 (iv).
        """
        return float(np.linalg.norm(self.translations + self.translations.swapaxes(0, 1), axis=-1)[self._pairs].mean())

    def symmetry_correlation(self) -> tuple[float, float]:
        """Compute the correlation of ``t_ij`` with ``-t_ji`` over pairs of patches, for x and y; 1 if symmetric.

        It is NaN if the translations do not vary, as among patches of a blank image.
        """
        there = self.translations[self._pairs]
        back = -self.translations.swapaxes(0, 1)[self._pairs]
        there, back = there - there.mean(0), back - back.mean(0)
        lengths = np.sqrt((there**2).sum(0) * (back**2).sum(0))
        varying = lengths > 1e-9 * len(there)
        found = np.divide((there * back).sum(0), lengths, out=np.full(2, np.nan), where=varying)
        x, y = found.tolist()
        return x, y

    def order(self) -> np.ndarray:
        """Return the numbers of the patches from top-left to bottom-right, in rows as high as a patch.

        True positions are used if known, otherwise the least-squares positions.
        """
        centres = self.centres
        places = self.positions() if centres is None else centres
        rows = np.floor((places[:, 1] - places[:, 1].min()) / np.mean([patch.shape[0] for patch in self.patches]))
        return np.lexsort((places[:, 0], rows))

    def draw_uncertainty(self) -> Image.Image:
        """Draw figure 5 of the paper: a certain and an uncertain patch, and where all references place them.

        Raises:
            UsageError: the patches do not come from one image.
        """
        image, boxes = (self._known(value, "Figure 5") for value in (self.image, self.boxes))
        return figures.uncertainty(self, image, boxes)

    def draw_matrices(self) -> Image.Image:
        """Draw figure 6 of the paper: matrices of x and y, predicted and true, for ordered and shuffled patches.

        Bright is positive, dark is negative, and grey is zero. True matrices are omitted if unknown.
        """
        return figures.matrices(self)

    @cached_property
    def _pairs(self) -> np.ndarray:
        return ~np.eye(len(self), dtype=bool)

    def _medians(self, places: np.ndarray) -> np.ndarray:
        back = -self.translations.swapaxes(0, 1)
        seen = np.concatenate([self.translations, back])
        keep = np.concatenate([self._pairs, self._pairs])[..., None]
        for _ in range(ROUNDS):
            before = places
            from_all = np.where(keep, np.concatenate([places, places])[:, None] + seen, np.nan)
            places = (before + np.nanmedian(from_all, axis=0)) / 2
            places = places - places.mean(0)
            if np.abs(places - before).max() < 1e-3:
                break
        return places

    def _patch(self, reference: Any) -> int:
        if not isinstance(reference, (int, np.integer)) or not 0 <= reference < len(self):
            raise UsageError(
                f"reference={reference!r} must be a patch, 0..{len(self) - 1}, or 'median' or 'least-squares'."
            )
        return int(reference)

    def _known(self, value: Value | None, what: str) -> Value:
        if value is None:
            raise UsageError(f"{what} needs patches of one image: use partzoo.relate(image).")
        return value

    def __repr__(self) -> str:
        of = "" if self.image is None else " of a {}x{} image".format(*self.image.shape[:2])
        error = "" if self.boxes is None else f", error {self.error:.1f} pixels"
        return f"<PatchRelations: {len(self)} patches{of}{error}, symmetry error {self.symmetry_error():.1f} pixels>"


@dataclass(frozen=True, eq=False)
class Assembly:
    """An image assembled from patches.

    Attributes:
        image: the patches at their predicted positions.
        centres: ``(N, 2)``, x and y of the patches' predicted centres, in pixels of ``image``.
        truth: the patches at their true positions; None if these are unknown.
        error: mean distance between predicted and true centres, in pixels; None if the latter are unknown.
    """

    image: Image.Image
    centres: np.ndarray
    truth: Image.Image | None = None
    error: float | None = None

    def side_by_side(self) -> Image.Image:
        """Draw the true image, if known, to the left of the predicted one."""
        if self.truth is None:
            return self.image
        return figures.row([("true", self.truth), ("predicted", self.image)])

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.side_by_side().save(data, "PNG")
        return data.getvalue()


def whole_pixels(boxes: np.ndarray) -> np.ndarray:
    """Round boxes ``(N, 4)`` to whole pixels; each is at least one pixel wide and high."""
    low, high = np.floor(boxes + 0.5).astype(int).reshape(-1, 2, 2).swapaxes(0, 1)
    high = np.maximum(high, 1)
    return np.concatenate([np.minimum(low, high - 1), high], axis=1)
