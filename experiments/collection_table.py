"""Write the same images through every kind of source, every format of shards and every engine, and compare the results.

The images of a folder are written as a list, COCO, tars and Parquet, and put where fsspec reads them. The features of
``toy-vit`` are computed from each; parts of one vocabulary are written in each format of shards, and read back. The
digests are over the content, image by image in order, not over the files.

    python experiments/collection_table.py tiny-imagenet-200/val/images
    python experiments/collection_table.py IMAGES --few 100
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from rows import markdown

import partzoo
from partzoo.collections.fitting import fit_collection
from partzoo.collections.run import write_collection
from partzoo.collections.sources import Record, open_source
from partzoo.parts.coco import run_lengths
from partzoo.weights.tensors import read_tensors

MODEL = "toy-vit"
TARS = 10
TRIES = (("local", 2), ("local", 4), ("ray", 1), ("ray", 2))  # engine, workers


class Stream:
    """Rows without a length, which are read from the first on each time."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({"key": key, "image": {"bytes": Path(file).read_bytes()}} for key, file in self.records)


def forms(records: list[Record], folder: Path, place: Path) -> dict[str, Callable[[], Any]]:
    """Return functions that write the images as a collection of each kind, and return the source."""

    def coco() -> Path:
        images = [{"id": number, "file_name": key} for number, (key, _) in enumerate(records, 1)]
        file = place / "coco" / "instances.json"
        file.parent.mkdir()
        file.write_text(json.dumps({"images": images}))
        (file.parent / "images").symlink_to(folder)
        return file

    def tars() -> str:
        size = -(-len(records) // TARS)
        for number, first in enumerate(range(0, len(records), size)):
            with tarfile.open(place / f"{number:02}.tar", "w", dereference=True) as tar:
                for key, file in records[first : first + size]:
                    tar.add(file, key)
        return f"{place}/*.tar"

    def parquet(column: str) -> Path:
        values = [file if column == "path" else Path(file).read_bytes() for _, file in records]
        pq.write_table(pa.table({"key": [key for key, _ in records], column: values}), place / f"{column}.parquet")
        return place / f"{column}.parquet"

    def listed() -> Path:
        (place / "list.txt").write_text("\n".join(file for _, file in records))
        return place / "list.txt"

    def memory() -> str:
        for key, file in records:
            fsspec.filesystem("memory").pipe(f"/images/{key}", Path(file).read_bytes())
        return "memory://images"

    return {
        "folder": lambda: folder,
        "pattern": lambda: f"{folder}/**/*",
        "list": listed,
        "COCO": coco,
        "tars": tars,
        "Parquet, bytes": lambda: parquet("bytes"),
        "Parquet, paths": lambda: parquet("path"),
        "`memory://`": memory,
        "rows, streamed": lambda: Stream(records),
    }


def rows_of(out: Path, form: str) -> Iterator[Any]:
    """Yield what each image of a result has, in order, in a form that all formats share."""
    for file in sorted(out.glob("[a-z]*/*")):
        if form == "parquet":
            for row in pq.read_table(file).to_pylist():
                row.pop("key")
                yield row["pooled"] if "pooled" in row else [(p["part"], p["area"], p["rle"]) for p in row["parts"]]
        elif form == "safetensors":
            yield from _tensors(file)
        elif form == "coco":
            found = json.loads(file.read_text())
            parts: dict[int, list[Any]] = {image["id"]: [] for image in found["images"]}
            for each in found["annotations"]:
                parts[each["image_id"]].append((each["category_id"], each["area"], each["segmentation"]["counts"]))
            yield from parts.values()
        else:
            for image in sorted(file.rglob("*.index.png")):
                found = partzoo.Parts.load(image)
                yield [(p, int(found.areas[p - 1]), run_lengths(found.mask(p))["counts"]) for p in found.present]


def _tensors(file: Path) -> Iterator[Any]:
    found, _ = read_tensors(file)
    if "pooled" in found:
        yield from found["pooled"].tolist()
        return
    data, ends = found["parts.rle"].numpy().tobytes(), found["parts.rle.offsets"].tolist()
    texts = [data[first:last].decode() for first, last in itertools.pairwise(ends)]
    parts = list(zip(found["parts.part"].tolist(), found["parts.area"].tolist(), texts, strict=True))
    yield from (parts[first:last] for first, last in itertools.pairwise(found["parts.offsets"].tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--few", type=int, help="number of images; all by default")
    parser.add_argument("--no-ray", action="store_true", help="leave out Ray")
    asked = parser.parse_args()
    table: list[list[str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        folder = asked.images.resolve()
        if asked.few:
            few = place / "few"
            for key, file in itertools.islice(open_source(folder).records(), asked.few):
                (few / key).parent.mkdir(parents=True, exist_ok=True)
                (few / key).symlink_to(file)
            folder = few
        records = list(open_source(folder).records())
        features = partzoo.ExtractFeatures(MODEL)
        vocabulary = fit_collection(folder, 4, model=MODEL, background="none")
        parts = partzoo.DiscoverParts(vocabulary)
        vectors, masks = set[str](), set[str]()

        def compare(what: str, found: set[str], source: Any, stage: Any, form: str = "parquet", **options: Any) -> None:
            out = place / f"out-{len(table)}"
            started = time.monotonic()
            manifest = write_collection(source, stage, out, form=form, **options)
            seconds = time.monotonic() - started
            digest, count = hashlib.sha256(), 0
            for row in rows_of(out, form):
                digest.update(json.dumps(row).encode())
                count += 1
            found.add(digest.hexdigest())
            table.append([what, f"{manifest.images:,}", f"{count:,}", digest.hexdigest()[:12], f"{seconds:.0f}"])
            print(table[-1], file=sys.stderr, flush=True)

        for name, make in forms(records, folder, place).items():
            compare(f"features: {name}", vectors, make(), features)
        compare("features: as safetensors", vectors, folder, features, "safetensors")
        for engine, workers in TRIES:
            if not (asked.no_ray and engine == "ray"):
                what = f"features: {engine}, {workers} worker{'s' if workers > 1 else ''}"
                compare(what, vectors, folder, features, engine=engine, workers=workers)
        for form in ("parquet", "safetensors", "coco", "index-png"):
            compare(f"parts: {form}, from tars", masks, f"{place}/*.tar", parts, form)
        compare("parts: parquet, 2 workers", masks, folder, parts, workers=2)
        again = fit_collection(f"{place}/path.parquet", 4, model=MODEL, background="none")
        same = bool(again.centres.equal(vocabulary.centres))  # type: ignore[union-attr]
    print(markdown(["what", "images", "rows", "sha256 of the rows", "s"], table))
    print(f"Features differ: {len(vectors) - 1}. Parts differ: {len(masks) - 1}. The same vocabulary: {same}.")
    sys.exit(len(vectors) > 1 or len(masks) > 1 or not same)


if __name__ == "__main__":
    main()
