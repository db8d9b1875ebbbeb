"""The files that gpu_burst.py sends to a GPU and back: one archive there, pieces of at most 15 MiB back."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from partzoo.data.masks import SPLITS, MaskedSet, find_set, hashes_of, is_known
from partzoo.errors import UsageError
from partzoo.models.loading import load
from partzoo.models.registry import find
from partzoo.train.loop import CHECKPOINT, LOG, MODEL, TASK
from partzoo.train.recipe import Recipe
from partzoo.train.run import RECIPE
from partzoo.weights.manifest import BUNDLED, NAME, PACKAGE, manifest
from partzoo.weights.store import resolve
from partzoo.weights.tensors import read_tensors, rounded, save_tensors, write_weights

LIMIT = 63 << 20  # bytes of the archive, and of the pieces together; a little is left for the script and the log
PIECE, PIECES = 15 << 20, 7  # bytes of a piece, and number of pieces that come back, beside the log
SHEETS = 8  # sheets of Tiny-ImageNet that are packed before any masks; more are if there is room
STARTS = ("efficientnet-lite0.in1k", "foreground-lite0.masks", "part-vitn8.tin", "spatial-resnet8.tin")
WEIGHTS, SAME = "weights.safetensors", "same"
PIECE_NAME = re.compile(r"(?P<run>.+)\.(?P<step>\d{8})\.(?P<number>\d{2})-of-(?P<count>\d{2})")


def pack(data: Path, out: Path, masks: Recipe) -> tuple[list[str], list[str]]:
    """Write the archive: the code, the weights that training starts with, and as much data as there is room for.

    Args:
        data: folder with ``tiny-imagenet``, ``faces`` and ``masks``, as sheets of tiles and tars.
        out: archive to write.
        masks: recipe that names the sets with masks.

    Returns:
        What is in the archive, and what is left out.

    Raises:
        UsageError: data is missing.
    """
    tiny, faces = data / "tiny-imagenet", data / "faces"
    needed = [tiny / "classes.json", tiny / "train-labels.npy", faces / "train.avif", faces / "train.npz"]
    sheets = sorted(tiny.glob("train-*.avif"))
    if missing := [str(file) for file in needed if not file.is_file()] or ([] if sheets else [f"{tiny}/train-00.avif"]):
        raise UsageError(f"data={data} lacks {', '.join(missing)}. Name the folder that holds them.")
    out.parent.mkdir(parents=True, exist_ok=True)
    base = {name: file.read_bytes() for name, file in (_code() | _weights()).items()}
    base |= {f"data/{file.relative_to(data).as_posix()}": file.read_bytes() for file in needed}
    base |= {f"data/masks/{name}.tar": content for name, content in _sets(data, masks, held=True)}
    _write(out, base)
    room, kept, left = LIMIT - out.stat().st_size, ["faces"], []
    pixels = [(f"tiny-imagenet/{file.name}", file.read_bytes()) for file in sheets]
    sets = [(f"masks/{name}.tar", content) for name, content in _sets(data, masks, held=False)]
    for name, content in pixels[:SHEETS] + sets + pixels[SHEETS:]:
        size = len(zlib.compress(content, 1))
        if size > room:
            left.append(name)
            continue
        room -= size
        kept.append(name)
        base[f"data/{name}"] = content
    _write(out, base)
    return kept, left


def _code() -> dict[str, Path]:
    """List the package without its weights, the manifest, and this experiment, by their names in the archive."""
    root = Path(__file__).parents[1]  # of the clone, wherever the package is installed
    package = root / PACKAGE.name
    files = [file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    files = [file for file in files if file.suffix not in (".safetensors", ".onnx")]
    files += [root / NAME, *(root / "experiments").glob("gpu_burst*")]
    return {file.relative_to(root).as_posix(): file for file in files}


def _weights() -> dict[str, Path]:
    """List the files of the weights that training starts with, by their names in the archive."""
    found = {}
    for record in map(manifest().__getitem__, STARTS):
        for file, path in zip(record.files, resolve(record), strict=True):
            bundled = file.path.startswith(f"{BUNDLED}/")
            found[f"{PACKAGE.name}/{file.path}" if bundled else file.path] = path
    return found


def _sets(data: Path, masks: Recipe, *, held: bool) -> Iterator[tuple[str, bytes]]:
    """Yield tars of the sets that are only held out, or of those to train on; images that may not be read are empty.

    Empty files keep the order of the names, which decides on the split of each image, and reading skips them. Neither
    images of other splits nor near copies of images that are held out are trained on.
    """
    trained = masks.data["sets"]
    held_out = [*masks.data["report_only"], *masks.data["evaluated"]]
    if held:
        for name in held_out:
            yield name, _emptied(find_set(data, name), set())
        return
    splits = [(name, "all") for name in masks.data["report_only"]]
    splits += [(name, split) for name in (*trained, *masks.data["evaluated"]) for split in SPLITS if split != "train"]
    known = hashes_of(
        example.pixels for name, split in splits for example in MaskedSet(find_set(data, name), split).usable()
    )
    shares = dict(zip(trained, masks.data["shares"], strict=True))
    for name in sorted(trained, key=lambda name: -shares[name]):
        examples = MaskedSet(find_set(data, name), "train").usable()
        yield name, _emptied(find_set(data, name), {each.name for each in examples if not is_known(each.pixels, known)})


def _emptied(file: Path, kept: set[str]) -> bytes:
    """Return a set's tar, in which the files of all images but those with these names are empty."""
    stream = io.BytesIO()
    with tarfile.open(file) as source, tarfile.open(fileobj=stream, mode="w") as target:
        for member in source:
            stem = member.name.partition("/")[2].rpartition(".")[0]
            content = source.extractfile(member)
            if content is not None:
                _add(target, member.name, content.read() if stem in kept else b"")
    return stream.getvalue()


