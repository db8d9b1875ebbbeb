"""Kill -9 of the processes of runs over collections, on this machine and on Ray; then the same command runs again.

The runs are whole commands with two workers. At a random moment the first process, a worker or all of them are killed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from .table import ROOT, Row

CI_SCALE = 0.02
KILLS = 50  # of each engine
IMAGES, PER = 60, 3
VICTIMS = ("first process", "worker", "all")
MARKS = ("spawn_main", "ray::")  # in the command line of a worker
LONGEST = 90  # seconds within which the processes of a killed run must have ended


@dataclass(frozen=True)
class Case:
    """A command that writes a result, and what it writes if nothing disturbs it.

    Attributes:
        words: the command without its output.
        expected: content of each file of the result.
        seconds: how long it takes.
    """

    words: tuple[str, ...]
    expected: dict[str, bytes]
    seconds: float

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        return _start((*self.words, "-o", str(out)))


def inject(scale: float, seed: int, place: Path) -> Row:
    """Kill runs of both engines, or of the local one alone if Ray is not installed."""
    draw = random.Random(seed)
    outcomes = Counter({name: 0 for name in ("killed", "lost", "twice", "read wrong", "left running")})
    broken: list[str] = []
    _write_images(place / "images")
    engines = ["local"] + ["ray"] * (importlib.util.find_spec("ray") is not None)
    for engine in engines:
        case = _undisturbed(engine, place)
        for number in range(max(1, round(scale * KILLS))):
            victim, moment = draw.choice(VICTIMS), draw.uniform(0, case.seconds)
            said = _kill(case, place / f"{engine}-{number}", victim, moment, outcomes)
            broken += [f"{engine}, {victim} killed after {moment:.2f} s: {each}" for each in said]
        print(f"{engine}: {outcomes['killed']} kills, {len(broken)} broken", flush=True)
    area = f"kill -9 of a process, or of all, of runs over collections ({' and '.join(engines)}, two workers)"
    return Row(area, outcomes["killed"], 100, dict(outcomes), broken)


def _write_images(folder: Path) -> None:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")


def _undisturbed(engine: str, place: Path) -> Case:
    words = ("features", str(place / "images"), "--model", "toy-vit", "--pooled", "--format", "parquet")
    words += ("--per-shard", str(PER), "--workers", "2", "--run-on", engine)
    seconds = []
    for number in range(2):  # the first one reads libraries from the disk
        began, out = time.monotonic(), place / f"{engine}-whole-{number}"
        run = _start((*words, "-o", str(out)))
        _, said = run.communicate()
        if run.returncode:
            raise RuntimeError(f"The undisturbed run ended with {run.returncode}: {said.decode(errors='replace')}")
        seconds.append(time.monotonic() - began)
    return Case(words, _contents(out), seconds[-1])


def _kill(case: Case, out: Path, victim: str, moment: float, outcomes: Counter[str]) -> list[str]:
    """Kill a run, and say what is wrong with what it leaves, and with the result of the same command afterwards."""
    run = case.start(out)
    first = psutil.Process(run.pid)
    try:
        run.wait(moment)
        return []  # it was faster than the undisturbed run
    except subprocess.TimeoutExpired:
        family = _family(first)
    workers = [each for each in family if _is_worker(each)]
    if victim == "worker" and workers:
        killed = [workers[0]]
    else:
        killed = family if victim == "all" else [first]
    for each in killed:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    run.communicate()
    outcomes["killed"] += 1
    _, alive = psutil.wait_procs(family, timeout=LONGEST)
    said = [f"{len(alive)} processes are left"] * bool(alive)
    outcomes["left running"] += bool(alive)
    for each in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    found = _contents(out)
    shards = {name: data for name, data in found.items() if name.endswith(".parquet")}
    wrong = [name for name, data in shards.items() if data != case.expected.get(name)]
    wrong += ["manifest.json"] * ("manifest.json" in found and found != case.expected)
    again = case.start(out)
    _, printed = again.communicate()
    if again.returncode:
        return [*said, f"the same command ended with {again.returncode}: {printed.decode(errors='replace')[-300:]}"]
    keys = Counter(_keys(out))
    lost, twice = IMAGES - len(keys), sum(count > 1 for count in keys.values())
    different = sorted(set(_contents(out).items()) ^ set(case.expected.items()))
    wrong += sorted({name for name, _ in different})
    for name, count in (("lost", lost), ("twice", twice), ("read wrong", len(wrong))):
        outcomes[name] += count
        said += [f"{name}: {count}"] * bool(count)
    outcomes["equal in the end"] += not different
    outcomes["killed before the first shard"] += not shards
    outcomes["between shards"] += bool(shards) and "manifest.json" not in found
    return said


def _start(words: tuple[str, ...]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-P", "-m", "partzoo", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _family(first: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [first, *first.children(recursive=True)]
    return [first]


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(mark in " ".join(process.cmdline()) for mark in MARKS)
    return False


def _contents(out: Path) -> dict[str, bytes]:
    found = (file for file in out.rglob("*") if file.is_file() and ".partzoo" not in str(file))
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in found}


def _keys(out: Path) -> list[str]:
    import pyarrow.parquet as pq

    return [key for file in out.glob("features/*.parquet") for key in pq.read_table(file)["key"].to_pylist()]
