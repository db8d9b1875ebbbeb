"""A disk in memory, which repeats a log of operations and forgets what was not stored when the power went.

A file's data is stored by its ``fsync``, a name by the ``fsync`` of its folder. Of what is not stored, any part may be
on the disk: data may be missing, cut short or zeros, and the last changes of names may be missing.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ._process import Kind, Operation

ROOT = 0
DATA = ("kept", "lost", "torn", "zeros")
NAMES = ("kept", "lost", "cut")


@dataclass
class Node:
    """A file, a folder or a symbolic link.

    Attributes:
        kind: "file", "folder" or "link".
        content: data of a file, or target of a link, at first.
        changes: position in the log, offset and data of each write; data of None cuts the file there.
        stored: positions in the log at which it was stored.
    """

    kind: str
    content: bytes = b""
    changes: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Naming:
    """A change of names at a position of the log: of each name in a folder, the node that it then has, or None."""

    position: int
    names: tuple[tuple[int, str, int | None], ...]


class Disk:
    """The content of a folder, and what a log of operations does to it.

    Args:
        folder: folder as it is before the first operation; everything in it is stored.
        log: operations below ``root``.
        root: folder in which they were done.
    """

    def __init__(self, folder: Path, log: Sequence[Operation], root: Path) -> None:
        self.nodes: dict[int, Node] = {ROOT: Node("folder")}
        self._new = itertools.count(1)
        self._inodes: dict[int, int] = {root.stat().st_ino: ROOT}
        self.first: dict[tuple[int, str], int] = {}
        self._read(folder, ROOT, root)
        self._names = dict(self.first)  # as they are at the current position
        self.namings: list[Naming] = []
        self.length = len(log)
        for position, operation in enumerate(log):
            self._apply(position, operation, root)

    def _read(self, folder: Path, number: int, twin: Path) -> None:
        for path in sorted(folder.iterdir()):
            node = next(self._new)
            self.first[number, path.name] = node
            if path.is_symlink():
                self.nodes[node] = Node("link", os.fsencode(os.readlink(path)))
            elif path.is_dir():
                self.nodes[node] = Node("folder")
                self._read(path, node, twin / path.name)
            else:
                self.nodes[node] = Node("file", path.read_bytes())

    def _place(self, path: str, root: Path) -> tuple[int, str]:
        parts = Path(os.path.relpath(path, root)).parts
        above = ROOT
        for part in parts[:-1]:
            above = self._names[above, part]
        return above, parts[-1] if parts else "."

    def _make(self, kind: str, content: bytes = b"") -> int:
        number = next(self._new)
        self.nodes[number] = Node(kind, content)
        return number

    def _name(self, position: int, *names: tuple[tuple[int, str], int | None]) -> None:
        for place, node in names:
            if node is None:
                self._names.pop(place, None)
            else:
                self._names[place] = node
        self.namings.append(Naming(position, tuple((*place, node) for place, node in names)))

    def _apply(self, position: int, operation: Operation, root: Path) -> None:
        kind = operation.kind
        if kind is Kind.MAP:
            raise ValueError(f"{operation.path} is written through memory, which is not seen")
        place = self._place(operation.path, root)
        node = ROOT if place[1] == "." else self._names.get(place)
        if kind in (Kind.CREATE, Kind.MKDIR, Kind.SYMLINK):
            if node is None:
                content = operation.text if kind is Kind.SYMLINK else b""
                node = self._make({Kind.CREATE: "file", Kind.MKDIR: "folder", Kind.SYMLINK: "link"}[kind], content)
                self._name(position, (place, node))
            elif operation.flags:
                self.nodes[node].changes.append((position, 0, None))
            self._inodes[operation.inode] = node
        elif kind in (Kind.WRITE, Kind.TRUNCATE):
            node = self._inodes.get(operation.inode, node)
            assert node is not None, operation.path
            data = operation.text if kind is Kind.WRITE else None
            self.nodes[node].changes.append((position, operation.offset, data))
        elif kind is Kind.RENAME:
            assert node is not None, operation.path
            self._name(position, (place, None), (self._place(os.fsdecode(operation.text), root), node))
        elif kind is Kind.LINK:
            assert node is not None, operation.path
            self._name(position, (self._place(os.fsdecode(operation.text), root), node))
        elif kind in (Kind.UNLINK, Kind.RMDIR):
            self._name(position, (place, None))
        elif kind is Kind.SYNC:
            node = self._inodes.get(operation.inode, node)
            if node is not None:
                self.nodes[node].stored.append(position)

    def visible(self) -> Iterator[tuple[int, str, int | None]]:
        """Yield the position in the log and the path of each file that gets a name; None for one that loses it."""
        names = dict(self.first)
        for naming in self.namings:
            for above, name, node in naming.names:
                path = name
                folder = above
                while folder != ROOT:
                    (folder, part) = next((place for place, each in names.items() if each == folder), (ROOT, "?"))
                    path = f"{part}/{path}"
                if node is None:
                    names.pop((above, name), None)
                else:
                    names[above, name] = node
                if node is None or self.nodes[node].kind == "file":
                    yield naming.position + 1, path, node

    def content(self, node: int, position: int) -> bytes:
        """Return what a file contains before the operation at a position."""
        return self._content(self.nodes[node], position, "kept", random.Random(0))

    def after(self, position: int, data: str = "kept", names: str = "kept", draw: random.Random | None = None) -> State:
        """Return what is on the disk if the power goes before the operation at a position of the log.

        Args:
            position: position in the log; its length stands for the end.
            data: which of the data that is not stored is there, one of ``DATA``.
            names: which of the names that are not stored are there, one of ``NAMES``.
            draw: for what is drawn.
        """
        draw = draw or random.Random(0)
        until = {"kept": position, "lost": 0, "cut": draw.randint(0, position)}[names]
        found = dict(self.first)
        for naming in self.namings:
            if naming.position >= position:
                break
            if naming.position < until or self._is_stored(naming, position):
                for above, name, node in naming.names:
                    if node is None:
                        found.pop((above, name), None)
                    else:
                        found[above, name] = node
        contents = {node: self._content(self.nodes[node], position, data, draw) for node in found.values()}
        return State({place: (self.nodes[node].kind, contents[node], node) for place, node in found.items()})

    def _is_stored(self, naming: Naming, position: int) -> bool:
        """Return whether a folder was stored after its names changed; of a rename, that is the target's folder."""
        above = naming.names[-1][0]
        return any(naming.position < stored < position for stored in self.nodes[above].stored)

    def _content(self, node: Node, position: int, data: str, draw: random.Random) -> bytes:
        content = bytearray(node.content)
        stored = max((each for each in node.stored if each < position), default=-1)
        open_changes = [change for change in node.changes if stored < change[0] < position]
        for change in node.changes:
            if change[0] < stored:
                _change(content, change)
        if data == "lost" or not open_changes:
            return bytes(content)
        if data == "torn":
            last = draw.randrange(len(open_changes))
            number, offset, written = open_changes[last]
            cut = None if written is None else written[: draw.randrange(len(written) + 1)]
            open_changes = [*open_changes[:last], (number, offset, cut)]
        for number, offset, written in open_changes:
            _change(content, (number, offset, written and bytes(len(written)) if data == "zeros" else written))
        return bytes(content)


def _change(content: bytearray, change: tuple[int, int, bytes | None]) -> None:
    _, offset, data = change
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
    else:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data


@dataclass(frozen=True)
class State:
    """Names with kind, content and node."""

    names: dict[tuple[int, str], tuple[str, bytes, int]]

    def __hash__(self) -> int:
        return hash(frozenset((place, kind, content) for place, (kind, content, _) in self.names.items()))

    def write(self, folder: Path, above: int = ROOT) -> None:
        """Write everything that can be reached to a new folder."""
        if above == ROOT:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for (parent, name), (kind, content, node) in self.names.items():
            if parent != above:
                continue
            if kind == "folder":
                self.write(folder / name, node)
            elif kind == "link":
                os.symlink(os.fsdecode(content), folder / name)
            else:
                (folder / name).write_bytes(content)
