"""List each file that a folder or a pattern matches once; links are followed, and loops of links are detected."""

from __future__ import annotations

import glob
import os
import warnings
from collections import deque
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePath


def is_pattern(path: Path) -> bool:
    """Return whether a path has wildcards and does not itself name an existing file or folder."""
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def files_below(folder: Path, *, aliases: bool = False) -> list[Path]:
    """List all files in a folder and its subfolders, sorted; hidden files and folders, with a leading dot, are skipped.

    Unreadable folders are named in one warning, and so are links to files that do not exist.

    Args:
        folder: folder to search; linked folders are entered, each once.
        aliases: whether to list links to files that are listed already; by default each file is listed once.
    """
    return _files(folder, ["**", "*"], aliases)


def files_matching(pattern: Path) -> list[Path]:
    """List all files that match a pattern with ``*``, ``?``, ``[...]`` or ``**``, sorted; see :func:`files_below`.

    A component that is itself the name of an existing file or folder matches only that one: ``[2024]/*.jpg`` reads the
    folder ``[2024]``, if there is one.
    """
    root = Path(pattern.anchor)
    components = list(pattern.relative_to(root).parts)
    return _files(root, [*components, "*"] if components[-1] == "**" else components)


def relative(file: Path, folder: Path) -> PurePath:
    """Return the path of a listed file from the folder that was searched; either may be absolute."""
    return PurePath(os.path.relpath(file, folder))


def _files(root: Path, components: list[str], aliases: bool = False) -> list[Path]:
    found: dict[str, Path] = {}  # keyed by the real path
    links: list[Path] = []
    unreadable: dict[Path, str] = {}
    visited: set[tuple[str, int]] = set()
    pending = deque([(root, components)])
    while pending:
        folder, (first, *rest) = pending.popleft()
        real = os.path.realpath(folder)
        if (real, len(rest)) in visited:
            continue
        visited.add((real, len(rest)))
        if first == "**":
            pending.appendleft((folder, rest))
        try:
            entries = list(_entries(folder, first))
        except OSError as error:
            unreadable[folder] = f"{str(folder)!r} ({error.strerror})"
            continue
        for name, is_link, is_folder in entries:
            path = folder / name
            if is_folder and (rest or first == "**"):
                below = (path, [first, *rest] if first == "**" else rest)
                # Links come last, so that a file keeps the name of its real location, and with it its class.
                (pending.append if is_link else pending.appendleft)(below)
            elif not is_folder and not rest:
                if is_link:
                    links.append(path)
                else:
                    found.setdefault(os.path.join(real, name), path)
    broken: list[str] = []
    for link in sorted(links):
        if link.is_file():
            found.setdefault(str(link) if aliases else os.path.realpath(link), link)
        elif not link.exists():
            broken.append(repr(str(link)))
    if unreadable:
        named = _first_few([*unreadable.values()])
        warnings.warn(f"Folders that cannot be read are left out: {named}. Check their permissions.", stacklevel=2)
    if broken:
        warnings.warn(f"Links to files that do not exist are left out: {_first_few(broken)}.", stacklevel=2)
    # A listed name that begins with "~" is no user's home folder, for which its reader would take it.
    return [Path.cwd() / file if str(file).startswith("~") else file for file in sorted(found.values())]


def _first_few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _entries(folder: Path, component: str) -> Iterator[tuple[str, bool, bool]]:
    """Yield the name of each entry of a folder that matches a pattern, and whether it is a link, and a folder."""
    if not glob.has_magic(component) or os.path.lexists(folder / component):
        path = folder / component
        if os.path.lexists(path):
            yield component, path.is_symlink(), os.path.isdir(path)
        return
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            hidden = entry.name.startswith(".") and not component.startswith(".")
            if not hidden and fnmatch(entry.name, component):
                link = entry.is_symlink()
                yield entry.name, link, os.path.isdir(entry) if link else entry.is_dir(follow_symlinks=False)
