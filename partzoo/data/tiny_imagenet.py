"""Read Tiny-ImageNet in its official layout or as sheets of tiles."""

from __future__ import annotations

from pathlib import Path

import torch

from partzoo.data.folders import image_files, load_images
from partzoo.data.image_sets import ImageSet
from partzoo.data.reading import inside, need, read_rows
from partzoo.errors import UsageError

SIDE = 64
GET = (
    "Download http://cs231n.stanford.edu/tiny-imagenet-200.zip and give the folder that it was unpacked into, with "
    "train/<wnid>/images and val/images + val/val_annotations.txt; or a folder of 64-pixel sheets train-00.avif, "
    "..., val-00.avif, ... with train-labels.npy, val-labels.npy and classes.json (--data DIR)."
)


def load(data: str | Path, split: str, limit: int | None = None) -> ImageSet:
    """Read Tiny-ImageNet from its official folder, or from sheets as :func:`partzoo.data.folders.load_images` does.

    The official validation images may be in one folder with ``val_annotations.txt``, or in one folder for each class.

    Args:
        data: folder with ``train/<wnid>/images`` and ``val``, or with ``train-00.avif``, ...
        split: ``"train"`` or ``"val"``.
        limit: largest number of images. They are drawn from all classes in a fixed random order; of sheets, which are
            in random order already, the first ones are used.

    Raises:
        UsageError: the split is unknown, or its files are missing.
    """
    if split not in ("train", "val"):
        raise UsageError(f"Unknown split {split!r} of tiny-imagenet; the splits with labels are train, val.")
    data = Path(data)
    if any(data.glob(f"{split}-*.avif")):
        return load_images(data, split, limit=limit)
    data = inside(data, "tiny-imagenet-200")
    need("tiny-imagenet", data, ["train", split], GET)
    classes = sorted(folder.name for folder in (data / "train").iterdir() if folder.is_dir())
    annotations = data / "val" / "val_annotations.txt"
    if split == "val" and annotations.exists() and (data / "val/images").is_dir():
        rows = read_rows(annotations, "image, class, box, with tabs between", lambda row: (row[0], row[1]), "\t")
        files, names = [data / "val/images" / file for file, _ in rows], [name for _, name in rows]
    else:
        files, names = image_files(data / split), []
    # The layouts with a folder per class: train/<wnid>/images/x.JPEG, val/<wnid>/x.JPEG or val/images/<wnid>/x.JPEG.
    known = {name: number for number, name in enumerate(classes)}
    names = names or [next((part for part in file.parts[::-1] if part in known), file.parent.name) for file in files]
    if strange := set(names) - set(known):
        raise UsageError(
            f"{data / split} has the class {min(strange)!r}, which {data / 'train'} lacks: unpack the archive again."
        )
    labels = torch.tensor([known[name] for name in names])
    if limit is not None and limit < len(files):
        chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))[:limit]
        files, labels = [files[i] for i in chosen], labels[chosen]
    return ImageSet(files, SIDE, labels, classes)
