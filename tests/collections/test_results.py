"""Results in shards: the same bytes however they were made, whatever happened to the run meanwhile."""

import json
import shutil
import tempfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from helpers.command_line import partzoo as command
from helpers.image_sets import encoded
from helpers.killing import killed_at
from helpers.plain_stages import Halves, Means

import partzoo
from partzoo.collections.destinations import destination_of
from partzoo.collections.manifest import MANIFEST, UNFINISHED, Manifest, verify
from partzoo.collections.run import write_collection
from partzoo.collections.shards import Work
from partzoo.errors import PartzooError, UsageError

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("pycocotools")

MODEL, PER = "toy-vit", 3


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    """The images, with a damaged one among them."""
    place = tmp_path_factory.mktemp("results") / "images"
    shutil.copytree(images, place)
    (place / "a" / "3.png").write_bytes(encoded(3)[:200])
    return place


@pytest.fixture(scope="module")
def stage():
    return partzoo.ExtractFeatures(MODEL)


@pytest.fixture(scope="module")
def whole(folder, stage, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    write_collection(folder, stage, out, per_shard=PER)
    return contents(out)


def contents(folder):
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_the_shards_hold_what_extract_features_computes(folder, stage, tmp_path):
    manifest = write_collection(folder, stage, tmp_path / "out", per_shard=PER)
    assert [shard.file for shard in manifest.shards.values()] == [f"features/00000{n}.parquet" for n in range(3)]
    assert (manifest.images, manifest.rows) == (7, 6)
    ((key, reason),) = manifest.failures
    assert key == "a/3.png" and "a/3.png" in reason
    rows = pq.read_table(tmp_path / "out" / "features").to_pylist()
    assert [row["key"] for row in rows] == ["a/0.png", "a/2.png", "a/4.png", "b/1.png", "b/3.png", "b/5.png"]
    for row in rows:
        assert np.array_equal(
            np.float32(row["pooled"]), partzoo.extract_features(folder / row["key"], model=MODEL).pooled
        )
        assert "error" not in row


def test_the_manifest_says_what_the_result_is(folder, stage, whole):
    found = json.loads(whole[MANIFEST])
    assert found["settings"]["source"]["address"] == str(folder) and found["settings"]["source"]["images"] == 7
    assert found["settings"]["model"] == MODEL and found["settings"]["partzoo"] == partzoo.__version__
    assert (found["images"], found["rows"], found["failed"]) == (7, 6, 1)
    assert sorted(whole) == sorted([MANIFEST, *(shard["file"] for shard in found["shards"])])


def test_several_workers_make_the_same_bytes(folder, stage, whole, tmp_path):
    write_collection(folder, stage, tmp_path / "out", per_shard=PER, workers=2)
    assert contents(tmp_path / "out") == whole


def test_shards_of_safetensors_are_the_same_bytes_too(folder, tmp_path):
    """Which those of the safetensors library are not: it writes the metadata in another order each time."""
    written = []
    for number in range(4):
        write_collection(folder, Means(MODEL), tmp_path / str(number), form="safetensors", per_shard=1)
        written.append(contents(tmp_path / str(number)))
    assert len(written[0]) == 8 and all(each == written[0] for each in written)


def test_a_finished_result_is_not_made_again(folder, stage, whole, tmp_path, monkeypatch):
    write_collection(folder, stage, tmp_path / "out", per_shard=PER)
    monkeypatch.setattr(Work, "make", lambda *_: pytest.fail("a shard was made again"))
    write_collection(folder, stage, tmp_path / "out", per_shard=PER)
    write_collection(folder, stage, tmp_path / "out", per_shard=PER, resume=True)
    assert contents(tmp_path / "out") == whole
    with pytest.raises(pytest.fail.Exception):
        write_collection(folder, stage, tmp_path / "out", per_shard=PER, resume=False)


def test_a_shard_that_is_gone_is_made_again_and_no_other(folder, stage, whole, tmp_path, monkeypatch):
    out, made, make = tmp_path / "out", [], Work.make
    write_collection(folder, stage, out, per_shard=PER)
    (out / "features" / "000001.parquet").unlink()
    monkeypatch.setattr(Work, "make", lambda self, number: made.append(number) or make(self, number))
    write_collection(folder, stage, out, per_shard=PER)
    assert made == [1] and contents(out) == whole


def test_other_settings_are_refused_and_replaced_only_if_asked(folder, stage, whole, tmp_path):
    out = tmp_path / "out"
    write_collection(folder, stage, out, per_shard=2)
    with pytest.raises(UsageError, match="per_shard was 2, is 3"):
        write_collection(folder, stage, out, per_shard=PER)
    assert (out / "features" / "000003.parquet").exists()
    write_collection(folder, stage, out, per_shard=PER, resume=False)
    assert contents(out) == whole


def test_a_run_without_a_shard_leaves_nothing(folder, tmp_path):
    out = tmp_path / "new" / "out"
    with pytest.raises(partzoo.UnknownModelError):
        write_collection(folder, partzoo.ExtractFeatures("no-such-model"), out)
    with pytest.raises(partzoo.ImageError, match=r"a/3\.png"):
        write_collection(folder, partzoo.ExtractFeatures(MODEL), out, strict=True)
    assert list(tmp_path.iterdir()) == []


def test_paths_are_those_of_this_process_in_every_process(folder, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    write_collection(folder.name, partzoo.ExtractFeatures(MODEL), "relative", per_shard=PER)
    assert contents(folder.parent / "relative") == whole
    shutil.rmtree("relative")


def test_foreign_files_with_the_names_of_shards_are_not_replaced(folder, stage, tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "000000.parquet").write_bytes(b"mine")
    with pytest.raises(UsageError, match="no manifest"):
        write_collection(folder, stage, tmp_path, per_shard=PER, resume=False)
    assert (tmp_path / "features" / "000000.parquet").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("earlier", "scheme", "form"),
    [
        pytest.param(None, "", "parquet", id="new"),
        pytest.param(2, "", "parquet", id="replacing"),
        pytest.param(3, "", "parquet", id="finished"),
        pytest.param(2, "local://", "parquet", id="replacing, at an address", marks=pytest.mark.slow),
        pytest.param(None, "", "index-png", id="new folders", marks=pytest.mark.slow),
        pytest.param(None, "local://", "index-png", id="new folders, at an address", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_any_operation_is_completed_to_the_same_bytes(
    folder, tmp_path, monkeypatch, earlier, scheme, form
):
    """Kill a run at each of its operations on files; what is there then is whole, and the same call completes it."""
    stage, out = Means(MODEL) if form == "parquet" else Halves(), tmp_path / "out"
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    address, number, killed = f"{scheme}{out}", 0, True

    def run(resume=False if earlier == 2 else None, per_shard=PER, out=address):
        write_collection(folder, stage, out, per_shard=per_shard, resume=resume, form=form)

    run(out=tmp_path / "expected")
    expected = contents(tmp_path / "expected")
    while killed:
        shutil.rmtree(out, ignore_errors=True)
        if earlier:
            run(None, per_shard=earlier)
        killed = killed_at(number, run)
        if (out / MANIFEST).exists():
            assert {each.state for each in verify(address)} == {"ok"}
        for file in out.glob("*/*.parquet"):
            pq.read_table(file)
        found = Manifest.read(destination_of(address))
        run(**{"resume": None} if found and found.settings["per_shard"] == PER else {})
        assert contents(out) == expected, f"killed at operation {number}"
        number += 1
    assert number > (3 if earlier == 3 else 12)


def test_the_shards_of_an_unfinished_run_are_kept(folder, stage, whole, tmp_path, monkeypatch):
    out, made, make = tmp_path / "out", [], Work.make

    def stop(self, number):
        if number == 2:
            raise KeyboardInterrupt
        return make(self, number)

    monkeypatch.setattr(Work, "make", stop)
    with pytest.raises(KeyboardInterrupt):
        write_collection(folder, stage, out, per_shard=PER)
    assert sorted(Manifest.read(destination_of(out)).shards) == [0, 1] and not (out / MANIFEST).exists()
    with pytest.raises(PartzooError, match="is unfinished: it has 2 shards"):
        verify(out)
    monkeypatch.setattr(Work, "make", lambda self, number: made.append(number) or make(self, number))
    write_collection(folder, stage, out, per_shard=PER)
    assert made == [2] and contents(out) == whole


@pytest.mark.parametrize("name", [MANIFEST, f"{UNFINISHED}/settings.json", f"{UNFINISHED}/000000.json"])
def test_a_damaged_record_is_an_error_and_can_be_replaced(folder, stage, whole, tmp_path, name):
    out = tmp_path / "out"
    write_collection(folder, stage, out, per_shard=PER)
    place = destination_of(out)
    if name != MANIFEST:
        about = json.loads(place.read(MANIFEST))
        place.write(f"{UNFINISHED}/settings.json", json.dumps({n: about[n] for n in ("format", "settings")}).encode())
        place.remove(MANIFEST)
    place.write(name, b'{"format": ')
    with pytest.raises(PartzooError, match=r"is damaged .*: start over with resume=False"):
        write_collection(folder, stage, out, per_shard=PER)
    write_collection(folder, stage, out, per_shard=PER, resume=False)
    assert contents(out) == whole


def test_a_result_at_an_address_is_that_in_a_folder(folder, stage, whole, monkeypatch, tmp_path):
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "cache"))
    address = f"memory://{tmp_path.name}/out"
    for _ in range(2):
        manifest = write_collection(folder, stage, address, per_shard=PER)
        assert manifest.rows == 6
    files = fsspec.filesystem("memory")
    found = {each.partition("/out/")[2]: files.cat(each) for each in files.find(address)}
    assert found == whole and {each.state for each in verify(address)} == {"ok"}
    files.pipe(f"{address}/features/000001.parquet", b"PAR1")
    assert [each.state for each in verify(address)] == ["ok", "damaged", "ok"]
    with pytest.raises(UsageError, match="per_shard was 3, is 2"):
        write_collection(folder, stage, address, per_shard=2)
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(partzoo.ImageError):
        write_collection(tmp_path, stage, f"memory://{tmp_path.name}/strict", strict=True)
    assert not files.find(f"memory://{tmp_path.name}/strict")


def test_several_workers_write_to_an_address(folder, stage, whole, monkeypatch, tmp_path):
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "cache"))
    write_collection(folder, stage, f"local://{tmp_path}/out", per_shard=PER, workers=2)
    assert contents(tmp_path / "out") == whole


