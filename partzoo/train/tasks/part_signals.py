"""Pretrain PART on signals to predict the time between patches of a window."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from partzoo.errors import UsageError
from partzoo.models.part.sampling import SAMPLINGS, Sampling, sample
from partzoo.models.part.signal_model import SignalPart, SignalPartConfig
from partzoo.train.losses.part import relative_position_loss
from partzoo.train.tasks.base import Task
from partzoo.train.windows import SignalOptions, WindowSet, read_windows


class PartSignalsTask(Task):
    """A task that trains PART to predict the time shifts between randomly sampled patches (sections 5.2 and 8.1).

    Args:
        model: PART model with encoder and relative encoder.
        pairs: number of ordered pairs of patches for each window; 0 means all of them.
        sampling: distribution of the patches; see :func:`partzoo.models.part.sampling.sample`.

    Raises:
        UsageError: the sampling is unknown, the number of pairs is negative, or the model was finetuned.
    """

    METHOD = "part-signals"
    TITLE = "PART"
    RECIPE = "part-vit1d.physionet"
    CONFIG = SignalPartConfig
    DATA = SignalOptions
    ENDS = ("patch_embed", "relative_encoder")
    model: SignalPart

    def __init__(self, model: SignalPart, *, pairs: int = 0, sampling: Sampling = "integer") -> None:
        super().__init__()
        if sampling not in SAMPLINGS or pairs < 0 or model.config.classes:
            raise UsageError(
                f"sampling={sampling!r}, pairs={pairs}, config.classes={model.config.classes}: sampling must be one of "
                f"{', '.join(SAMPLINGS)}, pairs 0 or more, and classes 0 in pretraining."
            )
        self.model, self.pairs, self.sampling = model, pairs, sampling

    @staticmethod
    def read(folder: str | Path, options: SignalOptions, config: SignalPartConfig, seed: int) -> WindowSet:
        windows = read_windows(folder, options)
        shape = tuple(windows.batch(torch.tensor([0])).shape[1:])
        if shape != (config.channels, config.size):
            raise UsageError(
                f"data={folder} has windows of {shape[0]} channels and {shape[1]} samples: set config.channels, "
                f"which is {config.channels}, and config.size, which is {config.size}."
            )
        return windows

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        count = None if self.sampling == "on-grid" else self.model.config.patches
        drawn = sample(pixels, self.model.patch, self.sampling, count=count, pairs=self.pairs, generator=generator)
        return {"loss": relative_position_loss(self.model.relate(drawn.patches, drawn.pairs), drawn.targets)}
