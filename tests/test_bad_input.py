"""Every bad input through the command line: one sentence, exit code 1 or 2, no traceback."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import Ran, partzoo
from helpers.weight_records import describe, record_of, toy
from PIL import Image
from safetensors.torch import load_file

from partzoo.weights import manifest
from partzoo.weights.tensors import write_weights

CAT = Path(__file__).parents[1] / "examples" / "images" / "cat.jpg"
TOY = ("--model", "toy-vit")
WEIGHTS = "part-vitt8.test"


def failed(ran: Ran, code: int, *words: str) -> None:
    """Check that the command printed one sentence with these words, and exited with this code."""
    assert ran.code == code, ran
    assert ran.err.startswith("Error: ") and ran.err.count("\n") == 1, ran.err
    assert "Traceback" not in ran.err and "Unexpected error" not in ran.err
    for word in words:
        assert word in ran.err


@pytest.fixture(autouse=True)
def own_notes(tmp_path, monkeypatch):
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "notes"))


@pytest.mark.parametrize("command", ["discover", "features"])
def test_a_missing_image(command, tmp_path):
    failed(
        partzoo(command, tmp_path / "heron.jpg", *TOY, "-o", tmp_path / "out.npz"),
        1,
        "No such file",
        "heron.jpg",
    )


@pytest.mark.parametrize(
    "content", [b"no image at all\n", b"", CAT.read_bytes()[:2000]], ids=["text", "zero bytes", "truncated"]
)
@pytest.mark.parametrize("command", ["discover", "features"])
def test_a_damaged_image(command, content, tmp_path):
    path = tmp_path / "heron.jpg"
    path.write_bytes(content)
    failed(partzoo(command, path, *TOY, "-o", tmp_path / "out.npz"), 1, "heron.jpg")
    assert not (tmp_path / "out.npz").exists()


def test_an_image_of_nan(tmp_path):
    Image.fromarray(np.full((20, 30), np.nan, np.float32)).save(tmp_path / "heron.tiff")
    failed(partzoo("discover", tmp_path / "heron.tiff", *TOY), 1, "heron.tiff")


def test_a_folder_without_images(tmp_path):
    failed(partzoo("discover", tmp_path, *TOY), 1, "No images in")


@pytest.mark.parametrize("k", [0, -3, "many", 1.5])
def test_a_k_that_is_none(k):
    failed(partzoo("discover", CAT, *TOY, "-k", k), 2, str(k))


def test_more_parts_than_pixels(tmp_path):
    Image.new("RGB", (2, 2), "red").save(tmp_path / "dot.png")
    failed(partzoo("discover", tmp_path / "dot.png", *TOY, "-k", 9), 2, "-k 9", "4 pixels")


@pytest.mark.parametrize("command", [("discover", CAT, "--model"), ("info",), ("download",), ("verify",)])
def test_an_unknown_model_names_the_closest(command):
    failed(partzoo(*command, "part-vitt9"), 2, "'part-vitt9'", "Did you mean", "'part-vitt8'")


def test_an_unknown_tag_names_those_there_are():
    failed(partzoo("info", "part-vits4.nowhere"), 2, "'nowhere'")


@pytest.mark.parametrize(
    ("option", "value", "code", "word"),
    [
        ("--background", "sky", 2, "'sky'"),
        ("--size", 0, 2, "--size 0"),
        ("--size", "big", 2, "--size"),
        ("--vocabulary", "none.safetensors", 1, "none.safetensors"),
        ("--colour", "red", 2, "--colour"),
    ],
)
def test_a_bad_option_of_discover(option, value, code, word):
    failed(partzoo("discover", CAT, *TOY, option, value), code, word)


def test_an_output_without_a_form(tmp_path):
    failed(partzoo("discover", CAT, *TOY, "-o", tmp_path / "parts.bmp"), 2, "parts.bmp", ".index.png")
    failed(partzoo("features", CAT, *TOY, "-o", tmp_path / "f.txt"), 2, "f.txt", ".safetensors")


@pytest.mark.parametrize("command", ["discover", "features"])
def test_an_output_in_a_folder_that_is_not_there(command, tmp_path):
    failed(partzoo(command, CAT, *TOY, "-o", tmp_path / "nowhere" / "out.npz"), 1, "nowhere")


def test_an_output_that_cannot_be_written(tmp_path):
    if not Path("/proc/self").exists():
        pytest.skip("needs a folder in which not even root can write")
    failed(partzoo("discover", CAT, *TOY, "-o", "/proc/out.npz"), 1, "/proc/out.npz")


def test_one_output_file_for_several_images(tmp_path):
    failed(partzoo("discover", CAT, CAT, *TOY, "-o", tmp_path / "out.png"), 2, "2 images", "folder")


def test_a_missing_extra_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    ran = partzoo("discover", CAT, *TOY, "-o", tmp_path / "parts.json")
    failed(ran, 1, 'pip install "partzoo[coco]"')
    monkeypatch.setitem(sys.modules, "accelerate", None)
    ran = partzoo("train", "part", "--data", CAT.parent, "--steps", 1, "-o", tmp_path / "run")
    failed(ran, 1, 'pip install "partzoo[train]"')


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "--data"),
        (("--data", "x"), "--release"),
        (("fly", "--data", "x", "--steps", 1), "'fly'"),
        (("part", "--data", "x", "--steps", 0), "--steps"),
        (("part", "--data", "x", "--steps", 1, "--minutes", 1), "--minutes"),
        (("--release", "part-vitt8.moon", "--data", "x"), "'part-vitt8.moon'"),
        (("--release", "part-vitt8.tin", "--data", "x", "--lr", 1), "--lr"),
    ],
)
def test_a_training_that_cannot_begin(arguments, word, tmp_path):
    failed(partzoo("train", *arguments, "-o", tmp_path / "run"), 2, word)


@pytest.mark.parametrize(("arguments", "word"), [(("walk",), "'walk'"), (("--repetitions", 0), "repetitions")])
def test_a_bench_that_cannot_begin(arguments, word):
    failed(partzoo("bench", *arguments), 2, word)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The file of recorded weights, in a clone in which the test runs."""
    model = toy()
    path = tmp_path / "checkpoints" / f"{WEIGHTS}.safetensors"
    write_weights(path, model.state_dict(), "part-vitt8", model.config)
    record = record_of(model, (describe(path),), name=WEIGHTS, architecture="part-vitt8")
    file = tmp_path / manifest.NAME
    file.write_text(json.dumps({"format": manifest.FORMAT, "weights": []}))
    manifest.add_record(record, file)
    monkeypatch.setattr(manifest, "_default", lambda: file)
    monkeypatch.chdir(tmp_path)
    return path


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "one flipped bit":
        data[-5] ^= 1
    path.write_bytes(data[:-100] if how == "truncated" else data)


