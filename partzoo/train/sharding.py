"""Split the parameters of a task over the processes of a training (FSDP), and put them together again."""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from partzoo.models.base import Model
from partzoo.models.layers import Block
from partzoo.models.loading import build
from partzoo.models.registry import find

Kind = TypeVar("Kind", bound=Model)


def shard(task: nn.Module, device: torch.device) -> None:
    """Move a task to a device, and leave each process a share of every parameter, gradient and moment.

    The forward pass gathers the parameters of each transformer block when it is reached, and all others at its start.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    task.to(device)
    for block in [each for each in task.modules() if isinstance(each, Block)]:
        fully_shard(block, mesh=mesh)
    fully_shard(task, mesh=mesh)


def unsharded(model: Kind) -> Kind:
    """Return a new model with the whole parameters of a sharded one, which one process can use without the others."""
    device = next(model.parameters()).device
    found = build(find(model.architecture), model.config).to(device)
    found.load_state_dict({name: whole(value) for name, value in model.state_dict().items()})
    return cast(Kind, found)


def whole(value: Tensor) -> Tensor:
    """Return a tensor, or all of one that is sharded; every process must call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(value: Tensor, other: Tensor) -> Tensor:
    """Return a whole tensor, sharded if ``other`` is; every process must call it with the same value."""
    if not isinstance(other, DTensor):
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)
