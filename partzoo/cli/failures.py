"""Items that cannot be used do not end a run over many: they are named, counted and passed over."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from partzoo.cli.wording import in_options
from partzoo.errors import PartzooError
from partzoo.passing_over import named

LIST = "failed.csv"

Key = TypeVar("Key", int, str)


class Failures(Generic[Key]):
    """The items that a run has passed over.

    Args:
        total: number of items of the run, where it is known.
        name: name of an item, by what the run calls it.
        what: the items, for the count at the end.
        strict: whether the first failure ends the run.
        folder: where ``failed.csv`` lists them, as they fail; None writes no list.
    """

    def __init__(
        self,
        total: int | None,
        name: Callable[[Key], str],
        *,
        what: str,
        strict: bool = False,
        folder: Path | None = None,
    ) -> None:
        self._total, self._what, self._strict = total, what, strict
        self._name: Callable[[Key], str] = name
        self._file = folder / LIST if folder else None
        self._reasons: dict[Key, str] = {}

    def begin(self) -> None:
        """Delete the list of an earlier run."""
        if self._file:
            self._file.unlink(missing_ok=True)

    def pass_over(self, item: Key, error: PartzooError) -> None:
        """Name an item that cannot be used on stderr and in the list; where the run is strict, raise its error."""
        from tqdm import tqdm

        if self._strict:
            raise error
        import click

        if item in self._reasons:
            return
        name, reason = self._name(item), in_options(error, click.get_current_context().command.params)
        self._reasons[item] = reason
        tqdm.write(f"Passed over: {named(name, reason)}", file=sys.stderr)  # above a progress bar, not into it
        if self._file:
            _append(self._file, name, reason)

    def __contains__(self, item: Key) -> bool:
        return item in self._reasons

    def listed(self) -> list[dict[str, str]]:
        """Path of each item that was passed over, and why."""
        return [{"path": self._name(item), "reason": self._reasons[item]} for item in sorted(self._reasons)]

    def check(self) -> None:
        """End the command with exit code 1 where items were passed over.

        Raises:
            PartzooError: there are some; the message counts them.
        """
        if count := len(self._reasons):
            was, it_is = ("was", "It is") if count == 1 else ("were", "They are")
            where = f"listed in {str(self._file)!r}" if self._file else "named above"
            many = f"{count} of the {self._total} {self._what}" if self._total else f"{count} of the {self._what}"
            raise PartzooError(f"{many} could not be used and {was} left out. {it_is} {where}.")


def _append(file: Path, name: str, reason: str) -> None:
    """One line more, with a header before the first; bytes of a path that are not UTF-8 stay as they are."""
    new = not file.exists()
    with file.open("a", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(("path", "reason"))
        writer.writerow((name, reason))
