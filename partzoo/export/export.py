"""``export_model``: choose the program for a model and a task, trace it and write it to a file."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn

from partzoo.discovery.clustered import ClusteredFinder
from partzoo.discovery.factory import Background, finder_of, make_finder
from partzoo.discovery.finder import Finder
from partzoo.discovery.learned import LearnedFinder
from partzoo.discovery.taught import TaughtFinder
from partzoo.discovery.vocabulary import PartVocabulary, read_vocabulary
from partzoo.errors import UsageError
from partzoo.export.about import metadata
from partzoo.export.graphs import (
    ClusteredGraph,
    DescriptorGraph,
    FeatureGraph,
    ForegroundGraph,
    LearnedGraph,
    SizedDescriptorGraph,
    TaughtGraph,
)
from partzoo.export.labelling import LabelGraph
from partzoo.export.writing import FORMATS
from partzoo.features import DEFAULT_MODEL, encoder_of, name_of
from partzoo.files import expand_user
from partzoo.locks import locked
from partzoo.models.base import Encoder, Model
from partzoo.models.foreground import ForegroundModel
from partzoo.models.loading import load
from partzoo.models.part_model import PartModel
from partzoo.models.precision import exact
from partzoo.places import check_apart, check_place
from partzoo.tracing.graph import Graph, traced

Format = Literal["onnx", "torch-export", "openvino"]
Task = Literal["features", "descriptors", "labels", "parts", "foreground"]
TASKS = {
    "features": "an encoder's features of normalized images or signals",
    "descriptors": "the foreground and descriptors of an image, to be clustered outside",
    "labels": "the labels of an image, from its descriptors and the clusters' centres",
    "parts": "the foreground and parts of an image, by a part model or with a vocabulary",
    "foreground": "the foreground of an image, by a foreground model",
}


def export_model(
    model: str | nn.Module | None,
    file: str | os.PathLike,
    *,
    format: Format = "onnx",
    task: Task | None = None,
    vocabulary: PartVocabulary | str | os.PathLike | None = None,
    background: Background = "auto",
    size: int | None = None,
    resize: bool = True,
) -> Path:
    """Export a model, or the whole way from an image to its parts, as a program that runs without partzoo.

    The program computes in float32 on any batch, height and width (or length, of a signal); ``docs/export.md`` lists
    its inputs, outputs and metadata.

    Args:
        model: name of a model, or a model; None uses that of the vocabulary, or else the encoder of
            :func:`partzoo.discover_parts`.
        file: file to write, ending in ``.onnx``, ``.pt2`` (torch-export) or ``.xml`` (openvino, with ``.bin`` beside).
        format: format of the file.
        task: what the program computes, a key of :data:`TASKS`. None exports the parts of a part model or of a
            vocabulary, the foreground of a foreground model, the descriptors of None, and the features of any other.
        vocabulary: fitted parts or their file, for a model that has no parts; or the joined parts of a part model.
        background: foreground model of the task ``"descriptors"``, as for :func:`partzoo.discover_parts`; a vocabulary
            names its own.
        size: working size of images in pixels, as for :func:`partzoo.discover_parts`; a vocabulary has its own.
        resize: whether the program of the task ``"descriptors"`` resizes images; if not, it takes one image for each
            working size, which Pillow makes in less time.

    Returns:
        Path of the file.

    Raises:
        UsageError: an argument is invalid, or the model cannot do the task.
        MissingExtraError: the libraries of the format are not installed.
        PartzooError: the model cannot be exported with free sizes, or the file cannot be written.
    """
    if format not in FORMATS:
        raise UsageError(f"format={format!r} must be one of {', '.join(map(repr, FORMATS))}.")
    suffix, write = FORMATS[format]
    path = expand_user(file)
    if path.suffix.lower() != suffix:
        raise UsageError(f"{str(path)!r} must end in {suffix}, the suffix of format={format!r}.")
    check_place(path)
    named = [each for each in (model, vocabulary, background) if isinstance(each, (str, os.PathLike))]
    check_apart(files_of(path), named)
    with locked(path):
        graph, models = graph_of(model, task, read_vocabulary(vocabulary), background, size, resize)
        write(traced(graph), graph, metadata(graph, models), path)
    return path


def files_of(path: Path) -> list[Path]:
    """Return the files of an export: OpenVINO keeps the weights beside the program."""
    return [path, path.with_suffix(".bin")] if path.suffix.lower() == FORMATS["openvino"][0] else [path]


def graph_of(
    model: str | nn.Module | None,
    task: Task | None = None,
    vocabulary: PartVocabulary | None = None,
    background: Background = "auto",
    size: int | None = None,
    resize: bool = True,
) -> tuple[Graph, dict[str, Model]]:
    """Return the program for a model and a task, with its models by name; arguments as in :func:`export_model`."""
    if task is not None and task not in TASKS:
        raise UsageError(f"task={task!r} must be one of {', '.join(map(repr, TASKS))}.")
    if vocabulary is not None:
        if task not in (None, "parts") or size is not None or not resize:
            raise UsageError(
                "A vocabulary is for task='parts', and has its own size: leave task=, size= and resize= out."
            )
        finder = finder_of(vocabulary, _own(model), "cpu")
        if isinstance(finder, TaughtFinder):
            return TaughtGraph(finder, vocabulary).eval(), _named(finder)
        return _parts(finder, partial(ClusteredGraph, vocabulary=vocabulary), vocabulary)
    if model is None and task is None:
        task = "descriptors"
    found = _loaded(DEFAULT_MODEL if model is None else model)
    has = _tasks(found)
    chosen = task or has[0]
    if chosen not in has:
        hint = " without a vocabulary; task='descriptors' leaves the clustering to you" if chosen == "parts" else ""
        raise UsageError(
            f"task={chosen!r}: {name_of(found)} cannot do that{hint}. Its tasks are {', '.join(map(repr, has))}."
        )
    name = model if isinstance(model, str) else DEFAULT_MODEL if model is None else ""
    if not resize and chosen != "descriptors":
        raise UsageError("resize=False is for task='descriptors'.")
    if chosen == "foreground":
        return ForegroundGraph(cast("ForegroundModel", found)).eval(), {name: found}
    if chosen == "features":
        return FeatureGraph(cast("Encoder", encoder_of(found))).eval(), {name: found}
    finder = make_finder(_own(model), background, size, device="cpu")
    kind = LabelGraph if chosen == "labels" else DescriptorGraph if resize else SizedDescriptorGraph
    return _parts(finder, kind)


def _parts(
    finder: Finder,
    clustered: Callable[[ClusteredFinder], Graph],
    vocabulary: PartVocabulary | None = None,
) -> tuple[Graph, dict[str, Model]]:
    """Return the program that finds parts or, for a model without parts, the program of some kind."""
    if isinstance(finder, LearnedFinder):
        return LearnedGraph(finder, vocabulary).eval(), {finder.settings.model: finder.model}
    assert isinstance(finder, ClusteredFinder)
    return clustered(finder).eval(), _named(finder)


def _named(finder: ClusteredFinder | TaughtFinder) -> dict[str, Model]:
    """Return the encoder and the foreground model of a finder by name."""
    named: dict[str, Model] = {finder.settings.model: finder.model}
    if finder.network is not None:
        named[finder.settings.background] = finder.network
    return named


def _tasks(model: Model) -> tuple[str, ...]:
    """Return what a model can do without a vocabulary, the most usual first."""
    if isinstance(model, ForegroundModel):
        return ("foreground",)
    if isinstance(model, PartModel):
        return "parts", "features"
    return ("features", "descriptors", "labels") if len(model.preprocess.shape) == 3 else ("features",)


def _loaded(model: str | nn.Module) -> Model:
    if isinstance(model, str):
        return load(model, device="cpu", dtype="float32")
    return cast("Model", _own(model))


def _own(model: str | nn.Module | None) -> str | nn.Module | None:
    """Return a copy of a caller's module, in float32 on the CPU and in evaluation mode; a name is returned as it is."""
    if not isinstance(model, nn.Module):
        return model
    return exact(cast("Model", copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)))
