"""Time models that an engine runs: CPU seconds for one image, on one thread.

The peers compute in float32 in torch: timm, the two networks of ``discover_parts`` as it runs them, and part models in
the published order of operations (:mod:`partzoo.bench.mpae`). Programs are exported before anything is timed, and kept
in partzoo's cache folder. Weights are random, except those of the default; where no ranges for int8 are recorded, they
are observed on the mirrored photograph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from partzoo.bench import features, mpae
from partzoo.bench.photograph import photograph
from partzoo.bench.runner import Case, measure
from partzoo.discovery.factory import FOREGROUND, blend, default_size
from partzoo.features import DEFAULT_MODEL
from partzoo.models.base import Encoder, Model
from partzoo.models.engines.quantizing import Range, observed
from partzoo.models.engines.running import PRECISIONS, on_engine
from partzoo.models.folding import folded
from partzoo.models.foreground import ForegroundModel
from partzoo.models.loading import load
from partzoo.models.partformer.model import PartFormer
from partzoo.models.precision import has_bf16, has_vnni

Targets = Mapping[str, float]  # ratio to reach, by precision
CPU = torch.device("cpu")


class PlainPartFormer(nn.Module):
    """PartFormer's inference as the paper describes it, with the weights of a model of the zoo."""

    def __init__(self, model: PartFormer) -> None:
        super().__init__()
        self.encoder, self.compress = mpae.plain_encoder(model.encoder), model.compress
        self.transformer = mpae.plain_transformer(model.transformer)
        self.view, self.tau = model.view, model.config.tau

    def forward(self, x: Tensor) -> Tensor:
        """Compute part maps ``(B, K + 1, H, W)`` of normalized images ``(B, 3, H, W)`` that have the training size."""
        found = self.compress(self.encoder.encode(x).maps())
        found = interpolate(found, x.shape[-2:], mode="bilinear", align_corners=False)
        return (self.tau * self.transformer(self.view(x)) @ found.flatten(2)).softmax(1).unflatten(2, x.shape[-2:])


