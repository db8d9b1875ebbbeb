"""Find the parts in images as the options of a command say: ``partzoo discover`` and ``partzoo report``."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Container, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from partzoo.cli.command import show_progress
from partzoo.cli.options import (
    ENGINES,
    background_option,
    device_option,
    limit_options,
    model_option,
    seed_range,
    strict_option,
)
from partzoo.errors import UsageError
from partzoo.files import expand_user

if TYPE_CHECKING:
    from partzoo.cli.failures import Failures
    from partzoo.cli.journal import Journal
    from partzoo.discovery.kept import Kept
    from partzoo.discovery.labeller import Fitter, Labeller
    from partzoo.discovery.masks import Masks
    from partzoo.discovery.vocabulary import PartVocabulary, Settings
    from partzoo.images.opening import OpenedImages
    from partzoo.models.engines.running import Engine
    from partzoo.parts.parts import Parts


class PartCount(click.ParamType):
    """A parameter that is a number, ``auto``, or ``own`` (the parts that a learned part model has)."""

    name = "k"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in ("auto", "own") or isinstance(value, int):
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor 'auto' nor 'own'.", param, ctx)


K = click.option(
    "-k",
    "k",
    type=PartCount(),
    show_default="auto for one image, 8 for many, own for a part model",
    help="Number of parts: a number, auto (chosen by how different they look), or own (the part model's number).",
)
VOCABULARY = (
    click.option(
        "--vocabulary", type=click.Path(), help="File of saved parts to find again; it sets k and the settings."
    ),
    click.option("--save-vocabulary", type=click.Path(), help="File to save the parts to, for a later --vocabulary."),
)
SETTINGS = (
    background_option,
    click.option(
        "--size",
        type=int,
        help="Longer side of the image that the encoder receives, in pixels: larger finds smaller parts, "
        "but is slower.",
    ),
    click.option(
        "--refine/--no-refine", default=True, show_default=True, help="Align the parts with the image's edges."
    ),
)
ENGINE = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    show_default=True,
    help="What runs the models. auto: onnxruntime for the default model and settings, which then starts in a fifth of "
    "the time and memory, where it is installed; otherwise torch. Other models take up to minutes to prepare for "
    "onnxruntime or openvino the first time.",
)
KNOWN = (
    click.option(
        "--mask", help="Known foreground: a mask file, a folder of mask files, or a box LEFT,TOP,RIGHT,BOTTOM."
    ),
    click.option("--class", "category", type=int, help="Class of the images, for a part model with several classes."),
)
MACHINE = (
    click.option("--seed", type=seed_range, default=0, show_default=True, help="Random seed of the clustering."),
    device_option,
    limit_options,
    strict_option,
)


def finding_options(command: Callable) -> Callable:
    """Add the options that decide how parts are found."""
    return _with((K, model_option, *VOCABULARY, *SETTINGS, *KNOWN, ENGINE, *MACHINE), command)


def fitting_options(command: Callable) -> Callable:
    """Add the options that decide which parts are learned."""
    return _with((K, model_option, *SETTINGS, *MACHINE), command)


def _with(options: Sequence[Callable], command: Callable) -> Callable:
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True)
class Run:
    """A run over one image or many.

    Attributes:
        images: the images to work on.
        single: whether the run is over one image.
        mask: known foreground, or None.
        category: class of the images, or None.
        options: arguments of :func:`partzoo.fit_parts`.
        failures: record of the images that cannot be used.
        journal: store of the vocabulary and the finished images of a run over many images, or None.
        quiet: whether to hide progress bars.
        engine: ``"torch"``, ``"onnxruntime"``, ``"openvino"`` or ``"auto"``, which chooses.
    """

    images: OpenedImages
    single: bool
    mask: Any
    category: int | None
    options: dict[str, Any]
    failures: Failures[int]
    journal: Journal | None = None
    quiet: bool = False
    engine: str = "auto"


@dataclass(frozen=True)
class Found:
    """The parts of a run.

    Attributes:
        k: number of parts.
        learned: whether a part model has learned the parts.
        settings: settings that the parts were found with.
        labelled: the index of each image, and what was made of its parts, while only a few images are in memory.
    """

    k: int
    learned: bool
    settings: Settings
    labelled: Generator[tuple[int, Any]]


def find(
    run: Run,
    k: int | str | None,
    vocabulary: str | None,
    save_vocabulary: str | None,
    done: Container[int] = (),
    then: Callable[[int, Parts], Any] = lambda _, parts: parts,
) -> Found:
    """Fit or read a vocabulary, and prepare to label the images with it, except those whose index is in ``done``.

    ``then`` makes something of the index and the parts of each image, by default the parts alone; it is called in
    several threads.
    """
    from partzoo.discovery.kept import Kept
    from partzoo.discovery.masks import Masks
    from partzoo.discovery.pipeline import categories_of, divided

    images, single = run.images, run.single
    own, k = k == "own", None if k == "own" else k
    light = is_light(run, vocabulary)
    finder: Fitter | None = None
    labeller: Labeller
    if vocabulary is None:
        labeller = finder = _finder(run, light)
    else:
        words, labeller = _given(run, k, vocabulary)
    if own and not labeller.learned:
        raise UsageError("-k own is for part models, and this is an encoder: give a number, or leave -k out.")
    categories, masks = categories_of(run.category, len(images), labeller), Masks(run.mask, len(images), single)
    kept = Kept()
    if finder is not None:
        asked = finder.asked(k, alone=single)
        if single and not save_vocabulary:
            image = images[0]
            parts = divided(finder, image, categories[0], masks.objects(0, image.size), asked, run.options["seed"])
            return Found(parts.k, finder.learned, finder.settings, ((0, then(0, each)) for each in [parts]))
    run.failures.begin()
    if run.journal:
        run.journal.begin()
    if finder is not None:
        words = _vocabulary(run, finder, asked, kept, masks)
    if save_vocabulary:
        words.save(save_vocabulary)
    order = [index for index in range(len(images)) if index not in done and index not in run.failures]
    labelled = _label(run, labeller, words, categories, kept, masks, order, then)
    return Found(words.k, labeller.learned, labeller.settings, labelled)


def _finder(run: Run, light: bool) -> Fitter:
    """Return the finder for the options."""
    if light:
        from partzoo.light.finder import LightFinder

        return LightFinder(keep=not run.single)
    from partzoo.discovery.factory import make_finder

    return make_finder(**{name: value for name, value in run.options.items() if name != "seed"}, engine=_engine(run))


def _given(run: Run, k: int | str | None, vocabulary: str) -> tuple[PartVocabulary, Labeller]:
    """Return the vocabulary in a file, and what labels images with it."""
    from partzoo.discovery.factory import finder_of
    from partzoo.discovery.pipeline import check_vocabulary
    from partzoo.discovery.vocabulary import PartVocabulary

    words = PartVocabulary.load(vocabulary)
    check_vocabulary(words, k)
    return words, finder_of(words, run.options["model"], run.options["device"], _engine(run))


def _engine(run: Run) -> Engine:
    """Return what runs models that are loaded in torch."""
    return "torch" if run.engine == "auto" else cast("Engine", run.engine)


def is_light(run: Run, vocabulary: str | None) -> bool:
    """Return whether ONNX Runtime finds the parts without torch, which it can with the default model and settings.

    ``auto`` chooses that where it is installed, but not for many images on a machine with an NVIDIA GPU, which torch
    uses.
    """
    needs = (
        vocabulary is not None,
        run.options["model"] is not None,
        run.options["background"] != "auto",
        run.options["size"] is not None,
        not run.options["refine"],
        run.mask is not None,
        run.category is not None,
        run.options["device"] not in (None, "cpu"),
    )
    if run.engine != "auto":
        return run.engine == "onnxruntime" and not any(needs)
    has_gpu = run.options["device"] is None and not run.single and shutil.which("nvidia-smi") is not None
    return not any(needs) and not has_gpu and find_spec("onnxruntime") is not None


def _vocabulary(run: Run, finder: Fitter, k: Any, kept: Kept, masks: Masks) -> PartVocabulary:
    """Return the vocabulary of parts, learned from the images or read from the run that is resumed."""
    from tqdm import tqdm

    from partzoo.discovery.pipeline import fitted, fitted_alone
    from partzoo.discovery.vocabulary import PartVocabulary

    if run.single and not finder.knows(k):
        return fitted_alone(finder, run.images[0], k, run.options["seed"], masks, kept)
    if run.journal and run.journal.vocabulary.exists():
        return PartVocabulary.load(run.journal.vocabulary, arrays=finder.arrays)
    seed, pass_over = run.options["seed"], run.failures.pass_over
    with tqdm(desc="learning the parts", unit="image", disable=True if run.quiet or run.single else None) as bar:
        show = partial(show_progress, bar)
        found = fitted(finder, run.images, [k], [seed], progress=show, kept=kept, masks=masks, pass_over=pass_over)
    if run.journal:
        found[k, seed].save(run.journal.vocabulary)
    return found[k, seed]


def _label(
    run: Run,
    labeller: Labeller,
    words: PartVocabulary,
    categories: list[int | None],
    kept: Kept,
    masks: Masks,
    order: list[int],
    then: Callable[[int, Parts], Any],
) -> Generator[tuple[int, Any]]:
    from tqdm import tqdm

    from partzoo.discovery.pipeline import label_images

    hidden = True if run.quiet or run.single else None
    with tqdm(total=len(order), desc="finding the parts", unit="image", disable=hidden) as bar:
        yield from label_images(
            labeller,
            run.images,
            words,
            categories,
            progress=lambda *_: bar.update(),
            kept=kept,
            masks=masks,
            order=order,
            pass_over=run.failures.pass_over,
            then=then,
        )


def given_mask(mask: str | None, images: OpenedImages, single: bool) -> Any:
    """Return the mask or box that an option names, or one mask per image from a folder, matched by file name."""
    if mask is None:
        return None
    box = _numbers(mask)
    if len(box) > 1:
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise UsageError(f"--mask {mask} is not a box of four finite numbers: LEFT,TOP,RIGHT,BOTTOM.")
        return box
    folder = expand_user(mask)
    if single or not folder.is_dir():
        return mask
    files = {file.stem: file for file in sorted(folder.iterdir()) if file.is_file()}
    masks = [files.get(Path(images.name(index)).stem) for index in range(len(images))]
    if not any(masks):
        raise UsageError(f"--mask {mask} holds no file with the name of one of the images.")
    return masks


def _numbers(text: str) -> tuple[float, ...]:
    """Return the numbers that commas separate, or none if the text is anything else, such as a path."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        return ()


def mask_files(given: Any) -> list[Any]:
    """Return the files from which the foreground is read."""
    if given is None or isinstance(given, tuple):
        return []
    return given if isinstance(given, list) else [given]
