"""Programs: modules whose inputs and outputs are tensors with names and free sizes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.functional import interpolate
from torch.overrides import TorchFunctionMode

from partzoo.errors import PartzooError
from partzoo.images.resampling import KERNELS, multiplied
from partzoo.weights.hub_file import first_line

BATCH = 2  # of the example that is traced; a batch of 1 would be taken for a constant


@dataclass(frozen=True)
class Axis:
    """A size of an input that is free.

    Attributes:
        name: name of the size, which shapes of the program use.
        multiple: number that the size must be a multiple of.
    """

    name: str
    multiple: int = 1

    def __str__(self) -> str:
        return self.name if self.multiple == 1 else f"{self.multiple}*{self.name}"


@dataclass(frozen=True)
class Input:
    """An input of a program.

    Attributes:
        about: what its values mean.
        shape: each size, an integer if it is fixed.
        example: values to trace the program with.
    """

    about: str
    shape: tuple[Axis | int, ...]
    example: Tensor


@dataclass(frozen=True)
class Output:
    """An output of a program.

    Attributes:
        about: what its values mean.
        shape: name or number of each size; a name stands for one size wherever it occurs.
    """

    about: str
    shape: tuple[str | int, ...]


class Graph(nn.Module):
    """A program: ``forward`` takes tensors in the order of ``inputs`` and returns them in the order of ``outputs``.

    Attributes:
        task: name of what it computes.
        outputs: outputs by name.
        facts: further values for the file's metadata, which JSON can hold.
    """

    task: str
    outputs: dict[str, Output]
    facts: Mapping[str, Any]

    def inputs(self) -> dict[str, Input]:
        """Return the inputs by name."""
        raise NotImplementedError


def dynamic_shapes(inputs: Mapping[str, Input]) -> tuple[dict[int, Any], ...]:
    """Return the free sizes of inputs for ``torch.export.export``; a name stands for one size wherever it occurs."""
    dims: dict[str, Any] = {}
    return tuple(
        {
            index: axis.multiple * dims.setdefault(axis.name, Dim(axis.name)) if axis.multiple > 1 else Dim.DYNAMIC
            for index, axis in enumerate(each.shape)
            if isinstance(axis, Axis)
        }
        for each in inputs.values()
    )


class MultipliedResizing(TorchFunctionMode):
    """A mode in which antialiased resizing is a product with matrices, which all engines compute alike."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        size = given.get("size", args[1] if len(args) > 1 else None)
        if func is interpolate and given.get("antialias") and given.get("mode") in KERNELS and size is not None:
            return multiplied(args[0], (size, size) if isinstance(size, int) else size, given["mode"])
        return func(*args, **given)


def traced(graph: Graph) -> ExportedProgram:
    """Trace a program with ``torch.export``, with all its free sizes.

    Raises:
        PartzooError: a size cannot be free, or the module does what cannot be traced.
    """
    inputs = graph.inputs()
    example = tuple(each.example for each in inputs.values())
    try:
        with torch.no_grad(), MultipliedResizing(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(
                graph,
                example,
                dynamic_shapes=dynamic_shapes(inputs),
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except PartzooError:
        raise
    except Exception as error:  # an exporter's errors have no base class
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise PartzooError(f"The model cannot be exported with free sizes ({reason}).") from error
