"""Joining the features of many images: the files are those of libraries that hold everything, in the memory of one."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from partzoo import extract_features
from partzoo.cli.features import _join
from partzoo.weights.tensors import DIGEST, read_tensors, save_tensors


def stored(folder, count, side=5, dense=True):
    """Write what ``partzoo features`` stores of each image."""
    folder.mkdir(exist_ok=True)
    random, files = np.random.default_rng(0), []
    for number in range(count):
        arrays = {"pooled": random.random(7, np.float32), "size": np.array((30 + number, 40))}
        if dense:
            arrays["dense"] = random.random((side, side + number % 3, 7), np.float32)
        files.append(folder / f"{number}.part.npz")
        np.savez(files[-1], **arrays)
    return files, [f"in/{number}.png" for number in range(count)]


def together(files):
    arrays = {name: np.stack([np.load(file)[name] for file in files]) for name in ("pooled", "size")}
    dense = {f"dense.{row}": np.load(file)["dense"] for row, file in enumerate(files) if "dense" in np.load(file)}
    return dense | arrays


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("dense", [True, False])
def test_an_npz_is_byte_for_byte_that_of_numpy(tmp_path, dense, compress):
    files, names = stored(tmp_path, 12, dense=dense)
    assert _join(files, names, str(tmp_path / "out.npz"), compress=compress) == 7
    whole = io.BytesIO()
    save = np.savez_compressed if compress else np.savez
    save(whole, format=np.array(1), names=np.array(names), **together(files))
    assert (tmp_path / "out.npz").read_bytes() == whole.getvalue()


@pytest.mark.parametrize("dense", [True, False])
def test_safetensors_hold_what_save_tensors_writes(tmp_path, dense):
    files, names = stored(tmp_path, 12, dense=dense)
    out, whole = tmp_path / "out.safetensors", tmp_path / "whole.safetensors"
    assert _join(files, names, str(out)) == 7
    expected = {name: torch.from_numpy(values) for name, values in together(files).items()}
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    save_tensors(whole, expected, {key: text for key, text in metadata.items() if key != DIGEST})
    with safe_open(whole, "pt") as file:
        assert file.metadata() == metadata
    found = load_file(out)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    assert read_tensors(out)[0].keys() == found.keys()  # compares the digest


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_the_memory_is_that_of_one_image(tmp_path, ending):
    few, many = (stored(folder, count, 200) for folder, count in ((tmp_path / "few", 3), (tmp_path / "many", 12)))
    peaks = []
    for files, names in (few, many):
        tracemalloc.start()
        _join(files, names, str(tmp_path / f"out{ending}"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@pytest.fixture
def images(tmp_path):
    """A folder of three images."""
    folder, draw = tmp_path / "in", np.random.default_rng(0)
    folder.mkdir()
    for number in range(3):
        Image.fromarray(draw.integers(0, 256, (40, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", [None, "float32", "float16"])
def test_features_have_the_type_that_is_asked_for(images, tmp_path, ending, dtype):
    out = tmp_path / f"out{ending}"
    options = () if dtype is None else ("--dtype", dtype)
    assert partzoo("features", images, "--model", "toy-vit", "-o", out, *options).code == 0
    stored = dict(np.load(out)) if ending == ".npz" else {name: each.numpy() for name, each in load_file(out).items()}
    for number, expected in enumerate(extract_features(images, model="toy-vit")):
        pooled, dense = stored["pooled"][number], stored[f"dense.{number}"]
        assert pooled.dtype == dense.dtype == np.dtype(dtype or "float32")
        assert np.array_equal(dense, expected.dense.astype(dense.dtype))
        assert np.array_equal(pooled, expected.pooled.astype(pooled.dtype))


def test_features_are_compressed_if_that_is_asked_for(images, tmp_path):
    words = ("features", images, "--model", "toy-vit", "-o")
    for name, options in (("plain.npz", ()), ("small.npz", ("--compress",))):
        assert partzoo(*words, tmp_path / name, *options).code == 0
        with zipfile.ZipFile(tmp_path / name) as archive:
            kind = zipfile.ZIP_DEFLATED if options else zipfile.ZIP_STORED
            assert {member.compress_type for member in archive.infolist()} == {kind}
    plain, small = (np.load(tmp_path / name) for name in ("plain.npz", "small.npz"))
    assert sorted(plain) == sorted(small) and all(np.array_equal(plain[name], small[name]) for name in plain)
    ran = partzoo(*words, tmp_path / "x.safetensors", "--compress")
    assert ran.code == 2 and "--compress is for .npz files" in ran.err
    ran = partzoo(*words, tmp_path / "x", "--format", "parquet", "--compress")
    assert ran.code == 2 and "--compress True: it does not go with --format parquet" in ran.err


def test_another_type_is_another_setting(images, tmp_path, monkeypatch):
    words = ("features", images, "--model", "toy-vit", "-o", tmp_path / "out.npz")
    with monkeypatch.context() as patch:
        patch.setattr("partzoo.cli.features._join", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert partzoo(*words).code == 130
    ran = partzoo(*words, "--dtype", "float16", "--resume")
    assert ran.code == 2 and "dtype was float32, is float16" in ran.err
