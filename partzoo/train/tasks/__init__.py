"""The training methods, one module each, which define what is sampled from a batch and which loss is minimized.

A module here with a :class:`partzoo.train.tasks.base.Task` that has a ``METHOD`` adds a method to ``partzoo train``.
It also needs a recipe and a test case; nothing else has to change.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from partzoo.errors import UsageError
from partzoo.train.tasks.base import Task


@functools.cache
def methods() -> dict[str, type[Task]]:
    """Return a dictionary from the name of each method to its task, in alphabetical order."""
    modules = [importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    tasks = {kind.METHOD: kind for kind in classes if issubclass(kind, Task) and kind.METHOD}
    return dict(sorted(tasks.items()))


def find_method(name: str) -> type[Task]:
    """Return the task of a method.

    Raises:
        UsageError: the method is unknown.
    """
    if name not in methods():
        raise UsageError(f"Unknown method {name!r}. The methods are {', '.join(methods())}.")
    return methods()[name]
