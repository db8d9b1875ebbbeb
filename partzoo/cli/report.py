"""The command ``partzoo report``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from partzoo.cli.command import Command, megabytes
from partzoo.cli.finding import Run, find, finding_options, given_mask, mask_files
from partzoo.cli.options import images_argument, one_or_many
from partzoo.errors import UsageError, counted
from partzoo.files import expand_user
from partzoo.locks import locked
from partzoo.places import check_apart, check_distinct, check_place

if TYPE_CHECKING:
    from partzoo.report.results import Results

OF_RESULTS = ("images", "out", "title", "vocabulary", "max_pixels", "max_bytes")  # what results leave to choose


@click.command(
    cls=Command,
    short_help="Write a web page of images and their parts.",
    epilog="""
    \b
    Examples:
      partzoo report images/ -k 6 -o report.html         find the parts in a folder of images, and show them
      partzoo report out/ -o report.html                 show what 'partzoo discover images/ -o out/' found
      partzoo report parts.json -o report.html           show a COCO file of partzoo
    \b
    Results are .npz and .json files. The others do not hold what a page needs: use discover's --format .npz.
    """,
)
@images_argument
@click.option("-o", "--out", type=click.Path(), required=True, help="HTML file to write.")
@click.option("--title", help="Title of the page.  [default: the name of the folder or file]")
@finding_options
@click.pass_context
def report(
    context: click.Context, images: tuple[str, ...], out: str, title: str | None, vocabulary: str | None, **options: Any
) -> None:
    """Write one web page that shows images with their parts, and each part over all images.

    IMAGE is what 'partzoo discover' accepts, whose options apply, or a result of it: a folder or a file.
    """
    from partzoo.report.results import results_of

    if not out.lower().endswith((".html", ".htm")):
        raise UsageError(f"-o {out} must end in .html.")
    check_place(expand_user(out))
    limits = {name: options[name] for name in ("max_pixels", "max_bytes")}
    title = title or Path(images[0]).stem or "Parts"
    results = results_of(images[0], **limits) if len(images) == 1 else None
    with locked(expand_user(out)):
        if results is None:
            _of_images(images, out, title, vocabulary, options)
        else:
            _of_results(context, results, out, title, vocabulary)


def _of_results(context: click.Context, results: Results, out: str, title: str, vocabulary: str | None) -> None:
    from partzoo.discovery.vocabulary import PartVocabulary
    from partzoo.report.page import settings_of, write_page

    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if given and option.name not in OF_RESULTS:
            raise UsageError(
                f"{max(option.opts, key=len)} is for images, but {context.params['images'][0]} has results."
            )
    check_apart([out], [*results.files, vocabulary])
    about = settings_of(PartVocabulary.load(vocabulary)) if vocabulary else {}
    count = results.count()
    write_page(results, out, count=count, about=about, title=title)
    _written(out, count)


def _of_images(images: tuple[str, ...], out: str, title: str, vocabulary: str | None, options: dict[str, Any]) -> None:
    from partzoo.cli.failures import Failures
    from partzoo.images.opening import open_images
    from partzoo.report.page import write_page

    named = one_or_many(images)
    opened, single = open_images(named, max_pixels=options["max_pixels"], max_bytes=options["max_bytes"])
    mask = given_mask(options["mask"], opened, single)
    settings = {name: options[name] for name in ("model", "background", "size", "refine", "seed", "device")}
    read = (*opened.files(), *mask_files(mask), options["model"], vocabulary)
    check_apart([out, options["save_vocabulary"]], [*read, options["background"]])
    check_distinct([out], options["save_vocabulary"])
    failures = Failures(len(opened), opened.name, what="images", strict=options["strict"] or single)
    run = Run(opened, single, mask, options["category"], settings, failures, engine=options["engine"])
    found = find(run, options["k"], vocabulary, options["save_vocabulary"])
    about = {"k": found.k} | dataclasses.asdict(found.settings) | {"seed": options["seed"], "mask": options["mask"]}
    write_page((parts for _, parts in found.labelled), out, count=len(opened), about=about, title=title)
    _written(out, len(opened) - len(failures.listed()))
    failures.check()


def _written(out: str, count: int) -> None:
    click.echo(f"Written: {out} ({counted(count, 'image')}, {megabytes(expand_user(out).stat().st_size)})")
