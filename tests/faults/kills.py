"""Kill -9 at every operation on files and at random moments; then the same command runs again."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

from ._process import EVERYTHING, Action, Fault, alone
from .table import Row

CI_SCALE = 0.06
AT_RANDOM = 0.2  # kills at random moments, as a share of those at operations


@alone
def inject(scale: float, seed: int, place: Path) -> Row:
    """Kill each command at all of its operations on files, or at a share of them, and let it run again."""
    from tests.helpers.hub_server import serve

    from ._cases import cases, write_inputs
    from ._undisturbed import Undisturbed, share_of, undisturbed

    draw = random.Random(seed)
    outcomes: Counter[str] = Counter({name: 0 for name in ("lost", "read wrong", "cannot be repeated")})
    broken: list[str] = []

    def kill(run: Undisturbed, fault: Fault, when: str) -> None:
        run.fresh()
        ended = run.run(fault)
        if ended.code != -signal.SIGKILL:
            if fault.seconds is None:
                broken.append(f"{run.case.name}: not killed {when}, but ended with {ended.code}: {ended.err[-200:]}")
            return
        said = run.faults_of(run.folder)
        # Without its journal a run has ended: the same command begins another one.
        items = run.items() if (run.folder / "o" / "out.unfinished").exists() else {}
        differs = run.ending_of(run.repeat())
        redone = [name for name, inode in items.items() if run.items().get(name) != inode]
        if len(redone) > 1:
            said.append(f"{len(redone)} finished items are done again")
        outcomes["killed"] += 1
        outcomes["read wrong"] += any("neither" in each or "another model" in each for each in said)
        outcomes["lost"] += any("lost" in each or "again" in each or "damaged" in each for each in said)
        outcomes["cannot be repeated"] += differs.startswith("the repeated")
        outcomes["whole, and equal in the end"] += not said and not differs
        if said or differs:
            broken.append(f"{run.case.name}, killed {when}: {'; '.join([*said, differs])}")

    with serve() as hub:
        for run in undisturbed(cases(write_inputs(place / "inputs"), hub), place / "runs", scale, draw):
            numbers = run.numbers(EVERYTHING, share_of(scale), draw)
            for number in numbers:
                kill(run, Fault(Action.KILL, number, number), f"at operation {number}")
            for _ in range(max(1, round(AT_RANDOM * len(numbers)))):
                moment = draw.uniform(0, run.ended.seconds)
                kill(run, Fault(seconds=moment), f"after {moment:.3f} s")
            print(f"{run.case.name}: {outcomes['killed']} kills, {len(broken)} broken", flush=True)
    area = "kill -9 at every file operation and at random moments of every command that writes"
    return Row(area, outcomes["killed"], 1000, dict(outcomes), broken)
