import dataclasses
import hashlib
import json
import os
import re
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from helpers.weight_records import describe, record_of, toy
from safetensors.torch import load_file, save_file

import partzoo
from partzoo.errors import UnknownModelError, UsageError, WeightsError
from partzoo.light.programs import RECORD as PROGRAMS
from partzoo.models.base import Tokens
from partzoo.models.loading import build
from partzoo.models.registry import find
from partzoo.weights import store as weights
from partzoo.weights import tensors as tensor_files
from partzoo.weights.checked import cache_folder, digest_of
from partzoo.weights.manifest import BUNDLED, FORMAT, NAME, PACKAGE, WeightFile, add_record, manifest
from partzoo.weights.release_files import (
    BUNDLE_BYTES,
    FILE_BYTES,
    check_golden,
    golden,
    golden_input,
    pack,
    storage_dtype,
)
from partzoo.weights.tensors import (
    DIGEST,
    load_strict,
    read_header,
    read_metadata,
    read_state,
    save_tensors,
    write_weights,
)

CLONE = Path(__file__).parents[2]
SCHEMA = json.loads((PACKAGE / "weights_manifest.schema.json").read_text())
EMPTY = json.dumps({"format": FORMAT, "weights": []})


@pytest.fixture(autouse=True)
def own_notes(tmp_path, monkeypatch):
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "notes"))
    monkeypatch.delenv("PARTZOO_CHECKPOINTS", raising=False)


@pytest.fixture(scope="module")
def model():
    return toy()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """Make an empty clone of the repository and run the test in it."""
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / NAME).write_text(EMPTY)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def record(model, clone):
    """Make a record whose file is in the clone's checkpoints."""
    path = clone / "checkpoints" / "toy-vit.test.safetensors"
    write_weights(path, model.state_dict(), "toy-vit", model.config)
    return record_of(model, (describe(path),))


def file_of(record, clone):
    return clone / record.files[0].path


def flip(path, offset=-5):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


# the manifest that is released


def test_released_manifest_matches_the_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads((CLONE / NAME).read_text()), SCHEMA)


def test_released_records_name_registered_architectures():
    for record in manifest().values():
        entry = find(record.name)
        assert entry.name == record.architecture
        entry.configure(record.config)


def test_released_files_are_whole_and_bundled_ones_are_here():
    for result in weights.verify():
        bundled = result.file.path.startswith(BUNDLED)
        assert result.state == "ok" if bundled else result.state != "damaged", result.problem


def test_released_weights_give_their_golden_output():
    for record in manifest().values():
        if all(weights.locate(record, file) for file in record.files):
            check_golden(partzoo.load(record.name, device="cpu", dtype="float32"), record.golden)


def test_package_and_checkpoints_stay_small_and_hold_only_recorded_files():
    recorded = {file.path for record in manifest().values() for file in record.files}
    bundled = [path for path in (PACKAGE / BUNDLED).glob("*") if path.suffix in (".safetensors", ".json")]
    assert sum(path.stat().st_size for path in bundled) <= BUNDLE_BYTES
    checkpoints = [path for path in (CLONE / "checkpoints").rglob("*") if path.is_file()]
    assert all(path.stat().st_size <= FILE_BYTES for path in checkpoints)
    assert {f"{BUNDLED}/{path.name}" for path in bundled} <= recorded | {f"{BUNDLED}/{PROGRAMS}"}


# records


def test_a_record_survives_the_manifest(record, clone):
    add_record(record, clone / NAME)
    assert manifest(clone / NAME) == {record.name: record}
    jsonschema.validate(json.loads((clone / NAME).read_text()), SCHEMA)


def test_a_record_of_the_same_name_is_replaced_in_place(record, clone):
    second = dataclasses.replace(record, name="toy-vit.other")
    for each in (record, second, dataclasses.replace(record, seed=7)):
        add_record(each, clone / NAME)
    assert [(name, each.seed) for name, each in manifest(clone / NAME).items()] == [
        ("toy-vit.test", 7),
        ("toy-vit.other", 1),
    ]
    assert sorted(path.name for path in clone.iterdir()) == ["checkpoints", NAME]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "checkpoints/../../a.safetensors", "elsewhere/a.safetensors", "weights"]
)
def test_a_file_outside_the_zoo_is_refused(path):
    with pytest.raises(WeightsError, match="must be weights"):
        WeightFile(path, "0" * 64, 1)


