"""The command ``partzoo features``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from partzoo.cli.collection import check_not_given, collection_options, format_option, only, report, write
from partzoo.cli.command import Command, print_json
from partzoo.cli.options import (
    device_option,
    engine_option,
    images_argument,
    json_option,
    limit_options,
    model_option,
    one_or_many,
    resume_option,
    strict_option,
)
from partzoo.cli.wording import done_before
from partzoo.errors import UsageError, counted
from partzoo.files import expand_user
from partzoo.locks import locked
from partzoo.places import check_apart, check_place

if TYPE_CHECKING:
    from partzoo.cli.failures import Failures
    from partzoo.cli.journal import Journal
    from partzoo.features import Features
    from partzoo.images.opening import OpenedImages
    from partzoo.models.base import Model
    from partzoo.models.engines.running import Engine

FORMAT = 1  # version of the file's format
DTYPES = ("float32", "float16")


@click.command(
    cls=Command,
    short_help="Compute features of images.",
    epilog="""
    \b
    Examples:
      partzoo features photo.jpg -o photo.npz
      partzoo features images/ --pooled -o images.safetensors
      partzoo features photo.jpg --model dinov2-vits14 -o photo.npz
      partzoo features images/ --dtype float16 -o images.npz
      partzoo features images/ --pooled -o out/ --format parquet --workers 2
      partzoo features "train-*.tar" --pooled -o out/ --format parquet --run-on ray
    \b
    Of many images, unreadable ones are skipped. To continue a stopped run, repeat the command.
    \b
    Arrays in the file, for N images:
      pooled  (N, C)        one vector for each image
      size    (N, 2)        height and width of each image
      dense.0 (h, w, C)     one vector for each cell of the first image's grid; dense.1, ...
      names                 the images' paths (safetensors: JSON in the metadata)
      format                1 (safetensors: partzoo_format in the metadata)
    """,
)
@images_argument
@click.option(
    "-o",
    "--out",
    type=click.Path(),
    required=True,
    help="File to write: .npz or .safetensors; with --format, a folder.",
)
@format_option
@model_option
@click.option("--size", type=int, help="Longer side of the image that the model receives, in pixels.")
@click.option("--layer", type=int, help="Intermediate layer to read; -1 is the last.  [default: the model's output]")
@click.option("--pooled", is_flag=True, help="Write pooled features only.")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default=DTYPES[0],
    show_default=True,
    help="Type of the features in the file; float16 takes half the space and keeps three digits.",
)
@click.option("--compress", is_flag=True, help="Compress an .npz file, which makes it about a tenth smaller.")
@engine_option
@device_option
@limit_options
@strict_option
@resume_option
@collection_options
@json_option
def features(
    images: tuple[str, ...],
    out: str,
    form: str | None,
    model: str | None,
    size: int | None,
    layer: int | None,
    pooled: bool,
    dtype: str,
    compress: bool,
    engine: Engine,
    device: str | None,
    max_pixels: int,
    max_bytes: int,
    strict: bool,
    resume: bool | None,
    as_json: bool,
    **shards: Any,
) -> None:
    """Compute a model's features of images and write them to a file, or with --format in shards, for use elsewhere."""
    if form:
        from partzoo.collections.stages import ExtractFeatures

        limits: dict[str, Any] = {"max_pixels": max_pixels, "max_bytes": max_bytes}
        check_not_given(form, compress=compress or None)
        options: dict[str, Any] = {"size": size, "layer": layer, "dense": not pooled, "dtype": dtype}
        stage = ExtractFeatures(model, device=device, engine=engine, **options, **limits)
        manifest = write(only(images), stage, out, form, quiet=as_json, resume=resume, strict=strict, **shards)
        report(manifest, out, as_json=as_json)
        return
    check_not_given(**shards)
    if Path(out).suffix.lower() not in (".npz", ".safetensors"):
        raise UsageError(f"Unknown ending of {out!r}. Use .npz or .safetensors.")
    if compress and not out.lower().endswith(".npz"):
        raise UsageError(f"--compress is for .npz files, and {out!r} is not one: leave it out.")
    check_place(Path(out))

    from partzoo.cli.failures import Failures
    from partzoo.cli.journal import Journal, file_for, unfinished
    from partzoo.features import encoder_of
    from partzoo.files import fingerprint
    from partzoo.images.opening import open_images

    opened, _ = open_images(one_or_many(images), max_pixels=max_pixels, max_bytes=max_bytes)
    check_apart([out], (*opened.files(), model))
    settings = {"command": "features", "model": fingerprint(model), "size": size, "layer": layer, "pooled": pooled}
    settings |= {"dtype": dtype} | ({"engine": engine} if engine != "torch" else {})
    encoder = encoder_of(model, device, engine)
    failures = Failures(len(opened), opened.name, what="images", strict=strict or len(opened) == 1)
    about: dict[str, Any] = {"output": out, "images": 0, "channels": None, "names": []}
    with locked(out), Journal(unfinished(expand_user(out)), out, settings, resume=resume) as journal:
        files = [file_for(journal.folder, opened.name(index), ".npz") for index in range(len(opened))]
        options = {"size": size, "layer": layer}
        quiet = as_json or len(opened) == 1
        store = partial(_store, files, dtype, not pooled)
        before = _extract(opened, files, encoder, options, store, journal, failures, quiet)
        done = [index for index in range(len(opened)) if index not in failures]
        if done:
            names = [opened.name(index) for index in done]
            channels = _join([files[index] for index in done], names, out, compress=compress)
            about |= {"images": len(done), "channels": channels, "names": names}
        journal.remove()
    if as_json:
        print_json(about | {"failed": failures.listed()})
    elif done:
        resumed = f" ({done_before(before, len(done))})" if before else ""
        found = f"{counted(about['channels'], 'channel')} of {counted(len(done), 'image')}"
        click.echo(f"{found}{resumed}. Written: {out}")
    failures.check()


