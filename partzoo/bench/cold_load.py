"""Time loading ViT-B from a file: ``partzoo.load`` against timm's ``create_model`` and ``load_state_dict``.

Both sides read the same weights from a safetensors file, written once to a temporary folder; imports are done and
the file is in the page cache. It was loaded once before, which compared it with its digest (docs/models.md). Tensors
that ``load`` maps from the file are read when they are first used, so the second case adds the first image and
measures the whole way from nothing to features.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from partzoo.bench.runner import Case
from partzoo.models.loading import load
from partzoo.models.timm_encoder import TimmConfig
from partzoo.weights.tensors import write_weights


def cases(quick: bool = False) -> list[Case]:
    """Return two cases: loading alone, and loading with the first forward pass at 224 pixels."""
    name, width = ("test_vit", 64) if quick else ("vit_base_patch16_224", 224)
    folder = tempfile.TemporaryDirectory(prefix="partzoo-bench-")  # removed once the cases are dropped
    state = timm.create_model(name, num_classes=0).state_dict()
    save_file(state, f"{folder.name}/timm.safetensors")
    state = {f"model.{key}": value for key, value in state.items()}
    write_weights(Path(folder.name, "zoo.safetensors"), state, f"timm/{name}", asdict(TimmConfig(name)))
    x = torch.randn(1, 3, width, width, generator=torch.Generator().manual_seed(0))

    def ours() -> nn.Module:
        return load(f"{folder.name}/zoo.safetensors", device="cpu", dtype="float32")

    def peer() -> nn.Module:
        model = timm.create_model(name, num_classes=0)
        model.load_state_dict(load_file(f"{folder.name}/timm.safetensors"))
        return model.eval()

    @torch.inference_mode()
    def first(make) -> Tensor:
        return make().forward_features(x)

    facts = {
        "megabytes": round(sum(value.nbytes for value in state.values()) / 1e6, 1),
        "largest_difference_of_features": (first(ours) - first(peer)).abs().max().item(),
    }
    theirs = "timm.create_model + load_state_dict(safetensors.torch.load_file)"
    return [
        Case(
            f"cold load, {name}",
            ours=ours,
            peer=peer,
            ours_is="partzoo.load",
            peer_is=theirs,
            target=7.0,
            facts=facts,
        ),
        Case(
            f"cold load and first image, {name}",
            ours=lambda: first(ours),
            peer=lambda: first(peer),
            ours_is=f"partzoo.load, one {width} px image in float32",
            peer_is=f"{theirs}, the same image",
            facts=facts,
        ),
    ]
