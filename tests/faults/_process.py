"""Copies of this process whose operations on files are numbered, logged, refused or the last ones.

What a process changes in a folder is seen by a library in C, ``_watch.c``, which is compiled where it is needed and has
the kernel hand over the calls: so libraries that do not write through Python are seen as well.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .table import ROOT, Row

LIBRARY = "FAULTS_LIBRARY"  # environment variable with the path of the library that is loaded
ALL = 2**31 - 1
LONGEST = 60  # seconds after which a command counts as hung
MEASURE = "import sys; from tests.faults._process import _inject_here; _inject_here(*sys.argv[1:])"


class Kind(enum.IntFlag):
    """The operations that the library sees, as in ``_watch.c``."""

    CREATE, WRITE, RENAME, LINK, SYMLINK, UNLINK, MKDIR, RMDIR, TRUNCATE, SYNC, CHMOD, MAP = (2**i for i in range(12))


EVERYTHING = Kind(2**11 - 1)  # all but what is written through memory


class Action(enum.IntEnum):
    """What the library does at an operation, as in ``_watch.c``."""

    NOTHING, KILL, FAIL, VANISH = range(4)


@dataclass(frozen=True)
class Fault:
    """What happens to a process.

    Args:
        action: what is done.
        first, last: numbers of the operations at which it is done, from 0.
        kinds: only operations of these kinds.
        error: number of the error that a failing operation has.
        gone: folder that vanishes.
        seconds: the process is killed after this time, whatever it does.
    """

    action: Action = Action.NOTHING
    first: int = 0
    last: int = ALL
    kinds: Kind = EVERYTHING
    error: int = 0
    gone: str = ""
    seconds: float | None = None


NONE = Fault()


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, negative for a signal, what it printed, and the seconds that it took."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def hung(self) -> bool:
        return self.code == -signal.SIGALRM


@dataclass(frozen=True)
class Operation:
    """One logged operation.

    Attributes:
        number: number of the operation, among which those that failed are counted as well.
        inode, offset: the file, and the place of a write or the new size.
        path: absolute path.
        text: second path of a rename or link, target of a symbolic link, or data of a write.
        flags: 1 if an opened file was emptied.
    """

    kind: Kind
    flags: int
    number: int
    inode: int
    offset: int
    path: str
    text: bytes


def alone(inject: Callable[[float, int, Path], Row]) -> Callable[[float, int, Path], Row]:
    """Decorate ``inject``, so that it runs in a new process with its own caches and the library."""

    @functools.wraps(inject)
    def run(scale: float, seed: int, place: Path) -> Row:
        if LIBRARY in os.environ:
            return inject(scale, seed, place)
        place = place.resolve()
        library = place / "watch.so"
        source = Path(__file__).with_name("_watch.c")
        subprocess.run([_compiler(), "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
        own = {"HOME": "home", "HF_HOME": "hub", "XDG_CACHE_HOME": "cache", LIBRARY: library.name}
        env = os.environ | {name: str(place / path) for name, path in own.items()}
        env |= {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "TQDM_DISABLE": "1"}
        words = [inject.__module__, str(scale), str(seed), str(place)]
        subprocess.run([sys.executable, "-c", MEASURE, *words], env=env, cwd=ROOT, check=True)
        return Row(**json.loads((place / "row.json").read_text(encoding="utf-8")))

    return run


def _compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not found or sys.platform != "linux":
        sys.exit("Operations on files are watched by a library in C: that needs Linux and a C compiler.")
    return found


def _inject_here(module: str, scale: str, seed: str, place: str) -> None:
    """Call the decorated function of a module, and leave its row in ``place``."""
    sys.modules["torch.utils.tensorboard"] = None  # type: ignore[assignment]  # a thread would write at any time
    import torch
    from tqdm import tqdm

    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is shared by all copies, and a killed one would never release it
    row = importlib.import_module(module).inject(float(scale), int(seed), Path(place))
    Path(place, "row.json").write_text(json.dumps(asdict(row)), encoding="utf-8")


@dataclass(frozen=True)
class Process:
    """A copy of this process that was started: its number, the files with what it prints, and when it began."""

    number: int
    streams: tuple[Path, Path]
    began: float


def forked(
    function: Callable[[], object],
    folder: Path,
    fault: Fault = NONE,
    *,
    log: Path | None = None,
    out: int | None = None,
) -> Ended:
    """Call a function in a copy of this process, and wait for its end; see :func:`start`."""
    process = start(function, folder, folder, fault, log=log, out=out)
    if fault.seconds is not None:
        time.sleep(fault.seconds)
        os.kill(process.number, signal.SIGKILL)
    ended = ending(process)
    assert ended
    return ended


def ending(process: Process, *, wait: bool = True) -> Ended | None:
    """Return how a process has ended; None if it has not, and ``wait`` is false."""
    number, status = os.waitpid(process.number, 0 if wait else os.WNOHANG)
    if not number:
        return None
    out, err = (stream.read_text(errors="replace") for stream in process.streams)
    return Ended(os.waitstatus_to_exitcode(status), out, err, time.monotonic() - process.began)


def start(
    function: Callable[[], object],
    folder: Path,
    name: Path,
    fault: Fault = NONE,
    *,
    log: Path | None = None,
    out: int | None = None,
) -> Process:
    """Start a copy of this process that calls a function.

    Args:
        function: what to call.
        folder: working directory of the copy; what is changed below it is watched.
        name: path without ending of the files with what the copy prints.
        fault: what happens to the copy.
        log: file for the log of operations.
        out: open file that the copy's standard output goes to; None keeps it for the result.
    """
    streams = name.with_name(f"{name.name}.out"), name.with_name(f"{name.name}.err")
    began = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # otherwise the copy's garbage collection would copy all memory
    process = os.fork()
    if process:
        return Process(process, streams, began)
    code = 70
    try:
        signal.alarm(LONGEST)
        for number, stream in enumerate(streams, 1):
            os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
        if out is not None:
            os.dup2(out, 1)
        # This process's own would know the place in another file.
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        written = -1 if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        refused = ctypes.CDLL(os.environ[LIBRARY]).faults_watch(
            os.fsencode(folder), written, int(fault.action), int(fault.kinds), ctypes.c_long(fault.first),
            ctypes.c_long(fault.last), fault.error, os.fsencode(fault.gone),
        )  # fmt: skip
        if refused:
            raise OSError(refused, "the system cannot watch operations on files")
        try:
            function()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        try:
            sys.stdout.flush()
        except OSError as error:
            if not code:  # as Python does at its end
                print(f"Exception ignored while flushing sys.stdout: {error}", file=sys.stderr)
                code = 120
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def operations(log: Path) -> list[Operation]:
    """Read the log of a process."""
    return list(_records(log.read_bytes()))


class _Record(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32), ("flags", ctypes.c_int32), ("number", ctypes.c_int64), ("inode", ctypes.c_int64),
        ("offset", ctypes.c_int64), ("first", ctypes.c_int32), ("second", ctypes.c_int32),
    )  # fmt: skip


def _records(data: bytes) -> Iterator[Operation]:
    place = 0
    while place < len(data):
        record = _Record.from_buffer_copy(data, place)
        begin = place + ctypes.sizeof(_Record)
        middle = begin + record.first
        place = middle + record.second
        path = os.fsdecode(data[begin:middle])
        yield Operation(
            Kind(record.kind),
            *(getattr(record, name) for name in ("flags", "number", "inode", "offset")),
            path,
            data[middle:place],
        )
