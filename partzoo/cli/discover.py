"""The command ``partzoo discover``."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from partzoo.cli.command import Command, print_json, table
from partzoo.cli.options import (
    background_option,
    device_option,
    images_argument,
    json_option,
    limit_options,
    model_option,
    resume_option,
    strict_option,
)
from partzoo.cli.part_files import Output, output_of
from partzoo.cli.wording import done_before
from partzoo.errors import UsageError, counted, one_line
from partzoo.files import expand_user
from partzoo.locks import locked
from partzoo.parts.formats import FORMATS, Options, Segmentation
from partzoo.places import check_apart, check_place, made_folder

if TYPE_CHECKING:
    from partzoo.cli.failures import Failures
    from partzoo.cli.journal import Journal
    from partzoo.discovery.finder import Finder
    from partzoo.discovery.masks import Masks
    from partzoo.discovery.pipeline import Kept
    from partzoo.discovery.vocabulary import PartVocabulary
    from partzoo.images.opening import OpenedImages
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


@click.command(
    cls=Command,
    short_help="Find the parts in images.",
    epilog="""
    \b
    Examples:
      partzoo discover photo.jpg -o parts.png            overlay on the image
      partzoo discover photo.jpg -o parts.index.png      PNG whose pixels are part numbers
      partzoo discover photo.jpg -o parts.npz            everything, for partzoo.Parts.load
      partzoo discover images/ -k 6 -o out/              many images: part 3 is the same part in all
      partzoo discover images/ -k 6 -o parts.json        one COCO file for all of them
      partzoo discover images/ -k 6 -o out/ --format .txt  a YOLO data set: out/data.yaml, images/, labels/
    \b
    Of many images, unreadable ones are skipped and listed in out/failed.csv. To continue a stopped run, repeat the
    command.
    \b
    To keep the parts of one set and find them in new images:
      partzoo discover images/ -k 6 -o out/ --save-vocabulary six.parts.safetensors
      partzoo discover new.jpg --vocabulary six.parts.safetensors -o new.png
    """,
)
@images_argument
@click.option(
    "-k",
    "k",
    type=PartCount(),
    show_default="auto for one image, 8 for many, own for a part model",
    help="Number of parts: a number, auto (chosen by how different they look), or own (the part model's number).",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(),
    help=f"File to write ({' '.join(FORMATS)}); for several images, a folder or one .json file.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(tuple(FORMATS)),
    default=".png",
    show_default=True,
    help=f"Format of a folder: {', '.join(f'{each.ending} {each.what}' for each in FORMATS.values())}.",
)
@click.option(
    "--segmentation",
    type=click.Choice(("rle", "polygons")),
    default="rle",
    show_default=True,
    help="Masks in COCO: run lengths, or polygons along the edges of pixels.",
)
@model_option
@click.option("--vocabulary", type=click.Path(), help="File of saved parts to find again; it sets k and the settings.")
@click.option("--save-vocabulary", type=click.Path(), help="File to save the parts to, for a later --vocabulary.")
@background_option
@click.option(
    "--size",
    type=int,
    help="Longer side of the image that the encoder receives, in pixels: larger finds smaller parts, but is slower.",
)
@click.option("--refine/--no-refine", default=True, show_default=True, help="Align the parts with the image's edges.")
@click.option("--mask", help="Known foreground: a mask file, a folder of mask files, or a box LEFT,TOP,RIGHT,BOTTOM.")
@click.option(
    "--scale", type=click.IntRange(1), help="Factor by which overlays are enlarged.  [default: to about 800 pixels]"
)
@click.option("--class", "category", type=int, help="Class of the images, for a part model with several classes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed of the clustering.")
@device_option
@limit_options
@strict_option
@resume_option
@json_option
def discover(
    images: tuple[str, ...],
    k: int | str | None,
    out: str | None,
    form: str,
    segmentation: Segmentation,
    model: str | None,
    vocabulary: str | None,
    save_vocabulary: str | None,
    background: str,
    size: int | None,
    refine: bool,
    mask: str | None,
    scale: int | None,
    category: int | None,
    seed: int,
    device: str | None,
    max_pixels: int,
    max_bytes: int,
    strict: bool,
    resume: bool | None,
    as_json: bool,
) -> None:
    """Find the parts in images, given as files, addresses, folders or wildcards."""
    from partzoo.cli.failures import Failures
    from partzoo.images.opening import open_images

    named = images[0] if len(images) == 1 else images
    opened, single = open_images(named, max_pixels=max_pixels, max_bytes=max_bytes)
    if resume and (single or out is None):
        raise UsageError("--resume needs many images and an output: name a folder or a .json file with -o.")
    output = output_of(out, form, opened, single, Options(scale, segmentation))
    given = _given(mask, opened, single)
    read = (*map(opened.name, range(len(opened))), *_mask_files(given), model, vocabulary, background)
    check_apart((*output.files, output.path, save_vocabulary), read)
    options = {"model": model, "background": background, "size": size, "refine": refine, "seed": seed}
    others = {"k": k, "vocabulary": vocabulary, "mask": mask, "scale": scale, "class": category, "format": form}
    others["segmentation"] = segmentation
    with made_folder(output.folder), ExitStack() as held:
        for path in filter(None, (out, save_vocabulary)):
            check_place(Path(path))
        for place in filter(None, (output.path, Path(save_vocabulary) if save_vocabulary else None)):
            held.enter_context(locked(place))
        journal = _journal(output, options | others, resume)
        folder = None if single else output.folder
        failures = Failures(len(opened), opened.name, what="images", strict=strict or single, folder=folder)
        about = _done_before(journal, opened, output)
        before = len(about)
        options["device"] = device  # of no concern to the journal: the parts are the same
        run = Run(opened, single, given, category, options, failures, journal, quiet=as_json)
        with journal or nullcontext():
            number, learned, labelled = _find(run, k, vocabulary, save_vocabulary, about)
            for index, parts in labelled:
                name = opened.name(index)
                output.write(parts, index)
                about[index] = _about(parts, name, output.named(index))
                if journal:
                    journal.add(name, output.files[index], about[index])
            output.join(sorted(about))
            if journal and (output.together or not failures.listed()):
                journal.remove()
    found = [about[index] for index in sorted(about)]
    _warn(found, learned)
    if as_json:
        print_json({"k": number, "images": found, "failed": failures.listed()})
    elif found:
        _report(found, single, number, before)
        hint = f"add -o {'parts.png' if single else 'FOLDER'} to see the parts."
        written = ", ".join(filter(None, (out, save_vocabulary)))
        click.echo(f"Written: {written}" if written else f"Nothing was written: {hint}")
        if save_vocabulary and not out:
            click.echo(f"No parts were written: {hint}")
    failures.check()


@dataclass(frozen=True)
class Run:
    """A run of ``partzoo discover`` over one image or many.

    Attributes:
        images: the images to work on.
        single: whether the run is over one image.
        mask: known foreground, or None.
        category: class of the images, or None.
        options: arguments of :func:`partzoo.fit_parts`.
        failures: record of the images that cannot be used.
        journal: store of the vocabulary and the finished images of a run over many images, or None.
        quiet: whether to hide progress bars.
    """

    images: OpenedImages
    single: bool
    mask: Any
    category: int | None
    options: dict[str, Any]
    failures: Failures[int]
    journal: Journal | None
    quiet: bool


def _journal(output: Output, settings: dict[str, Any], resume: bool | None) -> Journal | None:
    """Open the journal of a run over many images. Masks are compared by path only, as they may be repaired."""
    from partzoo.cli.journal import Journal, fingerprint

    if output.journal is None:
        return None
    files = {name: fingerprint(settings[name]) for name in ("model", "vocabulary", "background")}
    return Journal(output.journal, str(output.path), {"command": "discover"} | settings | files, resume=resume)


def _done_before(journal: Journal | None, images: OpenedImages, output: Output) -> dict[int, dict[str, Any]]:
    """Return the journal's records of the images that a resumed run has finished, by index."""
    if journal is None:
        return {}
    found = ((index, journal.done(images.name(index), file)) for index, file in enumerate(output.files))
    return {index: about for index, about in found if about is not None}


