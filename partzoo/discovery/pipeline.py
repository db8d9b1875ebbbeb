"""`discover_parts` and `fit_parts`: open, resize, encode, segment, describe and label each image.

Each stage produces a value for the next: ``OpenedImage``, ``View``, ``Encoded`` with its ``Foreground``,
``Descriptors``, ``PartVocabulary``, ``Parts``. The first four are one *look* of a finder at one image.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from partzoo.discovery.kept import Kept
from partzoo.discovery.labeller import Fitter, Labeller
from partzoo.discovery.masks import Masks, side_by_side
from partzoo.discovery.vocabulary import PartVocabulary, read_vocabulary
from partzoo.errors import ImageError, UsageError, counted
from partzoo.images.ahead import AHEAD, PassOver, Progress, read_ahead, work_ahead
from partzoo.images.opening import OpenedImage, OpenedImages, open_images
from partzoo.limits import MAX_BYTES, MAX_PIXELS, check_seed
from partzoo.parts.parts import Parts

if TYPE_CHECKING:
    from torch import nn

    from partzoo.discovery.factory import Background
    from partzoo.system.device import Device

FIT_IMAGES, FIT_CELLS = 500, 65_536  # largest numbers of images and of cells that a vocabulary is fitted on

Result = TypeVar("Result")


def discover_parts(
    images: Any,
    k: int | Literal["auto"] | None = None,
    *,
    model: str | nn.Module | None = None,
    vocabulary: PartVocabulary | str | os.PathLike | None = None,
    classes: int | Sequence[int] | None = None,
    mask: Any = None,
    background: Background = "auto",
    size: int | None = None,
    refine: bool = True,
    seed: int = 0,
    device: Device = None,
    batch_size: int = AHEAD,
    progress: Progress | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Parts | list[Parts]:
    """Find the parts of the objects in images.

    A single image is divided independently of all others. Many images share one vocabulary: part 3 is the same part in
    all of them.

    Args:
        images: one image or many, in any form that :func:`partzoo.images.opening.open_images` accepts: path, URL, PIL
            image, array, tensor, bytes, file object; a sequence of these, a folder or a glob.
        k: number of parts to look for. The result has fewer parts if the image has fewer, and none if it is blank.
            ``"auto"`` chooses at most 12, by how different they look. The default is ``"auto"`` for one image, 8
            for many, and for a learned part model all its parts in its numbering; with a smaller k, its parts that are
            most similar in these images are joined, and a larger k is an error.
        model: name of a model, or a module; None uses the bundled default.
        vocabulary: result of :func:`fit_parts`, or a file in which it was saved. It determines k, background, size and
            refine.
        classes: class number of each image, or one for all; required by a part model that has separate parts for
            several classes (``model.config.classes``).
        mask: known foreground: a mask or a box in any form that :func:`partzoo.discovery.masks.open_mask` accepts; for
            many images, a sequence with one per image (None finds the foreground). Every pixel inside it belongs to
            a part, and none outside. With several objects in a mask, each is divided separately into k parts, and those
            of the lowest object number come first. With a vocabulary, or in many images, objects share the parts.
        background: method that finds the foreground: a foreground model or its name, or one of
            ``partzoo.discovery.foreground.METHODS``; ``"auto"`` is the most accurate model (docs/discovery.md); None or
            False treats the whole image as foreground.
        size: longer side of the image that the encoder receives, in pixels: a larger size finds smaller parts and takes
            longer.
        refine: whether to align the parts with the image's edges.
        seed: random seed of the clustering.
        device: where the models run, as for :func:`partzoo.load`; a module is moved there, None leaves it where it is.
        batch_size: largest number of images in memory, in work or ready; large ones are fewer
            (:data:`partzoo.images.ahead.AHEAD_BYTES`). As many are in work at a time as there are processor cores.
            Each goes through the model separately: batches bring no speed on a CPU, and this way labels cannot depend
            on them.
        progress: function that is called with the number of labelled images and the total.
        max_pixels, max_bytes: largest image to decode and largest file to read; see
            :func:`partzoo.images.opening.open_image`.

    Returns:
        The image's ``Parts`` at its original size; a list of them for many images.

    Raises:
        ImageError: an image cannot be read. The first one ends the call, and nothing is returned for the others; the
            command line skips such images, and so can a loop over images with a vocabulary.
        UsageError: an argument is invalid: k = 0, more parts than pixels, an unknown background, a missing class, a
            model that is not an encoder of images, or a device that this machine does not have.
        WeightsError: the file of the vocabulary is missing or damaged.
    """
    from partzoo.discovery.factory import finder_of, make_finder

    opened, single = open_images(images, max_pixels=max_pixels, max_bytes=max_bytes)
    vocabulary = read_vocabulary(vocabulary)
    check_vocabulary(vocabulary, k)
    check_seed(seed)
    masks, kept = Masks(mask, len(opened), single), Kept()
    labeller: Labeller
    if vocabulary is None:
        labeller = finder = make_finder(model, background, size, refine, device)
        categories = categories_of(classes, len(opened), finder)
        k = finder.asked(k, alone=single)
        if single:
            for image in read_ahead(opened.__getitem__, [0], batch_size, progress):
                alone = divided(finder, image, categories[0], masks.objects(0, image.size), k, seed)
            return alone
        vocabulary = fitted(finder, opened, [k], [seed], batch_size, kept=kept, masks=masks)[k, seed]
    else:
        labeller = finder_of(vocabulary, model, device)
        categories = categories_of(classes, len(opened), labeller)
    found = label_images(labeller, opened, vocabulary, categories, batch_size, progress, kept, masks)
    labelled = [parts for _, parts in found]
    return labelled[0] if single else labelled


def fit_parts(
    images: Any,
    k: int | Literal["auto"] | None = None,
    *,
    labels: Any = None,
    names: Sequence[str] | None = None,
    sided: bool = False,
    model: str | nn.Module | None = None,
    mask: Any = None,
    background: Background = "auto",
    size: int | None = None,
    refine: bool = True,
    seed: int = 0,
    device: Device = None,
    batch_size: int = AHEAD,
    progress: Progress | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> PartVocabulary:
    """Learn a vocabulary of parts for use with ``discover_parts(..., vocabulary=...)``.

    With labels, the parts are those that the labels show: part i is label i. Without, they are discovered.

    It is fitted on at most 500 of the images, evenly spaced; up to that number their order does not matter.
    Parts are numbered by area, largest first, ties by first occurrence: in the pixels of a single image, or in the
    fitted cells of several images, before refinement. A learned part model needs no fitting: its vocabulary consists of
    all its parts. Only if k is smaller do the images matter: they decide which parts are joined.

    Arguments and errors are those of :func:`discover_parts`; ``progress`` counts the images used for fitting.

    Args:
        labels: labels of the images: for each one an array ``(H, W)``, a PIL image, an index PNG, the
            :class:`partzoo.Parts` of the image, or a file of COCO, LabelMe, YOLO or GeoJSON, and None for images
            without labels; or a folder with files named as the images are; or one COCO file. 0 is the background, and
            255 a pixel about which nothing is said, so a few strokes for each part are enough. In files that name
            their labels, one named ``background`` marks strokes of background; all else without a label is then
            unknown.
            Cells then also have the features of a foreground model, ``background``.
        names: names of the labels 1, 2, ...; by default those in the files.
        sided: whether left and right differ. By default, mirror images are learned from too, with the same labels. Of
            sided parts whose names differ in ``left`` and ``right`` (or ``l`` and ``r``) alone, mirror images have the
            labels exchanged; of parts without such names, none are used.
    """
    from partzoo.discovery.factory import make_finder, make_taught_finder
    from partzoo.discovery.given_labels import GivenLabels
    from partzoo.discovery.teaching import teach

    opened, single = open_images(images, max_pixels=max_pixels, max_bytes=max_bytes)
    check_seed(seed)
    if labels is not None:
        others = {"k": k is not None, "mask": mask is not None}
        if wrong := next((name for name, given in others.items() if given), None):
            raise UsageError(f"{wrong}= is for discovered parts: leave it out with labels=.")
        shown = GivenLabels.of(opened, single, labels, names)
        taught = make_taught_finder(model, background, size, refine, device)
        return teach(taught, shown, sided=sided, seed=seed, progress=progress)
    if names is not None or sided:
        raise UsageError(f"{'names' if names is not None else 'sided'}= is for labels=. Name the parts with rename().")
    finder = make_finder(model, background, size, refine, device)
    k, masks = finder.asked(k, alone=single), Masks(mask, len(opened), single)
    if single and not finder.knows(k):
        return fitted_alone(finder, opened[0], k, seed, masks)
    return fitted(finder, opened, [k], [seed], batch_size, progress, masks=masks)[k, seed]


def check_vocabulary(vocabulary: PartVocabulary | None, k: int | str | None) -> None:
    """Refuse a number of parts that differs from the vocabulary's.

    Raises:
        UsageError: k is given and is not the vocabulary's number of parts.
    """
    if vocabulary is not None and k not in (None, vocabulary.k):
        raise UsageError(
            f"k={k}: the vocabulary has {counted(vocabulary.k, 'part')}. Leave k out, or fit another vocabulary."
        )


def label_images(
    finder: Labeller,
    images: Sequence[OpenedImage],
    vocabulary: PartVocabulary,
    categories: Sequence[int | None],
    batch_size: int = AHEAD,
    progress: Progress | None = None,
    kept: Kept | None = None,
    masks: Masks | None = None,
    order: Sequence[int] | None = None,
    pass_over: PassOver | None = None,
    then: Callable[[int, Parts], Any] = lambda _, parts: parts,
) -> Generator[tuple[int, Any]]:
    """Label images with a vocabulary, several at a time, holding only a few in memory.

    Args:
        finder: finder that looks at the images and labels them.
        images: images to label.
        vocabulary: vocabulary of parts.
        categories: class of each image.
        batch_size: largest number of images in memory.
        progress: function that is called with the number of labelled images and the number to label.
        kept: network outputs kept while the vocabulary was fitted.
        masks: known foreground of the images, or None.
        order: indices of the images to label; None labels all.
        pass_over: function that is called for each unreadable image, which is then left out; None raises the error.
        then: function of an index and the parts, which runs in the thread that has found them, for example to write
            them to a file.

    Yields:
        The index of an image, and what ``then`` returns, by default its parts; in the order of the images.
    """
    kept, masks = kept or Kept(), masks or Masks(None, len(images), False)

    def label(index: int, image: OpenedImage, mask: np.ndarray | None) -> Any:
        look = finder.look(image, categories[index], kept.pop(index), mask)
        return then(index, finder.label(image, look, vocabulary))

    order = range(len(images)) if order is None else order
    return work_on(images, label, finder, masks, order, batch_size, progress, pass_over)


def divided(
    finder: Fitter,
    image: OpenedImage,
    category: int | None,
    objects: np.ndarray | None,
    k: int | Literal["auto"],
    seed: int,
) -> Parts:
    """Divide one image independently of all others, or each of its objects separately."""
    look = finder.look(image, category, mask=None if objects is None else objects > 0)
    numbers = [] if objects is None else np.unique(objects[objects > 0]).tolist()
    if len(numbers) < 2:
        return finder.label_alone(image, look, k, seed)[0]
    each = (finder.masked(look, objects == number) for number in numbers)
    return side_by_side([finder.label_alone(image, one, k, seed)[0] for one in each])


def work_on(
    images: Sequence[OpenedImage],
    work: Callable[[int, OpenedImage, np.ndarray | None], Result],
    finder: Labeller,
    masks: Masks,
    order: Sequence[int],
    batch_size: int,
    progress: Progress | None,
    pass_over: PassOver | None,
) -> Generator[tuple[int, Result]]:
    """Yield the index of each image that ``order`` lists, and what ``work`` makes of it, several at a time.

    ``work`` is called with the index, the image and its known foreground. An image that cannot be read, or whose mask
    does not fit it, is reported to ``pass_over`` and left out; without ``pass_over`` its error is raised.
    """

    def read(index: int) -> tuple[OpenedImage, np.ndarray | None]:
        image = images[index]
        return image, masks.foreground(index, image.size)

    return work_ahead(
        read,
        lambda index, found: work(index, *found),
        order,
        batch_size,
        progress,
        pass_over,
        threads=finder.threads,
        one_by_one=isinstance(images, OpenedImages) and images.one_by_one,
    )


def categories_of(classes: int | Sequence[int] | None, count: int, finder: Labeller) -> list[int | None]:
    """Return the class of each image, or None for all if the model's parts do not depend on the class."""
    if classes is None:
        return [None] * count
    if not finder.classes:
        raise UsageError("classes= is for a part model with parts for several classes, which this is not: omit it.")
    numbers = np.asarray(classes)
    if numbers.dtype.kind not in "iu" or numbers.shape not in ((), (count,)):
        raise UsageError(f"classes={classes!r} must be one whole number, or one for each image ({count}).")
    return np.broadcast_to(numbers, count).tolist()


