"""``partzoo discover``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from partzoo.cli.command import Command, check_place, print_json, table
from partzoo.cli.options import images_argument, json_option, limit_options, model_option
from partzoo.errors import PartzooError, UsageError

if TYPE_CHECKING:
    from partzoo.discovery.vocabulary import PartVocabulary
    from partzoo.images.opening import OpenedImages
    from partzoo.parts.parts import Parts

FORMS = (".png", ".index.png", ".npz", ".json")


class PartCount(click.ParamType):
    """A number, ``auto``, or ``own`` (the parts that a learned part model has)."""

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
      partzoo discover photo.jpg -o parts.png            overlay to look at
      partzoo discover photo.jpg -o parts.index.png      PNG whose pixels are part numbers
      partzoo discover photo.jpg -o parts.npz            everything, for partzoo.Parts.load
      partzoo discover herons/ -k 6 -o out/              many images: part 3 is the same part in all
      partzoo discover herons/ -k 6 -o herons.json       one COCO file for all of them
    \b
    Keep the parts of one set, and find the same ones in new images:
      partzoo discover herons/ -k 6 -o out/ --save-vocabulary herons.parts.safetensors
      partzoo discover new.jpg --vocabulary herons.parts.safetensors -o new.png
    """,
)
@images_argument
@click.option(
    "-k",
    "k",
    type=PartCount(),
    show_default="auto for one image, 8 for many; own of a part model",
    help="Number of parts: a number, auto (as many as look different), or own (those of a part model).",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(),
    help="File to write (.png .index.png .npz .json); for several images a folder, or one .json.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    default=".png",
    show_default=True,
    help="Format of the files in a folder.",
)
@model_option
@click.option("--vocabulary", type=click.Path(), help="Use the parts in this file; it brings its own k and settings.")
@click.option("--save-vocabulary", type=click.Path(), help="Keep the parts for --vocabulary.")
@click.option(
    "--background",
    default="auto",
    show_default=True,
    help="How the foreground is found; none: everything is foreground.",
)
@click.option(
    "--size",
    type=int,
    help="Longer side at which the encoder sees the image, in pixels: larger shows smaller parts, and is slower.",
)
@click.option("--refine/--no-refine", default=True, show_default=True, help="Follow the image's edges.")
@click.option("--mask", help="Foreground that is known: a mask file, a folder of them, or a box LEFT,TOP,RIGHT,BOTTOM.")
@click.option(
    "--scale", type=click.IntRange(1), help="Factor by which overlays are enlarged.  [default: to about 800 pixels]"
)
@click.option("--class", "category", type=int, help="Class of the images, for a part model with several classes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed of the clustering.")
@limit_options
@json_option
def discover(
    images: tuple[str, ...],
    k: int | str | None,
    out: str | None,
    form: str,
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
    max_pixels: int,
    max_bytes: int,
    as_json: bool,
) -> None:
    """Find the parts in images: files, addresses, folders or wildcards."""
    from partzoo.images.opening import open_images

    named = images[0] if len(images) == 1 else images
    opened, single = open_images(named, max_pixels=max_pixels, max_bytes=max_bytes)
    targets = _targets(out, form, opened, single)
    for path in filter(None, (out, save_vocabulary)):
        check_place(Path(path))
    options = {"model": model, "background": background, "size": size, "refine": refine, "seed": seed}
    found: list[dict[str, Any]] = []
    written: list[Parts] = []
    given = _given(mask, opened, single)
    for parts in _find(opened, single, k, vocabulary, save_vocabulary, category, given, options, as_json):
        target = targets[len(found)] if targets else None
        if target:
            parts.save(target, scale=scale, form=None if target == Path(out or "").expanduser() else form)
        elif out:
            written.append(parts)
        found.append(_about(parts, opened.name(len(found)), target or out))
    if out and written:
        _save_together(written, out)
    _warn(found)
    if as_json:
        print_json({"k": parts.k, "images": found})
        return
    _report(found, single, parts.k)
    if out:
        click.echo(f"Written: {out}")
    else:
        click.echo("Nothing was written: add -o parts.png to see the parts.")


