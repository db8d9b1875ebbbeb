"""Time MPAE inference, from an image to full-size part maps, against a plain implementation of the paper.

The plain forward has the same weights and follows the paper's equations literally: attention of the frozen encoder as
matrix products and a softmax, ``nn.MultiheadAttention`` in the descriptor extractor, compressed features upsampled to
the image's size and then matched with the descriptors. Our forward upsamples the K + 1 similarities instead.

Weights are random, and the scaling factors of the encoder's residual branches are set to 1: their initial value, 1e-5,
would hide the branches and the effect of low precision on them. Part agreement is the share of pixels at which the maps
of both sides have their maximum at the same part. The peak memory of each side is measured in a separate process and
counted from what that process holds once the model is loaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import torch
from timm.layers import LayerScale
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate

from partzoo.bench.features import AUTOCAST, converted
from partzoo.bench.memory import in_its_own_process, rise
from partzoo.bench.photograph import photograph
from partzoo.bench.runner import Case, Comparison, compared, measure
from partzoo.models.loading import load
from partzoo.models.mpae.model import Mpae
from partzoo.models.part_transformer import PartTransformer
from partzoo.models.precision import has_amx, has_bf16

PARTS, SIDE = 16, 448
PEER = "plain float32 forward in the published order: features upsampled, then matched"
CPU = torch.device("cpu")


class PlainAttentionBlock(nn.Module):
    """A block of the descriptor extractor, written as in CLIP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = self.fc1(self.norm2(x))
        return x + self.fc2(y * torch.sigmoid(1.702 * y))


class PlainMpae(nn.Module):
    """MPAE's inference as the paper describes it (section 3.3), with the weights of a model of the zoo."""

    def __init__(self, model: Mpae) -> None:
        super().__init__()
        self.encoder, self.compress = plain_encoder(model.encoder), model.compress
        self.extractor = plain_transformer(model.extractor)

    def forward(self, x: Tensor) -> Tensor:
        """Compute part maps ``(B, K + 1, H, W)`` of normalized images ``(B, 3, H, W)`` that have the training size."""
        features = self.compress(self.encoder.encode(x).maps())
        features = interpolate(features, x.shape[-2:], mode="bilinear", align_corners=False)
        similarity = self.extractor(x) @ features.flatten(2)
        return similarity.softmax(1).unflatten(2, x.shape[-2:])


def plain_encoder(encoder: nn.Module) -> Any:
    """Copy an encoder, with attention as matrix products and a softmax."""
    plain = deepcopy(encoder)
    modules: Iterable[Any] = plain.modules()
    for module in modules:
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return plain


def plain_transformer(extractor: PartTransformer) -> PartTransformer:
    """Copy a part transformer, with blocks as in CLIP."""
    plain = deepcopy(extractor)
    for i, block in enumerate(extractor.blocks):
        width, attention = block.norm1.normalized_shape[0], block.attn
        written: Any = PlainAttentionBlock(width, attention.num_heads)
        written.attention.in_proj_weight, written.attention.in_proj_bias = attention.qkv.weight, attention.qkv.bias
        written.attention.out_proj = attention.proj
        written.norm1, written.norm2 = block.norm1, block.norm2
        written.fc1, written.fc2 = block.mlp.fc1, block.mlp.fc2
        plain.blocks[i] = written
    return plain.eval()


def outcomes(quick: bool, repetitions: int) -> Iterator[dict[str, Any]]:
    """Measure the time in each precision of this machine's CPU, then the peak memory."""
    name = "test_vit" if quick else f"ViT-B/14, {SIDE} px, K = {PARTS}"
    for case in _cases(name, quick):
        yield measure(replace(case, target=None) if quick else case, repetitions)
    peak = memory if quick else (lambda *said: in_its_own_process("partzoo.bench.mpae", *said))
    peer = peak("peer", *["quick"] * quick)
    for precision in _precisions():
        what = Comparison(
            f"MPAE inference, {name}, {precision}, peak memory",
            f"Mpae.part_maps, {precision}",
            PEER,
            target=None if quick else 1.0,
            measure="cost",
            unit="mebibytes",
        )
        yield compared(what, [peak(precision, *["quick"] * quick)], [peer])


def memory(side: str, quick: str = "") -> float:
    """Return how much memory one inference adds to this process at most, in MiB.

    ``side`` is ``"peer"`` or the precision of our forward.
    """
    model, x = setup(bool(quick))
    return rise(_ours(model, side, x) if side != "peer" else _peer(model, x))


def profile(precision: str = "float32", *, quick: bool = False, top: int = 15) -> str:
    """Profile one inference and return the profiler's table of operators."""
    model, x = setup(quick)
    work = _ours(model, precision, x)
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        work()
    return profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=top, max_name_column_width=45)


def _precisions() -> dict[str, float | None]:
    """Return the precisions to measure on this CPU, each with its target ratio."""
    amx = has_amx()
    return {"float32": 1.2, "int8": None if amx else 2.0} | ({AUTOCAST: 4.0 if amx else None} if has_bf16(CPU) else {})


def _cases(name: str, quick: bool) -> Iterator[Case]:
    model, x = setup(quick)
    peer = _peer(model, x)
    for precision, target in _precisions().items():
        ours = _ours(model, precision, x)
        yield Case(
            f"MPAE inference, {name}, {precision}",
            ours=ours,
            peer=peer,
            ours_is=f"Mpae.part_maps, {precision}",
            peer_is=PEER,
            target=target,
            items=len(x),
            facts={"side": x.shape[-1], "parts": model.config.parts, **agreement(ours(), peer())},
        )


def setup(quick: bool) -> tuple[Mpae, Tensor]:
    """Return a model with random weights, and the benchmark photograph."""
    torch.manual_seed(0)
    if quick:
        small = {"dim": 32, "width": 32, "heads": 2, "depth": 1, "masked_heads": 2, "decoder_heads": 2}
        config: dict[str, Any] = {"encoder": "timm/test_vit", "parts": 3, "size": 96, "masked_width": 32, **small}
    else:
        config = {"parts": PARTS, "size": SIDE}
    model = cast(Mpae, load("mpae-vitb14reg", pretrained=False, device=CPU, dtype="float32", **config))
    for module in model.encoder.modules():
        if isinstance(module, LayerScale):
            nn.init.ones_(module.gamma)
    pixels = torch.from_numpy(photograph(model.config.size)[0].copy()).permute(2, 0, 1)
    return model, model.preprocess.normalize(pixels[None])


def _ours(model: Mpae, precision: str, x: Tensor) -> Callable[[], Tensor]:
    chosen = converted(model, precision, CPU)
    return torch.inference_mode()(lambda: chosen.part_maps(x, size=tuple(x.shape[-2:])))


def _peer(model: Mpae, x: Tensor) -> Callable[[], Tensor]:
    plain = PlainMpae(model)
    return torch.inference_mode()(lambda: plain(x))


def agreement(ours: Tensor, peer: Tensor) -> dict[str, float]:
    """Compare both sides: the mean cosine between part probabilities, and the share of pixels with the same part."""
    return {
        "cosine": round(cosine_similarity(ours, peer, dim=1).mean().item(), 6),
        "part_agreement_percent": round(100 * (ours.argmax(1) == peer.argmax(1)).float().mean().item(), 3),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(memory(*sys.argv[1:])))