def test_whole_weights_pass(weights):
    assert partzoo("verify", WEIGHTS).code == 0
    assert partzoo("discover", CAT, "--model", WEIGHTS, "-k", 2).code == 0


@pytest.mark.parametrize("how", ["one flipped bit", "truncated"])
def test_damaged_weights(how, weights):
    damage(weights, how)
    failed(partzoo("discover", CAT, "--model", WEIGHTS), 1, WEIGHTS)
    failed(partzoo("verify", WEIGHTS), 1, WEIGHTS)
    failed(partzoo("verify"), 1, WEIGHTS)
    failed(partzoo("download", WEIGHTS), 1, WEIGHTS)


@pytest.mark.parametrize("change", ["a missing key", "an extra key"])
def test_weights_of_another_shape(change, weights, tmp_path):
    state = load_file(weights)
    name = next(iter(state))
    if change == "an extra key":
        state["feathers"] = state[name]
        name = "feathers"
    else:
        del state[name]
    path = tmp_path / "other.safetensors"
    write_weights(path, state, "part-vitt8", toy().config)
    assert hashlib.sha256(path.read_bytes()).digest() != hashlib.sha256(weights.read_bytes()).digest()
    failed(partzoo("discover", CAT, "--model", path), 1, "other.safetensors", name)


def test_weights_that_are_not_here(weights):
    weights.unlink()
    failed(partzoo("discover", CAT, "--model", WEIGHTS), 1, WEIGHTS)
    assert partzoo("verify", WEIGHTS).code == 1


def test_debug_shows_the_traceback(tmp_path):
    ran = partzoo("discover", tmp_path / "heron.jpg", "--debug")
    assert ran.code == 1 and "Traceback" in ran.err and ran.err.splitlines()[-1].startswith("Error: No such file")


def test_a_bug_is_one_sentence_too(monkeypatch):
    def fall(*_, **__):
        raise RuntimeError("out of feathers\nmore")

    monkeypatch.setattr("partzoo.discovery.pipeline.divided", fall)
    ran = partzoo("discover", CAT, *TOY)
    assert ran.code == 1 and ran.err.count("\n") == 1
    assert "out of feathers" in ran.err and "--debug" in ran.err


def test_a_separate_process_ends_in_the_same_way(tmp_path):
    command = [sys.executable, "-m", "partzoo", "discover", str(tmp_path / "heron.jpg")]
    ran = subprocess.run(command, capture_output=True, text=True)
    failed(Ran(ran.returncode, ran.stdout, ran.stderr), 1, "heron.jpg")
