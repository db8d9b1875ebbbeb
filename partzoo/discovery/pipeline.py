"""`discover_parts` and `fit_parts`: image -> features -> foreground -> parts -> maps -> labels."""

from __future__ import annotations

import functools
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from partzoo.discovery.describe import View
from partzoo.discovery.finder import DEFAULT_K, Finder
from partzoo.discovery.foreground import METHODS
from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import UnknownModelError, UsageError
from partzoo.features import DEFAULT_MODEL, encoder_of
from partzoo.images.opening import OpenedImage, open_images
from partzoo.models.folding import folded
from partzoo.models.foreground import ForegroundModel
from partzoo.models.loading import load
from partzoo.models.registry import find, list_models
from partzoo.parts.parts import Parts
from partzoo.weights.folder import stored_model

FIT_IMAGES, FIT_CELLS = 500, 65_536  # what a vocabulary is fitted on, at most
FOREGROUND = "foreground-lite0.masks"  # the model that background="auto" stands for
FEATURES, COLOUR, PLACE = 0.8, 0.15, 0.05  # weights in a descriptor, see docs/discovery.md
COARSEST, CELLS = 32, 28  # the stride from which two levels are compared; cells along the longer side, for finer ones

Progress = Callable[[int, int], None]


def discover_parts(
    images: Any,
    k: int | Literal["auto"] | None = DEFAULT_K,
    *,
    model: str | nn.Module | None = None,
    vocabulary: PartVocabulary | None = None,
    classes: int | Sequence[int] | None = None,
    background: str | bool | None = "auto",
    size: int | None = None,
    refine: bool = True,
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Parts | list[Parts]:
    """Find the parts of what images show.

    One image is divided by itself. Many share one vocabulary: part 3 is the same part in all of them.

    Args:
        images: one image or many, as :func:`partzoo.images.opening.open_images` takes them: path, URL, PIL image,
            array, tensor, bytes, file object; a sequence of these, a folder or a glob.
        k: how many parts to look for. An image with fewer gives fewer, a blank one none. ``"auto"``: the k in 2..12
            whose clusters have the highest mean silhouette. A learned part model has parts of its own: None and
            ``"auto"`` take them, as it numbers them, a smaller k joins the most similar ones in these images, a
            larger one is an error. Where no k is said, one with fewer than 8 gives its own.
        model: name or module; the bundled default if None.
        vocabulary: what :func:`fit_parts` found. It brings its own k, background, size and refine.
        classes: number of the class that each image shows, or one for all: of a part model that has parts of several
            classes (``model.config.classes``), each with parts of its own.
        background: how the foreground is found: a foreground model by name, or one of
            ``partzoo.discovery.foreground.METHODS``; ``"auto"`` is the model that did best (docs/discovery.md); None or
            False takes everything for foreground.
        size: longer side at work, in pixels: a larger one shows smaller parts and takes longer.
        refine: follow the image's edges.
        seed: of the clustering.
        batch_size: images read ahead while one is at work, which bounds memory. Each goes through the model alone:
            batches bring no speed on a CPU, and so labels cannot depend on them.
        progress: called with the number of images labelled and of all.

    Returns:
        The image's ``Parts``, in its own pixels; a list of them where many were given.

    Raises:
        ImageError: an image cannot be read.
        UsageError: an argument is out of range: k = 0, more parts than pixels, an unknown background, a class missing.
    """
    opened, single = open_images(images)
    if vocabulary is not None:
        finder = _finder_of(vocabulary, model)
    else:
        finder = make_finder(model, background, size, refine)
        k = finder.asked(k)
    categories = _categories(classes, len(opened), finder)
    if vocabulary is None and not single:
        vocabulary = fitted(finder, opened, [k], [seed], batch_size)[k, seed]
    found = []
    ahead = read_ahead(opened, range(len(opened)), batch_size, progress)
    for image, category in zip(ahead, categories, strict=True):
        view = finder.look(image, category)
        alone = vocabulary is None
        found.append(_alone(finder, image, view, k, seed)[0] if alone else finder.parts(image, view, vocabulary))
    return found[0] if single else found


def fit_parts(
    images: Any,
    k: int | Literal["auto"] | None = DEFAULT_K,
    *,
    model: str | nn.Module | None = None,
    background: str | bool | None = "auto",
    size: int | None = None,
    refine: bool = True,
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> PartVocabulary:
    """Learn a vocabulary of parts, to use again with ``discover_parts(..., vocabulary=...)``.

    It is fitted on at most 500 of the images, spread evenly over them; up to there their order does not matter.
    Parts are numbered by area, largest first, ties by the first place: for one image in its pixels, for many in the
    cells that the vocabulary is fitted on, before edges are followed. The parts of a learned part model are not fitted:
    all of them are its vocabulary, whatever the images; only which of them a smaller k joins depends on these.

    Args and errors: those of :func:`discover_parts`; ``progress`` counts the images that it is fitted on.
    """
    opened, single = open_images(images)
    finder = make_finder(model, background, size, refine)
    k = finder.asked(k)
    if single and not finder.knows(k):
        return _alone(finder, opened[0], finder.look(opened[0]), k, seed)[1]
    return fitted(finder, opened, [k], [seed], batch_size, progress)[k, seed]


def read_ahead(
    images: Sequence[OpenedImage], order: Sequence[int], count: int, progress: Progress | None = None
) -> Iterator[OpenedImage]:
    """The images that ``order`` lists, up to ``count`` of them read by other threads while one is at work."""
    if count < 1:
        raise UsageError(f"batch_size={count} must be at least 1.")
    if len(order) == 1:
        yield images[order[0]]
        if progress:
            progress(1, 1)
        return
    with ThreadPoolExecutor(1 if count == 1 else 2) as pool:
        waiting: deque[Future[OpenedImage]] = deque()
        try:
            for done in range(len(order)):
                for index in order[done + len(waiting) : done + count]:
                    waiting.append(pool.submit(images.__getitem__, index))
                yield waiting.popleft().result()
                if progress:
                    progress(done + 1, len(order))
        finally:
            for future in waiting:
                future.cancel()


def make_finder(
    model: str | nn.Module | None = None,
    background: str | bool | None = "auto",
    size: int | None = None,
    refine: bool = True,
) -> Finder:
    """What finds parts with a model; arguments and errors are those of :func:`discover_parts`."""
    if size is not None and size < 1:
        raise UsageError(f"size={size} must be at least 1 pixel.")
    encoder = looking_model(model)
    name = DEFAULT_MODEL if model is None else model if isinstance(model, str) else ""
    if hasattr(encoder, "part_maps"):
        return Finder(encoder, Settings(name, size or encoder.preprocess.size, refine=refine))
    method = _method(background, encoder)
    settings = Settings(name, size or default_size(encoder), *blend(encoder), method, refine)
    return Finder(encoder, settings, foreground_model(method))


def looking_model(model: str | nn.Module | None) -> nn.Module:
    """The encoder of a name, made fast to look with; a module of the caller's stays as it is."""
    encoder = encoder_of(model)
    return encoder if isinstance(model, nn.Module) else folded(encoder)


def _method(background: str | bool | None, encoder: nn.Module) -> str:
    """The name of a foreground method or model."""
    if background is None or background is False:
        return "none"
    if background is True or background == "auto":
        return FOREGROUND
    if background == "objectness" and not hasattr(encoder, "objectness"):
        raise UsageError("background='objectness' needs an encoder with that head: patchresnet14-fg.caltech101.")
    if background in METHODS or is_foreground_model(background):
        return background
    known = ", ".join([*METHODS, *list_models(family="foreground", pretrained=True)])
    raise UsageError(f"Unknown background {background!r}: it is 'auto', None, or one of {known}.")


def is_foreground_model(name: str) -> bool:
    """Whether a name, a folder or a file is a foreground model's."""
    stored = stored_model(name) if Path(name).exists() else None
    try:
        return find(stored[0] if stored else name).family == "foreground"
    except UnknownModelError:
        return False


def foreground_model(method: str) -> ForegroundModel | None:
    """The foreground model that a method names; None for the other methods.

    A released one is kept for the next call; a folder or a file may hold another model by then.
    """
    if method in METHODS:
        return None
    return folded(load(method)) if Path(method).exists() else _released(method)


@functools.lru_cache(maxsize=2)
def _released(name: str) -> ForegroundModel:
    return folded(load(name))


def _finder_of(vocabulary: PartVocabulary, model: str | nn.Module | None) -> Finder:
    name = vocabulary.settings.model
    if model is None and not name:
        raise UsageError("The vocabulary was fitted with a module that has no name: pass that module as model=.")
    encoder = looking_model(name if model is None else model)
    method = _method(vocabulary.settings.background, encoder)
    finder = Finder(encoder, vocabulary.settings, foreground_model(method))
    if len(vocabulary.numbering) != finder.own:
        raise UsageError(
            f"The vocabulary is of a model with {len(vocabulary.numbering)} learned parts, this one has {finder.own}: "
            "use the model that the vocabulary was fitted with."
        )
    return finder


def blend(encoder: nn.Module) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Which layers of an encoder are compared, and the weights of each, of colour and of place.

    It is the last layer; of a network whose last map is as coarse as stride 32, a third is the map before it.
    """
    if len(encoder.reductions) > 1 and encoder.reductions[-1] >= COARSEST:
        return (-2, -1), (FEATURES / 3, 2 * FEATURES / 3, COLOUR, PLACE)
    return (-1,), (FEATURES, COLOUR, PLACE)


def default_size(encoder: nn.Module) -> int:
    """Longer side at work, in pixels: 28 cells of the encoder's grid, but 224 to 448 pixels."""
    return min(max(CELLS * encoder.patch, 224), 448)


def _categories(classes: int | Sequence[int] | None, count: int, finder: Finder) -> list[int | None]:
    """The class of each image; None for all of a model whose parts are the same in every class."""
    if classes is None:
        return [None] * count
    if not finder.classes:
        raise UsageError("classes= is for a part model with parts of several classes, and this one is none: leave it.")
    numbers = np.asarray(classes)
    if numbers.dtype.kind not in "iu" or numbers.shape not in ((), (count,)):
        raise UsageError(f"classes={classes!r} must be one whole number, or one for each of the {count} images.")
    return np.broadcast_to(numbers, count).tolist()


def _alone(finder: Finder, image: OpenedImage, view: View, k: int | str, seed: int) -> tuple[Parts, PartVocabulary]:
    if isinstance(k, int) and not finder.learned:
        (height, width), cells = image.size, view.inside.numel()
        if k > height * width:
            raise UsageError(f"k={k} exceeds the {height * width} pixels of this {height}x{width} image: use fewer.")
        if k > cells:
            raise UsageError(
                f"k={k} exceeds the {cells} cells of this image at work. Use k <= {cells} or a larger size."
            )
    return finder.parts_alone(image, view, k, seed)


def fitted(
    finder: Finder,
    images: Sequence[OpenedImage],
    ks: Sequence[int | Literal["auto"]],
    seeds: Sequence[int],
    batch_size: int = 8,
    progress: Progress | None = None,
) -> dict[tuple[int | str, int], PartVocabulary]:
    """A vocabulary for each k, as ``Finder.asked`` gives it, and each seed, from one pass over the images; from none
    where a learned part model knows them all."""
    samples: list[list[Tensor]] = [[] for _ in seeds]
    if not all(map(finder.knows, ks)):
        samples = _draw_samples(finder, images, seeds, batch_size, progress)
    return {(k, seed): finder.fit(drawn, k, seed) for seed, drawn in zip(seeds, samples, strict=True) for k in ks}


def _draw_samples(
    finder: Finder,
    images: Sequence[OpenedImage],
    seeds: Sequence[int],
    batch_size: int,
    progress: Progress | None,
) -> list[list[Tensor]]:
    """For each seed a bounded sample of the images' cells, in an order that depends on their contents alone."""
    chosen = np.linspace(0, len(images) - 1, min(len(images), FIT_IMAGES)).round().astype(int)
    drawn = []
    for image in read_ahead(images, chosen.tolist(), batch_size, progress):
        view = finder.look(image)
        digest = hashlib.sha256(image.pixels.tobytes()).digest()
        drawn.append((digest, [finder.sample(view, FIT_CELLS // len(chosen), seed) for seed in seeds]))
    drawn.sort(key=lambda pair: pair[0])
    return [[samples[i] for _, samples in drawn] for i in range(len(seeds))]
