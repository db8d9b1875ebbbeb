"""Mutate files of every kind, and read them as ``partzoo`` would: the area ``fuzz`` of the table.

A case is a number: it gives the kind of file and the damage, so that nothing but numbers need be kept. Repeat one with
``python -m tests.faults.fuzz NUMBER [--seed 0] [--keep FOLDER]``, which prints what came of it.
"""

import argparse
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray
from pathlib import Path
from typing import Any

from .table import Row

REQUIRED = 200_000
CI_SCALE = 0.005
OUTCOMES = ("our error", "right", "raw", "hung", "crashed", "over memory", "crashed in scipy")
# Damaged files of MATLAB 5 can end the process within scipy.io.loadmat (1.17.1), before partzoo sees their content.
CRASHES = ("aflw", "pascal-part")
SECONDS = 10  # of processor time for one case
WALL_SECONDS = 180  # for one case that does nothing
ROOM = 2 * 2**30  # address space that a case may take beyond that of the empty process
PIXELS = 2**20  # limit for images, so that a mutated size costs little time
BASE, FACTOR = 48 * 2**20, 2.5  # memory that a case may take: a base, and a multiple of the decoded size
ELEMENT = 256 * 2**20  # FFmpeg makes room for an element of a WebM as long as the file says, up to this
LONGEST = 6000  # characters of a sentence, which may repeat a path


def inject(scale: float, seed: int, place: Path) -> Row:
    """Read ``scale`` times 200,000 mutated files in several processes, each of which is replaced when it ends."""
    from .seeds import KINDS

    total = max(round(REQUIRED * scale), 1)
    several = min(os.cpu_count() or 1, 8, total)
    context = multiprocessing.get_context("spawn")
    counts: SynchronizedArray = context.Array("q", len(OUTCOMES))
    workers = [_Worker(context, number, several, total, seed, counts, place / str(number)) for number in range(several)]
    while any([worker.watch() for worker in workers]):
        time.sleep(0.05)
    outcomes = dict(zip(OUTCOMES, counts, strict=True))
    broken = sorted(line for worker in workers for line in worker.log.read_text(errors="replace").splitlines())
    limit = f"{BASE // 2**20} MiB + {FACTOR:g} times the decoded size"
    return Row(f"fuzz: mutated files of {len(KINDS)} kinds, at most {limit}", sum(counts), REQUIRED, outcomes, broken)


class _Worker:
    """A process that works through every ``step``-th case, and its successors after a crash."""

    def __init__(
        self, context: Any, first: int, step: int, total: int, seed: int, counts: SynchronizedArray, place: Path
    ) -> None:
        self.context, self.step, self.total, self.seed = context, step, total, seed
        self.counts, self.place = counts, place
        place.mkdir(parents=True)
        self.log = place / "broken.txt"
        self.log.touch()
        self.current: Synchronized = context.Value("q", first)
        self.began, self.seen = time.monotonic(), -1
        self.start()

    def start(self) -> None:
        arguments = (self.current, self.step, self.total, self.seed, self.counts, self.place)
        self.process = self.context.Process(target=_work, args=arguments, daemon=True)
        self.process.start()

    def watch(self) -> bool:
        """Count a case in which the process ended, go on with the next, and return whether there is more to do."""
        number = self.current.value
        if number != self.seen:
            self.began, self.seen = time.monotonic(), number
        if self.process.is_alive():
            if time.monotonic() - self.began < WALL_SECONDS:
                return True
            self.process.kill()
        self.process.join()
        if number >= self.total:
            return False
        hung = self.process.exitcode in (-signal.SIGPROF, -signal.SIGKILL)
        outside = not hung and _kind_name(number) in CRASHES
        _count(self.counts, "hung" if hung else "crashed in scipy" if outside else "crashed")
        if not outside:
            with self.log.open("a") as log:
                how = f"no end after {SECONDS} s" if hung else f"the process ended with {self.process.exitcode}"
                log.write(f"case {number} ({_kind_name(number)}): {how}\n")
        self.current.value = number + self.step
        self.start()
        return True


def _kind_name(number: int) -> str:
    from .seeds import KINDS

    return KINDS[number % len(KINDS)].name


def _count(counts: SynchronizedArray, outcome: str) -> None:
    with counts.get_lock():
        counts[OUTCOMES.index(outcome)] += 1