def fitted_alone(
    finder: Fitter, image: OpenedImage, k: int | Literal["auto"], seed: int, masks: Masks, kept: Kept | None = None
) -> PartVocabulary:
    """Fit a vocabulary to a single image; arguments as in :func:`fitted`."""
    look = finder.look(image, mask=masks.foreground(0, image.size))
    if kept is not None:
        kept.add(0, finder.kept(look))
    return finder.label_alone(image, look, k, seed)[1]


def fitted(
    finder: Fitter,
    images: Sequence[OpenedImage],
    ks: Sequence[int | Literal["auto"]],
    seeds: Sequence[int],
    batch_size: int = AHEAD,
    progress: Progress | None = None,
    kept: Kept | None = None,
    masks: Masks | None = None,
    pass_over: PassOver | None = None,
) -> dict[tuple[int | str, int], PartVocabulary]:
    """Fit a vocabulary for each k and each seed, in one pass over the images.

    Args:
        finder: finder that looks at the images and fits vocabularies.
        images: images to fit on; a learned part model needs none to use all its parts.
        ks: numbers of parts, as returned by :meth:`Fitter.asked`.
        seeds: random seeds of sampling and clustering.
        batch_size: largest number of images in memory.
        progress: function that is called with the number of finished images and the total.
        kept: cache that receives the networks' outputs, for :func:`label_images`.
        masks: known foreground of the images, or None.
        pass_over: function that is called for each unreadable image, which is then left out; None raises the error.

    Raises:
        ImageError: none of the images can be read, or, without ``pass_over``, one of them cannot.
    """
    samples: list[list[Any]] = [[] for _ in seeds]
    if not all(map(finder.knows, ks)):
        samples = draw_samples(finder, images, seeds, batch_size, progress, kept, masks, pass_over)
    return {(k, seed): finder.fit(drawn, k, seed) for seed, drawn in zip(seeds, samples, strict=True) for k in ks}


