"""One flipped bit in any file of tensors that partzoo writes is refused, and never read as another model."""

import json
import os
import re

import numpy as np
import pytest
import safetensors
import torch
from helpers.command_line import partzoo as command
from helpers.weight_records import describe, record_of, toy
from PIL import Image
from safetensors.torch import save_file

import partzoo
from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import PartzooError, WeightsError
from partzoo.models.sharing import save_pretrained
from partzoo.parts.parts import Parts
from partzoo.weights import checked, store, tensors
from partzoo.weights.manifest import NAME
from partzoo.weights.release_files import pack
from partzoo.weights.tensors import read_metadata, read_state, read_tensors, save_tensors, write_weights


@pytest.fixture(autouse=True)
def own_notes(tmp_path, monkeypatch):
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "notes"))


@pytest.fixture(scope="module")
def model():
    return toy()


def flip(path, at=-5, *, unnoticed=False):
    """Flip one bit, with ``unnoticed`` as a decaying disk does: size, time and inode stay."""
    found = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    if unnoticed:
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def refused(read):
    """Return the one sentence with which a reader refuses a file."""
    with pytest.raises(PartzooError) as caught:
        read()
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


def load(name, **options):
    return partzoo.load(name, device="cpu", dtype="float32", **options)


def test_every_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}, {"config": '{"dim": 64}'})
    whole, about = read_tensors(path)
    data = path.read_bytes()
    harmless = 0
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            found, metadata = read_tensors(path)
        except WeightsError:
            continue
        harmless += 1
        assert found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)
        assert metadata["config"] == about["config"]
    # The name of the digest and the header's padding.
    assert harmless <= 8 * (len(tensors.DIGEST) + 8)


def test_files_folders_and_shards(model, tmp_path, monkeypatch):
    [file] = write_weights(tmp_path / "a.safetensors", model.state_dict(), "toy-vit", model.config)
    whole = save_pretrained(model, tmp_path / "whole")
    monkeypatch.setattr("partzoo.models.sharing.SHARD_BYTES", 20_000)
    sharded = save_pretrained(model, tmp_path / "sharded")
    for name, damaged in (
        (file, file),
        (whole, whole / "model.safetensors"),
        (f"local-dir:{sharded}", sorted(sharded.glob("*.safetensors"))[1]),
    ):
        load(name)
        flip(damaged)
        assert re.search(
            f"{damaged} is damaged: the sha256 .*: download it again", refused(lambda name=name: load(name))
        )
        load(name, verify=False)


def test_verify_reads_files_folders_and_shards_of_ones_own(model, tmp_path, monkeypatch):
    [file] = write_weights(tmp_path / "a.safetensors", model.state_dict(), "toy-vit", model.config)
    monkeypatch.setattr("partzoo.models.sharing.SHARD_BYTES", 20_000)
    sharded = save_pretrained(model, tmp_path / "sharded")
    shards = sorted(sharded.glob("*.safetensors"))
    monkeypatch.chdir(tmp_path)
    places = ("a.safetensors", file, "sharded", f"local-dir:{sharded}/", sharded / "model.safetensors.index.json")
    ran = command("verify", *places, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert [each["state"] for each in found] == ["ok"] * (2 + 3 * len(shards))
    assert found[2]["path"] == str(shards[0].relative_to(tmp_path)) and found[2]["file"] == shards[0].name
    for damaged in (file, shards[1]):
        load(file if damaged == file else sharded)
        flip(damaged, unnoticed=True)
        ran = command("verify", *places)
        assert ran.code == 1 and f"{damaged.name} is damaged: the sha256 of its content is" in ran.err
        assert "or run 'partzoo verify'" not in ran.err


def test_verify_of_what_has_no_digest_or_is_no_file_of_tensors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file({"w": torch.ones(3)}, tmp_path / "theirs.safetensors")
    ran = command("verify", "theirs.safetensors")
    assert ran.code == 1 and "no digest" in ran.out and "has no digest in its header" in ran.err
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "theirs.safetensors").read_bytes()[:-1])
    assert "cut.safetensors is not a complete safetensors file" in command("verify", "cut.safetensors").err
    (tmp_path / "empty").mkdir()
    ran = command("verify", "empty", "theirs.safetensors", "absent.safetensors")  # goes on after each
    assert ran.code == 1 and "no digest" in ran.out
    assert "empty holds no" in ran.err and "There is no file absent" in ran.err
    for name, code, sentence in (
        ("absent.safetensors", 1, "There is no file absent.safetensors"),
        ("empty", 1, "empty holds no safetensors files"),
        ("no-such-model", 2, "Unknown model 'no-such-model'"),
    ):
        ran = command("verify", name)
        assert ran.code == code and sentence in ran.err, ran