def test_verify_finds_what_is_damaged_missing_or_foreign(folder, stage, tmp_path):
    out = tmp_path / "out"
    write_collection(folder, stage, out, per_shard=2)
    assert [each.state for each in verify(out)] == ["ok"] * 4
    data = bytearray((out / "features" / "000001.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (out / "features" / "000001.parquet").write_bytes(data)
    (out / "features" / "000002.parquet").unlink()
    shutil.copy(out / "features" / "000000.parquet", out / "features" / "000009.parquet")
    found = {Path(each.file).stem[-1]: each for each in verify(out)}
    assert {number: each.state for number, each in found.items()} == {
        "0": "ok", "1": "damaged", "2": "missing", "3": "ok", "9": "unlisted",
    }  # fmt: skip
    assert all(str(out) in each.problem for each in found.values() if each.state != "ok")
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        verify(folder)


def test_a_manifest_cannot_name_files_elsewhere(folder, stage, tmp_path):
    write_collection(folder, stage, tmp_path / "out", per_shard=7)
    file = tmp_path / "out" / MANIFEST
    file.write_text(file.read_text().replace("features/000000.parquet", "../000000.parquet"))
    with pytest.raises(PartzooError, match="is damaged"):
        verify(tmp_path / "out")


def test_parts_have_rows_of_the_whole_collection(folder, tmp_path):
    vocabulary = partzoo.fit_parts(folder / "b", 3, model=MODEL, background="none")
    manifest = write_collection(folder, partzoo.DiscoverParts(vocabulary), tmp_path / "out", per_shard=7)
    rows = pq.read_table(tmp_path / "out" / "parts" / "000000.parquet").to_pylist()
    assert manifest.rows == len(rows) == 6
    assert all(sum(part["area"] for part in row["parts"]) == 24 * 32 for row in rows)
    other = partzoo.DiscoverParts(partzoo.fit_parts(folder / "b", 2, model=MODEL, background="none"))
    with pytest.raises(UsageError, match="k was 3, is 2"):
        write_collection(folder, other, tmp_path / "out", per_shard=7)


def test_a_place_in_the_folder_of_the_images_is_refused(folder, stage):
    for out in (folder, folder / "parts"):
        with pytest.raises(UsageError, match="lies in the folder of the images"):
            write_collection(folder, stage, out)
    assert not (folder / "parts").exists() and not (folder / "manifest.json").exists()


def test_the_memory_of_one_process_takes_no_shards_of_others(folder, stage):
    with pytest.raises(UsageError, match="in the memory of one process"):
        write_collection(folder, stage, "memory://several", workers=2)
    ran = command("features", folder, "--model", MODEL, "--pooled", "-o", "memory://one", "--format", "parquet")
    assert ran.code == 2 and "would end with this command" in ran.err


def test_a_row_without_an_image_is_a_failure(stage, tmp_path):
    rows = [{"image": encoded(0)}, {}, {"image": encoded(1)}]
    manifest = write_collection(rows, stage, tmp_path / "out")
    assert manifest.images == 3 and [key for key, _ in manifest.failures] == ["1"]


def test_keys_that_are_not_as_many_as_images_are_refused(stage):
    with pytest.raises(UsageError, match="1 images, but 2 keys"):
        stage({"key": ["a", "b"], "image": [encoded(0)]})


def test_the_vocabulary_of_a_result_is_the_same_file_each_time_and_is_verified(images, tmp_path):
    options = ("--model", MODEL, "-k", 3, "--background", "none", "--format", "parquet", "--per-shard", 4)
    for name in ("one", "two"):
        assert command("discover", images, *options, "-o", tmp_path / name).code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    file = tmp_path / "two" / "vocabulary.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    ran = command("verify", tmp_path / "two")
    assert ran.code == 1 and "vocabulary.safetensors" in ran.out and "damaged" in ran.out
    assert command("verify", tmp_path / "one").code == 0
