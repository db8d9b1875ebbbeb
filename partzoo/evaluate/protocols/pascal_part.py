"""``pascal-part``: a protocol on VOC 2010 images with masks of the objects' parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from partzoo.data.annotations import turn_to_image, warn_passed_over
from partzoo.data.reading import Example, Examples, check_split, need, read_mat, read_rows, squash, squash_mask
from partzoo.errors import UsageError
from partzoo.evaluate.protocols.base import PartProtocol
from partzoo.images.opening import open_image

GRID = 128
SPLITS = ("train", "val")
VOC = "VOCdevkit/VOC2010"
GET = (
    "Download trainval.tar.gz from https://roozbehm.info/pascal-parts/pascal-parts.html and VOCtrainval_03-May-2010"
    ".tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2010/, unpack both, and give the folder that holds "
    f"Annotations_Part/ and {VOC}/ with JPEGImages/ and ImageSets/Main/ (--data DIR)."
)

_FACE = "head leye reye lear rear"
_LEGS = "lfuleg lflleg rfuleg rflleg lbuleg lblleg rbuleg rblleg"
_PAWS = f"{_FACE} nose torso neck lfleg lfpa rfleg rfpa lbleg lbpa rbleg rbpa tail"
_BUS = (
    "frontside leftside rightside backside roofside leftmirror rightmirror fliplate bliplate "
    "door wheel headlight window"
)
_COW = f"{_FACE} muzzle lhorn rhorn torso neck {_LEGS} tail"
# The names in the data's part2ind.m, without the numbers of repeated parts (wheel_1, wheel_2).
PART_NAMES = {
    "aeroplane": "body stern lwing rwing tail engine wheel",
    "bicycle": "fwheel bwheel saddle handlebar chainwheel headlight",
    "bird": "head leye reye beak torso neck lwing rwing lleg lfoot rleg rfoot tail",
    "bottle": "cap body",
    "bus": _BUS,
    "car": _BUS,
    "cat": _PAWS,
    "cow": _COW,
    "dog": f"{_PAWS} muzzle",
    "horse": f"{_FACE} muzzle torso neck {_LEGS} tail lfho rfho lbho rbho",
    "motorbike": "fwheel bwheel handlebar saddle headlight",
    "person": f"{_FACE} lebrow rebrow nose mouth hair torso neck llarm luarm lhand rlarm ruarm rhand "
    "llleg luleg lfoot rlleg ruleg rfoot",
    "pottedplant": "pot plant",
    "sheep": _COW,
    "train": "head hfrontside hleftside hrightside hbackside hroofside headlight "
    "coach cfrontside cleftside crightside cbackside croofside",
    "tvmonitor": "screen",
}
LABELS = {
    pair: label
    for label, pair in enumerate(
        ((kind, part) for kind, parts in PART_NAMES.items() for part in parts.split()), start=1
    )
}


def load(data: str | Path, split: str, side: int = 224) -> Examples:
    """Read images squashed to ``side`` x ``side`` pixels, masks to 128 x 128; ``split`` is train (4,998), val (5,105).

    Raises:
        UsageError: the split is unknown, or the data is missing or damaged.
        MissingExtraError: scipy is not installed.
    """
    check_split("pascal-part", split, SPLITS)
    listed = f"{VOC}/ImageSets/Main/{split}.txt"
    data = need("pascal-part", data, ("Annotations_Part", f"{VOC}/JPEGImages", listed), GET)
    names = read_rows(data / listed, "image", lambda row: row[0])
    images = [
        Annotated(data / VOC / "JPEGImages" / f"{name}.jpg", data / "Annotations_Part" / f"{name}.mat")
        for name in names
    ]
    return Examples(images, partial(_example, side=side), lambda files: str(files.image))


@dataclass(frozen=True)
class Annotated:
    """An image file and the file that holds its parts."""

    image: Path
    annotation: Path


def _example(files: Annotated, side: int) -> Example:
    pixels = open_image(files.image).pixels
    mask = part_mask(files, pixels.shape[:2])
    return Example(squash(pixels, side), mask=squash_mask(mask, GRID))


def part_mask(files: Annotated, size: tuple[int, int]) -> np.ndarray:
    """Return the part of every pixel, numbered as in ``LABELS``, 0 if it has none; later parts cover earlier ones.

    Args:
        files: image and its ``.mat`` file.
        size: ``(height, width)`` of the image.

    Returns:
        ``(height, width)`` int64.

    Raises:
        UsageError: the file is damaged, or most of its masks differ in size from the image.
    """
    parts = _parts(files.annotation)
    sizes = Counter(part.shape for _, _, part in parts)
    drawn = sizes.most_common(1)[0][0] if sizes else size
    warn_passed_over(
        files.annotation,
        [(name, f"its mask is {part.shape}, others {drawn}") for _, name, part in parts if part.shape != drawn],
    )
    turn = turn_to_image(files.image, size, drawn, str(files.image), f"the masks of {files.annotation} are")
    mask = np.zeros(drawn, np.int64)
    for kind, name, part in parts:
        label = LABELS.get((kind, name.partition("_")[0]))
        if label is not None and part.shape == drawn:
            mask[part > 0] = label
    return turn(mask)


def _parts(file: Path) -> list[tuple[str, str, np.ndarray]]:
    """Read the class, name and mask of each part, in the file's order; warn about parts without name or mask."""
    annotation = read_mat(file, "anno", squeeze_me=True, struct_as_record=False)
    found, passed = [], []
    try:
        # The reader returns an array of one struct as the struct itself.
        for thing in np.atleast_1d(annotation.objects):
            kind = getattr(thing, "class")
            for place, part in enumerate(np.atleast_1d(thing.parts)):
                name, mask = getattr(part, "part_name", None), np.asarray(getattr(part, "mask", None))
                if isinstance(name, str) and mask.ndim == 2 and mask.dtype.kind in "biuf":
                    found.append((kind, name, mask))
                else:
                    passed.append((f"part {place} of {kind}", "it has no name or no mask"))
    except AttributeError as error:
        raise UsageError(f"{file} is not one of Pascal-Part's ({error}). Download the file again.") from error
    warn_passed_over(file, passed)
    return found


PASCAL_PART = PartProtocol(
    name="pascal-part",
    load=load,
    truths=len(LABELS) + 1,
    report="val",
    grid=GRID,
    background=0,
    source="Chen et al., 'Detect what you can', CVPR 2014 (data); the rules are partzoo's",
    rules=(
        "Neither paper reports results on this data set. The rules are ours and follow those of MPAE for "
        "PartImageNet. Models are fitted on the train split of VOC 2010 and reported on val. The true labels are "
        f"background and the {len(LABELS)} pairs of class and part in part2ind.m, a file of the data set; similar "
        "parts (wheel_1, wheel_2) count as one. Later parts lie over earlier ones. Pixels of objects without parts, "
        "and of parts that part2ind.m does not name, are background. The whole image is squashed to 224 x 224 "
        "(antialiased bilinear), and masks are resized to 128 x 128 (nearest), the grid on which maps are read. NMI "
        "and ARI are taken over all pixels. FG-NMI and FG-ARI are taken over the pixels of parts, each of which "
        "takes its strongest foreground channel."
    ),
    get=GET,
)
