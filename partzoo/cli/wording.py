"""Replace Python parameter names in error messages with the command-line options that users know."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import click

from partzoo.errors import TooLargeError
from partzoo.skipping import SkippedWarning

NAMES = {"category": "classes"}  # options whose argument has another name in Python
NONE = {"k": "own"}  # the value of an option that stands for Python's None, where it is not "none"


def in_options(error: Exception, params: Sequence[click.Parameter]) -> str:
    """Reword an error: name a command's options in place of arguments, and leave out remedies that it does not have."""
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
    """State how many of ``count`` items a resumed run found finished, and how many it has processed."""
    return "all done before" if before == count else f"{before} done before and {count - before} now"


def show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a user's warning on one line, and a developer's warning as Python does."""
    if category in (UserWarning, SkippedWarning):
        click.echo(f"Warning: {message}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, *where[:2]), err=True)
