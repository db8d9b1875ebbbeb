"""Power cuts, simulated: what each command has done is repeated in part, without what was not stored on the disk."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from ._process import alone
from .table import Row

CI_SCALE = 0.1
STATES = 60  # number of states of one command
REPEATED = 0.1  # share of the states in which the command runs again


@alone
def inject(scale: float, seed: int, place: Path) -> Row:
    """Cut the power at moments of each command, read what is on the disk, and let some commands run again."""
    from tests.helpers.hub_server import serve

    from ._cases import cases, write_inputs
    from ._contents import files
    from ._replay import DATA, NAMES
    from ._undisturbed import Undisturbed, is_result, share_of, undisturbed

    draw = random.Random(seed)
    outcomes: Counter[str] = Counter({name: 0 for name in ("lost or damaged", "read wrong", "cannot be repeated")})
    broken: list[str] = []

    def check(run: Undisturbed, position: int, data: str, names: str) -> None:
        when = f"{run.case.name}, power cut at operation {position} (data {data}, names {names})"
        run.disk.after(position, data, names, draw).write(run.folder)
        said = run.faults_of(run.folder)
        if position == run.disk.length and not said:
            there = {str(path) for path in files(run.folder)}
            said = [f"{name} is lost after the end" for name in run.final if is_result(name) and name not in there]
        differs = ""
        if position < run.disk.length and draw.random() < REPEATED:
            differs = run.ending_of(run.repeat())
            outcomes["cannot be repeated" if differs.startswith("the repeated") else "repeated"] += 1
        outcomes["states"] += 1
        outcomes["read wrong"] += any("neither" in each or "another model" in each for each in said)
        outcomes["lost or damaged"] += any("lost" in each or "damaged" in each for each in said)
        outcomes["whole"] += not said
        if said or differs:
            broken.append(f"{when}: {'; '.join(filter(None, [*said, differs]))}")

    with serve() as hub:
        for run in undisturbed(cases(write_inputs(place / "inputs"), hub), place / "runs", scale, draw):
            end, seen = run.disk.length, set()
            chosen = [(end, data, names) for data in ("kept", "lost") for names in ("kept", "lost")]
            moments = [(position, data, names) for position in range(end) for data in DATA for names in NAMES]
            chosen += draw.sample(moments, min(len(moments), 4 * STATES))
            for position, data, names in chosen:
                state = hash(run.disk.after(position, data, names, random.Random(position)))
                if len(seen) < share_of(scale) * STATES and state not in seen:
                    seen.add(state)
                    check(run, position, data, names)
            print(f"{run.case.name}: {outcomes['states']} states, {len(broken)} broken", flush=True)
    area = "power cut, simulated: data and names that were not stored are lost, cut short, zeros or out of date"
    return Row(area, outcomes.pop("states"), 500, dict(outcomes), broken)
