"""Report, count and skip unreadable images, so that a run over many images continues."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from partzoo.cli.wording import in_options
from partzoo.errors import PartzooError
from partzoo.images.opening import OpenedImages

LIST = "failed.csv"


class Failures:
    """The images that a run has skipped.

    Args:
        images: the images of the run.
        strict: whether the first failure ends the run.
        folder: where ``failed.csv`` lists them, as they fail; None writes no list.
    """

    def __init__(self, images: OpenedImages, *, strict: bool = False, folder: Path | None = None) -> None:
        self._images, self._strict = images, strict
        self._file = folder / LIST if folder else None
        self._reasons: dict[int, str] = {}

    def begin(self) -> None:
        """Delete the list of an earlier run."""
        if self._file:
            self._file.unlink(missing_ok=True)

    def pass_over(self, index: int, error: PartzooError) -> None:
        """Name an unreadable image on stderr and in the list; in a strict run, raise its error instead."""
        from tqdm import tqdm

        if self._strict:
            raise error
        import click

        name, reason = self._images.name(index), in_options(error, click.get_current_context().command.params)
        self._reasons[index] = reason
        named = reason if name in reason else f"{name}: {reason}"
        tqdm.write(f"Skipped: {named}", file=sys.stderr)  # above a progress bar, not into it
        if self._file:
            _append(self._file, name, reason)

    def __contains__(self, index: int) -> bool:
        return index in self._reasons

    def listed(self) -> list[dict[str, str]]:
        """Return the path of each skipped image, with the reason."""
        return [{"path": self._images.name(index), "reason": self._reasons[index]} for index in sorted(self._reasons)]

    def check(self) -> None:
        """End the command with exit code 1 if images were skipped.

        Raises:
            PartzooError: at least one image was skipped; the message states how many.
        """
        if count := len(self._reasons):
            where = f"listed in {str(self._file)!r}" if self._file else "named above"
            verb = "was" if count == 1 else "were"
            raise PartzooError(f"{count} of {len(self._images)} images {verb} skipped, {where}.")


def _append(file: Path, name: str, reason: str) -> None:
    """Append one line, after a header if it is the first; bytes of a path that are not UTF-8 are kept as they are."""
    new = not file.exists()
    with file.open("a", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(("path", "reason"))
        writer.writerow((name, reason))
