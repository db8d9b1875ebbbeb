"""Features of a collection, nearest neighbours with DuckDB, and the parts of one class as crops.

python examples/large_collection.py                                        the images beside this file
python examples/large_collection.py IMAGES OUT --class n01443537 --run-on ray     any collection, on Ray

A class is the beginning of the keys: the name of a folder, or of a file.
"""

import argparse
from pathlib import Path

import duckdb
from PIL import Image

import partzoo
from partzoo.collections.fitting import fit_collection
from partzoo.collections.opening import open_record
from partzoo.collections.sources import open_source

NEAREST = """
    with found as (select key, pooled::float[{width}] as v from '{out}/features/features/*.parquet')
    select b.key, array_cosine_similarity(a.v, b.v) from found a, found b
    where a.key = ? and b.key <> a.key order by 2 desc, 1 limit 5
"""
PARTS = """
    select key, p.part, p.box from (select key, unnest(parts) as p from '{out}/parts/parts/*.parquet')
    where starts_with(key, ?) order by all
"""


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="?", default=str(here / "images"))
    parser.add_argument("out", nargs="?", default="collection")
    parser.add_argument("--class", dest="kind", default="ibis")
    parser.add_argument("--model", help="encoder; that of the package by default")
    parser.add_argument("--background", default="auto")
    parser.add_argument("--run-on", default="local", choices=("local", "ray"))
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    images, out, run = open_source(asked.images), Path(asked.out), {"engine": asked.run_on, "workers": asked.workers}

    features = partzoo.ExtractFeatures(asked.model)
    manifest = partzoo.write_collection(images, features, out / "features", **run)
    print(f"features of {manifest.rows} images, {len(manifest.failures)} failures")

    first = next(key for key in images.keys() if key.startswith(asked.kind))
    width = features.schema.field("pooled").type.list_size
    for key, cosine in duckdb.execute(NEAREST.format(out=out, width=width), [first]).fetchall():
        print(f"{first} resembles {key} (cosine {cosine:.2f})")

    chosen = [record for record in images.records() if record.key.startswith(asked.kind)]
    rows = [{"key": key, "image": image} for key, image in chosen]
    vocabulary = fit_collection(rows, 4, model=asked.model, background=asked.background)
    partzoo.write_collection(rows, partzoo.DiscoverParts(vocabulary), out / "parts", **run)
    found = duckdb.execute(PARTS.format(out=out), [asked.kind]).fetchall()
    opened = dict(chosen)
    for key, part, box in found:
        crop = out / "crops" / f"part-{part}" / f"{key.replace('/', '-')}.png"
        crop.parent.mkdir(parents=True, exist_ok=True)
        left, top, right, bottom = box
        pixels = open_record(opened[key], key).pixels
        Image.fromarray(pixels[top:bottom, left:right]).save(crop)
    print(f"{len(found)} crops of {len(chosen)} images in {out / 'crops'}")


if __name__ == "__main__":
    main()
