"""Use timm's vision transformers and convolutional networks as encoders of the zoo."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from partzoo.errors import ShapeError, UnknownModelError, UsageError, WeightsError
from partzoo.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from partzoo.images.resampling import multiplied
from partzoo.models.base import Encoder, Tokens, as_format, choose, in_precision, pad_to_multiple
from partzoo.models.registry import Architecture, register, register_prefix
from partzoo.weights.hub_file import hub_file
from partzoo.weights.tensors import read_state

if TYPE_CHECKING:
    from timm.models import VisionTransformer

PREFIX = "timm/"
ALIASES = {
    "dino-vits8": "vit_small_patch8_224.dino",
    "dino-vits16": "vit_small_patch16_224.dino",
    "dino-vitb8": "vit_base_patch8_224.dino",
    "dinov2-vits14": "vit_small_patch14_dinov2.lvd142m",
    "dinov2-vitb14reg": "vit_base_patch14_reg4_dinov2.lvd142m",
    "mae-vitb16": "vit_base_patch16_224.mae",
    "mocov3-vitb16": "vit_base_patch16_224",
}
# Aliases for which timm has no weights, with the file that the authors published.
CONVERTED = {"mocov3-vitb16": "vit-b-300ep.pth.tar of github.com/facebookresearch/moco-v3"}


@dataclass(frozen=True)
class TimmConfig:
    """Configuration of a timm model.

    Attributes:
        model: timm's name of the model.
        stage: stage of a convolutional network whose map :meth:`TimmEncoder.encode` returns.
        positions: resampling of a vision transformer's position embeddings to other grids: ``"timm"`` is antialiased
            to the size of the grid, ``"dino"`` follows DINO (:func:`dino_positions`) and is used by DINO's aliases.
        mean, std: mean and standard deviation of each channel, for pixels in 0..1; None uses timm's.
    """

    model: str
    stage: int = -1
    positions: Literal["timm", "dino"] = "timm"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


class TimmEncoder(Encoder):
    """A timm model without its classifier, as an encoder for images of any size.

    Most networks take any size: images are padded to whole patches, or to the coarsest stride, and the position
    embeddings of vision transformers are resampled in float32. Networks that timm can set to another size are set to
    the size of each batch. For all others, images are squashed to the only size that the network accepts.

    Attributes:
        settable: ``(height, width)`` that the network is currently set to, if it must be set to its images' size.
    """

    model: Any  # timm's networks have no base class with the attributes used here

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _network(config.model)
        data, layers = self.model.pretrained_cfg, list(self.model.feature_info)
        size = tuple(data["input_size"][1:])
        fixed = bool(data.get("fixed_input_size")) and not getattr(self.model, "dynamic_img_size", False)
        self.settable = size if fixed and hasattr(self.model, "set_input_size") else None
        self.fixed = size if fixed and self.settable is None else None
        strides = tuple(layer["reduction"] for layer in layers)
        self.dim, self.patch = layers[config.stage]["num_chs"], strides[config.stage]
        self.reductions = strides if len(set(strides)) > 1 else ()
        self.options = {"norm": not self.reductions and hasattr(self.model, "norm"), "intermediates_only": True}
        prefixed = "return_prefix_tokens" in inspect.signature(self.model.forward_intermediates).parameters
        if prefixed and self.model.num_prefix_tokens:
            self.options["return_prefix_tokens"] = True
        if config.positions not in ("timm", "dino"):
            raise UsageError(f"positions={config.positions!r} must be 'timm' or 'dino'.")
        if config.positions == "dino":
            if getattr(self.model, "cls_token", None) is None or self.model.num_prefix_tokens != 1:
                raise UsageError(f"positions='dino' is for transformers with one class token, not {config.model}.")
            self.model._pos_embed = partial(_embed_positions, self.model)
        self.preprocess = Preprocess(
            size=size[-1],
            mean=_triple(config.mean or data["mean"]),
            std=_triple(config.std or data["std"]),
            interpolation=data["interpolation"] if data["interpolation"] != "random" else "bicubic",
            multiple=max(strides),
        )

    @in_precision
    def encode(self, x: Tensor) -> Tokens:
        [(maps, prefix)] = self._layers(x, [self.config.stage])
        tokens = Tokens.from_maps(maps)
        return tokens if prefix is None else replace(tokens, prefix=prefix)

    @in_precision
    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        chosen = choose(indices, len(self.model.feature_info))
        return as_format([maps for maps, _ in self._layers(x, chosen)], output_fmt)

    def _layers(self, x: Tensor, chosen: list[int]) -> list[tuple[Tensor, Tensor | None]]:
        """Compute the maps ``(B, C, h, w)`` of some layers, and their prefix tokens ``(B, P, C)`` if there are any."""
        network, fitted = self._fitted(x)
        try:
            found = network.forward_intermediates(fitted, indices=chosen, **self.options)
        except RuntimeError as error:
            if "Kernel size can't be greater" not in str(error):
                raise
            raise ShapeError(
                f"A {x.shape[2]}x{x.shape[3]} image is too small for {self.config.model}: resize it to about "
                f"{self.preprocess.size} pixels, the size that the model was made for."
            ) from error
        return [each if isinstance(each, tuple) else (each, None) for each in found]

    def _fitted(self, x: Tensor) -> tuple[Any, Tensor]:
        """Return the network, set to the images' size if necessary, and the images in a size that it accepts."""
        if self.fixed:
            return self.model, squashed(x, self.fixed)
        x = pad_to_multiple(x, self.preprocess.multiple)
        if self.settable and x.shape[2:] != self.settable:
            return _set_to(self.model, (x.shape[2], x.shape[3])), x
        return self.model, x