def test_released_weights(model, tmp_path, monkeypatch):
    (tmp_path / NAME).write_text('{"format": 1, "weights": []}')
    monkeypatch.chdir(tmp_path)
    files = pack("toy-vit.test", toy(), dtype=torch.float32, root=tmp_path)
    record, path = record_of(model, files), tmp_path / files[0].path
    assert files == (describe(path),) and read_metadata(path)[tensors.DIGEST]
    read_state(store.resolve(record))
    flip(path, unnoticed=True)
    # The record's sha256 was compared before, and nothing but the bit has changed since.
    assert "is damaged" in refused(lambda: read_state(store.resolve(record)))
    assert "set PARTZOO_CHECKPOINTS" in refused(lambda: store.download(record))
    assert "set PARTZOO_CHECKPOINTS" in refused(lambda: store.resolve(record))


def test_vocabularies(tmp_path):
    path = tmp_path / "v.safetensors"
    PartVocabulary(torch.eye(3), Settings("toy-vit", 64, (-1,), (0.8, 0.1, 0.1))).save(path)
    PartVocabulary.load(path)
    flip(path)
    assert refused(lambda: PartVocabulary.load(path)).endswith("in its header: save the vocabulary again.")


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_features(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    out = tmp_path / f"f{ending}"
    ran = command("features", tmp_path / "a.png", "--model", "toy-vit", "-o", out)
    assert ran.code == 0, ran.err
    if ending == ".npz":  # a zip file has a CRC-32 of each array
        with np.load(out) as arrays:
            assert all(np.isfinite(arrays[name]).all() for name in ("pooled", "dense.0"))
        flip(out, out.stat().st_size // 2)
        with np.load(out) as arrays, pytest.raises(Exception, match=r"CRC|decompress"):
            [arrays[name] for name in arrays.files]
        return
    assert read_tensors(out)[0]["pooled"].isfinite().all()
    flip(out)
    assert "is damaged" in refused(lambda: read_tensors(out))


def test_parts(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (40, 40))
    path = tmp_path / "p.npz"
    Parts(labels, k=2).save(path)
    flip(path, path.stat().st_size // 2)
    refused(lambda: Parts.load(path))


def test_files_without_a_digest_load(model, tmp_path):
    path = save_pretrained(model, tmp_path / "folder") / "model.safetensors"
    header = {key: value for key, value in read_metadata(path).items() if key != tensors.DIGEST}
    for metadata in (header, None):  # an older partzoo's, and someone else's
        save_file(model.state_dict(), path, metadata)
        state = load(tmp_path / "folder").state_dict()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_header_and_a_configuration_that_disagree_are_refused(model, tmp_path):
    folder = save_pretrained(model, tmp_path / "folder")
    content = json.loads((folder / "config.json").read_text())
    name, value = next((name, value) for name, value in content["config"].items() if isinstance(value, int))
    content["config"][name] = value + 1
    (folder / "config.json").write_text(json.dumps(content))
    sentence = refused(lambda: load(folder))
    assert re.search(f"disagree: {name} is {value} in one and {value + 1} in the other", sentence)


def test_a_large_file_is_compared_once_and_again_after_a_change(tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "SMALL", 100)
    [path] = write_weights(tmp_path / "a.safetensors", {"w": torch.ones(1000)}, "x", {})
    calls, digest = [], tensors.digest
    monkeypatch.setattr(tensors, "digest", lambda *a: calls.append(a) or digest(*a))
    for _ in range(3):
        read_tensors(path)
    assert len(calls) == 1
    flip(path)
    refused(lambda: read_tensors(path))
    refused(lambda: read_tensors(path))
    assert str(path) not in (checked.cache_folder() / "verified.json").read_text()


def test_a_file_that_a_writer_replaces_while_it_is_opened_is_opened_again(tmp_path, monkeypatch):
    file, newer = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_tensors(file, {"x": torch.zeros(4)}, {})
    save_tensors(newer, {"x": torch.ones(4)}, {})
    open_once = safetensors.safe_open

    def opened(path, framework):
        found = open_once(path, framework=framework)
        if newer.exists():
            newer.replace(path)
        return found

    monkeypatch.setattr(safetensors, "safe_open", opened)
    found, _ = read_tensors(file)
    assert found["x"].eq(1).all()
