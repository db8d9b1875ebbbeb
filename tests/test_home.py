"""``~`` is the home folder wherever a path is given, and no folder of that name appears."""

import pwd

import numpy as np
import pytest
from PIL import Image

import partzoo
from partzoo import hub
from partzoo.cli import main
from partzoo.errors import PartzooError
from partzoo.train.loop import run_folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("home", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "home" / "a.png")
    yield tmp_path / "home"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_models(home):
    hub.save_pretrained(partzoo.load("toy-vit", device="cpu"), "~/toy")
    for name in ("~/toy", "local-dir:~/toy", "~/toy/model.safetensors"):
        assert partzoo.load(name, device="cpu").architecture == "toy-vit"
    assert hub.from_pretrained("~/toy", device="cpu").architecture == "toy-vit"


def test_results(home):
    parts = partzoo.discover_parts(home / "a.png", 2, model="toy-vit")
    for ending in (".png", ".index.png", ".npz", ".json"):
        parts.save(f"~/p{ending}")
        assert (home / f"p{ending}").is_file()
    assert partzoo.Parts.load("~/p.npz") == parts


@pytest.mark.parametrize(
    "words",
    [
        ["discover", "~/a.png", "-o", "~/p.npz"], ["discover", "~/a.png", "--save-vocabulary", "~/v.st"],
        ["features", "~/a.png", "-o", "~/f.npz"], ["discover", "~/a.png", "~/a.png", "-o", "~/folder"],
    ],
)  # fmt: skip
def test_commands_whose_shell_has_not_expanded_it(home, words):
    with pytest.raises(SystemExit) as done:
        main([*words, "--model", "toy-vit"], prog_name="partzoo")
    assert not done.value.code
    assert [file for file in home.rglob("*") if file.name != "a.png"]


def test_the_cache(home, monkeypatch):
    from partzoo.weights.checked import cache_folder

    monkeypatch.setenv("PARTZOO_CACHE", "~/cache")
    assert cache_folder() == home / "cache"


def test_without_a_home_nothing_is_made_in_its_stead(home, monkeypatch):
    """As in a container whose user has no entry in the list of users."""
    from partzoo.weights.checked import digest_of

    for name in ("HOME", "XDG_CACHE_HOME", "PARTZOO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert digest_of(home / "a.png", "right", lambda: "right") == "right"
    model = partzoo.load("toy-vit", device="cpu")
    with pytest.raises(PartzooError, match="unknown user's name"):
        hub.save_pretrained(model, "~nobody-of-this-name/toy")
    with pytest.raises(PartzooError, match="unknown user's name"):
        run_folder("~nobody-of-this-name/run")
