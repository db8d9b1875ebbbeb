"""Sentences of the Python interface in the words of the command line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import click

from partzoo.errors import TooLargeError
from partzoo.passing_over import PassedOverWarning

NAMES = {"category": "classes"}  # of options whose argument in Python is called otherwise
NONE = {"k": "own"}  # what an option takes where Python takes None; otherwise "none"


def in_options(error: Exception, params: Sequence[click.Parameter]) -> str:
    """What an error says, with the options of a command in place of arguments, and only with ways out that it has."""
    options = {NAMES.get(str(each.name), str(each.name)): max(each.opts, key=len) for each in params if each.opts}
    if isinstance(error, TooLargeError):
        other = f", or raise {options[error.limit]}" if error.limit in options else ""
        return f"{error.reason}: reduce its size{other}."
    sentence = str(error)
    for name, option in options.items():
        if option.startswith("-"):
            sentence = re.sub(rf"(?<![\w.-]){name}=None\b", f"{option} {NONE.get(name, 'none')}", sentence)
            sentence = re.sub(rf"(?<![\w.-]){name}=(?=[^\s,.;:])", f"{option} ", sentence)
            sentence = re.sub(rf"(?<![\w.-]){name}=", option, sentence)
    return sentence


def done_before(before: int, count: int) -> str:
    """How many of ``count`` items a resumed run has found done, and how many it has done."""
    return "all done before" if before == count else f"{before} done before and {count - before} now"


def show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a warning for the user on one line, and one for developers as Python does."""
    if category in (UserWarning, PassedOverWarning):
        click.echo(f"Warning: {message}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, *where[:2]), err=True)
