"""The command ``partzoo discover``."""

from __future__ import annotations

from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from partzoo.cli.collection import VOCABULARY, check_not_given, collection_options, learned, only, report, write
from partzoo.cli.command import Command, print_json, table
from partzoo.cli.finding import Run, find, finding_options, given_mask, mask_files
from partzoo.cli.options import images_argument, json_option, one_or_many, resume_option
from partzoo.cli.part_files import Output, output_of
from partzoo.cli.wording import done_before
from partzoo.collections.sinks import FORMATS as SHARDS
from partzoo.errors import UsageError, counted, one_line
from partzoo.locks import locked
from partzoo.parts.formats import FORMATS, Options, Segmentation
from partzoo.places import check_apart, check_distinct, check_place, made_folder

if TYPE_CHECKING:
    from partzoo.cli.journal import Journal
    from partzoo.images.opening import OpenedImages
    from partzoo.parts.parts import Parts


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
      partzoo discover clip.mp4 -k 6 -o parts.mp4        overlay video, with one vocabulary for all frames
      partzoo discover images/ -k 6 -o out/ --format parquet  shards of any number of images
      partzoo discover "train-*.tar" -k 6 -o s3://bucket/out --format coco  the same, elsewhere and as COCO
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
    "-o",
    "--out",
    type=click.Path(),
    help=f"File to write ({' '.join(FORMATS)}); for several images, a folder or one .json file; for a video, also .mp4 "
    "(overlays) or .mkv (part numbers, without loss).",
)
@click.option(
    "--format",
    "form",
    type=click.Choice((*FORMATS, *SHARDS)),
    default=".png",
    show_default=True,
    help=f"Format of a folder: {', '.join(f'{each.ending} {each.what}' for each in FORMATS.values())}; "
    f"{', '.join(SHARDS)}: shards of a collection.",
)
@click.option(
    "--segmentation",
    type=click.Choice(("rle", "polygons")),
    default="rle",
    show_default=True,
    help="Masks in COCO: run lengths, or polygons along the edges of pixels.",
)
@finding_options
@click.option(
    "--scale", type=click.IntRange(1), help="Factor by which overlays are enlarged.  [default: to about 800 pixels]"
)
@click.option(
    "--smooth",
    type=int,
    default=1,
    show_default=True,
    metavar="FRAMES",
    help="Odd number of neighbouring frames that vote on a label, for a video that is written as a video.",
)
@resume_option
@collection_options
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
    smooth: int,
    category: int | None,
    seed: int,
    device: str | None,
    engine: str,
    max_pixels: int,
    max_bytes: int,
    strict: bool,
    resume: bool | None,
    as_json: bool,
    **shards: Any,
) -> None:
    """Find the parts in images, given as files, addresses, folders or wildcards, or in the frames of a video."""
    from partzoo.cli.failures import Failures
    from partzoo.images.opening import open_images

    options = {"model": model, "background": background, "size": size, "refine": refine, "seed": seed}
    if form in SHARDS:
        no = {"mask": mask, "scale": scale, "class": category, "smooth": None if smooth == 1 else smooth}
        no |= {"engine": engine if engine in ("onnxruntime", "openvino") else None}
        check_not_given(form, **no, segmentation=None if segmentation == "rle" else segmentation)
        options |= {"device": device, "max_pixels": max_pixels, "max_bytes": max_bytes}
        shards |= {"resume": resume, "strict": strict}
        _in_shards(only(images), k, out, form, vocabulary, save_vocabulary, options, shards, as_json)
        return
    check_not_given(**shards)
    named = one_or_many(images)
    opened, single = open_images(named, max_pixels=max_pixels, max_bytes=max_bytes)
    if resume and (single or out is None):
        raise UsageError("--resume needs many images and an output: name a folder or a .json file with -o.")
    output = output_of(out, form, opened, single, Options(scale, segmentation))
    if smooth != 1 and (output.frames is None or smooth < 1 or smooth % 2 == 0):
        raise UsageError(f"--smooth {smooth} needs a video as input and as -o, and an odd number of frames, such as 3.")
    given = given_mask(mask, opened, single)
    read = (*opened.files(), *mask_files(given), model, vocabulary, background)
    check_apart((*output.files, output.path, save_vocabulary), read)
    check_distinct((*output.files, output.path), save_vocabulary)
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
        run = Run(opened, single, given, category, options, failures, journal, quiet=as_json, engine=engine)

        def store(index: int, parts: Parts) -> dict[str, Any]:
            output.write(parts, index)
            return _about(parts, opened.name(index), output.named(index))

        with journal or nullcontext():
            result = find(run, k, vocabulary, save_vocabulary, about, store)
            with closing(result.labelled) as labelled:
                for index, found in labelled:
                    about[index] = found
                    if journal:
                        journal.add(opened.name(index), output.files[index], found)
            output.join(sorted(about), scale, smooth)
            if journal and (output.together or not failures.listed()):
                journal.remove()
    listed = [about[index] for index in sorted(about)]
    _warn(listed, result.learned)
    if as_json:
        print_json({"k": result.k, "images": listed, "failed": failures.listed()})
    elif listed:
        _report(listed, single, result.k, before)
        hint = f"add -o {'parts.png' if single else 'FOLDER'} to see the parts."
        written = ", ".join(filter(None, (out, save_vocabulary)))
        click.echo(f"Written: {written}" if written else f"Nothing was written: {hint}")
        if save_vocabulary and not out:
            click.echo(f"No parts were written: {hint}")
    failures.check()