def _find(
    run: Run, k: int | str | None, vocabulary: str | None, save_vocabulary: str | None, done: Container[int]
) -> tuple[int, bool, Iterator[tuple[int, Parts]]]:
    """Return the number of parts, whether a part model has learned them, and an iterator over the unfinished images.

    The iterator yields the index and the parts of each image.

    The parts are computed one image at a time, so that memory does not grow with the number of images.
    """
    from partzoo.discovery.factory import finder_of, make_finder
    from partzoo.discovery.masks import Masks
    from partzoo.discovery.pipeline import Kept, categories_of, check_vocabulary, divided
    from partzoo.discovery.vocabulary import PartVocabulary

    images, single = run.images, run.single
    words: PartVocabulary | None = PartVocabulary.load(vocabulary) if vocabulary else None
    settings = {name: value for name, value in run.options.items() if name != "seed"}
    own, k = k == "own", None if k == "own" else k
    check_vocabulary(words, k)
    finder = make_finder(**settings) if words is None else finder_of(words, run.options["model"], run.options["device"])
    if own and not finder.learned:
        raise UsageError("-k own is for part models, and this is an encoder: give a number, or leave -k out.")
    categories, masks = categories_of(run.category, len(images), finder), Masks(run.mask, len(images), single)
    kept, asked = Kept(), finder.asked(k, alone=single)
    if words is None and single and not save_vocabulary:
        image = images[0]
        parts = divided(finder, image, categories[0], masks.objects(0, image.size), asked, run.options["seed"])
        return parts.k, finder.learned, iter([(0, parts)])
    run.failures.begin()
    if run.journal:
        run.journal.begin()
    words = words or _vocabulary(run, finder, asked, kept, masks)
    if save_vocabulary:
        words.save(save_vocabulary)
    order = [index for index in range(len(images)) if index not in done and index not in run.failures]
    return words.k, finder.learned, _label(run, finder, words, categories, kept, masks, order)


