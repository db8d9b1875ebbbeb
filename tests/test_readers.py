"""Every reader turns whatever goes wrong into one error of ours, on one line, with the file's name and the cause."""

import csv
import json
import mmap
import pickle
import random
import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from faults.mutations import FORMS, mutate
from faults.seeds import KINDS, Kind, _marks
from helpers.command_line import partzoo as command
from PIL import Image

import partzoo
from partzoo.cli.journal import FORMAT, Journal
from partzoo.cli.part_files import Output
from partzoo.data.folders import load_images
from partzoo.errors import ImageError, PartzooError, TooLargeError, UsageError, cause_of, one_line, restated
from partzoo.evaluate.run import _known
from partzoo.files import reading
from partzoo.images.opening import open_image, open_images
from partzoo.skipping import named
from partzoo.train import few_labels
from partzoo.train.loop import _progress
from partzoo.train.run import _name_changes
from partzoo.train.windows import prepared
from partzoo.weights.tensors import save_tensors

HOSTILE = "a\nb\x1b[2J\u202egnp"
DAMAGES = {
    "empty": lambda data: b"",
    "a web page": lambda data: b"<!doctype html><html></html>",
    "half": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "its last quarter replaced": lambda data: data[: len(data) * 3 // 4] + b"\xff" * (len(data) // 4),
    "twice": lambda data: data + data,
    "brackets": lambda data: b"[" * 20_000,
    "text that is not UTF-8": lambda data: b"\xff\xfe\xfa" + data,
}
# Names of classes are optional, and without these files of a run a new one begins.
ABSENT_IS_VALID = {
    "yolo: list of names",
    "yolo: numbered names",
    "log of a run",
    "sleep stages",
    "settings of an experiment",
}
ZEROS_ARE_VALID = ("stl-10: test_X.bin", "annotations of wfdb", "night: stages")


def written(name: str, content: str):
    def build(folder):
        (folder / name).write_text(content)
        return folder / name

    return build


def checkpoint(folder):
    about = {"partzoo_format": "1", "progress": '{"step": 3, "images": 24, "seconds": 1.5, "loss": NaN}'}
    save_tensors(folder / "checkpoint.safetensors", {"task.x": torch.zeros(2)}, about)
    return folder / "checkpoint.safetensors"


def of_experiment(columns, row):
    return written("table.csv", f"{','.join(columns)}\n{row}\n")


def part(folder):
    partzoo.Parts(np.ones((8, 8), int), k=1).save(folder / "part.json")
    return folder / "part.json"


def join(file):
    Output(file.with_name("all.json"), (file,), together=True).join([0])


RECIPE = 'method = "part"\narchitecture = "x"\nsteps = 1\n'
RECORD = '{"format": 1, "model": "m", "setting": "", "protocol": "p", "split": "s", "runs": []}'
# The files of runs, which only partzoo itself reads.
OWN = [
    Kind("checkpoint", "", checkpoint, _progress),
    Kind("recipe", "", written("recipe.toml", RECIPE), lambda file: _name_changes(file, RECIPE)),
    Kind("evaluation", "", written("record.json", RECORD), lambda file: _known(file, {})),
    Kind("few labels", "", of_experiment(few_labels.FIELDS, "part,1,0,50.0,100,10"), few_labels._read),
    Kind("parts of one image", "", part, join),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_whole_file_is_read_and_a_damaged_one_is_one_sentence(kind, tmp_path, capfd, recwarn):
    file = kind.build(tmp_path)
    whole = file.read_bytes()
    kind.read(file)
    for damage in DAMAGES.values():
        file.write_bytes(damage(whole))
        try:
            kind.read(file)  # damage of what is not read, or that a format allows, is no error
        except PartzooError as error:
            assert str(tmp_path) in str(error) or kind.name.endswith("of a journal")
            assert str(error).isprintable()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "journal" not in kind.name], ids=lambda kind: kind.name)
def test_a_missing_file_and_one_of_zeros_are_errors(kind, tmp_path):
    file = kind.build(tmp_path)
    if kind.name not in ZEROS_ARE_VALID:
        file.write_bytes(bytes(file.stat().st_size))
        with pytest.raises(PartzooError):
            kind.read(file)
    file.unlink()
    if kind.name not in ABSENT_IS_VALID:
        with pytest.raises(PartzooError):
            kind.read(file)


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.name)
@pytest.mark.parametrize("damage", ["brackets", "text that is not UTF-8", "a word"])
def test_damaged_files_of_a_run_are_one_sentence(kind, damage, tmp_path):
    (tmp_path / "whole").mkdir()
    kind.read(kind.build(tmp_path / "whole"))
    file = kind.build(tmp_path)
    if damage == "a word":
        file.write_bytes(file.read_bytes().replace(b"1", b"x").replace(b"}", b"x"))
    else:
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(PartzooError, match=str(tmp_path)):
        kind.read(file)


