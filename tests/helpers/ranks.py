"""Starts the processes of one training, which talk by gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = ("-m", "partzoo")


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def start(arguments: Sequence[object], ranks: int = 2) -> list[subprocess.Popen[str]]:
    """Start ``python ARGUMENTS`` as each rank of a training, in a session of its own."""
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    return [launch(arguments, shared | place) for place in places]


def launch(arguments: Sequence[object], variables: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start ``python ARGUMENTS`` in a session of its own, with these environment variables."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], env=environment | (variables or {}), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(processes: Sequence[subprocess.Popen[str]], timeout: float = 300) -> tuple[list[int], str, str]:
    """Exit codes of the processes, all that they wrote to stdout, and all that they wrote to stderr."""
    try:
        written = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], *("".join(each) for each in zip(*written, strict=True))