def _network(name: str) -> Any:
    """Create timm's model of this name, without its classifier and for images of any size if it can accept them."""
    import timm

    # timm would look up a name such as hf-hub:owner/name on the Hub.
    if not timm.is_model(timm.models.split_model_name_tag(name)[0]):
        raise UnknownModelError(f"model={name!r}: timm has no such model.")
    try:
        return timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:
        return timm.create_model(name, num_classes=0)


def _set_to(model: Any, size: tuple[int, int]) -> Any:
    """Copy a model and set the copy to images of a different size; weights that do not depend on the size are shared.

    The model stays as it is, so its positions are resampled once, rather than again from one size to the next.
    """
    shared = {id(each): each for each in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    copied.set_input_size(size)
    return copied


def squashed(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images ``(B, C, H, W)`` to a size regardless of their aspect ratio: bicubic, antialiased, in float32.

    A compiled or exported program serves all sizes, so it resamples images of that size too, with equal values.
    """
    if torch.compiler.is_compiling():
        return multiplied(x.float(), size, "bicubic").to(x.dtype)
    if tuple(x.shape[2:]) == size:
        return x
    return interpolate(x.float(), size, mode="bicubic", antialias=True).to(x.dtype)


def dino_positions(table: Tensor, side: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Resample position embeddings for a different grid, as DINO does.

    Args:
        table: ``(1, 1 + h * w, C)``, with the class token's entry first.
        side: grid ``(h, w)`` of the table.
        grid: rows and columns of the result.

    Returns:
        ``(1, 1 + rows * columns, C)``: bicubic without antialiasing, by the factors ``(rows + 0.1) / h`` and ``(columns
        + 0.1) / w``, which shift every sample slightly towards the top left, as in DINO's code. For the table's
        grid there is no shift. No branch depends on the grid, so an exported program serves all sizes.
    """
    rows, columns = (torch.arange(count, device=table.device) for count in grid)
    excess = 0.1 * ((rows[-1] + 1 != side[0]) | (columns[-1] + 1 != side[1]))
    square = rearrange(table[:, 1:], "1 (h w) c -> h w c", h=side[0]).float()
    fine = _bicubic(square, rows, excess).transpose(0, 1)
    fine = _bicubic(fine, columns, excess).transpose(0, 1)
    return torch.cat([table[:, :1], fine.flatten(0, 1)[None].to(table.dtype)], dim=1)


def _bicubic(values: Tensor, places: Tensor, excess: Tensor) -> Tensor:
    """Resample ``(n, m, C)`` along its first axis to length ``places``, by the factor ``(places + excess) / n``."""
    at = (places + 0.5) * values.shape[0] / (places[-1] + 1 + excess) - 0.5
    taps = at.floor()[:, None] + torch.arange(-1, 3, device=values.device)
    distance = (at[:, None] - taps).abs()
    near = (1.25 * distance - 2.25) * distance**2 + 1
    far = -0.75 * (((distance - 5) * distance + 8) * distance - 4)
    weights = torch.where(distance <= 1, near, far)
    return (weights[..., None, None] * values[taps.long().clamp(0, values.shape[0] - 1)]).sum(1)


def _embed_positions(model: VisionTransformer, patches: Tensor) -> Tensor:
    """Add the class token and positions to patches ``(B, rows, columns, C)``; replaces timm's ``_pos_embed``."""
    rows, columns = patches.shape[1:3]
    assert model.pos_embed is not None and model.cls_token is not None, "TimmEncoder has checked that"
    table = dino_positions(model.pos_embed, model.patch_embed.grid_size, (rows, columns))
    tokens = torch.cat([model.cls_token.expand(patches.shape[0], -1, -1), patches.flatten(1, 2)], dim=1)
    return model.pos_drop(tokens + table)


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


@register_prefix(PREFIX)
def timm_architecture(name: str) -> Architecture:
    """Return the architecture of ``timm/<name>``.

    Raises:
        UnknownModelError: timm does not have the model or the tag; the message names the closest models, or the tags.
    """
    import timm

    model = name.removeprefix(PREFIX)
    plain, tag = timm.models.split_model_name_tag(model)
    if not timm.is_model(plain):
        close = difflib.get_close_matches(plain, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(repr(PREFIX + c) for c in close)}?" if close else ""
        raise UnknownModelError(f"timm has no model {plain!r}.{hint}")
    try:
        timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        tags = [each.partition(".")[2] for each in timm.list_models(f"{plain}.*", pretrained=True)]
        raise UnknownModelError(
            f"timm has no weights of {plain} tagged {tag!r}; its tags are {', '.join(tags) or 'none'}."
        ) from error

    def build(config: TimmConfig) -> TimmEncoder:
        return TimmEncoder(config)

    build.__doc__ = f"timm's {model}."
    return Architecture(PREFIX + model, "encoder", TimmConfig(model), build, fetch=fetch_weights)


def fetch_weights(config: TimmConfig, **hub: Any) -> dict[str, Tensor]:
    """Load the weights of a timm model, without its classifier, from the Hugging Face cache or the Hub.

    Args:
        config: configuration that names the model.
        **hub: ``revision``, ``local_files_only`` and ``cache_dir`` of :func:`partzoo.load`.

    Raises:
        WeightsError: timm knows no weights of the model, or they cannot be downloaded.
    """
    import timm

    record = timm.get_pretrained_cfg(config.model)
    if record is None or not record.hf_hub_id:
        raise WeightsError(
            f"timm knows no weights on the Hub for {config.model!r}: pass pretrained=False, or add a tag."
        )
    name = PREFIX + config.model
    try:
        file = hub_file(record.hf_hub_id, "model.safetensors", name=name, cached_first=True, **hub)
    except FileNotFoundError as error:
        raise WeightsError(f"{error}: pass another tag, or pretrained=False.") from error
    named = record.classifier or ()
    heads = (named,) if isinstance(named, str) else tuple(named)
    state = read_state([file])
    kept = {k: v for k, v in state.items() if not any(k == h or k.startswith(f"{h}.") for h in heads)}
    return {f"model.{key}": value for key, value in kept.items()}


def _refuse(alias: str) -> Callable[..., NoReturn]:
    def refuse(config: TimmConfig, **hub: Any) -> NoReturn:
        raise WeightsError(
            f"timm has no weights of {alias}: download {CONVERTED[alias]}, run 'partzoo convert FILE -o "
            "DIR' and load DIR; or pass pretrained=False for random ones."
        )

    return refuse


def _register(alias: str, model: str) -> None:
    def maker(config: TimmConfig) -> TimmEncoder:
        return TimmEncoder(config)

    maker.__name__ = alias.replace("-", "_")
    if alias in CONVERTED:
        maker.__doc__ = f"timm's {model}; weights by partzoo convert from {CONVERTED[alias]}."
        config = TimmConfig(model, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    else:
        maker.__doc__ = f"timm's {model}; weights from the Hugging Face Hub through timm's record."
        config = TimmConfig(model, positions="dino" if alias.startswith("dino-") else "timm")
    register(family="encoder", config=config, fetch=_refuse(alias) if alias in CONVERTED else fetch_weights)(maker)


for _alias, _model in ALIASES.items():
    _register(_alias, _model)
