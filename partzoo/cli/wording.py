"""Replace Python parameter names in error messages with the command-line options that users know."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import click

from partzoo.errors import TooLargeError, one_line
from partzoo.skipping import SkippedWarning

NAMES = {"category": "classes"}  # options whose argument has another name in Python
NONE = {"k": "own"}  # the value of an option that stands for Python's None, where it is not "none"
LISTS = re.compile(r"partzoo\.list_models\((?:family='(\w+)')?\)")
ARGUMENT = re.compile(r"[,;] or pass ([a-z]\w*)=[^.;:]*")  # a second way out, by an argument


def in_options(error: Exception, params: Sequence[click.Parameter]) -> str:
    """Reword an error: name a command's options in place of arguments, and leave out remedies that it does not have."""
    options = {NAMES.get(str(each.name), str(each.name)): max(each.opts, key=len) for each in params if each.opts}
    if isinstance(error, TooLargeError):
        other = f", or raise {options[error.limit]}" if error.limit in options else ""
        return f"{error.reason}: reduce its size{other}."
    sentence = ARGUMENT.sub(lambda way: way[0] if way[1] in options else "", str(error))
    sentence = LISTS.sub(lambda call: f"'partzoo list{f' --family {call[1]}' if call[1] else ''}'", sentence)
    switches = {NAMES.get(str(each.name), str(each.name)): each for each in params if getattr(each, "is_flag", False)}
    for name, switch in switches.items():
        off = max(switch.secondary_opts, key=len) if switch.secondary_opts else f"no {options[name]}"
        for value, said in ((True, options[name]), (False, off)):
            sentence = re.sub(rf"(?<![\w.-]){name}={value}\b", said, sentence)
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
        click.echo(f"Warning: {one_line(str(message).strip())}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, *where[:2]), err=True)