def test_types_of_a_checkpoint_s_progress_are_checked(tmp_path):
    for values in ('{"step": "3"}', '{"step": 1.5}', '{"finished": 1}', "[]", '{"wings": 2}'):
        about = {"partzoo_format": "1", "progress": values}
        save_tensors(tmp_path / "c.safetensors", {"task.x": torch.zeros(2)}, about)
        with pytest.raises(PartzooError, match=r"c\.safetensors is damaged .* resume=False"):
            _progress(tmp_path / "c.safetensors")


def test_a_damaged_recording_in_the_cache_is_prepared_again(tmp_path):
    (tmp_path / "a.edf").write_bytes(b"a")
    read = []

    def arrays(file):
        read.append(file)
        return (np.arange(6.0),)

    for damage in (lambda data: data, lambda data: data[:20], lambda data: b"", lambda data: data):
        found = prepared([tmp_path / "a.edf"], arrays, "key", tmp_path / "cache", progress=False)
        assert found[tmp_path / "a.edf"][0].tolist() == list(range(6))
        (kept,) = (tmp_path / "cache").glob("*.npy")
        del found
        kept.write_bytes(damage(kept.read_bytes()))
    assert len(read) == 3


# sentences


class Odd(Exception):
    pass


@pytest.mark.parametrize(
    "error, cause",
    [
        (KeyError("labels"), "'labels' is missing"),
        (MemoryError(), "it needs more memory than there is"),
        (EOFError(), "EOFError"),
        (ValueError("two\n  lines."), "two lines"),
        (OSError(5, "Input/output error", "x"), "Input/output error"),
        (Odd("x" * 5000), "x" * 200 + "..."),
        (UsageError("k=0 must be at least 1. " * 20), ("k=0 must be at least 1. " * 20).strip(". ")),
        (ValueError("pass allow_pickle=True"), "it holds pickled objects, which are never loaded"),
    ],
)
def test_a_cause_is_a_few_words(error, cause):
    assert cause_of(error) == cause


def test_any_error_becomes_ours_but_an_interruption_does_not(tmp_path):
    file = tmp_path / "a.x"
    file.write_bytes(b"content")
    for error in (Odd("x"), RecursionError(), MemoryError(), EOFError("no data"), UsageError("a value is odd")):
        with pytest.raises(ImageError, match=r"a\.x is damaged \(.+\): download it again\.$") as raised, \
                reading(file, ImageError):  # fmt: skip
            raise error
        assert raised.value.__cause__ is error
    for error in (KeyboardInterrupt(), SystemExit(3), TooLargeError(f"{file} is large", "max_pixels")):
        with pytest.raises(type(error)) as raised, reading(file):
            raise error
        assert raised.value is error
    with pytest.raises(PartzooError, match=r"No such file: .*b\.x"), reading(tmp_path / "b.x"):
        pass
    with pytest.raises(PartzooError, match="Is a directory"), reading(tmp_path):
        tmp_path.open()


def test_a_message_is_one_line_whatever_a_name_or_a_library_says(tmp_path):
    file = tmp_path / HOSTILE
    file.write_bytes(b"no image")
    for call in (lambda: open_image(file), lambda: open_image(tmp_path / f"{HOSTILE}2")):
        with pytest.raises(ImageError) as raised:
            call()
        assert str(raised.value).isprintable() and r"a\nb\x1b[2J\u202egnp" in str(raised.value)
    with pytest.raises(PartzooError) as raised, restated("name", lambda error: PartzooError(f"name: {error}")):
        raise Odd("two\nlines\x07")
    assert str(raised.value) == r"name: two\nlines\x07"
    assert one_line("Straße 木 1/2") == "Straße 木 1/2"
    assert named(HOSTILE, str(PartzooError(f"{HOSTILE} is damaged."))) == r"a\nb\x1b[2J\u202egnp is damaged."


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Images under names that are hard to show or to write, and a folder that is named like a user."""
    folder = tmp_path / "images"
    for name in (f"{HOSTILE}.png", "b" * 245 + ".png", "c" * 251 + ".png", "~1.png", "~root/x.png", "~/y.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(folder / name)
    (folder / f"{HOSTILE}2.png").write_bytes(b"no image")
    monkeypatch.chdir(folder)
    return folder


def test_files_that_are_listed_are_not_in_a_home_folder(images):
    for source in (".", "**/*.png"):
        opened = [image for image in open_images(source)[0].sources if not image.name.startswith("a\n")]
        assert len(opened) == 5 and all(open_image(file).size == (48, 48) for file in opened)
    assert open_image("~1.png").size == (48, 48)
    (images / f"{HOSTILE}2.png").unlink()
    for each in (images / f"{HOSTILE}.png", images / "~1.png", *images.glob("[bc]*.png")):
        each.unlink()
    assert load_images(images, side=8).classes == load_images(".", side=8).classes == ["~root"]


@pytest.mark.parametrize("form", [".png", ".index.png", ".npz"])
def test_long_and_hostile_names_do_not_end_a_run(images, form, tmp_path):
    ran = command(
        "discover", ".", "-k", 2, "--size", 48, "--model", "toy-vit", "-o", tmp_path / "out", "--format", form
    )
    assert ran.code == 1 and "1 of the 7 images" in ran.err  # the one that is no image
    assert len(list((tmp_path / "out").glob(f"*{form}"))) == 6
    assert "".join(ran.err.split("\n")).isprintable() and ran.err.count("Skipped:") == 1
    with open(tmp_path / "out" / "failed.csv", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [f"{HOSTILE}2.png"]


def test_an_early_end_of_a_file_is_not_taken_for_the_user_s(monkeypatch):
    """click prints ``Stopped.`` for an EOFError, as if the user had ended the input."""

    def fall(*_, **__):
        raise EOFError("no data left")

    monkeypatch.setattr("partzoo.images.opening.open_images", fall)
    ran = command("discover", "x.png")
    assert ran.code == 1 and "no data left" in ran.err and ran.err.count("\n") == 1


def test_libraries_print_nothing(tmp_path, capfd):
    """libtiff writes to stderr about what Pillow then raises, and Pillow logs there."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    rng = random.Random(0)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "group4"):
        (noise.convert("1") if compression == "group4" else noise).save(tmp_path / "a.tif", compression=compression)
        data = (tmp_path / "a.tif").read_bytes()
        for _ in range(40):
            damaged = bytearray(data)
            for _ in range(3):
                damaged[rng.randrange(len(data))] = rng.randrange(256)
            try:
                open_image(bytes(damaged))
            except ImageError:
                pass
    assert capfd.readouterr().err == ""


