"""The command ``partzoo vocabulary``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from partzoo.cli.command import Command, print_json, table
from partzoo.cli.options import (
    Numbers,
    device_option,
    json_option,
    limit_options,
    model_option,
    one_or_many,
    seed_range,
)
from partzoo.errors import UsageError, counted
from partzoo.locks import locked
from partzoo.places import check_apart, check_place

OPERATIONS = ("rename", "join", "split", "drop", "reorder")


@click.command(
    "vocabulary",
    cls=Command,
    short_help="Show or change the parts of a vocabulary.",
    epilog="""
    \b
    Examples:
      partzoo vocabulary six.parts.safetensors                                 list the parts
      partzoo vocabulary six.parts.safetensors --rename 3=beak --rename 1=wing
      partzoo vocabulary six.parts.safetensors --join 2,5 --name wheel
      partzoo vocabulary six.parts.safetensors --split 3 --images images/ --into 2 -o seven.parts.safetensors
      partzoo vocabulary six.parts.safetensors --drop 6
      partzoo vocabulary mine.parts.safetensors --labels labels/ --images images/     compare with labels
    \b
    Parts that are not named keep their numbers; only --reorder numbers all anew. Without -o, FILE is replaced.
    """,
)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--rename", multiple=True, metavar="PART=NAME", help="Name a part; may be repeated.")
@click.option("--join", type=Numbers(), help="Make one part of several, with the lowest of their numbers.")
@click.option("--name", help="Name of the joined part.")
@click.option("--split", type=click.IntRange(1), metavar="PART", help="Divide a part by how it looks in --images.")
@click.option("--images", multiple=True, type=click.Path(), help="Images for --split or --labels; may be repeated.")
@click.option(
    "--labels", type=click.Path(), help="Labels of --images, as for 'partzoo fit': state how well parts agree."
)
@click.option("--into", type=click.IntRange(2), default=2, show_default=True, help="Number of pieces for --split.")
@click.option("--seed", type=seed_range, default=0, show_default=True, help="Random seed for --split.")
@click.option("--drop", type=Numbers(), help="Make background of parts.")
@click.option(
    "--reorder", type=Numbers(word="gaps"), help="Numbers of the parts in their new order, or gaps: close them."
)
@model_option
@device_option
@limit_options
@click.option("-o", "--out", type=click.Path(dir_okay=False), help="File to write.  [default: FILE]")
@json_option
def vocabulary(file: str, out: str | None, as_json: bool, **options: Any) -> None:
    """List the parts of a vocabulary FILE, or change them by one of --rename, --join, --split, --drop, --reorder."""
    from partzoo.discovery.vocabulary import PartVocabulary

    chosen = [name for name in OPERATIONS if options[name] not in (None, ())]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} are two changes: make one after the other.")
    if options["name"] and chosen != ["join"]:
        raise UsageError("--name is for --join.")
    if bool(options["images"]) != (chosen == ["split"] or bool(options["labels"])):
        raise UsageError("--images, --split PART and --labels: pass --images with one of the others.")
    if out and not chosen:
        raise UsageError(f"-o {out} needs a change: one of --{', --'.join(OPERATIONS)}.")
    words = PartVocabulary.load(file)
    if options["labels"]:
        if chosen:
            raise UsageError(f"--labels and --{chosen[0]} are two commands: give one after the other.")
        _evaluate(words, options, as_json)
        return
    if chosen:
        check_place(Path(out or file))
        check_apart([out or file], [*options["images"], options["model"]])
        with locked(out or file):
            words = _changed(words, chosen[0], options)
            words.save(out or file)
    if as_json:
        about = [
            {"part": part, "name": words.names[part - 1], "centres": words.rows.count(part)} for part in words.used
        ]
        print_json({"k": words.k, "parts": about, "history": words.history, "model": words.settings.model})
        return
    table([(part, words.names[part - 1], words.rows.count(part)) for part in words.used], ("part", "name", "centres"))
    for step in words.history:
        click.echo(step)
    if chosen:
        click.echo(f"Written: {out or file}")


def _changed(words: Any, operation: str, options: dict[str, Any]) -> Any:
    """Return the vocabulary after the one change that the options name."""
    if operation == "rename":
        return words.rename(dict(map(_pair, options["rename"])))
    if operation == "join":
        return words.join(options["join"], name=options["name"])
    if operation == "drop":
        return words.drop(*options["drop"])
    if operation == "reorder":
        return words.reorder(None if options["reorder"] == [None] else options["reorder"])
    images = one_or_many(options["images"])
    return words.split(options["split"], images=images, into=options["into"], seed=options["seed"], **_shared(options))


def _evaluate(words: Any, options: dict[str, Any], as_json: bool) -> None:
    found = words.evaluate(one_or_many(options["images"]), options["labels"], **_shared(options))
    rows = [
        (part, name, "" if iou != iou else f"{iou:.2f}", int(count), found.advice(part))
        for part, (name, iou, count) in enumerate(zip(found.names, found.ious, found.images, strict=True), 1)
    ]
    if as_json:
        keys = ("part", "name", "iou", "images", "advice")
        print_json({"parts": [dict(zip(keys, row, strict=True)) for row in rows], "left_out": found.left_out})
        return
    table(rows, ("part", "name", "IoU", "images", "advice"))
    if found.left_out:
        click.echo(f"{counted(found.left_out, 'image')} that taught these parts: each judged by what others teach.")


def _shared(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("model", "device", "max_pixels", "max_bytes")}


def _pair(text: str) -> tuple[int, str]:
    part, equals, name = text.partition("=")
    if not equals or not part.strip().isdecimal():
        raise UsageError(f"--rename {text} is not PART=NAME, such as 3=beak.")
    return int(part), name
