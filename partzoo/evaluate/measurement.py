"""The interface between ``partzoo eval`` and each kind of protocol: its options, and how it evaluates a model."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from partzoo.errors import UsageError
from partzoo.progress import ProgressCallback
from partzoo.skipping import PassOver
from partzoo.system.device import Device
from partzoo.weights.tensors import stored_bytes

Run = dict[str, Any]  # with keys "k", "seed", "metrics" and, for figures with bounds, "intervals"


@dataclass(frozen=True)
class Request:
    """The arguments of :func:`partzoo.evaluate.run.evaluate`, with the same names.

    The defaults mean that an option is not set: a kind of protocol without an option accepts only its default.
    """

    model: str
    protocol: str
    data: Path
    k: Sequence[int | None] | None = None
    seeds: int = 5
    split: str | None = None
    background: str | None = "auto"
    size: int | None = None
    refine: bool = True
    rotate: float = 0.0
    category: str | None = None
    patches: Sequence[int] | None = None
    augment: bool = False
    limit: int | None = None
    device: Device = None


class Measurement(ABC):
    """An evaluation of one model under one protocol.

    A subclass loads the model in its constructor, so that a record of the same weights and settings can be recognized
    before anything is measured.

    Attributes:
        OPTIONS: names of the optional arguments that this kind of protocol accepts.
        weights: digest of the measured weights.
        identity: settings other than the model's, as stated in the record.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    weights: str
    identity: dict[str, Any]

    @abstractmethod
    def __init__(self, rules: Any, request: Request) -> None:
        """Load the models that the request names."""

    @classmethod
    def check(cls, request: Request) -> None:
        """Refuse options that this kind of protocol does not have.

        Raises:
            UsageError: the request sets such an option.
        """
        optional = ("background", "size", "refine", "rotate", "category", "patches", "augment")
        given = [name for name in optional if getattr(request, name) != getattr(Request, name)]
        if strange := [name for name in given if name not in cls.OPTIONS]:
            options = f"whose options are {', '.join(cls.OPTIONS)}" if cls.OPTIONS else "which has no options"
            raise UsageError(f"{', '.join(strange)} cannot be set for {request.protocol}, {options}. Leave it out.")

    @staticmethod
    @abstractmethod
    def reported_split(rules: Any) -> str:
        """Return the split that a protocol reports on."""

    @abstractmethod
    def measure(self, progress: ProgressCallback | None, pass_over: PassOver) -> tuple[list[Run], int]:
        """Evaluate the model; return the figures of every run, for the record, and the number of images.

        Args:
            progress: function that is called with the name of the work, the amount done, and the total.
            pass_over: function that is called for each image that cannot be used, which is then skipped.
        """


def digest(model: nn.Module) -> str:
    """Compute the sha256 over names, shapes and bytes of a model's weights, independent of their file."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(stored_bytes(value))
    return total.hexdigest()
