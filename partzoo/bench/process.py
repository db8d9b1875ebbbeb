"""Measure what the command ``partzoo`` takes, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import partzoo
from partzoo.errors import PartzooError

LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass(frozen=True)
class Spent:
    """What a process has taken.

    Attributes:
        cpu, wall: seconds of the processor's time, and those that passed.
        mebibytes: peak memory.
    """

    cpu: float
    wall: float
    mebibytes: float

    @property
    def busy(self) -> float:
        """Number of cores that were busy on average."""
        return self.cpu / self.wall


def spent(
    words: Sequence[str],
    package: Path | None = None,
    *,
    one_core: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Spent:
    """Run ``partzoo`` in a process of its own, in a new folder, and return what it takes.

    Args:
        words: arguments of the command.
        package: folder that holds the package ``partzoo`` to run; None runs this one.
        one_core: whether the process may use one core only.
        environment: further variables of the environment.

    Raises:
        PartzooError: the command fails.
    """
    # Installed packages have their bytecode beside them.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    given = {"PYTHONPATH": str(package or Path(partzoo.__file__).parents[1]), **(environment or {})}
    if one_core:
        given["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-P", "-m", "partzoo", *words]
    launched = [sys.executable, "-I", "-S", str(LAUNCHER), "one" if one_core else "all", *command]
    with TemporaryDirectory(prefix="partzoo-bench-") as folder:
        ran = subprocess.run(
            launched, env=inherited | given, cwd=folder, capture_output=True, text=True, errors="replace"
        )
    if ran.returncode:
        raise PartzooError(f"partzoo {' '.join(words)} failed: {ran.stderr.strip()[-300:]}")
    return Spent(**json.loads(ran.stdout))
