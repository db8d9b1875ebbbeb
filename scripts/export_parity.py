"""Compares exported ONNX files with the models in torch, for docs/export.md.

    python scripts/export_parity.py [NAME...]

For each model it prints the size of the file and the largest absolute difference between ONNX Runtime and torch, over
all outputs, for batches of three at three sizes, one of them odd and none square. Names are those of ``partzoo list``;
``NAME:random`` has random weights, and ``default`` and ``vocabulary`` are the pipelines of ``partzoo discover``,
and ``taught`` that with taught parts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import partzoo
from partzoo.export.export import graph_of
from partzoo.tracing.graph import Graph, traced
from partzoo.tracing.onnx_file import onnx_bytes

EXAMPLES = Path(__file__).parents[1] / "examples"
IMAGES = EXAMPLES / "images"
BATCH = 3
SIZES = ((96, 128), (75, 131), (160, 64))
LARGER = ((320, 448), (301, 447), (640, 480))  # for the pipelines, which resize images
LENGTHS = ((3000,), (100,), (700,))
NAMES = (
    "part-vitn8.tin", "part-classifier-vitn8:random", "spatial-conv4:random", "spatial-resnet32.tin",
    "patchresnet14.tin", "efficientnet-lite0.in1k", "dino-vits16:random", "dinov2-vits14:random",
    "timm/resnet18:random", "timm/swin_tiny_patch4_window7_224:random", "part-vit1d:random", "foreground-lite0.masks",
    "partformer-resnet18.faces-k8", "mpae-patchresnet14.faces-k8", "default", "vocabulary",
    "taught",
)  # fmt: skip


def graph_for(name: str) -> Graph:
    """Return the program for a name."""
    if name == "default":
        return graph_of(None)[0]
    if name == "vocabulary":
        return graph_of(None, vocabulary=partzoo.fit_parts([IMAGES / "ibis.jpg", IMAGES / "cat.jpg"], k=5))[0]
    if name == "taught":
        words = partzoo.fit_parts(EXAMPLES / "ibises" / "images", labels=EXAMPLES / "ibises" / "labels")
        return graph_of(None, vocabulary=words)[0]
    torch.manual_seed(0)
    plain = name.removesuffix(":random")
    return graph_of(partzoo.load(plain, pretrained=plain == name, device="cpu", dtype="float32"))[0]


def sizes_for(graph: Graph) -> tuple[tuple[int, ...], ...]:
    """Return the sizes at which to compare: those of the input that are fixed, or three."""
    name, given = next(iter(graph.inputs().items()))
    _, _, *free = given.shape
    if all(isinstance(size, int) for size in free):
        return (tuple(size for size in free if isinstance(size, int)),)
    return LENGTHS if len(free) == 1 else LARGER if name == "image" else SIZES


def example(graph: Graph, size: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Return inputs of a program: smooth images, or noise for an encoder, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, each in graph.inputs().items():
        if name == "image":
            coarse = torch.rand(BATCH, 3, 7, 9, generator=generator)
            smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
            found[name] = (255 * smooth).to(torch.uint8)
        elif name == "classes":
            found[name] = torch.arange(BATCH).flip(0) % 2
        else:
            found[name] = torch.randn(BATCH, each.example.shape[1], *size, generator=generator)
    return found


def difference(graph: Graph, session: onnxruntime.InferenceSession, size: tuple[int, ...]) -> float:
    """Return the largest absolute difference of all outputs at one size.

    Raises:
        ValueError: an output has another shape than in torch, or than the program states.
    """
    given = example(graph, size)
    with torch.inference_mode():
        expected = graph(*given.values())
    found = session.run(list(graph.outputs), {name: value.numpy() for name, value in given.items()})
    sizes: dict[str | int, int] = {"batch": BATCH}
    apart = []
    for (name, output), value, other in zip(graph.outputs.items(), found, expected, strict=True):
        sides = zip(output.shape, value.shape, strict=True)
        stated = tuple(size if isinstance(size, int) else sizes.setdefault(size, side) for size, side in sides)
        if not value.shape == tuple(other.shape) == stated:
            raise ValueError(f"{name} is {value.shape}, {tuple(other.shape)} in torch, and {stated} as stated")
        apart.append(np.abs(value.astype(np.float32) - other.float().numpy()).max())
    return float(np.max(apart))  # NaN if any is


def session_of(graph: Graph) -> tuple[onnxruntime.InferenceSession, int]:
    """Return a session of ONNX Runtime with the exported program, and the bytes of its file."""
    content = onnx_bytes(traced(graph), graph, {"partzoo_version": partzoo.__version__})
    return onnxruntime.InferenceSession(content), len(content)


def main(names: list[str]) -> None:
    print("| model | task | MB | largest difference at each size |\n| --- | --- | --- | --- |")
    for name in names:
        graph = graph_for(name)
        session, size = session_of(graph)
        found = (f"{difference(graph, session, each):.1e} ({'x'.join(map(str, each))})" for each in sizes_for(graph))
        print(f"| `{name}` | {graph.task} | {size / 1e6:.1f} | {', '.join(found)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(NAMES))
