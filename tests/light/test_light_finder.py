"""``partzoo discover`` without torch finds what it finds with torch."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import partzoo as command
from helpers.without_torch import without_torch
from PIL import Image

import partzoo
from partzoo.cli import finding
from partzoo.cli.finding import Run
from partzoo.discovery import kept as kept_outputs
from partzoo.discovery.kept import Kept
from partzoo.discovery.pipeline import divided, fitted, label_images
from partzoo.errors import UsageError, WeightsError
from partzoo.images.opening import open_image, open_images
from partzoo.light import finder as light
from partzoo.light import programs
from partzoo.light.finder import LightFinder
from partzoo.weights.manifest import BUNDLED, PACKAGE, manifest

pytest.importorskip("onnxruntime")

IMAGES = Path(__file__).parents[2] / "examples" / "images"
PHOTOGRAPHS = ("ibis.jpg", "cat.jpg", "astronaut.jpg")


@pytest.fixture(scope="module")
def finder() -> LightFinder:
    return LightFinder()


@pytest.mark.parametrize("name, k", [("ibis.jpg", "auto"), ("cat.jpg", 3), ("astronaut.jpg", 8)])
def test_a_single_image_has_the_parts_of_torch(finder, name, k):
    found = divided(finder, open_image(IMAGES / name), None, None, k, 0)
    expected = partzoo.discover_parts(IMAGES / name, k=k)
    assert found.k == expected.k and found.labels.dtype == expected.labels.dtype
    assert (found.labels == expected.labels).mean() >= 0.999
    assert found.quality == pytest.approx(expected.quality, abs=1e-4) and found.source == expected.source
    assert np.allclose(found.confidences, expected.confidences, atol=1e-3)
    assert np.allclose(found.descriptors, expected.descriptors, atol=1e-3)
    assert np.array_equal(found.image, expected.image)


def test_images_share_the_parts_of_torch(finder):
    images, _ = open_images([IMAGES / name for name in PHOTOGRAPHS])
    kept = Kept()
    vocabulary = fitted(finder, images, [6], [1], kept=kept)[6, 1]
    expected = partzoo.discover_parts([IMAGES / name for name in PHOTOGRAPHS], k=6, seed=1)
    for (_, parts), other in zip(
        label_images(finder, images, vocabulary, [None] * 3, kept=kept), expected, strict=True
    ):
        assert (parts.labels == other.labels).mean() >= 0.999


def test_a_vocabulary_serves_with_and_without_torch(finder, tmp_path):
    images, _ = open_images([IMAGES / name for name in PHOTOGRAPHS])
    vocabulary = fitted(finder, images, [4], [0])[4, 0]
    vocabulary.save(tmp_path / "four.safetensors")
    again = partzoo.PartVocabulary.load(tmp_path / "four.safetensors", arrays=True)
    assert isinstance(again.centres, np.ndarray) and np.array_equal(again.centres, vocabulary.centres)
    assert again.settings == vocabulary.settings == partzoo.fit_parts(IMAGES / "cat.jpg").settings
    with_torch = partzoo.discover_parts(IMAGES / "cat.jpg", vocabulary=tmp_path / "four.safetensors")
    image = open_image(IMAGES / "cat.jpg")
    assert (finder.label(image, finder.look(image), again).labels == with_torch.labels).mean() >= 0.999


def test_strips_are_labelled_as_the_whole(finder, monkeypatch):
    image = open_image(IMAGES / "ibis.jpg")
    whole = divided(finder, image, None, None, 5, 0)
    monkeypatch.setattr(light, "STRIP", 7 * 6 * image.size[1])
    assert np.array_equal(divided(finder, image, None, None, 5, 0).labels, whole.labels)


@pytest.mark.parametrize("size", [(1, 1), (2, 400), (90, 70)])
def test_blank_images_have_no_parts(finder, size):
    found = divided(finder, open_image(np.full((*size, 3), 90, np.uint8)), None, None, 1, 0)
    assert found.k == 0 and not found.labels.any() and found.quality == 0


def test_too_many_parts_are_refused_as_with_torch(finder):
    image = np.full((2, 3, 3), 90, np.uint8)
    with pytest.raises(UsageError) as expected:
        partzoo.discover_parts(image, k=7)
    with pytest.raises(UsageError) as raised:
        divided(finder, open_image(image), None, None, 7, 0)
    assert str(raised.value) == str(expected.value)


def test_a_mask_needs_torch(finder):
    image = open_image(IMAGES / "cat.jpg")
    with pytest.raises(UsageError, match="A mask needs torch"):
        divided(finder, image, None, np.ones(image.size, np.int64), 3, 0)


@pytest.mark.parametrize("out, arguments", [("cat.png", ("cat.jpg",)), ("cat.npz", ("cat.jpg", "-k", "4"))])
def test_the_command_does_without_torch(tmp_path, out, arguments):
    file, *others = arguments
    without_torch("discover", IMAGES / file, *others, "-o", tmp_path / out)
    assert (tmp_path / out).stat().st_size


def test_a_folder_does_without_torch_and_is_resumed(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in PHOTOGRAPHS:
        Image.open(IMAGES / name).resize((120, 96)).save(folder / name)
    arguments = ("discover", folder, "-k", 3, "-o", tmp_path / "out", "--format", ".index.png")
    without_torch(*arguments, "--save-vocabulary", tmp_path / "three.safetensors")
    first = {file.name: file.read_bytes() for file in (tmp_path / "out").glob("*.index.png")}
    assert len(first) == 3
    without_torch(*arguments, "--save-vocabulary", tmp_path / "three.safetensors")
    assert first == {file.name: file.read_bytes() for file in (tmp_path / "out").glob("*.index.png")}
    assert partzoo.PartVocabulary.load(tmp_path / "three.safetensors").k == 3


def test_engines_may_be_chosen(tmp_path):
    files = {engine: tmp_path / f"{engine}.npz" for engine in ("torch", "onnxruntime")}
    for engine, file in files.items():
        assert not command("discover", IMAGES / "cat.jpg", "-k", "3", "-o", file, "--engine", engine).code
    first, second = map(partzoo.Parts.load, files.values())
    assert (first.labels == second.labels).mean() >= 0.999


PLAIN = {"model": None, "background": "auto", "size": None, "refine": True, "device": None}


@pytest.mark.parametrize(
    "change",
    [
        {"model": "toy-vit"}, {"background": "none"}, {"size": 300}, {"refine": False}, {"device": "cuda"},
        {"vocabulary": "x.safetensors"}, {"mask": "x.png"}, {"category": 1},
    ],
)  # fmt: skip
@pytest.mark.parametrize("engine", ["auto", "onnxruntime"])
def test_only_the_default_model_and_settings_do_without_torch(engine, change):
    def is_light(vocabulary=None, mask=None, category=None, **options):
        run = Run(None, True, mask, category, PLAIN | options, None, engine=engine)
        return finding.is_light(run, vocabulary)

    assert is_light() and not is_light(**change)


@pytest.mark.parametrize("kind", ["shaped", "taught"])
def test_auto_leaves_shaped_and_taught_vocabularies_to_torch(kind, tmp_path):
    image, file = IMAGES / "cat.jpg", tmp_path / "words.safetensors"
    if kind == "shaped":
        words = partzoo.fit_parts(image, k=5).join([1, 3], name="head").drop(2)
    else:
        height, width = open_image(image).size
        labels = np.zeros((height, width), np.uint8)
        labels[: height // 2, width // 4 : width // 2], labels[height // 2 :, : width // 2] = 1, 2
        words = partzoo.fit_parts(image, labels=labels, names=["head", "legs"])
    words.save(file)
    assert command("discover", image, "--vocabulary", file, "-o", tmp_path / "cat.npz").code == 0
    found = partzoo.Parts.load(tmp_path / "cat.npz")
    expected = partzoo.discover_parts(image, vocabulary=words)
    assert np.array_equal(found.labels, expected.labels) and found.names == words.names == expected.names


def test_the_programs_are_those_recorded_and_made_from_the_released_weights():
    record = json.loads((PACKAGE / BUNDLED / programs.RECORD).read_text())
    assert set(record) == {"descriptors", "labels"}
    for name, each in record.items():
        content = (PACKAGE / BUNDLED / f"{name}.onnx").read_bytes()
        assert each["sha256"] == hashlib.sha256(content).hexdigest() and each["bytes"] == len(content) < 1_000_000
    models = json.loads(programs.Program("descriptors", keep=False).metadata["models"])
    assert [each["name"] for each in models] == record["descriptors"]["weights"]
    for each in models:
        assert each["sha256"] == [file.sha256 for file in manifest()[each["name"]].files]


def test_a_damaged_program_is_refused(tmp_path, monkeypatch):
    (tmp_path / BUNDLED).mkdir()
    for name in (programs.RECORD, "labels.onnx"):
        (tmp_path / BUNDLED / name).write_bytes((PACKAGE / BUNDLED / name).read_bytes())
    monkeypatch.setattr(programs, "PACKAGE", tmp_path)
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "first"))
    programs.Program("labels", keep=False)
    with (tmp_path / BUNDLED / "labels.onnx").open("ab") as file:
        file.write(b"0")
    programs.Program("labels", keep=False)  # as it was kept
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "second"))
    with pytest.raises(WeightsError, match="is damaged: install partzoo again"):
        programs.Program("labels", keep=False)


def test_what_is_kept_of_a_program_gives_the_same_and_is_written_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path))
    image = open_image(IMAGES / "cat.jpg")
    expected = divided(LightFinder(), image, None, None, 4, 0)
    kept = sorted((tmp_path / "programs").iterdir())
    assert [file.suffix for file in kept] == [".bin", ".onnx", ".onnx"]  # the weights are apart
    assert divided(LightFinder(), image, None, None, 4, 0) == expected
    for file in kept:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        assert divided(LightFinder(), image, None, None, 4, 0) == expected
        assert file.stat().st_size == len(content)


def test_programs_run_where_nothing_can_be_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "file"))
    assert divided(LightFinder(), open_image(IMAGES / "cat.jpg"), None, None, 4, 0).k == 4


def test_several_threads_find_what_one_finds_and_what_is_kept_changes_nothing(finder, monkeypatch):
    images, _ = open_images([IMAGES / name for name in PHOTOGRAPHS] * 2)
    vocabulary = fitted(finder, images, [6], [0])[6, 0]
    expected = [parts for _, parts in label_images(finder, images, vocabulary, [None] * 6)]
    for threads, room in ((1, 2**27), (3, 2**27), (3, 0)):
        monkeypatch.setattr(LightFinder, "threads", threads)
        monkeypatch.setattr(kept_outputs, "KEPT_BYTES", room)
        kept = Kept()
        again = fitted(finder, images, [6], [0], kept=kept)[6, 0]
        assert np.array_equal(again.centres, vocabulary.centres)
        with monkeypatch.context() as patch:
            patch.setattr(finder, "_describe", None)  # the networks do not run again
            found = [parts for _, parts in label_images(finder, images, again, [None] * 6, kept=kept)]
        for one, other in zip(found, expected, strict=True):
            assert one == other and np.array_equal(one.confidences, other.confidences)
            assert one.quality == other.quality