def test_a_short_sha256_is_refused():
    with pytest.raises(WeightsError, match="64 hexadecimal"):
        WeightFile("weights/a.safetensors", "abc", 1)


def test_a_name_without_its_architecture_is_refused(model):
    with pytest.raises(WeightsError, match=r"toy-vit.TAG"):
        record_of(model, (WeightFile("weights/a.safetensors", "0" * 64, 1),), name="part-vitt8.test")


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "not a manifest"),
        ("[]", "not a manifest"),
        ('{"format": 99, "weights": []}', "upgrade partzoo"),
        ('{"format": 1, "weights": [{"name": "a.b"}]}', "incomplete"),
        ('{"format": 1, "weights": [3]}', "incomplete"),
    ],
)
def test_a_damaged_manifest_is_one_clear_error(tmp_path, content, message):
    (tmp_path / NAME).write_text(content)
    with pytest.raises(WeightsError, match=message):
        manifest(tmp_path / NAME)


# where files are, and whether they are whole


def test_a_bundled_file_is_found_first(model, clone, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PACKAGE", tmp_path)
    path = tmp_path / BUNDLED / "toy-vit.test.safetensors"
    write_weights(path, model.state_dict(), "toy-vit", model.config)
    assert weights.resolve(record_of(model, (describe(path),))) == [path]


def test_a_checkpoint_is_found_from_a_clone(record, clone):
    [path] = weights.resolve(record)
    assert path.samefile(file_of(record, clone))
    assert [result.state for result in weights.verify(record)] == ["ok"]


def test_weights_that_are_nowhere_say_what_to_do(record, clone, tmp_path, monkeypatch):
    assert weights.available(record)
    monkeypatch.chdir(tmp_path)
    assert not weights.available(record)
    assert weights.available(dataclasses.replace(record, hub={"repo": "owner/name", "revision": "main"}))
    with pytest.raises(WeightsError, match=r"toy-vit\.test are not here .*set PARTZOO_CHECKPOINTS to checkpoints/ of"):
        weights.resolve(record)
    assert [result.state for result in weights.verify(record)] == ["absent"]


def test_a_checkpoint_is_found_from_any_folder_of_a_clone(record, clone, monkeypatch):
    inside = clone / "docs" / "images"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert weights.resolve(record)[0].samefile(file_of(record, clone))


def test_a_checkpoint_is_found_where_the_variable_says(record, clone, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    moved = tmp_path / "elsewhere"
    file_of(record, clone).parent.rename(moved)
    monkeypatch.setenv("PARTZOO_CHECKPOINTS", "~/elsewhere")
    assert weights.available(record)
    assert weights.resolve(record)[0].parent.samefile(moved)


def test_a_variable_that_names_another_folder_is_named(record, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARTZOO_CHECKPOINTS", str(tmp_path))
    with pytest.raises(WeightsError, match=rf"not here \(checkpoints/.*, searched in {re.escape(str(tmp_path))}"):
        weights.resolve(record)


@pytest.mark.parametrize("call", [weights.resolve, weights.available])
def test_a_variable_that_names_no_folder_is_one_sentence(call, record, tmp_path, monkeypatch):
    monkeypatch.setenv("PARTZOO_CHECKPOINTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match=r"PARTZOO_CHECKPOINTS is '.*nowhere', which is not a folder: set it to"):
        call(record)


def test_the_variable_does_not_concern_weights_in_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PARTZOO_CHECKPOINTS", str(tmp_path / "nowhere"))
    assert partzoo.load("part-vitn8.tin", device="cpu").architecture == "part-vitn8"


def test_a_pointer_in_place_of_a_file_is_not_available(record, clone):
    file_of(record, clone).write_text("version https://git-lfs.github.com/spec/v1\n")
    assert not weights.available(record)
    assert not weights.available(dataclasses.replace(record, hub={"repo": "owner/name", "revision": "main"}))


def test_the_remedy_of_a_damaged_file_of_a_clone_mends_it_from_any_folder(record, clone, tmp_path, monkeypatch):
    folder = clone.rename(clone.with_name("a clone"))
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setenv("PARTZOO_CHECKPOINTS", str(folder / "checkpoints"))
    monkeypatch.chdir(tmp_path)
    flip(file_of(record, folder))
    with pytest.raises(WeightsError) as error:
        weights.resolve(record)
    [command] = re.findall("run '(git .*)'\\.$", str(error.value))
    subprocess.run(command, shell=True, check=True)
    assert weights.resolve(record)[0].samefile(file_of(record, folder))


def test_a_remedy_names_the_hub_only_where_the_record_does(record, clone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        weights.remedy(record, record.files[0])
        == "set PARTZOO_CHECKPOINTS to checkpoints/ of a clone of the repository"
    )
    on_hub = dataclasses.replace(record, hub={"repo": "owner/name", "revision": "main"})
    assert weights.remedy(on_hub, record.files[0]) == "run 'partzoo download toy-vit.test'"


def test_a_bundled_file_outside_of_a_clone_is_installed_again(model, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PACKAGE", tmp_path)
    (tmp_path / ".git").mkdir()  # of a project that has its environment inside
    path = tmp_path / BUNDLED / "toy-vit.test.safetensors"
    write_weights(path, model.state_dict(), "toy-vit", model.config)
    record = record_of(model, (describe(path),))
    assert weights.remedy(record, record.files[0]).startswith("install partzoo again, with --force-reinstall")


def test_an_unknown_record_names_those_there_are():
    for call in (weights.verify, weights.download):
        with pytest.raises(UnknownModelError, match=r"no released weights 'toy-vit.nothing'"):
            call("toy-vit.nothing")


def test_a_flipped_bit_is_found_though_the_file_was_whole_before(record, clone):
    weights.resolve(record)
    flip(file_of(record, clone))
    with pytest.raises(WeightsError, match=r"damaged: its sha256 .*: set PARTZOO_CHECKPOINTS"):
        weights.resolve(record)
    [result] = weights.verify(record)
    assert result.state == "damaged" and "sha256" in result.problem


def flip_unnoticed(path):
    """Flip a bit and keep size, time and inode, as a decaying disk does."""
    found = path.stat()
    with open(path, "r+b") as opened:
        opened.seek(-5, os.SEEK_END)
        (byte,) = opened.read(1)
        opened.seek(-5, os.SEEK_END)
        opened.write(bytes([byte ^ 1]))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_verify_forgets_a_file_that_it_finds_damaged(record, clone):
    weights.resolve(record)
    flip_unnoticed(file_of(record, clone))
    assert [result.state for result in weights.verify(record)] == ["damaged"]
    with pytest.raises(WeightsError, match="set PARTZOO_CHECKPOINTS"):
        weights.resolve(record)


def test_what_several_writers_remember_and_forget_is_all_kept(tmp_path):
    files = [tmp_path / str(number) for number in range(40)]
    for file in files:
        file.touch()
        digest_of(file, "old", lambda: "old")

    def change(file):
        digest_of(file, "new" if int(file.name) % 2 else "old", lambda: "new", remembered=False)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, files))
    notes = json.loads((cache_folder() / "verified.json").read_text())
    assert {Path(path).name: mark[-1] for path, mark in notes.items()} == {str(n): "new" for n in range(1, 40, 2)}
    assert [each.name for each in cache_folder().iterdir()] == ["verified.json"]


def test_records_that_are_added_at_once_are_all_kept(record, clone):
    records = [dataclasses.replace(record, name=f"toy-vit.{number}") for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: add_record(each, clone / NAME), records))
    assert sorted(manifest(clone / NAME)) == sorted(each.name for each in records)


def test_download_reads_a_file_that_it_remembers(record, clone):
    weights.resolve(record)
    flip_unnoticed(file_of(record, clone))
    with pytest.raises(WeightsError, match="damaged"):
        weights.download(record)


def test_the_error_for_a_truncated_file_states_both_sizes(record, clone):
    path = file_of(record, clone)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=rf"{record.bytes - 100:,} bytes, not the {record.bytes:,}"):
        weights.resolve(record)


def count_hashes(monkeypatch):
    calls = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: calls.append(a) or real(*a))
    return calls


