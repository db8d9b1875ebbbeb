"""Draw figures 4, 5 and 6 of the PART paper for one image, with Pillow and numpy only.

Source: Ayoughi et al., "How PARTs assemble into wholes" (PART), section 5.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from partzoo.relations.patches import PatchRelations

CANVAS = (255, 255, 255)
CERTAIN, UNCERTAIN, TRUE = (255, 140, 0), (255, 225, 0), (255, 255, 255)
PANEL = 512  # longer side of a panel in pixels
MATRIX = 256  # side of a drawn matrix in pixels
GAP = 8  # pixels between panels


def place(patches: Sequence[np.ndarray], centres: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Paste patches ``(h, w, 3)`` around their centres ``(N, 2)`` on a white canvas of ``(height, width)``.

    Patches are cut off at the border of the canvas; the first patch is on top.
    """
    canvas = Image.new("RGB", size[::-1], CANVAS)
    for patch, centre in reversed(list(zip(patches, centres, strict=True))):
        corner = np.floor(centre - np.array(patch.shape[1::-1]) / 2 + 0.5).astype(int)
        canvas.paste(Image.fromarray(patch), tuple(corner.tolist()))
    return canvas


def assemblies(off_grid: PatchRelations, on_grid: PatchRelations, reference: int = 0) -> Image.Image:
    """Draw figure 4: patches off and on the grid, in a mosaic, at their true and at their predicted positions.

    Args:
        off_grid, on_grid: relations between patches of one image.
        reference: number of the patch relative to which the paper places all others; this is drawn beside the assembly
            from all pairs.
    """
    rows = []
    for name, relations in (("off-grid", off_grid), ("on-grid", on_grid)):
        one, every = relations.assemble(reference), relations.assemble()
        panels = [
            (f"{name}: {len(relations)} patches", _mosaic(relations.patches)),
            ("true positions", one.truth),
            (f"by patch {reference}: {one.error:.0f} px off", one.image),
            (f"by all patches: {every.error:.0f} px off", every.image),
        ]
        rows.append(row([(title, _within(panel, PANEL)) for title, panel in panels if panel is not None]))
    return _stack(rows)


def uncertainty(relations: PatchRelations, pixels: np.ndarray, boxes: np.ndarray) -> Image.Image:
    """Draw figure 5: a certain (orange) and an uncertain (yellow) patch, and where all references place them.

    Args:
        relations: relations between patches of one image.
        pixels: ``(H, W, 3)`` uint8, the image.
        boxes: ``(N, 4)`` left, top, right, bottom of the patches in pixels.
    """
    spread = relations.uncertainty()
    certain, uncertain = int(spread.argmin()), int(spread.argmax())
    image = _within(Image.fromarray(pixels), PANEL)
    scale = image.width / pixels.shape[1]
    seen = relations.seen_from() * scale
    boxes = boxes * scale
    first = image.copy()
    panels = [("a certain and an uncertain patch", first)]
    for name, index, colour in (("certain", certain, CERTAIN), ("uncertain", uncertain, UNCERTAIN)):
        _frame(first, boxes[index], colour)
        grey = np.asarray(image.convert("L").convert("RGB"), np.uint16)
        panel = Image.fromarray((grey // 2).astype(np.uint8))
        draw = ImageDraw.Draw(panel)
        radius = max(2, PANEL // 128)
        for reference, (x, y) in enumerate(seen[:, index]):
            if reference != index:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        _frame(panel, boxes[index], TRUE)
        panels.append((f"{name}: the references' positions spread {spread[index]:.0f} px", panel))
    return row(panels)


def matrices(relations: PatchRelations) -> Image.Image:
    """Draw figure 6: matrices of x and y, predicted and true, for ordered and shuffled patches."""
    orders = {
        "ordered": relations.order(),
        "shuffled": np.random.default_rng(0).permutation(len(relations)),
    }
    kinds = {"predicted": relations.translations}
    if relations.boxes is not None:
        kinds["true"] = relations.true
    largest = max(np.abs(values).max() for values in kinds.values()) or 1.0
    rows = []
    for axis, letter in enumerate("xy"):
        panels = []
        for name, order in orders.items():
            for kind, values in kinds.items():
                grey = 127.5 * (1 + values[np.ix_(order, order)][..., axis] / largest)
                image = Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
                panels.append((f"{letter}, {kind}, {name}", image.resize((MATRIX, MATRIX), Image.Resampling.NEAREST)))
        rows.append(row(panels))
    return _stack(rows)


def row(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Draw titled images side by side on white."""
    size = max(12, round(max(panel.width for _, panel in panels) / 28))
    font = ImageFont.load_default(size)
    widths = [max(panel.width, round(font.getlength(title))) for title, panel in panels]
    head = size + GAP
    canvas = Image.new(
        "RGB", (sum(widths) + GAP * (len(panels) + 1), head + max(p.height for _, p in panels) + 2 * GAP), CANVAS
    )
    draw, left = ImageDraw.Draw(canvas), GAP
    for (title, panel), width in zip(panels, widths, strict=True):
        draw.text((left, GAP), title, font=font, fill="black")
        canvas.paste(panel, (left, head + GAP))
        left += width + GAP
    return canvas


def _mosaic(patches: Sequence[np.ndarray]) -> Image.Image:
    """Arrange patches in rows, in the order in which the model receives them."""
    columns = int(np.ceil(len(patches) ** 0.5))
    cell = max(max(patch.shape[:2]) for patch in patches)
    step = cell + max(1, cell // 16)
    lines = -(-len(patches) // columns)
    canvas = Image.new("RGB", (columns * step, lines * step), CANVAS)
    for number, patch in enumerate(patches):
        canvas.paste(Image.fromarray(patch), (number % columns * step, number // columns * step))
    return canvas


def _within(image: Image.Image, side: int) -> Image.Image:
    """Resize an image so that its longer side is ``side`` pixels; small images are enlarged."""
    scale = side / max(image.size)
    width, height = (max(round(length * scale), 1) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _stack(rows: Sequence[Image.Image]) -> Image.Image:
    canvas = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), CANVAS)
    top = 0
    for each in rows:
        canvas.paste(each, (0, top))
        top += each.height
    return canvas


def _frame(image: Image.Image, box: np.ndarray, colour: tuple[int, int, int]) -> None:
    ImageDraw.Draw(image).rectangle(tuple(box.round().tolist()), outline=colour, width=3)
