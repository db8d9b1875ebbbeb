"""Start the processes of a training run, connect them to each other, and end them together."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import distributed as dist

from partzoo.errors import PartzooError, UsageError, require
from partzoo.system.device import Device, device_of

if TYPE_CHECKING:
    from accelerate import PartialState

PATIENCE = timedelta(days=7)  # ranks wait while the first reads the data or measures the trained model


def processes(device: Device = None) -> PartialState:
    """Return accelerate's state of the processes that were started together; the first call makes them join each other.

    Args:
        device: where they train; None leaves the choice to accelerate.

    Raises:
        UsageError: several processes were asked for, but each would train alone, or this machine has no such device.
    """
    if _count_is_lost():
        raise UsageError(
            "'accelerate launch --cpu' has started a single process, whatever its --num_processes says. Use "
            "'python -m torch.distributed.run --nproc-per-node N' instead."
        )
    # Without cpu=True, each of several processes on a machine without a GPU would train alone.
    cpu = not torch.accelerator.is_available() if device is None else device_of(device).type == "cpu"
    state = require("accelerate", "train").PartialState(cpu=cpu, timeout=PATIENCE)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != started:
        raise UsageError(f"{started} processes were started, but on {state.device} each would train alone. Start one.")
    return state


def alone(what: str, device: Device = None) -> None:
    """Raise an error if several processes were started for ``what``, because each would do all of the work.

    Raises:
        UsageError: several processes were started, or this machine does not have the device.
    """
    if (count := processes(device).num_processes) > 1:
        raise UsageError(f"{what} needs one process, but {count} were started. Start one.")


def start_all() -> None:
    """Replace this process with the N that ``accelerate launch --cpu --num_processes N`` should have started.

    accelerate (1.0 to 1.15) starts a single process on a CPU and does not pass on the number, which is therefore read
    from its command line.

    Raises:
        UsageError: the number cannot be found.
    """
    count = _asked_of_accelerate() if _count_is_lost() else 1
    if count > 1:
        address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
        place = ["--nproc-per-node", str(count), "--master-addr", address, "--master-port", port]
        run = [sys.executable, "-m", "torch.distributed.run", *place, "-m", "partzoo", *sys.argv[1:]]
        os.execv(sys.executable, run)


def _count_is_lost() -> bool:
    """Return whether accelerate should have started several processes on a CPU, but has started only one."""
    known = {"WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"} & set(os.environ)
    return os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_PORT" in os.environ and not known


def _asked_of_accelerate() -> int:
    """Return the number of processes that the parent ``accelerate launch`` was asked for."""
    import psutil  # comes with accelerate
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    words = psutil.Process().parent().cmdline()
    start = next((at for at, word in enumerate(words) if word.endswith(("launch", "launch.py"))), None)
    if start is None:
        return 1
    asked = launch_command_parser().parse_args(words[start + 1 :])
    several = (asked.num_machines or 1) > 1
    return 1 if several else asked.num_processes or load_config_from_file(asked.config_file).num_processes


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Turn the end of another process into a plain error; use it as a context manager or a decorator.

    Raises:
        PartzooError: another process has ended while this one waited for it.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise PartzooError(
            "Another process of this training has ended. Add resume=True to continue from the last checkpoint."
        ) from error


def first_to_fail() -> bool:
    """Return whether this process is the first of its training run to ask; the others fail only because it did."""
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        socket.create_connection((address, port), timeout=10).close()  # torch would try for long, and log it
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))
        return store.add(f"partzoo/failures/{os.environ.get('TORCHELASTIC_RESTART_COUNT')}", 1) == 1
    except (KeyError, ValueError, OSError, RuntimeError):  # the process that held the store has ended
        return os.environ.get("RANK") == "0"
