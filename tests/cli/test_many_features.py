"""Joining the features of many images: the files are those of libraries that hold everything, in the memory of one."""

import io
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

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


@pytest.mark.parametrize("dense", [True, False])
def test_an_npz_is_byte_for_byte_that_of_numpy(tmp_path, dense):
    files, names = stored(tmp_path, 12, dense=dense)
    assert _join(files, names, str(tmp_path / "out.npz")) == 7
    whole = io.BytesIO()
    np.savez_compressed(whole, format=np.array(1), names=np.array(names), **together(files))
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
