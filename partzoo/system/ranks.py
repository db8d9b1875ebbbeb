"""Split a batch over several processes, with the same results as one process that has the whole batch.

Rank ``r`` of ``R`` has the rows ``r``, ``r + R``, ``r + 2 R`` and so on of a batch. Stacks of several groups of rows,
such as the views of all images one after the other, are shared in the same way, row by row, without a special case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.overrides import TorchFunctionMode

DRAWN: tuple[Callable, ...] = (torch.rand, torch.randn, torch.randint)
FILLED: tuple[Callable, ...] = (Tensor.uniform_, Tensor.normal_)

_sharing: list[SharedBatch] = []


class SharedBatch(TorchFunctionMode):
    """A context in which each rank computes, for its rows, what one process would compute for the whole batch.

    - Random numbers from a given ``generator``, which is in the same state on every rank, are drawn for all rows of
      the batch, and each rank takes those of its rows. The first dimension of a draw is that of the rows; a draw
      without dimensions is common to all ranks.
    - Batch norms in training use the statistics of the whole batch.
    - Everything else that depends on other rows must use :func:`whole`, :func:`mine` and :func:`mean`.

    All ranks must enter it together and compute the same in it. With one rank nothing changes.

    Args:
        rank: number of this process.
        ranks: number of processes.
    """

    def __init__(self, rank: int, ranks: int) -> None:
        super().__init__()
        self.rank, self.ranks = rank, ranks

    def __enter__(self) -> SharedBatch:
        if self.ranks > 1:
            _sharing.append(self)
            super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.ranks > 1:
            _sharing.pop()
            super().__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DRAWN and kwargs.get("generator"):
            return self._drawn(func, args, kwargs)
        if func in FILLED and kwargs.get("generator") and args[0].ndim:
            rows = args[0].new_empty(count(len(args[0])), *args[0].shape[1:])
            return args[0].copy_(mine(func(rows, *args[1:], **kwargs)))
        if func is torch.nn.functional.batch_norm:
            return _batch_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def _drawn(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        if isinstance(args[-1], int):  # torch.rand(3, 4) rather than torch.rand((3, 4))
            bounds, size = (), args
        else:
            *bounds, size = args
        if not size:
            return func(*args, **kwargs)
        return mine(func(*bounds, (count(size[0]), *size[1:]), **kwargs))


def count(rows: int) -> int:
    """Return the number of rows of the whole batch, of which this rank has ``rows``."""
    return rows * _sharing[-1].ranks if _sharing else rows


def whole(rows: Tensor) -> Tensor:
    """Return the rows ``(B, ...)`` of all ranks, given this rank's ``(B / R, ...)``; gradients flow back to each."""
    if not _sharing:
        return rows
    return _Gathered.apply(rows).transpose(0, 1).flatten(0, 1)


def mine(rows: Tensor) -> Tensor:
    """Return this rank's rows ``(B / R, ...)`` of a whole batch ``(B, ...)``."""
    return rows[_sharing[-1].rank :: _sharing[-1].ranks] if _sharing else rows


def mean(value: Tensor) -> Tensor:
    """Return the mean over the ranks of a value that needs no gradient."""
    return _Gathered.apply(value.detach()).mean(0) if _sharing else value


class _Gathered(torch.autograd.Function):
    """Tensors of one shape from all ranks, stacked: ``(...)`` -> ``(R, ...)``."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        found = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(_sharing[-1].ranks)]
        dist.all_gather(found, value.contiguous())
        ctx.rank = _sharing[-1].rank
        return torch.stack(found)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)  # what each rank computes from this one's tensor
        return grad[ctx.rank]


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Apply ``torch.nn.functional.batch_norm``, in training with the mean and variance over the rows of all ranks.

    torch's ``SyncBatchNorm`` does the same on GPUs, but does not work on a CPU.
    """
    if not training:
        return torch.nn.functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    over, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    # Means and variances of the ranks are combined, as the mean of squares minus the square of the mean is imprecise.
    means, variances = _Gathered.apply(torch.stack([values.mean(over), values.var(over, correction=0)])).unbind(1)
    centre = means.mean(0)
    variance = (variances + (means - centre) ** 2).mean(0)
    if running_mean is not None and running_var is not None:
        seen = count(values[:, 0].numel())
        running_mean.lerp_(centre.detach().to(running_mean.dtype), momentum)
        running_var.lerp_((variance.detach() * seen / (seen - 1)).to(running_var.dtype), momentum)
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    found = (values - centre.view(shape)) * scale.view(shape)
    return (found if bias is None else found + bias.view(shape)).to(x.dtype)
