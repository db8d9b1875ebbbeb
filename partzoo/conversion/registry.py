"""Find the reader for a published checkpoint. Each module of this package that defines ``READS`` is a reader.

Adding a reader changes no other file. The first reader that recognizes a checkpoint converts it.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol, cast

from torch import Tensor

PACKAGE = "partzoo.conversion"


class Reader(Protocol):
    """The interface of a module that converts the published checkpoints of one family of models.

    Attributes:
        READS: rows of the table in docs/convert.md, each with the method, its files and the architectures of the
            results.
    """

    READS: tuple[tuple[str, str, str], ...]

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Return whether a state dict, or a dictionary of state dicts by name, is of this family."""

    def from_published(
        self, state: Mapping[str, Any], architecture: str | None = None
    ) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
        """Return the architecture's name, inferred if it is None, and the configuration and state dict of our model."""

    def unused(self, state: Mapping[str, Any]) -> list[str]:
        """Return the names of the tensors that the zoo's model does not use."""


@functools.cache
def readers() -> tuple[Reader, ...]:
    """Return all readers, in alphabetical order of their modules."""
    package = importlib.import_module(PACKAGE)
    modules = (importlib.import_module(f"{PACKAGE}.{each.name}") for each in pkgutil.iter_modules(package.__path__))
    return tuple(cast(Reader, module) for module in modules if hasattr(module, "READS"))