def test_a_whole_file_is_hashed_once(record, monkeypatch):
    calls = count_hashes(monkeypatch)
    for _ in range(3):
        weights.resolve(record)
    assert len(calls) == 1
    weights.verify(record)
    assert len(calls) == 2


def test_a_touched_or_replaced_file_is_hashed_again(record, clone, monkeypatch):
    weights.resolve(record)
    calls = count_hashes(monkeypatch)
    path = file_of(record, clone)
    os.utime(path, ns=(1, 1))
    weights.resolve(record)
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(1, 1))
    copy.replace(path)
    weights.resolve(record)
    assert len(calls) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b'{"a": "b"}', b"\xff\xfe"])
def test_damaged_notes_are_ignored(record, tmp_path, content):
    notes = tmp_path / "notes" / "verified.json"
    notes.parent.mkdir()
    notes.write_bytes(content)
    assert weights.resolve(record)
    assert json.loads(notes.read_text())


def test_a_cache_that_cannot_be_written_is_no_error(record, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "file" / "notes"))
    assert weights.resolve(record)


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "notes"
    monkeypatch.delenv("PARTZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "partzoo"


# tensors in files


def test_written_state_is_read_back_with_architecture_and_config(model, tmp_path):
    [path] = write_weights(tmp_path / "deep" / "a.safetensors", model.state_dict(), "toy-vit", model.config)
    state = read_state([path])
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert read_header(path) == ("toy-vit", json.loads(json.dumps(dataclasses.asdict(model.config))), [path])
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_matrices_are_stored_small_and_vectors_are_not(model, tmp_path):
    [path] = write_weights(tmp_path / "a.safetensors", model.state_dict(), "toy-vit", model.config, torch.bfloat16)
    kinds = {(value.ndim > 1, value.dtype) for value in read_state([path]).values()}
    assert kinds == {(True, torch.bfloat16), (False, torch.float32)}


def test_written_files_are_readable_by_whom_the_umask_lets(model, tmp_path):
    (tmp_path / "plain").touch()
    [path] = write_weights(tmp_path / "a.safetensors", {"w": torch.ones(2)}, "x", {})
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_shared_and_transposed_tensors_are_written(tmp_path):
    matrix = torch.arange(6.0).reshape(2, 3)
    state = {"a": matrix, "b": matrix, "c": matrix.T, "d": matrix[1]}
    [path] = write_weights(tmp_path / "a.safetensors", state, "x", {})
    assert all(torch.equal(value, state[name]) for name, value in read_state([path]).items())


def test_arrays_that_do_not_lie_in_order_are_written_as_they_read(tmp_path):
    array = np.arange(24.0).reshape(2, 3, 4)
    arrays = {"transposed": array.T, "fortran": np.asfortranarray(array), "stepped": array[:, ::2], "view": array[1]}
    save_tensors(tmp_path / "a.safetensors", {k: torch.from_numpy(v) for k, v in arrays.items()}, {"format": "x"})
    state = read_state([tmp_path / "a.safetensors"])
    assert all(np.array_equal(state[name], value) for name, value in arrays.items())
    metadata = read_metadata(tmp_path / "a.safetensors")
    assert metadata.keys() == {"format", DIGEST} and metadata["format"] == "x"


def test_small_files_are_read_into_memory(tmp_path):
    [path] = write_weights(tmp_path / "a.safetensors", {"w": torch.ones(1000)}, "x", {})
    state = read_state([path])
    with open(path, "r+b") as opened:  # as cp and rsync --inplace do it
        opened.write(bytes(path.stat().st_size))
        opened.truncate(100)
    assert torch.equal(state["w"], torch.ones(1000))


def test_large_files_are_mapped_and_changing_tensors_leaves_them_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_files, "SMALL", 100)
    [path] = write_weights(tmp_path / "a.safetensors", {"w": torch.ones(1000)}, "x", {})
    before = path.read_bytes()
    state = read_state([path])
    if Path("/proc/self/maps").exists():
        assert str(path) in Path("/proc/self/maps").read_text()
    state["w"].zero_()
    assert path.read_bytes() == before
    other = path.with_name("other")
    other.write_bytes(bytes(len(before)))
    other.replace(path)  # a rename leaves the mapped file alone
    assert torch.equal(state["w"], torch.zeros(1000))


