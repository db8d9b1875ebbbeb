"""Measures which share of small faults in the code the tests do not notice, on a seeded sample.

    pip install mutmut==3.8.1
    python scripts/mutants.py --label before -o results/mutants.csv

mutmut reads its settings, and so which files it changes and which tests it runs, from ``[tool.mutmut]`` of
``pyproject.toml``. It writes to ``mutants/``, where a run that was interrupted is continued; mutants whose tests take
least time come first. Of its changes, those that nearly always end in an error at once are left out, so that the shares
are not made to look good by them: values and positional arguments that become None or go missing, and letters of
strings.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from unittest import mock

import libcst
from mutmut import __main__ as mutmut
from mutmut.mutation import mutators
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).parents[1]
COLUMNS = ("label", "part", "mutant", "change", "status")
NOTICED = ("killed", "timeout", "segfault")  # the tests fail, do not end, or die
SURVIVED = ("survived", "no tests")
CRUDE = (
    mutators.operator_arg_removal,
    mutators.operator_assignment,
    mutators.operator_dict_arguments,
    mutators.operator_string,
)


def without_an_option(call: libcst.Call) -> Iterator[libcst.Call]:
    """The call without each of its named arguments, as where an option is taken but not passed on."""
    for number, argument in enumerate(call.args):
        if argument.keyword is not None:
            yield call.with_changes(args=[*call.args[:number], *call.args[number + 1 :]])


def part(name: str) -> str:
    """The package or module that a mutant such as ``partzoo.parts.files.x_a__mutmut_3`` is counted in."""
    first, second = name.split(".")[1:3]
    return f"{first}.{second}" if first in ("models", "train") else first


def sample(names: list[str], count: int, seed: int) -> set[str]:
    """At most ``count`` names of each part, from each file in proportion to its mutants; a larger sample adds to it."""
    drawn = random.Random(seed)
    places: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for _, members in groupby(sorted(names), lambda name: name.rpartition(".")[0]):
        shuffled = drawn.sample(of_file := list(members), len(of_file))
        for index, name in enumerate(shuffled):
            places[part(name)].append(((index + drawn.random()) / len(shuffled), name))
    return {name for each in places.values() for _, name in sorted(each)[:count]}


def interval(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, share = 1.959964, hits / count
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (centre - half) / (1 + z * z / count), (centre + half) / (1 + z * z / count)


def run(count: int, seed: int, again: bool) -> tuple[Counter[str], dict[str, tuple[str, str]]]:
    """Test a sample, and what survived of it ``again``, since tests may have been added.

    Returns:
        The number of mutants in each part, and status and change of each sampled one.
    """
    every = mutmut.collect_source_file_mutation_data
    total: Counter[str] = Counter()
    found: list = []

    def sampled(*, mutant_names):
        mutants, files = every(mutant_names=mutant_names)
        total.update(part(name) for _, name, _ in mutants)
        chosen = sample([name for _, name, _ in mutants], count, seed)
        found.extend((file, name) for file, name, _ in mutants if name in chosen)
        return [
            (file, name, None if again and status_by_exit_code[code] in SURVIVED else code)
            for file, name, code in mutants
            if name in chosen
        ], files

    Path("mutants").mkdir(exist_ok=True)
    if not Path("mutants/checkpoints").exists():
        Path("mutants/checkpoints").symlink_to(ROOT / "checkpoints")
    kept = [(kind, operator) for kind, operator in mutators.mutation_operators if operator not in CRUDE]
    mutators.mutation_operators[:] = [*kept, (libcst.Call, without_an_option)]
    with (
        mock.patch.object(mutmut, "collect_source_file_mutation_data", sampled),
        # The run that finds which tests call which function has shown that they pass.
        mock.patch("mutmut.workers.isolation.ForkRunner.run_clean_tests", lambda self, tests: 0),
    ):
        mutmut._run((), 1)
    results = {}
    for file, name in found:
        diff = get_diff_for_mutant(name, path=file.path).splitlines()
        change = "\n".join(line for line in diff[2:] if line[:1] in "+-" and line.strip("+- "))
        results[name] = (status_by_exit_code[file.exit_code_by_key[name]], change)
    return total, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60, help="mutants of each part (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the sample (default: 0)")
    parser.add_argument("--again", action="store_true", help="after a former run: try anew what survived in it")
    parser.add_argument("--label", required=True, help="name of the run; its former rows are replaced")
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file of one row for each mutant")
    options = parser.parse_args()
    total, results = run(options.count, options.seed, options.again)
    rows = []
    if options.output.exists():
        with options.output.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["label"] != options.label]
    rows += [
        dict(zip(COLUMNS, (options.label, part(name), name, change, status), strict=True))
        for name, (status, change) in sorted(results.items())
    ]
    with options.output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print("part | mutants | tried | noticed | survived | share, % (95 % interval)")
    for name in sorted(total):
        states = [status for mutant, (status, _) in results.items() if part(mutant) == name and status != "not checked"]
        if not states:
            continue
        survived = sum(status in SURVIVED for status in states)
        low, high = (100 * bound for bound in interval(survived, len(states)))
        noticed = sum(status in NOTICED for status in states)
        share = 100 * survived / len(states)
        print(
            f"{name} | {total[name]} | {len(states)} | {noticed} | {survived} | {share:.0f} ({low:.0f} to {high:.0f})"
        )


if __name__ == "__main__":
    main()
