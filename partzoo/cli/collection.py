"""Results of collections in shards: ``--format parquet`` of ``partzoo features`` and ``partzoo discover``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from partzoo.cli.command import print_json, show_progress
from partzoo.cli.wording import done_before, in_options
from partzoo.collections.engines import ENGINES
from partzoo.collections.sinks import TABLES
from partzoo.errors import PartzooError, UsageError, counted
from partzoo.skipping import named

if TYPE_CHECKING:
    from partzoo.collections.manifest import Manifest
    from partzoo.collections.stages import Stage
    from partzoo.discovery.vocabulary import PartVocabulary

SHOWN = 10  # unreadable images that are named on stderr
VOCABULARY = "vocabulary.safetensors"

format_option = click.option(
    "--format", "form", type=click.Choice(TABLES), help="Write shards into a folder, for a collection of any size."
)


def collection_options(command: Callable) -> Callable:
    """Add the options of shards, for which a value means that the user has given it."""
    at_least_one = click.IntRange(1)
    for name, kind, what in (
        ("--run-on", click.Choice(ENGINES), "What makes shards: this machine, or Ray Data.  [default: local]"),
        (
            "--workers",
            at_least_one,
            "Number of processes that make shards and share the cores.  [default: 1]",
        ),
        ("--per-shard", at_least_one, "Number of images of each shard.  [default: 1000]"),
    ):
        command = click.option(name, type=kind, help=what)(command)
    return command


def check_not_given(form: str | None = None, **options: Any) -> None:
    """Refuse options that do not fit shards, or without ``form`` those that do nothing without shards.

    Raises:
        UsageError: one of the options has a value.
    """
    for name, value in options.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            fix = f"it does not go with --format {form}" if form else f"it needs shards, such as --format {TABLES[0]}"
            raise UsageError(f"{option} {value}: {fix}.")


def only(sources: Sequence[str], what: str = "Shards are made of") -> str:
    """Return the one collection that a command takes; ``what`` begins the error's sentence.

    Raises:
        UsageError: there are several.
    """
    if len(sources) > 1:
        raise UsageError(
            f"{what} one collection, not of {len(sources)}: name a folder, a quoted pattern or a list file."
        )
    return sources[0]


def write(
    source: str,
    stage: Stage,
    out: str,
    form: str,
    *,
    quiet: bool,
    run_on: str | None,
    workers: int | None,
    per_shard: int | None,
    **options: Any,
) -> Manifest:
    """Write a collection's shards, with a progress bar."""
    from tqdm import tqdm

    from partzoo.collections.run import PER_SHARD, write_collection
    from partzoo.collections.storage import scheme_of

    if scheme_of(out) == "memory":
        raise UsageError(f"-o {out} would end with this command: name a folder or another address.")
    with tqdm(unit="shard", disable=True if quiet else None) as bar:
        return write_collection(
            source,
            stage,
            out,
            form=form,
            engine=run_on or "local",
            workers=workers or 1,
            per_shard=per_shard or PER_SHARD,
            progress=partial(show_progress, bar),
            **options,
        )


def report(manifest: Manifest, out: str, *, as_json: bool) -> None:
    """Print what has been written, and end with exit code 1 if images could not be read.

    Raises:
        PartzooError: images could not be read.
    """
    failed = manifest.failures
    if as_json:
        about = {"output": out, "images": manifest.images, "rows": manifest.rows, "shards": len(manifest.shards)}
        print_json(about | {"failed": [{"path": key, "reason": reason} for key, reason in failed]})
    else:
        for key, reason in failed[:SHOWN]:
            click.echo(f"Skipped: {named(key, reason)}", err=True)
        count = len(manifest.shards)
        resumed = f" ({done_before(manifest.before, count)})" if manifest.before else ""
        click.echo(f"{counted(manifest.images, 'image')} in {counted(count, 'shard')}{resumed}. Written: {out}")
    if failed:
        raise PartzooError(
            f"{len(failed)} of the {counted(manifest.images, 'image')} could not be read. They are listed in the "
            f"manifest of {out!r}."
        )


def learned(source: str, k: Any, options: dict[str, Any], *, strict: bool, quiet: bool) -> PartVocabulary:
    """Learn the vocabulary of a collection; unreadable images are left out unless the run is strict.

    Raises:
        UsageError: k is ``own``, but the model has no parts.
    """
    from tqdm import tqdm

    from partzoo.collections.fitting import fit_collection

    skipped = 0

    def skip(key: str, error: PartzooError) -> None:
        nonlocal skipped
        if strict:
            raise error
        skipped += 1
        if skipped <= SHOWN:
            reason = in_options(error, click.get_current_context().command.params)
            tqdm.write(f"Skipped: {named(key, reason)}", file=sys.stderr)

    with tqdm(desc="learning the parts", unit="image", disable=True if quiet else None) as bar:
        show = partial(show_progress, bar)
        words = fit_collection(source, None if k == "own" else k, progress=show, pass_over=skip, **options)
    if skipped > SHOWN:
        click.echo(f"Skipped: {skipped - SHOWN} more of the images that the parts are learned from.", err=True)
    if k == "own" and not words.learned:
        raise UsageError("-k own is for part models, and this is an encoder: give a number, or leave -k out.")
    return words
