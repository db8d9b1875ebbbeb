"""What ``partzoo eval`` asks of every kind of protocol: which options it takes, and how a model is measured by it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from partzoo.errors import UsageError
from partzoo.progress import ProgressCallback
from partzoo.system.device import Device

Run = dict[str, Any]  # "k", "seed", "metrics" and, for figures with bounds, "intervals"


@dataclass(frozen=True)
class Request:
    """The arguments of :func:`partzoo.evaluate.run.evaluate`, by the same names.

    The defaults are the values by which nothing is asked for: a kind of protocol without an option takes only these.
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
    patches: Sequence[int] | None = None
    augment: bool = False
    limit: int | None = None
    device: Device = None


class Measurement(ABC):
    """One model that is measured by one protocol.

    A subclass loads the model when it is made, so that a record of the same weights and settings can be recognized
    before anything is measured.

    Attributes:
        OPTIONS: which of the optional arguments this kind of protocol takes.
        weights: digest of the weights that are measured.
        identity: settings besides the model's that its record states.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    weights: str
    identity: dict[str, Any]

    @abstractmethod
    def __init__(self, rules: Any, request: Request) -> None:
        """Load what the request asks for."""

    @classmethod
    def check(cls, request: Request) -> None:
        """Refuse options that this kind of protocol does not have.

        Raises:
            UsageError: there is one.
        """
        optional = ("background", "size", "refine", "rotate", "patches", "augment")
        given = [name for name in optional if getattr(request, name) != getattr(Request, name)]
        if strange := [name for name in given if name not in cls.OPTIONS]:
            options = f"whose options are {', '.join(cls.OPTIONS)}" if cls.OPTIONS else "which has no options"
            raise UsageError(f"{', '.join(strange)} cannot be set for {request.protocol}, {options}. Leave it out.")

    @staticmethod
    @abstractmethod
    def reported_split(rules: Any) -> str:
        """The split that a protocol reports on."""

    @abstractmethod
    def measure(self, progress: ProgressCallback | None) -> tuple[list[Run], int]:
        """The runs of a record, and the number of images that were reported on."""


def digest(model: nn.Module) -> str:
    """sha256 over names, shapes and bytes of a model's weights, whatever file they came from."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
