"""Commands over collections."""

import json
import re

import fsspec
import numpy as np
import pytest
from helpers.command_line import partzoo as command
from helpers.image_sets import encoded
from safetensors import safe_open

import partzoo
from partzoo.collections.fitting import drawn, fit_collection
from partzoo.collections.sources import Listed, Record
from partzoo.errors import UsageError

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("pycocotools")

TOY = ("--model", "toy-vit")
SHARDS = ("--format", "parquet", "--per-shard", 4)


@pytest.fixture
def damaged(images, tmp_path):
    """A list of the images and a damaged one."""
    (tmp_path / "bad.png").write_bytes(encoded(0)[:100])
    (tmp_path / "list.txt").write_text("\n".join([*map(str, sorted(images.rglob("[0-9].png"))), "bad.png"]))
    return tmp_path / "list.txt"


def test_features_in_shards(images, tmp_path):
    out = tmp_path / "out"
    ran = command("features", images, *TOY, "--pooled", "-o", out, *SHARDS)
    assert (ran.code, ran.out) == (0, f"6 images in 2 shards. Written: {out}\n"), ran.err
    assert pq.read_table(out / "features" / "000000.parquet").column_names == ["key", "height", "width", "pooled"]
    again = command("features", images, *TOY, "--pooled", "-o", out, *SHARDS)
    assert again.out == f"6 images in 2 shards (all done before). Written: {out}\n"
    other = command("features", images, *TOY, "-o", out, *SHARDS)
    assert other.code == 2 and "dense was False, is True" in other.err and "--no-resume" in other.err
    replaced = command("features", images, *TOY, "-o", out, *SHARDS, "--no-resume")
    assert replaced.code == 0
    assert "dense" in pq.read_table(out / "features" / "000000.parquet").column_names


def test_unreadable_images_are_named_listed_and_make_the_exit_code_1(damaged, tmp_path):
    out = tmp_path / "out"
    ran = command("features", damaged, *TOY, "--pooled", "-o", out, *SHARDS)
    assert ran.code == 1
    assert "Skipped: bad.png" in ran.err and "1 of the 7 images could not be read" in ran.err
    assert "7 images in 2 shards" in ran.out
    found = json.loads(command("features", damaged, *TOY, "--pooled", "-o", out, *SHARDS, "--json").out)
    assert [each["path"] for each in found["failed"]] == ["bad.png"]
    assert (found["images"], found["rows"], found["shards"]) == (7, 6, 2)
    strict = command("features", damaged, *TOY, "--pooled", "-o", tmp_path / "strict", *SHARDS, "--strict")
    assert strict.code == 1 and "bad.png" in strict.err and not (tmp_path / "strict" / "manifest.json").exists()