def test_shards_come_with_the_standard_index_and_read_as_one(model, tmp_path):
    path = tmp_path / "model.safetensors"
    files = write_weights(path, model.state_dict(), "toy-vit", model.config, max_bytes=20_000)
    assert len(files) > 2 and files[-1].name == "model.safetensors.index.json" and not path.exists()
    assert all(file.stat().st_size < 25_000 for file in files)
    whole = read_state([files[-1]])
    assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())
    assert whole.keys() == read_state(files).keys() == read_state(files[:-1]).keys()
    write_weights(path, model.state_dict(), "toy-vit", model.config)
    assert path.exists() and not files[-1].exists()


def test_a_missing_shard_is_named(model, tmp_path):
    files = write_weights(tmp_path / "m.safetensors", model.state_dict(), "x", {}, max_bytes=20_000)
    files[1].unlink()
    with pytest.raises(WeightsError, match=f"no file .*{files[1].name}"):
        read_state([files[-1]])


def test_an_index_cannot_point_elsewhere(tmp_path):
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(WeightsError, match="not beside it"):
        read_state([index])
    for text in ("{}", '{"weight_map": {}}', '{"weight_map": {"a": []}}'):
        index.write_text(text)
        with pytest.raises(WeightsError, match="not an index"):
            read_state([index])


