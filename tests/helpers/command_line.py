"""Helpers that run the ``partzoo`` command in this process."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from partzoo.cli import main


@dataclass(frozen=True)
class Ran:
    """The result of a command: its exit code and its output."""

    code: int
    out: str
    err: str


def partzoo(*arguments: object) -> Ran:
    """Run ``partzoo`` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments], prog_name="partzoo")
        except SystemExit as error:
            code = error.code or 0
    return Ran(code, out.getvalue(), err.getvalue())


def partzoo_in(folder: Path, arguments: Sequence[object]) -> None:
    """Run ``partzoo`` in a folder, and end this process with its exit code."""
    os.chdir(folder)
    sys.exit(partzoo(*arguments).code)
