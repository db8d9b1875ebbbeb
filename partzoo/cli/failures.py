"""Report, count and skip unusable items, so that a run over many items continues."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from partzoo.cli.wording import in_options
from partzoo.errors import PartzooError, UsageError
from partzoo.skipping import named

LIST, COLUMNS = "failed.csv", ("path", "reason")

Key = TypeVar("Key", int, str)


class Failures(Generic[Key]):
    """The items that a run has skipped.

    Args:
        total: number of items of the run, or None if it is unknown.
        name: function from the key that the run uses for an item to the item's name.
        what: plural noun for the items, for the count at the end.
        strict: whether the first failure ends the run.
        folder: where ``failed.csv`` lists them, as they fail; None writes no list.

    Raises:
        UsageError: the folder has a ``failed.csv`` that is not such a list.
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
        if self._file and not _is_list(self._file):
            raise UsageError(f"{str(self._file)!r} is not a list of what partzoo has skipped. Choose another folder.")

    def begin(self) -> None:
        """Delete the list of an earlier run."""
        if self._file:
            self._file.unlink(missing_ok=True)

    def pass_over(self, item: Key, error: PartzooError) -> None:
        """Name an unusable item on stderr and in the list; in a strict run, raise its error instead."""
        from tqdm import tqdm

        if self._strict:
            raise error
        import click

        if item in self._reasons:
            return
        name, reason = self._name(item), in_options(error, click.get_current_context().command.params)
        self._reasons[item] = reason
        tqdm.write(f"Skipped: {named(name, reason)}", file=sys.stderr)  # above a progress bar, not into it
        if self._file:
            _append(self._file, name, reason)

    def __contains__(self, item: Key) -> bool:
        return item in self._reasons

    def listed(self) -> list[dict[str, str]]:
        """Return the path of each skipped item, with the reason."""
        return [{"path": self._name(item), "reason": self._reasons[item]} for item in sorted(self._reasons)]

    def check(self) -> None:
        """End the command with exit code 1 if items were skipped.

        Raises:
            PartzooError: at least one item was skipped; the message states how many.
        """
        if count := len(self._reasons):
            was, it_is = ("was", "It is") if count == 1 else ("were", "They are")
            where = f"listed in {str(self._file)!r}" if self._file else "named above"
            many = f"{count} of the {self._total} {self._what}" if self._total else f"{count} of the {self._what}"
            raise PartzooError(f"{many} could not be used and {was} skipped. {it_is} {where}.")


def _is_list(file: Path) -> bool:
    """Return whether a file may be replaced by a list: it is one, or there is no such file."""
    try:
        with file.open("rb") as stream:
            return stream.readline(100).strip() in (b"", ",".join(COLUMNS).encode())
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _append(file: Path, name: str, reason: str) -> None:
    """Append one line, after a header if it is the first; bytes of a path that are not UTF-8 are kept as they are."""
    new = not file.exists()
    with file.open("a", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow((name, reason))
