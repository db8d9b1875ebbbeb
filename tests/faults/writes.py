"""Writes that fail: a disk that is full, over its quota, read-only, broken or gone, and output that nobody reads."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ._process import ALL, EVERYTHING, Action, Ended, Fault, Kind, alone
from .table import Row

if TYPE_CHECKING:
    from ._undisturbed import Undisturbed

CI_SCALE = 0.05
NEED_SPACE = Kind.CREATE | Kind.WRITE | Kind.LINK | Kind.SYMLINK | Kind.MKDIR
PIPE = "output to a closed pipe"
GONE = 0.2  # share of the operations at which the folder vanishes
REPEATED = 0.2  # share of the faults after which the command runs again, beside those that leave more files


@alone
def inject(scale: float, seed: int, place: Path) -> Row:
    """Let writes of each command fail from each operation on, and look at what it says and leaves."""
    from tests.helpers.hub_server import serve

    from ._cases import cases, write_inputs
    from ._undisturbed import share_of, undisturbed

    draw = random.Random(seed)
    outcomes: Counter[str] = Counter({name: 0 for name in ("not one sentence", "lost", "hung", "cannot be repeated")})
    broken: list[str] = []

    def check(run: Undisturbed, what: str, ended: Ended) -> None:
        out, gone = run.folder / "o", run.folder / "o.gone"
        divided = gone.exists() and not ended.code and out.exists()  # it went on in a new folder
        if gone.exists():
            if divided:
                shutil.copytree(out, gone, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(out, ignore_errors=True)
            gone.rename(out)
        said = [] if divided else run.faults_of(run.folder)
        outcomes["faults"] += 1
        outcomes["hung"] += ended.hung
        outcomes["lost"] += bool(said)
        quiet = what == PIPE and ended.code > 0 and "Traceback" not in ended.err  # like others if nobody reads on
        wrong = "" if quiet else run.not_one_sentence(ended) if ended.code else run.lacks()
        outcomes["not one sentence" if wrong else "one sentence" if ended.code else "went on"] += 1
        repeats = not divided and (run.leaves() or draw.random() < REPEATED)
        differs = run.ending_of(run.repeat()) if repeats else ""
        outcomes["cannot be repeated"] += bool(differs)
        if said := [*said, *filter(None, (wrong, differs))]:
            broken.append(f"{run.case.name}, {what}: {'; '.join(said)}")

    with serve() as hub:
        for run in undisturbed(cases(write_inputs(place / "inputs"), hub), place / "runs", scale, draw):
            for what, fault in _faults(run, share_of(scale), draw):
                run.fresh()
                check(run, what, run.run(fault))
            for what, stream in _streams():
                run.fresh()
                check(run, what, run.run(out=stream))
                os.close(stream)
            print(f"{run.case.name}: {outcomes['faults']} faults, {len(broken)} broken", flush=True)
    area = "disk full, over quota, read-only, EIO, folder gone, closed pipe, /dev/full, at each write of every command"
    return Row(area, outcomes.pop("faults"), 500, dict(outcomes), broken)


def _faults(run: Undisturbed, share: float, draw: random.Random) -> list[tuple[str, Fault]]:
    """Return the faults of one command, with words for them."""
    found = []
    for name, error, kinds, part, lasts in (
        ("disk full", errno.ENOSPC, NEED_SPACE, 1.0, ALL),
        ("over quota", errno.EDQUOT, NEED_SPACE, 0.1, ALL),
        ("read-only", errno.EROFS, EVERYTHING, 0.3, ALL),
        ("disk full for a while", errno.ENOSPC, NEED_SPACE, 0.3, 10),
        ("EIO", errno.EIO, EVERYTHING & ~Kind.CHMOD, 0.3, 0),
        ("EIO from then on", errno.EIO, NEED_SPACE | Kind.SYNC | Kind.RENAME, 0.3, ALL),
    ):
        for number in run.numbers(kinds, share * part, draw):
            fault = Fault(Action.FAIL, number, min(ALL, number + lasts), kinds, error)
            found.append((f"{name} at operation {number}", fault))
    for number in run.numbers(EVERYTHING, share * GONE, draw):
        found.append(
            (
                f"folder gone at operation {number}",
                Fault(Action.VANISH, number, number, EVERYTHING, gone=str(run.folder / "o")),
            )
        )
    return found


def _streams() -> Iterator[tuple[str, int]]:
    """Yield open files that standard output cannot be written to, with words for them."""
    yield "output to /dev/full", os.open("/dev/full", os.O_WRONLY)
    reader, writer = os.pipe()
    os.close(reader)
    yield PIPE, writer
