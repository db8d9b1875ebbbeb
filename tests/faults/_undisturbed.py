"""What a command does if nothing disturbs it, with which disturbed runs are compared."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import constants

from partzoo import load
from partzoo.errors import PartzooError
from partzoo.weights.tensors import digest

from ._cases import Case
from ._contents import APPENDED, HIDDEN, HUB, content, differences, files, leftovers, tree
from ._process import NONE, Ended, Fault, Kind, forked, operations
from ._replay import Disk

RAW = ("Traceback", "Exception ignored", "Unexpected error")  # words of errors that nobody has worded
RUNS = 3  # consecutive writes to one file of which the first and the last are taken, and as many between


class Undisturbed:
    """A case, its undisturbed run, and folders for disturbed ones.

    Args:
        case: the command.
        place: new folder for all runs.

    Attributes:
        log: operations of the undisturbed run.
        disk: their effect.
        final: what each file says at the end.
        versions: what each file says at some time; None if it is not there.
    """

    def __init__(self, case: Case, place: Path) -> None:
        self.case, self.place = case, place
        self._before, self.folder = place / "before", place / "run"
        (self._before / "o").mkdir(parents=True)
        (self._before / "cache").mkdir()
        if case.older:
            self._before.rename(self.folder)
            self._must(forked(case.older, self.folder))
            self.folder.rename(self._before)
        self.fresh()
        with _aside(self.folder):
            case.run()  # imports what all runs need
        self.fresh()
        self.ended = forked(case.run, self.folder, log=place / "log")
        self._must(self.ended)
        self.log = operations(place / "log")
        self.final = tree(self.folder)
        self._model_at_end = self._model(self.folder)
        self.models = {self._model(self._before), self._model_at_end}
        self.disk = Disk(self._before, self.log, self.folder)
        self._check_replay()
        self.versions = self._all_versions()

    def _must(self, ended: Ended) -> None:
        if ended.code:
            raise RuntimeError(f"{self.case.name}: the undisturbed run ended with {ended.code}: {ended.err}")

    def fresh(self) -> Path:
        """Return the folder of a run as it is before the command."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._before, self.folder, symlinks=True)
        return self.folder

    def run(self, fault: Fault = NONE, out: int | None = None) -> Ended:
        """Run the command in the folder; ``out`` as in :func:`forked`."""
        return forked(self.case.run, self.folder, fault, out=out)

    def repeat(self) -> Ended:
        """Run the command again, as one does after a fault."""
        return forked(self.case.again or self.case.run, self.folder)

    def numbers(self, kinds: Kind, share: float, draw: random.Random) -> list[int]:
        """Return the numbers of operations of some kinds: all of them, or a share, of which there is at least one.

        Of many consecutive writes to one file, those at the beginning, at the end and some between are taken.
        """
        found: list[int] = []
        last: tuple[Kind, str] | None = None
        runs: list[list[int]] = []
        for operation in self.log:
            if not operation.kind & kinds:
                continue
            same = operation.kind is Kind.WRITE and (operation.kind, operation.path) == last
            runs[-1].append(operation.number) if same else runs.append([operation.number])
            last = operation.kind, operation.path
        for run in runs:
            middle = run[RUNS:-RUNS]
            some = draw.sample(middle, RUNS) if len(middle) > RUNS else middle
            found += run if len(run) <= 3 * RUNS else [*run[:RUNS], *sorted(some), *run[-RUNS:]]
        return sorted(draw.sample(found, max(1, round(share * len(found))))) if found else []

    def faults_of(self, folder: Path) -> list[str]:
        """Describe what is not whole in a folder after a fault: neither as before, nor as the command writes it.

        Lists that grow by lines are left out: the command that is repeated shows whether they can be read.
        """
        found = []
        names = {str(path) for path in files(folder)}
        for name in sorted(names | self.versions.keys()):
            if Path(name).name in APPENDED:
                continue
            try:
                said = _content_now(folder / name) if name in names else None
            except FileNotFoundError:
                continue  # a writer has just removed it
            except Exception as error:
                found.append(f"{name} is damaged: {type(error).__name__}: {error}"[:200])
                continue
            if said not in self.versions.get(name, {None}):
                found.append(f"{name} is lost" if said is None else f"{name} is neither the old nor a new one")
        try:
            if not found and self._model(folder) not in self.models:
                found.append(f"{self.case.model} is another model than the old or the new one")
        except Exception as error:
            found.append(f"{self.case.model} is damaged: {type(error).__name__}: {error}"[:200])
        return found

    def lacks(self) -> str:
        """Say what a command that ended well has not written; lists and caches may differ, and more may be left."""
        found, wanted = tree(self.folder), {name: said for name, said in self.final.items() if is_result(name)}
        return differences({name: found[name] for name in found.keys() & wanted.keys()}, wanted)

    def leaves(self) -> bool:
        """Return whether more files are there than at the end of the undisturbed run."""
        return bool(tree(self.folder).keys() - self.final.keys() or leftovers(self.folder))

    def ending_of(self, ended: Ended, folder: Path | None = None) -> str:
        """Say how the end of a repeated command differs from that of the undisturbed run; "" if it does not."""
        folder = folder or self.folder
        if ended.code:
            return f"the repeated command ended with {ended.code}: {ended.err.strip()[-200:]}"
        try:
            differs = differences(tree(folder), self.final)
            if self._model(folder) != self._model_at_end:
                differs += f"; {self.case.model} is another one"
        except Exception as error:
            return f"after the repeated command: {type(error).__name__}: {error}"
        return differs or ", ".join(leftovers(folder))

    def not_one_sentence(self, ended: Ended) -> str:
        """Say what is wrong with the end of a command, which must print one sentence if it fails; "" if nothing is."""
        lines = [line for line in ended.err.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("Error: ")]
        bad = [line for line in lines if any(word in line for word in RAW)]
        if ended.code and (ended.code < 0 or bad or len(errors) != 1):
            return f"exit {ended.code}: {(bad or errors or lines or ['nothing'])[-1][:200]}"
        return ""

    def items(self) -> dict[str, int]:
        """Return the inodes of the files that are items of a run over images, which a repetition leaves alone."""
        return {
            str(path): (self.folder / path).stat().st_ino
            for path in files(self.folder)
            if path.parts[:2] == ("o", "out")
        }

    def _model(self, folder: Path) -> str | None:
        """Return what the case's model is in a folder; None if it is missing, or refused because it is damaged."""
        if not self.case.model:
            return None
        constants.HF_HUB_CACHE = str(folder / HUB)
        path = self.case.model if self.case.model.startswith("hf-hub:") else folder / self.case.model
        try:
            model = load(path, device="cpu", dtype="float32", local_files_only=True)
        except PartzooError:
            return None
        return f"{model.architecture} {model.config} {digest(model.state_dict(), {})}"

    def _check_replay(self) -> None:
        """Check that the log holds everything that the run has done."""
        self.disk.after(self.disk.length).write(self.place / "replayed")
        if said := differences(tree(self.place / "replayed"), self.final):
            raise RuntimeError(f"{self.case.name}: the log of operations is not complete: {said}")

    def _all_versions(self) -> dict[str, set[str | None]]:
        """Return what each visible file says before and after each change of a name."""
        found: dict[str, set[str | None]] = {name: {said} for name, said in tree(self._before).items()}
        for position, name, node in self.disk.visible():
            if Path(name).name in APPENDED or HIDDEN in name:
                continue
            if node is None:
                found.setdefault(name, {None}).add(None)
                continue
            file = self.place / "version" / Path(name).name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(self.disk.content(node, position))
            found.setdefault(name, {None}).add(content(file))
        return found


