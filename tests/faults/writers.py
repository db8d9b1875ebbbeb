"""Two and eight processes that write the same place at once, while another one reads it."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

from ._process import alone, ending, start
from .table import Row

CI_SCALE = 0.05
ROUNDS = 9  # rounds of one command, every third with eight writers


@alone
def inject(scale: float, seed: int, place: Path) -> Row:
    """Run each command several times at once, where it can against the command that wrote the older result."""
    from tests.helpers.hub_server import serve

    from ._cases import cases, write_inputs
    from ._contents import differences, leftovers, tree
    from ._undisturbed import share_of, undisturbed

    draw = random.Random(seed)
    outcomes: Counter[str] = Counter({name: 0 for name in ("mixed", "read wrong", "not one sentence", "nobody won")})
    broken: list[str] = []
    rounds = 0
    with serve() as hub:
        for run in undisturbed(cases(write_inputs(place / "inputs"), hub), place / "runs", scale, draw):
            before = tree(run.fresh())
            for number in range(max(1, round(share_of(scale) * ROUNDS))):
                count = 8 if number % 3 == 2 else 2
                run.fresh()
                commands = [run.case.run, run.case.older or run.case.run] * (count // 2)
                draw.shuffle(commands)
                living = [start(each, run.folder, run.place / f"writer-{i}") for i, each in enumerate(commands)]
                ended, said = [], set[str]()
                while living:
                    said |= set(run.faults_of(run.folder))  # what a reader sees meanwhile
                    for process in living[:]:
                        if found := ending(process, wait=False):
                            living.remove(process)
                            ended.append(found)
                    os.sched_yield()
                said |= set(run.faults_of(run.folder))
                left = tree(run.folder)
                mixed = min((differences(left, whole) for whole in (run.final, before)), key=len)
                wrong = [each for each in map(run.not_one_sentence, ended) if each]
                won = sum(not each.code for each in ended)
                rounds += 1
                outcomes["whole winners"] += won
                outcomes["refused"] += sum(bool(each.code) for each in ended) - len(wrong)
                outcomes["read wrong"] += bool(said)
                outcomes["mixed"] += bool(mixed)
                outcomes["not one sentence"] += len(wrong)
                outcomes["nobody won"] += not won
                bad = [*sorted(said), mixed, *wrong, *leftovers(run.folder)] + ["nobody won"] * (not won)
                if any(bad):
                    broken.append(f"{run.case.name}, {count} writers: {'; '.join(filter(None, bad))}")
            print(f"{run.case.name}: {rounds} rounds, {len(broken)} broken", flush=True)
    return Row("two and eight writers at once, and a reader beside them", rounds, 200, dict(outcomes), broken)