def kind_named(name):
    return next(kind for kind in KINDS if kind.name == name)


def test_a_tiff_of_tiles_much_larger_than_itself_is_refused_before_libtiff_allocates_one(tmp_path):
    file = kind_named("tif tiles > 8 8").build(tmp_path)
    data = file.read_bytes()
    length = struct.pack(">HHII", 323, 4, 1, 16)
    assert data.count(length) == 1
    with pytest.raises(ImageError, match="states tiles of 1048576 x 32 pixels"):
        open_image(data.replace(length, struct.pack(">HHII", 323, 4, 1, 2**20)))


def test_an_annotation_years_after_the_recording_takes_no_memory(tmp_path):
    kind = kind_named("night: stages")
    file = kind.build(tmp_path)
    assert len(kind.read(file)) == 2
    file.write_bytes(_marks([(0, "W"), (3000, "N2"), (2**31 - 1, "W"), (2**32 - 2, "R")]))
    tracemalloc.start()
    assert len(kind.read(file)) == 2
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_pickles_with_buffers_are_refused_before_they_are_read(tmp_path):
    file = kind_named("cifar: test_batch").build(tmp_path)
    file.write_bytes(pickle.dumps({b"data": bytearray(100), b"labels": [0]}, 5))
    with pytest.raises(PartzooError, match="opcode BYTEARRAY8"):
        kind_named("cifar: test_batch").read(file)
    file.write_bytes(b"\x80\x02}r\0\0\0\x08.")  # an empty dictionary, kept as number 2**27
    with pytest.raises(PartzooError, match="opcode LONG_BINPUT 134217728"):
        kind_named("cifar: test_batch").read(file)


# the fuzz itself


@pytest.mark.parametrize("form", ["", *FORMS])
def test_a_mutation_follows_from_its_seed(form, tmp_path):
    content = next(kind for kind in KINDS if kind.form == form).build(tmp_path).read_bytes()
    made = [mutate(content, form, random.Random(number)) for number in range(30)]
    assert made == [mutate(content, form, random.Random(number)) for number in range(30)]
    assert len(set(made)) > 20


def test_the_fuzz_finds_a_reader_that_lets_an_error_through(tmp_path, monkeypatch):
    from faults import fuzz, seeds

    def raw(file):
        value = json.loads(file.read_bytes())
        return value["format"]

    kind = replace(next(kind for kind in KINDS if kind.name == "config.json"), read=raw)
    monkeypatch.setattr(seeds, "KINDS", [kind])
    reader = fuzz.Reader(tmp_path, 0)
    outcomes = [reader.read(number) for number in range(40)]
    assert outcomes[0] == ("right", "")
    assert any(outcome == "raw" and "JSONDecodeError" in about for outcome, about in outcomes)

    def greedy(file):
        with mmap.mmap(-1, 2**27) as memory:  # its own pages: the heap may have kept as many from an earlier test
            memory.write(bytes(2**27))

    monkeypatch.setattr(seeds, "KINDS", [replace(kind, read=greedy)])
    assert fuzz.Reader(tmp_path / "2", 0).read(1)[0] == "over memory"


@pytest.mark.parametrize("settings", ["folder", 1.5, None, [1]], ids=str)
def test_settings_of_a_journal_that_are_no_settings_differ_from_all(settings, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"format": FORMAT, "settings": settings}))
    with pytest.raises(PartzooError, match="unfinished results of other settings"):
        Journal(tmp_path, "out", {"k": 3}, resume=True)