def test_parts_in_shards_with_a_vocabulary_from_fit(images, damaged, tmp_path):
    words, options = tmp_path / "three.safetensors", (*TOY, "--background", "none")
    ran = command("fit", images, "-k", 3, *options, "-o", words)
    assert (ran.code, ran.out) == (0, f"3 parts. Written: {words}\n"), ran.err
    first, second = tmp_path / "given", tmp_path / "learned"
    assert command("discover", images, "--vocabulary", words, "-o", first, *SHARDS).code == 0
    ran = command("discover", images, "-k", 3, *options, "-o", second, *SHARDS)
    assert ran.code == 0, ran.err
    for name in ("parts/000000.parquet", "parts/000001.parquet", "manifest.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    centres = [partzoo.PartVocabulary.load(place / "vocabulary.safetensors").centres for place in (first, second)]
    assert centres[0].equal(centres[1])
    bad = command("discover", damaged, "-k", 3, *options, "-o", tmp_path / "bad", *SHARDS)
    assert bad.code == 1 and "1 of the 7 images could not be read" in bad.err
    command("fit", images, "-k", 2, *options, "-o", words)
    other = command("discover", images, "--vocabulary", words, "-o", first, *SHARDS)
    assert other.code == 2
    assert re.search(
        r"other settings \(k was 3, is 2, vocabulary was sha256:\w{13}\.\.\., is sha256:\w{13}\.\.\.\)", other.err
    )


def test_at_most_ten_unreadable_images_are_named_while_parts_are_learned(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(14):
        (tmp_path / "in" / f"{number:02}.png").write_bytes(encoded(0) if number < 2 else b"bad")
    ran = command("fit", tmp_path / "in", "-k", 2, *TOY, "--background", "none", "-o", tmp_path / "v.safetensors")
    assert ran.code == 0 and ran.err.count("Skipped: ") == 11
    assert ran.err.endswith("Skipped: 2 more of the images that the parts are learned from.\n")


def test_verify_checks_shards_against_their_manifest(images, tmp_path):
    out = tmp_path / "out"
    command("features", images, *TOY, "--pooled", "-o", out, *SHARDS)
    ran = command("verify", out)
    assert ran.code == 0 and ran.out.count(" ok") == 2
    (out / "features" / "000001.parquet").write_bytes(b"PAR1")
    ran = command("verify", out)
    assert ran.code == 1 and "000001.parquet is damaged" in ran.err
    assert [each["state"] for each in json.loads(command("verify", out, "--json").out)] == ["ok", "damaged"]


def test_results_at_addresses_and_parts_in_other_formats(images, tmp_path, monkeypatch):
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "cache"))
    address = f"local://{tmp_path}"  # which fsspec writes
    ran = command("features", images, *TOY, "--pooled", "-o", f"{address}/f", *SHARDS)
    assert (ran.code, ran.out) == (0, f"6 images in 2 shards. Written: {address}/f\n"), ran.err
    found = json.loads(command("verify", f"{address}/f", "--json").out)
    assert [(each["file"], each["state"]) for each in found] == [("000000.parquet", "ok"), ("000001.parquet", "ok")]
    options = (*TOY, "--background", "none", "-k", 3, "--format")
    for form, name in (("coco", "000000.json"), ("index-png", "000000")):
        ran = command("discover", images, *options, form, "-o", f"{address}/{form}")
        assert ran.code == 0, ran.err
        ran = command("verify", f"{address}/{form}")
        assert ran.code == 0 and name in ran.out
    missing = command("verify", f"{address}/nothing")
    assert missing.code != 0 and "holds no manifest.json" in missing.err
    files = fsspec.filesystem("local")
    assert files.exists(f"{address}/coco/vocabulary.safetensors")
    assert len(files.find(f"{address}/index-png/parts")) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("features", "{0}", "-o", "x.npz", "--workers", 2), "--workers 2: it needs shards, such as --format parquet"),
        (("features", "{0}", "{0}", "-o", "x", *SHARDS), "Shards are made of one collection, not of 2"),
        (("features", "{0}/x.png", "-o", "x", *SHARDS), "is not a collection of images"),
        (("discover", "{0}", *SHARDS), "Name a folder for the shards with -o"),
        (
            ("discover", "{0}", "-o", "x", *SHARDS, "--mask", "m.png"),
            "--mask m.png: it does not go with --format",
        ),
        (("discover", "{0}", "-o", "x", *SHARDS, "-k", "own", *TOY), "-k own is for part models"),
        (("discover", "{0}", "-k", 2, "--per-shard", 2), "--per-shard 2: it needs shards"),
        (("fit", "{0}/nowhere/*.png", "-o", "x.safetensors"), "holds no images"),
        (("fit", "{0}", "{0}", "-o", "x.safetensors"), "the images of one collection, not of 2"),
        (("fit", "{0}", "-o", "x.safetensors", "-k", "own", *TOY), "-k own is for part models"),
        (("fit", "{0}", "-o", "x.safetensors", "--names", "a,b"), "--names is for --labels"),
        (("fit", "{0}", "-o", "x.safetensors", "--sided"), "--sided is for --labels"),
        (("fit", "{0}", "-o", "x.safetensors", "--labels", "{0}", "-k", 3), "-k is for discovered parts"),
        (("fit", "{0}", "-o", "x.safetensors", "--labels", "{0}", "--seed", -1), "--seed"),
    ],
)
def test_wrong_usage_is_one_sentence_and_writes_nothing(arguments, message, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command(*(str(each).format(images) for each in arguments))
    assert ran.code == 2 and message in ran.err, ran.err
    assert ran.err.count("\n") <= 2 and list(tmp_path.iterdir()) == []


class Named(Listed):
    """A source of these records."""

    form = ""

    @classmethod
    def accepts(cls, address):
        return False


def test_the_sample_depends_on_the_keys_not_on_their_order():
    records = [Record(f"{number}.png", b"") for number in range(50)]
    first, second = drawn(Named("x", records), 7), drawn(Named("x", records[::-1]), 7)
    assert len(first) == 7 and sorted(first) == sorted(second)
    assert [record.key for record in first] == sorted((each.key for each in first), key=lambda key: int(key[:-4]))
    assert drawn(Named("x", records), 7, seed=1) != first
    grown = drawn(Named("x", [*records, Record("new.png", b"")]), 7)
    assert len(set(grown) - set(first)) <= 1


def test_a_vocabulary_of_few_images_is_that_of_fit_parts(images):
    options = {"model": "toy-vit", "background": "none", "seed": 3}
    found, expected = fit_collection(images, 3, **options), partzoo.fit_parts(images, 3, **options)
    assert found.centres.equal(expected.centres) and found.settings == expected.settings
    for fit in (fit_collection, partzoo.fit_parts):
        with pytest.raises(UsageError, match="seed=-1 is out of range"):
            fit(images, 3, **options | {"seed": -1})


@pytest.mark.parametrize("form", ["parquet", "safetensors"])
def test_shards_may_hold_features_in_float16(images, tmp_path, form):
    words = ("features", images, *TOY, "--pooled", "--format", form, "-o")
    for name, options in (("whole", ()), ("half", ("--dtype", "float16"))):
        assert command(*words, tmp_path / name, *options).code == 0
    whole, half = (pooled(next((tmp_path / name / "features").iterdir())) for name in ("whole", "half"))
    assert whole.dtype == np.float32 and half.dtype == np.float16 and np.array_equal(half, whole.astype(np.float16))


def pooled(file):
    if file.suffix == ".parquet":
        return np.stack(pq.read_table(file)["pooled"].to_numpy())
    with safe_open(file, "np") as opened:
        return opened.get_tensor("pooled")