def _extract(
    images: OpenedImages,
    files: Sequence[Path],
    encoder: Model,
    options: dict[str, Any],
    store: Callable[[int, Features], None],
    journal: Journal,
    failures: Failures[int],
    quiet: bool,
) -> int:
    """Write the features of each unfinished image to its file, and return the number of images finished before."""
    from tqdm import tqdm

    from partzoo.features import each_features

    journal.begin()
    order = [index for index, file in enumerate(files) if journal.done(images.name(index), file) is None]
    with tqdm(total=len(order), unit="image", disable=True if quiet else None) as bar:
        found = each_features(
            encoder,
            images,
            **options,
            order=order,
            progress=lambda *_: bar.update(),
            pass_over=failures.pass_over,
            then=store,
        )
        with closing(found):
            for index, _ in found:
                journal.add(images.name(index), files[index], {})
    return len(images) - len(order)


def _store(files: Sequence[Path], dtype: str, dense: bool, index: int, found: Features) -> None:
    """Write the features of an image to its file."""
    import numpy as np

    from partzoo.files import write_aside

    arrays: dict[str, Any] = {"pooled": found.pooled.astype(dtype), "size": np.array(found.size)}
    if dense:
        arrays["dense"] = found.dense.astype(dtype)
    with write_aside(files[index]) as stream:
        np.savez(stream, **arrays)


def _join(files: Sequence[Path], names: Sequence[str], out: str, *, compress: bool = False) -> int:
    """Join the files of the images into one file, and return the number of channels.

    Of the dense features, which are by far the largest, those of one image are in memory at a time.
    """
    import numpy as np

    from partzoo.files import reading, write_aside, write_npz
    from partzoo.weights.tensors import save_streamed

    rows: dict[str, list[np.ndarray]] = {"pooled": [], "size": []}
    dense: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for row, file in enumerate(files):
        with reading(file, fix="start over with resume=False"), np.load(file) as stored:
            for name, values in rows.items():
                values.append(stored[name])
            if "dense" in stored:
                dense[f"dense.{row}"], shapes[f"dense.{row}"] = file, stored["dense"].shape
    stacked = {name: np.stack(values) for name, values in rows.items()}

    def read(name: str) -> np.ndarray:
        if name in stacked:
            return stacked[name]
        with np.load(dense[name]) as stored:
            return stored["dense"]

    shapes |= {name: values.shape for name, values in stacked.items()}
    if out.lower().endswith(".npz"):
        first = {"format": np.array(FORMAT), "names": np.array(names)}
        with write_aside(out) as stream:
            write_npz(stream, chain(first.items(), ((name, read(name)) for name in shapes)), compress=compress)
    else:
        dtypes = {name: stacked[name if name in stacked else "pooled"].dtype for name in shapes}
        about = {name: (dtypes[name], shape) for name, shape in shapes.items()}
        save_streamed(out, about, read, {"partzoo_format": str(FORMAT), "names": json.dumps(names)})
    return stacked["pooled"].shape[1]