def draw_samples(
    finder: Fitter,
    images: Sequence[OpenedImage],
    seeds: Sequence[int],
    batch_size: int = AHEAD,
    progress: Progress | None = None,
    kept: Kept | None = None,
    masks: Masks | None = None,
    pass_over: PassOver | None = None,
) -> list[list[Any]]:
    """Draw, for each seed, a bounded sample of the images' cells, in an order that depends only on their contents.

    Arguments and errors are those of :func:`fitted`.
    """
    masks = masks or Masks(None, len(images), False)
    chosen = np.linspace(0, len(images) - 1, min(len(images), FIT_IMAGES)).round().astype(int).tolist()

    def draw(index: int, image: OpenedImage, mask: np.ndarray | None) -> tuple[bytes, list[Any]]:
        look = finder.look(image, mask=mask)
        if kept is not None:
            kept.add(index, finder.kept(look))
        digest = hashlib.sha256(np.ascontiguousarray(image.pixels).data).digest()
        return digest, [finder.sample(look, FIT_CELLS // len(chosen), seed) for seed in seeds]

    drawn = [each for _, each in work_on(images, draw, finder, masks, chosen, batch_size, progress, pass_over)]
    if not drawn:
        raise ImageError(f"None of the {len(chosen)} images to learn the parts from can be read.")
    drawn.sort(key=lambda pair: pair[0])
    return [[samples[i] for _, samples in drawn] for i in range(len(seeds))]
