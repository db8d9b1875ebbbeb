"""Any timm vision transformer or convolutional network behind the encoder contract."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import timm
from einops import rearrange
from torch import Tensor

from partzoo.encoders.base import Encoder, Preprocess, Tokens, as_format, choose, in_precision, pad_to_multiple
from partzoo.errors import UnknownModelError
from partzoo.registry import Architecture, register

PREFIX = "timm/"
ALIASES = {
    "dino-vits8": "vit_small_patch8_224.dino",
    "dino-vits16": "vit_small_patch16_224.dino",
    "dino-vitb8": "vit_base_patch8_224.dino",
    "dinov2-vits14": "vit_small_patch14_dinov2.lvd142m",
    "dinov2-vitb14reg": "vit_base_patch14_reg4_dinov2.lvd142m",
    "mae-vitb16": "vit_base_patch16_224.mae",
    "mocov3-vitb16": "vit_base_patch16_224.mocov3",
}


@dataclass(frozen=True)
class TimmConfig:
    """A timm model by name, and for convolutional networks the stage whose map :meth:`encode` gives."""

    model: str
    stage: int = -1


class TimmEncoder(Encoder):
    """A timm model without its classifier.

    Vision transformers take any size: inputs are padded to whole patches, and timm resamples the position
    embeddings in float32. Convolutional networks give the map of one stage (the last by default) as tokens.
    """

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        self.config = config
        try:
            self.model = timm.create_model(
                config.model, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True
            )
            self.transformer = True
        except TypeError:
            self.model = timm.create_model(config.model, num_classes=0)
            self.transformer = False
        data = self.model.pretrained_cfg
        if self.transformer:
            self.dim = self.model.embed_dim
            self.patch = multiple = self.model.patch_embed.patch_size[0]
        else:
            stages = list(self.model.feature_info)
            self.dim = stages[config.stage]["num_chs"]
            self.patch = stages[config.stage]["reduction"]
            multiple = stages[-1]["reduction"]
        self.preprocess = Preprocess(
            size=data["input_size"][-1],
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            interpolation=data["interpolation"] if data["interpolation"] != "random" else "bicubic",
            multiple=multiple,
        )

    @in_precision
    def encode(self, x: Tensor) -> Tokens:
        if not self.transformer:
            maps = self._stages(x)[self.config.stage]
            return Tokens(rearrange(maps, "b c h w -> b (h w) c"), maps.new_zeros(len(x), 0, self.dim), maps.shape[-2:])
        tokens = self.model.forward_features(x)
        prefix = self.model.num_prefix_tokens
        grid = (-(-x.shape[2] // self.patch), -(-x.shape[3] // self.patch))
        return Tokens(tokens[:, prefix:], tokens[:, :prefix], grid)

    @in_precision
    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        if self.transformer:
            chosen = choose(indices, len(self.model.blocks))
            maps = self.model.forward_intermediates(x, indices=chosen, norm=True, intermediates_only=True)
        else:
            stages = self._stages(x)
            maps = [stages[i] for i in choose(indices, len(stages))]
        return as_format(maps, output_fmt)

    def _stages(self, x: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(pad_to_multiple(x, self.preprocess.multiple), intermediates_only=True)


def timm_architecture(name: str) -> Architecture:
    """The architecture behind ``timm/<name>``.

    Raises:
        UnknownModelError: timm has no such model; the message names the closest.
    """
    model = name.removeprefix(PREFIX)
    plain, _ = timm.models.split_model_name_tag(model)
    if not timm.is_model(plain):
        close = difflib.get_close_matches(plain, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(repr(PREFIX + c) for c in close)}?" if close else ""
        raise UnknownModelError(f"timm has no model {plain!r}.{hint}")

    def build(config: TimmConfig) -> TimmEncoder:
        return TimmEncoder(config)

    build.__doc__ = f"timm's {model}."
    return Architecture(PREFIX + model, "encoder", TimmConfig(model), build)


def _register(alias: str, model: str) -> None:
    def maker(config: TimmConfig) -> TimmEncoder:
        return TimmEncoder(config)

    maker.__name__ = alias.replace("-", "_")
    maker.__doc__ = f"timm's {model}; weights from the Hugging Face Hub through timm's record."
    register(family="encoder", config=TimmConfig(model))(maker)


for _alias, _model in ALIASES.items():
    _register(_alias, _model)