def _write(out: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(out, "w:gz", compresslevel=6) as tar:
        for name, content in files.items():
            _add(tar, name, content)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(content)
    tar.addfile(about, io.BytesIO(content))


def send(run: Path, left: Path, out: Path) -> int:
    """Write a run's last checkpoint as pieces, in place of an older one's.

    Matrices are stored in bfloat16, compressed by a fifth. Tensors that equal one of the weights that training started
    with, such as those of a frozen encoder, are named instead of stored. The optimizer's moments are left out.

    Args:
        run: folder of the run.
        left: folder for the pieces of a run that are too large to come back with the others.
        out: folder whose files come back.

    Returns:
        The number of steps of the checkpoint.
    """
    tensors, about = read_tensors(run / CHECKPOINT)
    step = json.loads(about["progress"])["step"]
    weights = {name: value for name, value in tensors.items() if name.startswith(TASK)}
    same = {name: known for name, value in weights.items() if (known := _known().get(_key(value)))}
    stored = rounded({name: value for name, value in weights.items() if name not in same}, torch.bfloat16)
    with tempfile.TemporaryDirectory() as temporary:
        save_tensors(Path(temporary, WEIGHTS), stored, _without_digest(about) | {SAME: json.dumps(same)})
        shutil.copy(run / RECIPE, temporary)
        if (run / LOG).exists():
            shutil.copy(run / LOG, temporary)
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as tar:
            for file in sorted(Path(temporary).iterdir()):
                _add(tar, file.name, file.read_bytes())
    content = stream.getvalue()
    pieces = [content[start : start + PIECE] for start in range(0, len(content), PIECE)]
    others = [file for file in out.iterdir() if (match := PIECE_NAME.fullmatch(file.name)) and match["run"] != run.name]
    size = sum(file.stat().st_size for file in others) + len(content)
    place = out if size <= LIMIT and len(others) + len(pieces) <= PIECES else left
    names = [f"{run.name}.{step:08d}.{number:02d}-of-{len(pieces):02d}" for number in range(len(pieces))]
    for name, piece in zip(names, pieces, strict=True):
        (place / name).write_bytes(piece)
    for file in [*out.iterdir(), *left.iterdir()]:  # only now, so that a kill leaves one whole checkpoint
        if (match := PIECE_NAME.fullmatch(file.name)) and match["run"] == run.name and file.name not in names:
            file.unlink()
    return step


@functools.cache
def _known() -> dict[str, tuple[str, str]]:
    """Return the weights and the name in them of each tensor that training may start with, by its key."""
    states = {name: load(name, device="cpu", dtype="float32").state_dict() for name in STARTS}
    return {_key(value): (name, tensor) for name, state in states.items() for tensor, value in state.items()}


def _key(value: Tensor) -> str:
    content = value.detach().contiguous().numpy()
    return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(content.tobytes()).hexdigest()}"


def _without_digest(about: dict[str, str]) -> dict[str, str]:
    return {name: about[name] for name in ("partzoo_format", "progress")}


def join(folder: Path, out: Path) -> list[Path]:
    """Make runs of pieces that came back, from which training continues: the latest whole checkpoint of each run.

    Args:
        folder: folder with the pieces, or with subfolders of them.
        out: folder for a folder of each run, which is replaced.

    Raises:
        UsageError: there is no whole checkpoint.
    """
    found: dict[tuple[str, str], list[Path]] = {}
    for file in sorted(folder.rglob("*-of-*")):
        if match := PIECE_NAME.fullmatch(file.name):
            found.setdefault((match["run"], match["step"]), []).append(file)
    whole = {run: files for (run, _), files in sorted(found.items()) if len(files) == int(files[0].name[-2:])}
    if not whole:
        raise UsageError(f"{folder} holds no whole checkpoint. Name the folder that the pieces came back to.")
    return [_run(run, b"".join(file.read_bytes() for file in files), out) for run, files in whole.items()]


def _run(name: str, content: bytes, out: Path) -> Path:
    run = out / name
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(run, filter="data")
    stored, about = read_tensors(run / WEIGHTS)
    (run / WEIGHTS).unlink()
    same = json.loads(about[SAME])
    states = {weights: load(weights, device="cpu", dtype="float32").state_dict() for weights, _ in same.values()}
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in stored.items()}
    tensors |= {key: states[weights][tensor] for key, (weights, tensor) in same.items()}
    text = (run / RECIPE).read_text(encoding="utf-8")
    # A parent that was itself trained in the burst was named relative to the runs.
    text = re.sub(r'^parent = "(?=[^"]*/)', lambda _: f'parent = "{out.resolve().as_posix()}/', text, flags=re.M)
    (run / RECIPE).write_text(text, encoding="utf-8")
    recipe = tomllib.loads(text)
    own = f"{TASK}model."
    weights = {key.removeprefix(own): value for key, value in tensors.items() if key.startswith(own)}
    config = find(recipe["architecture"]).configure(recipe["config"])
    write_weights(run / MODEL, weights, recipe["architecture"], config)
    save_tensors(run / CHECKPOINT, tensors, _without_digest(about))
    return run
