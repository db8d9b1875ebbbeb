"""Kill -9 of the processes of runs over collections, on this machine and on Ray; then the same run begins again.

The runs have two workers, and a stage that needs no model. After a random number of finished shards, from none to all,
and a random time, the first process, a worker or all of them are killed. Ray's cluster is started once and survives.
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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from .table import ROOT, Row

CI_SCALE = 0.02
KILLS = {"local": 85, "ray": 15}  # of each engine: a run on Ray takes ten times as long
IMAGES, PER = 120, 3
VICTIMS = ("first process", "worker", "all")
WORKERS = {"local": "spawn_main", "ray": "ray::MapWorker"}  # words in the command line of a worker
PAUSE = 0.2  # longest time in seconds between a finished shard and the kill
LONGEST = 120  # seconds within which the processes of a killed run must have ended


@dataclass(frozen=True)
class Case:
    """A run of one engine, and what it writes if nothing disturbs it.

    Attributes:
        engine: name of the engine.
        images: folder of the images.
        environment: environment of the run.
        expected: content of each file of the result.
    """

    engine: str
    images: Path
    environment: dict[str, str]
    expected: dict[str, bytes]

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        """Start the run; what it prints goes to a file beside the result."""
        words = [
            sys.executable,
            "-P",
            "-m",
            "tests.faults._shards_run",
            self.engine,
            str(self.images),
            str(out),
            str(PER),
        ]
        with out.with_suffix(".err").open("wb") as said:
            return subprocess.Popen(words, env=self.environment, stdout=said, stderr=said)

    def finish(self, out: Path) -> None:
        """Run to the end.

        Raises:
            RuntimeError: it fails.
        """
        run = self.start(out)
        if run.wait():
            said = out.with_suffix(".err").read_text(errors="replace")
            raise RuntimeError(f"the run ended with {run.returncode}: {said[-300:]}")

    def workers(self) -> list[psutil.Process]:
        """Return the workers among the processes that this one has started, directly or not."""
        found = []
        for each in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if WORKERS[self.engine] in " ".join(each.cmdline()):
                    found.append(each)
        return found


def inject(scale: float, seed: int, place: Path) -> Row:
    """Kill runs of both engines, or of the local one alone if Ray is not installed."""
    draw = random.Random(seed)
    names = (
        "killed",
        "hung",
        "lost",
        "twice",
        "read wrong",
        "left running",
        "before the first shard",
        "between shards",
    )
    outcomes = Counter({name: 0 for name in names})
    broken: list[str] = []
    _write_images(place / "images")
    counts = {engine: round(scale * count) for engine, count in KILLS.items()}
    if importlib.util.find_spec("ray") is None:
        del counts["ray"]
    engines = [engine for engine, count in counts.items() if count]
    for engine in engines:
        with _environment(engine) as environment:
            case = _undisturbed(engine, place, environment)
            number, before = 0, outcomes["killed"]
            while outcomes["killed"] < before + counts[engine]:  # some end before they are killed
                number += 1
                victim, shards, pause = draw.choice(VICTIMS), draw.randint(0, IMAGES // PER), draw.uniform(0, PAUSE)
                said = _kill(case, place / f"{engine}-{number}", victim, shards, pause, outcomes)
                broken += [f"{engine}, {victim} killed after {shards} shards: {each}" for each in said]
                print(f"{engine}: {dict(outcomes)}, {len(broken)} broken", flush=True)
    area = f"kill -9 of one process, or of all, of runs over collections with two workers ({' and '.join(engines)})"
    return Row(area, outcomes["killed"], 100, dict(outcomes), broken)


def _write_images(folder: Path) -> None:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")


@contextlib.contextmanager
def _environment(engine: str) -> Iterator[dict[str, str]]:
    """Provide the environment of the runs, with the address of a cluster for Ray."""
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    if engine == "local":
        yield os.environ | own
        return
    import ray

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # else other work starves the workers
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )
    try:
        # The environment of now, which holds the secret of the cluster.
        yield os.environ | own | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    finally:
        ray.shutdown()


def _undisturbed(engine: str, place: Path, environment: dict[str, str]) -> Case:
    """Return a case after an undisturbed run of it."""
    case, out = Case(engine, place / "images", environment, {}), place / f"{engine}-whole"
    case.finish(out)
    return replace(case, expected=_contents(out))


def _kill(case: Case, out: Path, victim: str, shards: int, pause: float, outcomes: Counter[str]) -> list[str]:
    """Kill a run after a number of shards, and say what is wrong with what it leaves, and with the run that follows."""
    run = case.start(out)
    while run.poll() is None and len(list(out.glob("features/*.parquet"))) < shards:
        time.sleep(0.005)
    time.sleep(pause)
    if run.poll() is not None:
        return [] if _contents(out) == case.expected else ["a run that was not killed is another one"]
    first, workers = psutil.Process(run.pid), case.workers()
    killed = {"worker": workers[:1] or [first], "first process": [first], "all": [first, *workers]}[victim]
    for each in killed:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    hung = _hangs(run)
    _, alive = psutil.wait_procs([first, *workers], timeout=LONGEST)
    said = ["the run hangs"] * hung + [f"{len(alive)} processes are left"] * bool(alive)
    found = _contents(out)
    written = {name: data for name, data in found.items() if name.endswith(".parquet")}
    wrong = {name for name, data in written.items() if data != case.expected.get(name)}
    if "manifest.json" in found:  # which counts, also beside records that a killed run has not yet removed
        wrong |= {name for name, data in case.expected.items() if found.get(name) != data}
    try:
        case.finish(out)
    except RuntimeError as error:
        return [*said, str(error)]
    keys = Counter(_keys(out))
    wrong |= {name for name, _ in set(_contents(out).items()) ^ set(case.expected.items())}
    counts = {
        "hung": int(hung),
        "lost": IMAGES - len(keys),
        "twice": sum(n > 1 for n in keys.values()),
        "read wrong": len(wrong),
    }
    outcomes.update(counts | {"killed": 1, "left running": len(alive)})
    outcomes["before the first shard"] += not written
    outcomes["between shards"] += bool(written) and "manifest.json" not in found
    outcomes["whole, and equal in the end"] += not any(counts.values())
    return [*said, *(f"{name}: {count}" for name, count in counts.items() if count)]


def _hangs(run: subprocess.Popen[bytes]) -> bool:
    """Wait for the end of a run, and kill one that hangs."""
    try:
        run.wait(LONGEST)
    except subprocess.TimeoutExpired:
        run.kill()
        return True
    return False


def _contents(out: Path) -> dict[str, bytes]:
    """Return the visible files of a result."""
    files = (file.relative_to(out) for file in out.rglob("*") if file.is_file())
    return {file.as_posix(): (out / file).read_bytes() for file in files if not str(file).count(".partzoo")}


def _keys(out: Path) -> list[str]:
    import pyarrow.parquet as pq

    return [key for file in out.glob("features/*.parquet") for key in pq.read_table(file)["key"].to_pylist()]