def _vocabulary(run: Run, finder: Finder, k: Any, kept: Kept, masks: Masks) -> PartVocabulary:
    """Return the vocabulary of parts, learned from the images or read from the run that is resumed."""
    from tqdm import tqdm

    from partzoo.discovery.pipeline import fitted, fitted_alone
    from partzoo.discovery.vocabulary import PartVocabulary

    if run.single and not finder.knows(k):
        return fitted_alone(finder, run.images[0], k, run.options["seed"], masks, kept)
    if run.journal and run.journal.vocabulary.exists():
        return PartVocabulary.load(run.journal.vocabulary)
    seed, pass_over = run.options["seed"], run.failures.pass_over
    with tqdm(desc="learning the parts", unit="image", disable=True if run.quiet or run.single else None) as bar:
        show = partial(_show, bar)
        found = fitted(finder, run.images, [k], [seed], progress=show, kept=kept, masks=masks, pass_over=pass_over)
    if run.journal:
        found[k, seed].save(run.journal.vocabulary)
    return found[k, seed]


def _label(
    run: Run,
    finder: Finder,
    words: PartVocabulary,
    categories: list[int | None],
    kept: Kept,
    masks: Masks,
    order: list[int],
) -> Iterator[tuple[int, Parts]]:
    from tqdm import tqdm

    from partzoo.discovery.pipeline import label_images

    hidden = True if run.quiet or run.single else None
    with tqdm(total=len(order), desc="finding the parts", unit="image", disable=hidden) as bar:
        yield from label_images(
            finder,
            run.images,
            words,
            categories,
            progress=lambda *_: bar.update(),
            kept=kept,
            masks=masks,
            order=order,
            pass_over=run.failures.pass_over,
        )


def _given(mask: str | None, images: OpenedImages, single: bool) -> Any:
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


def _mask_files(given: Any) -> list[Any]:
    """Return the files from which the foreground is read."""
    if given is None or isinstance(given, tuple):
        return []
    return given if isinstance(given, list) else [given]


def _show(bar: Any, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _about(parts: Parts, source: str, target: str | None) -> dict[str, Any]:
    height, width = parts.size
    return {
        "source": source,
        "height": height,
        "width": width,
        "output": target,
        "quality": round(parts.quality, 3),
        "parts": [
            {
                "part": i,
                "name": parts.names[i - 1],
                "pixels": int(parts.areas[i - 1]),
                "share": round(float(parts.areas[i - 1]) / (height * width), 6),
                "centroid": [round(float(v), 2) for v in parts.centroids[i - 1]],
                "box": parts.boxes[i - 1].tolist(),
            }
            for i in parts.present
        ],
    }


def _warn(found: list[dict[str, Any]], learned: bool) -> None:
    """Print a line on stderr that names images whose parts are doubtful, and one if the images seem to share no parts.

    Args:
        found: what was found in each image.
        learned: whether the parts are those of a part model.
    """
    from partzoo.discovery.segmentation import DOUBTFUL

    doubtful = [about["source"] for about in found if about["quality"] < DOUBTFUL]
    if doubtful:
        named = ", ".join(doubtful[:3]) + (f" and {len(doubtful) - 3} more" if len(doubtful) > 3 else "")
        if learned:
            what = "Few of the model's parts are in"
            advice = "it may show something that the model was not trained on, or be framed differently"
        else:
            what, advice = "The foreground is doubtful in", "check it, or pass --mask or --background none"
        click.echo(f"{what} {one_line(named)}: {advice}.", err=True)
    alone = sum(len(about["parts"]) == 1 for about in found)
    if not learned and len(found) > 2 and 2 * alone > len(found):
        click.echo(
            f"{alone} of {len(found)} images have one part each, which happens if they show objects of different kinds "
            "that share no parts: pass images of one kind, or one image at a time.",
            err=True,
        )


def _report(found: list[dict[str, Any]], single: bool, k: int, before: int) -> None:
    if single:
        about = found[0]
        rows = [(p["part"], f"{p['share']:.1%}", "{:.0f}, {:.0f}".format(*p["centroid"])) for p in about["parts"]]
        click.echo(f"{len(rows)} of {counted(k, 'part')} in {about['height']} x {about['width']} pixels")
        if rows:
            table(rows, ("part", "share", "centre x, y"))
    else:
        shares = [len(about["parts"]) for about in found]
        resumed = f" ({done_before(before, len(found))})" if before else ""
        counts = f"{counted(len(found), 'image')}{resumed}"
        click.echo(f"{counts}, {min(shares)} to {max(shares)} of {counted(k, 'part')} in each")