def test_shards_that_hold_the_same_tensor_are_refused(tmp_path):
    for name in ("a", "b"):
        write_weights(tmp_path / f"{name}.safetensors", {"w": torch.ones(2)}, "x", {})
    with pytest.raises(WeightsError, match="'w' again"):
        read_state([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0f" * 32 + b"\nsize 183554048\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: download it again"), (b"PK\x03\x04 a pickle", "is not a complete safetensors file"),
        (b"<html>not found</html>", "is a web page"), (b" <!DOCTYPE HTML>\n", "is a web page"),
        (POINTER, "is a pointer of Git LFS.*git lfs pull"), (b"\x10" + bytes(40), "is not a complete safetensors file"),
    ],
)  # fmt: skip
def test_what_is_not_a_safetensors_file_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"a\.safetensors {message}"):
        read_state([path])


def test_a_cut_safetensors_file_is_one_clear_error(model, tmp_path):
    [path] = write_weights(tmp_path / "a.safetensors", model.state_dict(), "toy-vit", model.config)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        partzoo.load(path)
    with pytest.raises(WeightsError, match="There is no file"):
        read_state([tmp_path / "absent.safetensors"])


def test_a_file_without_architecture_says_what_to_do(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="names no architecture"):
        partzoo.load(tmp_path / "a.safetensors")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_one_clear_error(tmp_path):
    tmp_path.chmod(stat.S_IREAD | stat.S_IEXEC)
    with pytest.raises(WeightsError, match="cannot be written"):
        write_weights(tmp_path / "a.safetensors", {"w": torch.ones(2)}, "x", {})


def test_a_file_in_the_way_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="cannot be written"):
        write_weights(tmp_path / "file" / "a.safetensors", {"w": torch.ones(2)}, "x", {})


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left")

    [path] = write_weights(tmp_path / "a.safetensors", {"w": torch.ones(2)}, "x", {})
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WeightsError, match="no space left"):
        write_weights(path, {"w": torch.zeros(2)}, "x", {})
    assert load_file(path)["w"].tolist() == [1, 1]
    assert list(tmp_path.iterdir()) == [path]


# into a model


def test_strict_loading_assigns_the_tensors_themselves(model):
    with torch.device("meta"):
        empty = find("toy-vit").build(model.config)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    load_strict(empty, state, "state")
    assert all(value.data_ptr() == state[name].data_ptr() for name, value in empty.state_dict().items())


