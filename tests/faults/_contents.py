"""What files say, without what differs between two runs that are equal, such as times."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from partzoo.weights.tensors import DIGEST, digest, read_tensors

HIDDEN = ".partzoo"
APPENDED = ("log.csv", "done.jsonl", "failed.csv")  # files that grow by lines, and are put right when a run is resumed
HUB = "o/hub"  # the Hugging Face cache of a run, whose files are judged by the model that they hold
TIMED = ("verified.json",)  # of files by the time at which they were written
SECONDS = ("seconds",)


def content(path: Path) -> str:
    """Read a file wholly, and return a digest of what it says.

    Raises:
        Exception: the file is damaged, as its reader says.
    """
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        tensors, about = read_tensors(path)
        progress = json.loads(about.get("progress", "{}"))
        about = {name: value for name, value in about.items() if name not in (DIGEST, "progress")}
        return digest(tensors, about | {"progress": json.dumps(_timeless(progress))})
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".npz":
        with np.load(path) as stored:
            for name in stored:
                stored[name]
    elif path.suffix == ".parquet":
        pq.read_table(path)
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix == ".json":
        said = json.loads(data)
        if isinstance(said, dict) and "hardware" in said:
            del said["hardware"]["load_average"]
            data = json.dumps(said).encode()
    elif path.suffix == ".toml":
        tomllib.loads(data.decode())
    elif path.name == "log.csv":
        data = json.dumps([_timeless(row) for row in csv.DictReader(data.decode().splitlines())]).encode()
    return hashlib.sha256(data).hexdigest()


def _timeless(about: dict) -> dict:
    return {name: value for name, value in about.items() if name not in SECONDS}


def files(folder: Path) -> list[Path]:
    """Return the visible files of a run's folder, relative to it."""
    found = []
    for above, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN) and Path(above, name) != folder / HUB]
        found += [Path(above, name).relative_to(folder) for name in names if not name.startswith(HIDDEN)]
    return sorted(path for path in found if path.name not in TIMED)


def tree(folder: Path) -> dict[str, str]:
    """Return what each visible file of a folder says."""
    return {str(path): content(folder / path) for path in files(folder)}


def leftovers(folder: Path) -> list[str]:
    """Return the hidden files and folders of partzoo among a run's results; those in caches stay until they change."""
    return sorted(str(path.relative_to(folder)) for path in (folder / "o").rglob(f"{HIDDEN}*"))


def differences(found: dict[str, str], expected: dict[str, str]) -> str:
    """Name the files in which two trees differ; "" if they are equal."""
    missing, more = (sorted(a.keys() - b.keys()) for a, b in ((expected, found), (found, expected)))
    other = sorted(name for name in found.keys() & expected.keys() if found[name] != expected[name])
    said: Iterable[tuple[str, list[str]]] = (("missing", missing), ("not expected", more), ("different", other))
    return "; ".join(f"{what}: {', '.join(names[:4])}" for what, names in said if names)