def _content_now(file: Path) -> str:
    """Read a file that a writer may replace meanwhile, and then again.

    Raises:
        FileNotFoundError: a writer has removed it.
        Exception: it is damaged.
    """
    while True:
        inode = file.stat().st_ino
        try:
            return content(file)
        except Exception:
            if file.stat().st_ino == inode:
                raise


def is_result(name: str) -> bool:
    """Return whether a file is a result that is stored when the command ends; lists and caches need not be."""
    return name.startswith("o/") and Path(name).name not in APPENDED


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[None]:
    """Work in a folder for a block, without output, until it ends the process."""
    before = Path.cwd()
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.chdir(folder)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    except SystemExit:
        pass
    finally:
        os.chdir(before)


def undisturbed(cases: Sequence[Case], place: Path, scale: float, draw: random.Random) -> Iterator[Undisturbed]:
    """Yield the undisturbed run of each case, whose files are removed afterwards.

    Of a share of the faults, the square root is that of the cases, and :func:`share_of` that of each case's faults.
    """
    chosen = draw.sample(cases, max(1, round(share_of(scale) * len(cases))))
    for number, case in enumerate(each for each in cases if each in chosen):
        yield Undisturbed(case, place / str(number))
        shutil.rmtree(place / str(number), ignore_errors=True)


def share_of(scale: float) -> float:
    """Return the share of the faults of each case, for a share of all faults."""
    return min(1.0, scale**0.5)