def test_strict_loading_lists_every_kind_of_difference_at_once(model):
    state = dict(model.state_dict())
    names = list(state)
    lost = names[:7]
    for name in lost:
        del state[name]
    state["extra.weight"] = torch.ones(1)
    state[names[-1]] = torch.ones(3, 5)
    with pytest.raises(WeightsError) as caught:
        load_strict(model, state, "toy.safetensors")
    message = str(caught.value)
    assert message.startswith("toy.safetensors does not fit toy-vit")
    assert f"7 missing ({', '.join(lost[:5])}, ...)" in message
    assert "1 unexpected (extra.weight)" in message
    assert f"1 of another shape ({names[-1]} (3, 5) for " in message
    assert "\n" not in message


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_a_file_with_a_key_too_few_or_too_many_does_not_load(model, tmp_path, change):
    state = dict(model.state_dict())
    if change == "missing":
        del state[next(iter(state))]
    else:
        state["extra"] = torch.ones(1)
    [path] = write_weights(tmp_path / "a.safetensors", state, "toy-vit", model.config)
    with pytest.raises(WeightsError, match="1 missing" if change == "missing" else r"1 unexpected \(extra\)"):
        partzoo.load(path)


# packing


def test_golden_output_is_reproducible_and_distinguishes_other_weights(model):
    recorded = golden(model)
    assert recorded == golden(model)
    assert check_golden(model, json.loads(json.dumps(recorded))) < 1e-5
    with pytest.raises(WeightsError, match="golden output"):
        check_golden(toy(seed=2), recorded)


def test_golden_output_of_another_shape_is_reported(model):
    recorded = golden(model) | {"shape": [1, 2, 3]}
    with pytest.raises(WeightsError, match=r"not the recorded \(1, 2, 3\)"):
        check_golden(model, recorded)


@pytest.mark.parametrize("name", ["partformer-resnet18", "mpae-patchresnet14"])
def test_a_model_with_parts_of_each_class_is_packed_by_those_of_the_first(name, clone):
    entry = find(name)
    model = build(entry, entry.configure({"parts": 2, "classes": 3, "size": 64})).eval().requires_grad_(False)
    pack(f"{name}.test", model, root=clone)
    recorded = golden(model)
    x = golden_input(recorded["input"]["shape"])
    first, last = (model(x, torch.tensor([i])) for i in (0, 2))
    assert recorded["shape"] == list(first.shape) and check_golden(model, recorded) == 0
    assert recorded["values"][0] == pytest.approx(first.flatten()[0].item(), rel=1e-5)
    assert not torch.allclose(first, last)


def test_storage_precision_keeps_the_features(model):
    assert storage_dtype(model) == torch.bfloat16


class Steep(torch.nn.Module):
    """A model that amplifies the rounding of its weights, by a difference of nearly equal numbers."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(1e3 + torch.rand(8, 8, generator=generator), requires_grad=False)

    def forward(self, x):
        return x @ (self.weight - 1e3)


def test_storage_precision_is_float32_where_rounding_shows():
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    assert storage_dtype(Steep(), x) == torch.float32


class SteepParts(Steep):
    """A part model whose maps amplify the rounding of the weights, unlike its features and descriptors."""

    part_maps = Steep.forward

    def encode(self, x):
        return Tokens(x @ self.weight, x[:, :0], x.shape[1:2])

    def descriptors(self, x):
        return x[:, :2] @ self.weight


def test_storage_precision_of_a_part_model_is_that_of_its_features_and_descriptors():
    x = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(1))
    assert storage_dtype(Steep(), x) == torch.float32
    assert storage_dtype(SteepParts(), x) == torch.bfloat16


def test_packed_weights_resolve_and_load_and_are_what_the_model_now_has(clone):
    model = toy()
    files = pack("toy-vit.test", model, root=clone)
    assert [file.path for file in files] == ["checkpoints/toy-vit.test.safetensors"]
    record = record_of(model, files)
    loaded = partzoo.load(weights.resolve(record)[0], device="cpu", dtype="float32")
    assert check_golden(loaded, record.golden) == 0
    assert read_state([clone / files[0].path])["patch_embed.weight"].dtype == torch.bfloat16


def test_the_package_takes_no_more_than_25_megabytes(model, clone):
    folder = clone / "partzoo" / "weights"
    folder.mkdir(parents=True)
    with open(folder / "other.safetensors", "wb") as opened:
        opened.truncate(BUNDLE_BYTES)
    with pytest.raises(UsageError, match="bundled=False"):
        pack("toy-vit.test", model, bundled=True, root=clone)
    assert [path.name for path in folder.iterdir()] == ["other.safetensors"]
