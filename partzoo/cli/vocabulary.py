"""The command ``partzoo vocabulary``."""

from __future__ import annotations

from typing import Any

import click

from partzoo.cli.command import Command, print_json, table
from partzoo.cli.options import Numbers, device_option, json_option, limit_options, model_option
from partzoo.errors import UsageError

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
    \b
    Parts that are not named keep their numbers; only --reorder numbers all anew. Without -o, FILE is replaced.
    """,
)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--rename", multiple=True, metavar="PART=NAME", help="Name a part; may be repeated.")
@click.option("--join", type=Numbers(), help="Make one part of several, with the lowest of their numbers.")
@click.option("--name", help="Name of the joined part.")
@click.option("--split", type=click.IntRange(1), metavar="PART", help="Divide a part by how it looks in --images.")
@click.option("--images", multiple=True, type=click.Path(), help="Images for --split; may be repeated.")
@click.option("--into", type=click.IntRange(2), default=2, show_default=True, help="Number of pieces for --split.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed for --split.")
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
    for option, operation in (("name", "join"), ("images", "split")):
        if options[option] and chosen != [operation]:
            raise UsageError(f"--{option} is for --{operation}.")
    if out and not chosen:
        raise UsageError(f"-o {out} needs a change: one of --{', --'.join(OPERATIONS)}.")
    words = PartVocabulary.load(file)
    if chosen:
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
    if not options["images"]:
        raise UsageError("--split needs --images that show the part.")
    names = ("into", "seed", "model", "device", "max_pixels", "max_bytes")
    images = options["images"][0] if len(options["images"]) == 1 else options["images"]
    return words.split(options["split"], images=images, **{name: options[name] for name in names})


def _pair(text: str) -> tuple[int, str]:
    part, equals, name = text.partition("=")
    if not equals or not part.strip().isdecimal():
        raise UsageError(f"--rename {text} is not PART=NAME, such as 3=beak.")
    return int(part), name
