"""Models that are saved over older ones, in processes that are killed at every operation on files."""

import functools
import shutil
from pathlib import Path

import pytest
import torch
from helpers.command_line import partzoo
from helpers.killing import killed_at

from partzoo.errors import WeightsError
from partzoo.locks import PREFIX
from partzoo.models import loading, sharing
from partzoo.models.loading import build, load
from partzoo.models.registry import find
from partzoo.weights.folder import CARD, WEIGHTS
from partzoo.weights.replacing import COMPLETE
from partzoo.weights.tensors import CONFIG

SIZES = {"old": 32, "new": 64}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Do not wait for the disk, and compute without threads, as copies of this process have none."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def model(name):
    """Return a model whose configuration depends on its name, and with it the values of all its weights."""
    entry = find("spatial-conv4")
    made = build(entry, entry.configure({"size": SIZES[name]}))
    for parameter in made.parameters():
        torch.nn.init.constant_(parameter, SIZES[name])
    return made


def save(name, folder, shard):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "SHARD_BYTES", shard)
        sharing.save_pretrained(model(name), folder)


def loaded(folder):
    """Return the name of the model in a folder, all of whose parts must be this model's."""
    found = load(folder, device="cpu", dtype="float32")
    names = {name for name, size in SIZES.items() if found.config.size == size}
    names |= {name for value in found.parameters() for name, size in SIZES.items() if (value == size).all()}
    assert len(names) == 1, names
    return names.pop()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(10**9, 10**9, id="one file"),
        pytest.param(10**9, 10**5, id="to shards", marks=pytest.mark.slow),
        pytest.param(10**5, 10**9, id="from shards", marks=pytest.mark.slow),
    ],
)
def test_a_model_saved_over_another_is_the_old_or_the_new_one_whenever_it_is_killed(before, after, tmp_path):
    save("old", tmp_path / "old", before)
    model("new")
    found, number, killed = [], 0, True
    while killed:
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "old", folder)
        killed = killed_at(number, save, "new", folder, after)
        found.append(loaded(folder))
        save("new", folder, after)
        assert loaded(folder) == "new"
        assert all(not each.name.startswith(".") for each in folder.iterdir())
        assert {WEIGHTS, "model.safetensors.index.json"} & {each.name for each in folder.iterdir()} == {
            WEIGHTS if after == 10**9 else "model.safetensors.index.json"
        }
        number += 1
    assert number > 20 and found == sorted(found, reverse=True) and set(found) == {"old", "new"}


def convert(place, folder):
    partzoo("convert", place / "new.pth", "-o", folder, "--set", "size=64")


def test_a_conversion_that_was_killed_can_be_repeated(tmp_path):
    state: dict = {"backbone": {}, "relation": {}}
    for name, value in model("new").state_dict().items():
        part, _, rest = name.partition(".")
        state[part][rest] = value
    torch.save(state, tmp_path / "new.pth")
    number, killed = 0, True
    while killed:
        folder = tmp_path / str(number)
        killed = killed_at(number, convert, tmp_path, folder)
        ran = partzoo("convert", tmp_path / "new.pth", "-o", folder, "--set", "size=64")
        assert ran.code == 0, ran.err
        assert loaded(folder) == "new"
        assert sorted(each.name for each in Path(folder).iterdir()) == [CARD, CONFIG, WEIGHTS]
        number += 5
    assert number > 20


def test_a_hidden_folder_among_new_files_that_a_power_cut_has_left_is_ignored(tmp_path):
    save("new", tmp_path / "new", 10**9)
    save("old", tmp_path, 10**9)
    (tmp_path / "new").rename(tmp_path / COMPLETE)
    (tmp_path / COMPLETE / f"{PREFIX}-README.md.x.part").mkdir()
    assert loaded(tmp_path) == "new"
    save("old", tmp_path, 10**9)
    assert loaded(tmp_path) == "old" and not list(tmp_path.glob(f"{PREFIX}*"))


def test_a_model_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    save("old", tmp_path, 10**9)
    (tmp_path / COMPLETE).mkdir()  # as a writer leaves it before its files are in their final places
    for file in (CONFIG, WEIGHTS):
        shutil.copy(tmp_path / file, tmp_path / COMPLETE)
    read, calls = loading.read_state, []

    def read_late(*files, **options):
        if not calls:
            save("new", tmp_path, 10**9)
        calls.append(files)
        return read(*files, **options)

    monkeypatch.setattr(loading, "read_state", read_late)
    assert loaded(tmp_path) == "new" and len(calls) == 2


def test_a_damaged_folder_is_read_once(tmp_path, monkeypatch):
    save("old", tmp_path, 10**9)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:-1])
    read, calls = loading.read_state, []
    monkeypatch.setattr(loading, "read_state", lambda *files, **options: calls.append(files) or read(*files, **options))
    with pytest.raises(WeightsError):
        loaded(tmp_path)
    assert len(calls) <= 1