def _work(current: Synchronized, step: int, total: int, seed: int, counts: SynchronizedArray, place: Path) -> None:
    """Work through the cases from ``current`` on; run in a process of its own."""
    os.environ["PARTZOO_MAX_PIXELS"] = str(PIXELS)  # before partzoo is imported
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    reader = Reader(Path(tempfile.mkdtemp(dir=place)), seed)
    stray = os.open(reader.place / "stderr.txt", os.O_RDWR | os.O_CREAT)
    os.dup2(stray, 2)  # what libraries written in C print
    space = _status("VmSize") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    with (place / "broken.txt").open("a") as log:
        while (number := current.value) < total:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            outcome, about = reader.read(number)
            signal.setitimer(signal.ITIMER_PROF, 0)
            if printed := os.fstat(stray).st_size:
                outcome, about = "raw", f"printed {os.pread(stray, printed, 0)[:150]!r}"
                os.ftruncate(stray, 0)
                os.lseek(stray, 0, os.SEEK_SET)
            if outcome not in OUTCOMES[:2]:
                log.write(f"case {number} ({_kind_name(number)}): {outcome}: {about}\n")
                log.flush()
            _count(counts, outcome)
            current.value = number + step
    shutil.rmtree(reader.place, ignore_errors=True)


def _status(name: str) -> int:
    """Return a figure of this process's memory, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


class Reader:
    """Reads mutated files one after the other.

    Args:
        place: folder for the files.
        seed: seed of all mutations.
    """

    def __init__(self, place: Path, seed: int) -> None:
        from .seeds import KINDS

        self.place, self.seed, self.kinds = place, seed, KINDS
        self._files: dict[int, tuple[Path, bytes]] = {}

    def write(self, number: int) -> tuple[Path, Callable[[Path], Any]]:
        """Write the file of a case, and return it with the function that reads it."""
        from .mutations import mutate

        which = number % len(self.kinds)
        kind = self.kinds[which]
        if which not in self._files:
            folder = self.place / str(which)
            folder.mkdir(parents=True)
            file = kind.build(folder)
            self._files[which] = file, file.read_bytes()
            kind.read(file)  # the undamaged file is right; this also loads the libraries
        file, data = self._files[which]
        rng = random.Random(f"{self.seed} {number}")
        file.write_bytes(data if number < len(self.kinds) else mutate(data, kind.form, rng))
        return file, kind.read

    def read(self, number: int) -> tuple[str, str]:
        """Read the file of a case, and return the outcome and a description."""
        from partzoo.errors import PartzooError

        file, read = self.write(number)
        Path("/proc/self/clear_refs").write_text("5")  # forgets the highest memory so far
        before = _status("VmRSS")
        size, outcome, about = 0, "right", ""
        try:
            size = _bytes_of(read(file))
        except PartzooError as error:
            outcome, about = "our error", _fault_of(str(error), self.place)
            if about:
                outcome = "raw"
        except BaseException as error:
            outcome, about = "raw", f"{type(error).__name__}: {error}"[:200].replace("\n", " ")
        grown = _status("VmHWM") - before
        if outcome != "raw" and grown > BASE + FACTOR * max(size, _allowed(file)):
            outcome, about = "over memory", f"{grown / 2**20:.0f} MiB for {size / 2**20:.1f} MiB"
        return outcome, about


def _fault_of(sentence: str, place: Path) -> str:
    """Return what is wrong with the sentence of an error; empty if nothing is."""
    if not sentence.isprintable():
        return f"not one line: {sentence[:200]!r}"
    if len(sentence) > LONGEST:
        return f"too long: {sentence[:200]!r}"
    return "" if str(place) in sentence or "'out'" in sentence else f"names no file: {sentence[:200]}"


def _allowed(file: Path) -> int:
    """Return the decoded size up to which a refused file may be decoded."""
    from partzoo.images.opening import SUFFIXES
    from partzoo.limits import MAX_PIXELS

    if file.suffix == ".webm":
        return int(ELEMENT / FACTOR)  # which is all the room that it gets
    return 3 * MAX_PIXELS if file.suffix in (*SUFFIXES, ".mpo", ".tar") else 0


def _bytes_of(result: Any) -> int:
    """Return the size of all arrays and tensors in a result."""
    if isinstance(result, dict):
        return sum(map(_bytes_of, result.values()))
    if isinstance(result, (list, tuple)):
        return sum(map(_bytes_of, result))
    return int(getattr(result, "nbytes", 0))


def main() -> None:
    """Repeat cases by their numbers."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=main.__doc__)
    parser.add_argument("numbers", nargs="+", type=int, metavar="NUMBER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the mutated files")
    asked = parser.parse_args()
    os.environ["PARTZOO_MAX_PIXELS"] = str(PIXELS)
    with tempfile.TemporaryDirectory() as place:
        reader = Reader(Path(place), asked.seed)
        for number in asked.numbers:
            file, read = reader.write(number)
            if asked.keep:
                shutil.copy(file, asked.keep / f"{number}-{file.name}")
            print(number, _kind_name(number), *reader.read(number))
            try:
                reader.write(number)
                read(file)
            except BaseException:
                traceback.print_exc(file=sys.stdout)


if __name__ == "__main__":
    main()