def _in_shards(
    source: str,
    k: int | str | None,
    out: str | None,
    form: str,
    vocabulary: str | None,
    save_vocabulary: str | None,
    options: dict[str, Any],
    shards: dict[str, Any],
    as_json: bool,
) -> None:
    """Find the parts in a collection of any size, with a vocabulary that is given or learned from a sample."""
    if out is None:
        raise UsageError("Name a folder for the shards with -o.")
    from partzoo.collections.destinations import destination_of
    from partzoo.collections.stages import DiscoverParts
    from partzoo.discovery.pipeline import check_vocabulary
    from partzoo.discovery.vocabulary import PartVocabulary

    words = PartVocabulary.load(vocabulary) if vocabulary else None
    check_vocabulary(words, None if k == "own" else k)
    if words is None:
        words = learned(source, k, options, strict=shards["strict"], quiet=as_json)
    limits = {name: options[name] for name in ("device", "max_pixels", "max_bytes")}
    stage = DiscoverParts(words, model=options["model"], **limits)
    manifest = write(source, stage, out, form, quiet=as_json, **shards)
    with destination_of(out).aside(VOCABULARY) as path:
        words.save(path)
    if save_vocabulary:
        words.save(save_vocabulary)
    report(manifest, out, as_json=as_json)


def _journal(output: Output, settings: dict[str, Any], resume: bool | None) -> Journal | None:
    """Open the journal of a run over many images. Masks are compared by path only, as they may be repaired."""
    from partzoo.cli.journal import Journal
    from partzoo.files import fingerprint

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
    from partzoo.discovery.labeller import DOUBTFUL

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
    from partzoo.parts.parts import default_name

    if single:
        about = found[0]
        named = any(p["name"] != default_name(p["part"]) for p in about["parts"])
        rows = [
            (p["part"], *[p["name"]] * named, f"{p['share']:.1%}", "{:.0f}, {:.0f}".format(*p["centroid"]))
            for p in about["parts"]
        ]
        click.echo(f"{len(rows)} of {counted(k, 'part')} in {about['height']} x {about['width']} pixels")
        if rows:
            table(rows, ("part", *["name"] * named, "share", "centre x, y"))
    else:
        shares = [len(about["parts"]) for about in found]
        resumed = f" ({done_before(before, len(found))})" if before else ""
        counts = f"{counted(len(found), 'image')}{resumed}"
        click.echo(f"{counts}, {min(shares)} to {max(shares)} of {counted(k, 'part')} in each")