def _find(
    images: OpenedImages,
    single: bool,
    k: int | str | None,
    vocabulary: str | None,
    save_vocabulary: str | None,
    category: int | None,
    mask: Any,
    options: dict[str, Any],
    quiet: bool,
) -> Iterator[Parts]:
    """Parts of each image, one by one, so that memory does not grow with their number."""
    from tqdm import tqdm

    from partzoo.discovery.factory import finder_of, make_finder
    from partzoo.discovery.masks import Masks
    from partzoo.discovery.pipeline import Kept, categories_of, divided, fit_parts, fitted, label_images
    from partzoo.discovery.vocabulary import PartVocabulary

    words: PartVocabulary | None = PartVocabulary.load(vocabulary) if vocabulary else None
    seed, hidden = options.pop("seed"), True if quiet or single else None
    finder = make_finder(**options) if words is None else finder_of(words, options["model"])
    if k == "own" and not finder.learned:
        raise UsageError("-k own is for part models, and this is an encoder: name a number, or leave -k out.")
    categories, masks = categories_of(category, len(images), finder), Masks(mask, len(images), single)
    kept, asked = Kept(), finder.asked(None if k == "own" else k, alone=single)
    if words is None and single and not save_vocabulary:
        image = images[0]
        yield divided(finder, image, categories[0], masks.objects(0, image.size), asked, seed)
        return
    if words is None and single:
        words = fit_parts(images[0], asked, mask=mask, seed=seed, **options)
    elif words is None:
        with tqdm(desc="learning the parts", unit="image", disable=hidden) as bar:
            found = fitted(finder, images, [asked], [seed], progress=partial(_show, bar), kept=kept, masks=masks)
            words = found[asked, seed]
    if save_vocabulary:
        words.save(save_vocabulary)
    with tqdm(total=len(images), desc="finding them", unit="image", disable=hidden) as bar:
        yield from label_images(
            finder, images, words, categories, progress=lambda *_: bar.update(), kept=kept, masks=masks
        )


def _given(mask: str | None, images: OpenedImages, single: bool) -> Any:
    """The mask or box that an option names, or one mask for each image from a folder, by the images' names."""
    if mask is None:
        return None
    box = mask.split(",")
    if len(box) == 4 and all(edge.strip().lstrip("-").isdigit() for edge in box):
        return tuple(map(int, box))
    folder = Path(mask).expanduser()
    if single or not folder.is_dir():
        return mask
    files = {file.stem: file for file in sorted(folder.iterdir()) if file.is_file()}
    masks = [files.get(Path(images.name(index)).stem) for index in range(len(images))]
    if not any(masks):
        raise UsageError(f"--mask {mask} holds no file that is named like one of the images.")
    return masks


def _show(bar: Any, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _targets(out: str | None, form: str, images: OpenedImages, single: bool) -> list[Path] | None:
    """The file for each image's parts; None where nothing is written, or all parts go into one COCO file."""
    if out is None:
        return None
    path = Path(out).expanduser()
    if len(images) == 1 and not path.is_dir() and (single or path.suffix):
        if not path.name.lower().endswith(FORMS):
            raise UsageError(f"Unknown ending of {out!r}. Use one of {', '.join(FORMS)}.")
        return [path]
    if path.suffix.lower() == ".json":
        return None
    if path.suffix.lower() in (".png", ".npz") and not path.is_dir():
        raise UsageError(f"-o {out} is one file, but there are {len(images)} images. Name a folder, or a .json file.")
    taken: set[str] = set()
    names = []
    for index in range(len(images)):
        stem = Path(images.name(index)).stem or f"image-{index + 1}"
        name, copy = stem, 2
        while name in taken:
            name, copy = f"{stem}-{copy}", copy + 1
        taken.add(name)
        names.append(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PartzooError(f"The folder {out!r} cannot be made: {error.strerror}. Choose another with -o.") from error
    return [path / f"{name}{form}" for name in names]


def _save_together(several: Sequence[Parts], out: str) -> None:
    from partzoo.files import write_aside
    from partzoo.parts.coco import to_coco

    text = json.dumps(to_coco(several, folder=Path(out).expanduser().parent))
    with write_aside(out) as file:
        file.write(text.encode())


def _about(parts: Parts, source: str, target: Path | str | None) -> dict[str, Any]:
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


def _warn(found: list[dict[str, Any]]) -> None:
    """One line on stderr for the images whose foreground is doubtful."""
    from partzoo.discovery.segmentation import DOUBTFUL

    doubtful = [about["source"] for about in found if about["quality"] < DOUBTFUL]
    if doubtful:
        named = ", ".join(doubtful[:3]) + (f" and {len(doubtful) - 3} more" if len(doubtful) > 3 else "")
        click.echo(f"The foreground is doubtful in {named}: look at it, or give --background none.", err=True)


def _report(found: list[dict[str, Any]], single: bool, k: int) -> None:
    if single:
        about = found[0]
        rows = [(p["part"], f"{p['share']:.1%}", "{:.0f}, {:.0f}".format(*p["centroid"])) for p in about["parts"]]
        click.echo(f"{len(rows)} of {k} parts in {about['height']} x {about['width']} pixels")
        if rows:
            table(rows, ("part", "share", "centre x, y"))
    else:
        shares = [len(about["parts"]) for about in found]
        click.echo(f"{len(found)} images, {min(shares)} to {max(shares)} of {k} parts in each")
