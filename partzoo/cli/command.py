"""Base classes and helpers for all commands: ``--debug``, one-sentence errors, exit codes and printed output."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import textwrap
import traceback
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import click

from partzoo.cli.wording import in_options, show_warning
from partzoo.errors import PartzooError, UsageError, one_line

GAP = "  "  # between two columns of a table
WIDEST, NARROWEST = 100, 24  # of a table that is broken to fit the terminal, and of its last column


class Command(click.Command):
    """A command with the option ``--debug``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                callback=_remember,
                help="Show the traceback of an error.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and reword its warnings and errors, so that they name the command's options."""
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            try:
                return super().invoke(ctx)
            except EOFError as error:  # from a library that read a file; click would take it for the end of the input
                raise RuntimeError(f"EOFError: {error}") from error
            except PartzooError as error:
                error.args = (in_options(error, self.params),)
                raise


class Group(click.Group):
    """A group of commands that print an error as one sentence on stderr; exit code 2 for wrong usage, else 1."""

    command_class = Command

    def main(self, *args: Any, **extra: Any) -> Any:
        debug: list[bool] = []
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # paths from old archives may contain bytes that are not UTF-8
                stream.reconfigure(errors="backslashreplace")
        # Otherwise the Hub's client would log every retry before our one sentence.
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
        if _one_of_several():  # each would repeat what torch's C++ code warns of
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        try:
            code = super().main(*args, **(extra | {"standalone_mode": False, "obj": debug}))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = 2
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "partzoo"
            code = _fail(f"{_ended(error.format_message())} See '{path} --help'.", 2, debug)
        except click.Abort:
            code = _fail("Stopped.", 130, debug)
        except UsageError as error:
            code = _fail(str(error), 2, debug)
        except (PartzooError, click.ClickException) as error:
            code = _fail(str(error), 1, debug)
        except OSError as error:
            code = _fail(f"{error.filename or 'The system'}: {error.strerror or error}.", 1, debug)
        except Exception as error:
            what = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
            code = _fail(f"Unexpected error ({what}): run the command again with --debug, and report it.", 1, debug)
        sys.exit(code if isinstance(code, int) else 0)


def _remember(context: click.Context, _: click.Parameter, debug: bool) -> None:
    if debug:
        context.find_root().obj.append(True)


def _one_of_several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _fail(sentence: str, code: int, debug: list[bool]) -> int:
    if debug:
        traceback.print_exc()
    if _one_of_several():
        from partzoo.train.processes import first_to_fail

        if not first_to_fail():
            return code
    click.echo(f"Error: {one_line(sentence)}", err=True)
    return code


def _ended(sentence: str) -> str:
    sentence = " ".join(sentence.split())
    return sentence if sentence.endswith((".", "?")) else f"{sentence}."


def print_json(data: Any) -> None:
    """Print data as indented JSON."""
    click.echo(json.dumps(data, indent=2, default=str))


def table(rows: Iterable[Sequence[Any]], head: Sequence[str], *, wrap: bool = False) -> None:
    """Print columns of text, each as wide as its longest entry; ``wrap`` breaks the last one to fit the terminal."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    before = sum(widths[:-1]) + len(GAP) * len(widths[:-1])
    room = max(min(shutil.get_terminal_size().columns, WIDEST) - before, NARROWEST) if wrap else widths[-1]
    for row in (head, *rows):
        first = GAP.join(cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True))
        for line in textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]:
            click.echo(f"{first}{GAP}{line}".rstrip())
            first = " " * len(first)


def show_progress(bar: Any, done: int, total: int) -> None:
    """Move a progress bar to the number of images that are done."""
    bar.total = total
    bar.update(done - bar.n)


def megabytes(count: int) -> str:
    """Format a byte count, for example ``11_534_336`` as ``"11.5 MB"``."""
    return f"{count / 1e6:.1f} MB"