def outcomes(quick: bool, repetitions: int) -> Iterator[dict[str, Any]]:
    """Measure all cases on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for cases in (_transformers, _default, _mpae, _partformer):
            for case in cases(quick):
                yield measure(replace(case, target=None) if quick else case, repetitions)
    finally:
        torch.set_num_threads(threads)


def _engines() -> Iterator[tuple[str, str]]:
    """Return the engines that are installed, each with its precisions that this CPU has."""
    for engine, precisions in PRECISIONS.items():
        if find_spec(engine):
            for precision in precisions:
                if {"bfloat16": has_bf16(CPU), "int8": has_vnni()}.get(precision, True):
                    yield engine, precision


def _case(
    name: str,
    engine: str,
    precision: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    peer_is: str,
    targets: Targets,
    facts: dict[str, Any],
) -> Case:
    ours, peer = torch.inference_mode()(ours), torch.inference_mode()(peer)
    ours()  # exports and starts the program
    return Case(
        f"{name}, {engine}, {precision}",
        ours=ours,
        peer=peer,
        ours_is=f"load(engine={engine!r}, dtype={precision!r})",
        peer_is=peer_is,
        target=targets.get(precision),
        measure="cost",
        unit="cpu_seconds",
        facts=facts,
    )


def _transformers(quick: bool) -> Iterator[Case]:
    name, sides = ("test_vit", (64,)) if quick else ("vit_small_patch16_224", (224, 448))
    torch.manual_seed(0)
    theirs: Any = timm.create_model(name, num_classes=0, dynamic_img_size=True).eval().requires_grad_(False)
    encoder = cast(Encoder, load(f"timm/{name}", pretrained=False, device=CPU, dtype="float32"))
    encoder.model.load_state_dict(theirs.state_dict())
    images = {side: _image(encoder, side) for side in sides}
    ranges = observed(encoder, [each.flip(3) for each in images.values()], encoder.encode)
    for engine, precision in _engines():
        model = cast(Encoder, on_engine(encoder, engine, precision, _ranges(precision, ranges)))
        for side, x in images.items():
            yield _case(
                f"features, {name}, {side} px",
                engine,
                precision,
                partial(model.forward_features, x),
                partial(theirs.forward_features, x),
                "timm, float32, eager",
                {"float32": 0.65, "int8": 0.28} if side <= 224 else {"float32": 0.8, "int8": 0.35},
                {"side": side, **features.agreement(model, encoder, x)},
            )


def _default(quick: bool) -> Iterator[Case]:
    names = ("toy-vit", "foreground-lite0") if quick else (DEFAULT_MODEL, FOREGROUND)
    models = [load(each, pretrained=not quick, device=CPU, dtype="float32") for each in names]
    encoder, network = cast(Encoder, models[0]), cast(ForegroundModel, models[1])
    in_torch = cast("tuple[Any, Any]", [folded(deepcopy(each)) for each in models])
    layers = list(blend(encoder)[0])
    x = _image(encoder, 64 if quick else default_size(encoder))
    seen = [_image(network, 64 if quick else size) for size in network.sizes]

    def both(encoder: Encoder, network: ForegroundModel) -> tuple[list[Tensor], Tensor]:
        return encoder.forward_intermediates(x, layers), network.averaged(*seen)

    for engine, precision in _engines():
        if precision == "int8":  # few of their weights are in linear layers
            continue
        ours = cast("tuple[Any, Any]", [on_engine(each, engine, precision, {}) for each in (encoder, network)])
        (found, map_), (expected, true) = both(*ours), both(encoder, network)
        same = ((map_ >= 0.5) == (true >= 0.5)).float().mean().item()
        facts = {"cosine": _cosine(found[-1], expected[-1]), "part_agreement_percent": round(100 * same, 3)}
        yield _case(
            f"the networks of discover_parts, {' and '.join(names)}",
            engine,
            precision,
            partial(both, *ours),
            partial(both, *in_torch),
            "torch, float32, batch norms folded, channels last",
            {"float32": 0.5, "bfloat16": 0.3},
            facts,
        )


def _mpae(quick: bool) -> Iterator[Case]:
    model, x = mpae.setup(quick)
    yield from _maps(
        "MPAE with maps", model, mpae.PlainMpae(model), x, {"float32": 0.65, "bfloat16": 0.35, "int8": 0.35}
    )


def _partformer(quick: bool) -> Iterator[Case]:
    torch.manual_seed(0)
    config: dict[str, Any] = {"encoder": "timm/test_vit", "size": 96, "dim": 32, "reconstruction": 48} if quick else {}
    model = cast(PartFormer, load("partformer-vits8", pretrained=False, device=CPU, dtype="float32", **config))
    x = _image(model, model.config.size)
    yield from _maps("PartFormer with maps", model, PlainPartFormer(model), x, {"bfloat16": 0.28, "int8": 0.28})


def _maps(name: str, model: Model, plain: nn.Module, x: Tensor, targets: Targets) -> Iterator[Case]:
    """Return the cases of a part model, from an image to maps of its size."""
    size = tuple(x.shape[2:])
    ranges = observed(model, [x.flip(3)], model.descriptors_and_maps)
    plain.eval()
    with torch.inference_mode():
        expected = plain(x)
    for engine, precision in _engines():
        ours = on_engine(model, engine, precision, _ranges(precision, ranges))
        yield _case(
            f"{name}, {model.config.encoder}, {size[0]} px",
            engine,
            precision,
            partial(ours.part_maps, x, size),
            partial(plain, x),
            mpae.PEER,
            targets,
            {"side": size[0], **mpae.agreement(ours.part_maps(x, size), expected)},
        )


def _ranges(precision: str, ranges: Mapping[str, Range]) -> Mapping[str, Range]:
    return ranges if precision == "int8" else {}


def _image(model: Model, side: int) -> Tensor:
    """Return the photograph as a model's input ``(1, 3, side, side)``."""
    return model.preprocess.normalize(torch.from_numpy(photograph(side)[0].copy()).permute(2, 0, 1)[None])


def _cosine(found: Tensor, expected: Tensor) -> float:
    return round(torch.nn.functional.cosine_similarity(found, expected, dim=1).mean().item(), 6)
