"""Files that anyone may have written: each ends in one of our errors before anything large is built or fetched."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from helpers.hub_server import serve
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file, save_file

import partzoo
import partzoo.hub
from partzoo.discovery.factory import finder_of
from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import UsageError, WeightsError
from partzoo.limits import MAX_ITEMS, MAX_PARTS, MAX_SIZE, RANGES, check_range
from partzoo.models.registry import architectures, find
from partzoo.settings import types_of
from partzoo.train.recipe import read_recipe
from partzoo.weights.folder import fetch_repo
from partzoo.weights.hub_file import hub_file
from partzoo.weights.manifest import manifest
from partzoo.weights.tensors import MAX_SHARDS, shards

ROOT = Path(__file__).parents[1]
CAT = ROOT / "examples" / "images" / "cat.jpg"
BRACKETS = "[" * 20_000 + "]" * 20_000


@contextmanager
def within(seconds: float):
    """Check that a block takes at most some seconds of this process's CPU, however busy the machine is."""

    def stop(*_):
        raise AssertionError(f"still working after {seconds} s of CPU")

    if hasattr(signal, "setitimer"):
        before = signal.signal(signal.SIGPROF, stop)
        signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)


@pytest.fixture
def saved(tmp_path):
    """A folder with a small model."""
    small = {"dim": 24, "depth": 1, "heads": 3}
    return partzoo.hub.save_pretrained(partzoo.load("part-vitt8", pretrained=False, dtype="float32", **small), tmp_path)


def rewrite(folder: Path, **config) -> None:
    """Change values of a saved model's configuration, and leave no header that contradicts them."""
    weights = folder / "model.safetensors"
    save_file({name: value.clone() for name, value in load_file(weights).items()}, weights)
    file = folder / "config.json"
    content = json.loads(file.read_text())
    content["config"] |= config
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("depth", 10**9), ("depth", 10**30), ("depth", -1), ("depth", 1.5), ("depth", True), ("depth", None),
        ("dim", "64"), ("dim", [64]), ("dim", {"a": 1}), ("dim", 10**9), ("heads", 0), ("heads", 7), ("size", "x"),
        ("size", 0), ("size", 10**9), ("patch", 0), ("patch", -8), ("patch", 10**6), ("targets", 3),
        ("relative_encoder", "none"), ("relative_encoder", ["mlp"]), ("projections", "yes"), ("wings", 2),
    ],
)  # fmt: skip
def test_a_hostile_value_in_a_configuration_is_refused(saved, name, value):
    rewrite(saved, **{name: value})
    with within(5), pytest.raises(WeightsError):
        partzoo.load(saved, dtype="float32")


def test_a_configuration_that_does_not_fit_the_tensors_is_refused_before_it_is_built(saved, monkeypatch):
    """The largest numbers allowed would take terabytes; on the meta device they take nothing."""
    rewrite(saved, dim=16_384, depth=256, heads=1024)
    with within(30), pytest.raises(WeightsError, match="does not fit part-vitt8"):
        partzoo.load(saved, dtype="float32")


@pytest.mark.parametrize(
    "text",
    [
        BRACKETS, '{"architecture": "part-vitt8", "config": ' + BRACKETS + "}", "7", "null", "[]", '"part-vitt8"',
        '{"architecture": 7, "config": {}}', '{"architecture": "part-vitt8", "config": []}',
        '{"architecture": "part-vitt8"}', '{"architecture": "no-such", "config": {}}',
        '{"format": [], "architecture": "part-vitt8", "config": {}}', '{"config": {"depth": ' + "9" * 5000 + "}}",
        "\ufeff", "",
    ],
    ids=range(14),
)  # fmt: skip
def test_a_config_of_another_shape_is_refused(saved, text):
    (saved / "config.json").write_text(text, encoding="utf-8")
    with within(5), pytest.raises(WeightsError):
        partzoo.load(saved)


def test_a_config_without_end_is_refused(saved, monkeypatch):
    monkeypatch.setattr("partzoo.files.MAX_JSON_BYTES", 10_000)
    assert partzoo.load(saved, dtype="float32")
    (saved / "config.json").write_text((saved / "config.json").read_text() + " " * 10_000)
    with pytest.raises(WeightsError, match="more than 10,000 bytes"):
        partzoo.load(saved)


@pytest.mark.parametrize("config", [BRACKETS, "[]", "7", '{"depth": 1000000000}', '{"dim": "64"}'])
def test_a_hostile_header_is_refused(tmp_path, config):
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.ones(1)}, file, {"architecture": "part-vitt8", "config": config})
    with within(5), pytest.raises(WeightsError):
        partzoo.load(file)


def test_every_number_of_every_configuration_has_a_range():
    for entry in architectures().values():
        for name, kind in types_of(type(entry.config)).items():
            if any(word in str(kind) for word in ("int", "float")):
                assert name in RANGES, f"{entry.name}: {name}"
        for field in fields(entry.config):
            check_range(field.name, getattr(entry.config, field.name))
    for record in manifest().values():
        find(record.name).configure(record.config)


def test_ranges_hold_for_numbers_in_lists_and_for_scales():
    for name, value in {"widths": (64, 10**9), "levels": (10**6,), "mean": (0.1, float("inf")), "std": (0.0,)}.items():
        with pytest.raises(UsageError, match=f"{name}=.* is out of range: it must be"):
            check_range(name, value)
    with pytest.raises(UsageError, match=r"width=100\.0 is out of range"):
        check_range("width", 100.0)
    with pytest.raises(UsageError, match="names has 100,001 entries"):
        check_range("names", ("x",) * (MAX_ITEMS + 1))
    check_range("width", 256)


# encoders in encoders


def test_a_model_that_is_its_own_encoder_is_refused(tmp_path):
    model = partzoo.load("partformer-patchresnet14", pretrained=False, dtype="float32")
    folder = partzoo.hub.save_pretrained(model, tmp_path, backbone=False)
    rewrite(folder, encoder=str(folder))
    with within(10), pytest.raises(WeightsError, match="is not an encoder"):
        partzoo.load(folder, dtype="float32")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Run a local hub, and point the real client to it."""
    with serve() as running:
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        running.commit("somebody/else", {"config.json": b"{}"})
        yield running


@pytest.mark.parametrize("name", ["hf-hub:somebody/else", "local-dir:/etc", "somebody/else", ""])
@pytest.mark.parametrize("local_files_only", [True, False])
def test_a_timm_model_that_a_file_names_is_never_looked_up(hub, tmp_path, name, local_files_only):
    model = partzoo.load("timm/resnet10t", pretrained=False, dtype="float32")
    folder = partzoo.hub.save_pretrained(model, tmp_path / "saved")
    rewrite(folder, model=name)
    with pytest.raises(WeightsError, match="timm has no such model"):
        partzoo.load(folder, local_files_only=local_files_only)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf-hub:somebody/else", "Unknown model"),
        ("http://127.0.0.1:1/x", "is an address"),
        ("file:///x", "pass the path"),
    ],
)
def test_an_encoder_that_a_file_names_is_never_looked_up(hub, tmp_path, name, message):
    model = partzoo.load("partformer-patchresnet14", pretrained=False, dtype="float32")
    folder = partzoo.hub.save_pretrained(model, tmp_path / "saved")
    rewrite(folder, encoder=name)
    with pytest.raises(WeightsError, match=message):
        partzoo.load(folder)
    assert hub.requests == []


# vocabularies


def vocabulary(file: Path, centres=None, numbering=(), **changes) -> Path:
    settings = {"model": "toy-vit", "size": 64, "layers": [-1], "weights": [0.5, 0.25, 0.25], "background": "none"}
    metadata = {
        "format": "partzoo-vocabulary-2",
        "settings": json.dumps(settings | {"refine": False} | changes),
        "numbering": json.dumps(numbering),
    }
    save_file({"centres": torch.eye(3, 5) if centres is None else centres}, file, metadata)
    return file


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 10**9}, {"size": 0}, {"size": "64"}, {"size": None}, {"model": 7}, {"model": ["toy-vit"]},
        {"layers": 7}, {"layers": [10**9]}, {"layers": ["x"]}, {"weights": [1.0]}, {"weights": [0.5, 0.25, 1e300]},
        {"weights": [-1, 1, 1]}, {"background": None}, {"refine": "no"}, {"numbering": [10**9]}, {"numbering": [0]},
        {"numbering": {"a": 1}}, {"numbering": [1] * (MAX_PARTS + 1)}, {"centres": torch.ones(3)},
        {"centres": torch.full((3, 5), float("nan"))}, {"centres": torch.ones(3, 5, dtype=torch.int64)},
        {"centres": torch.ones(MAX_PARTS + 1, 2)},
    ],
    ids=str,
)  # fmt: skip
def test_a_hostile_vocabulary_is_refused(tmp_path, changes):
    with pytest.raises(WeightsError, match="is damaged"):
        PartVocabulary.load(vocabulary(tmp_path / "v.safetensors", **changes))


def test_a_vocabulary_of_brackets_is_refused(tmp_path):
    file = tmp_path / "v.safetensors"
    save_file({"centres": torch.eye(3)}, file, {"format": "partzoo-vocabulary-2", "settings": BRACKETS})
    with pytest.raises(WeightsError, match="nested too deeply"):
        PartVocabulary.load(file)


def test_a_recipe_of_brackets_is_refused(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text(f"seed = {'[' * 101}{']' * 101}\n")
    with pytest.raises(UsageError, match="nested too deeply"):
        read_recipe(file)
    file.write_text(f"seed = {'[' * 100}{']' * 100}\n")
    with pytest.raises(UsageError, match="seed"):
        read_recipe(file)


@pytest.mark.parametrize("name", ["hf-hub:somebody/else", "timm/resnet10t.c3_in1k", "dino-vits16"])
def test_a_vocabulary_downloads_nothing(hub, tmp_path, name):
    words = PartVocabulary.load(vocabulary(tmp_path / "v.safetensors", model=name))
    with pytest.raises(WeightsError, match=f"downloads nothing.*pass model='{name}' if you trust it"):
        partzoo.discover_parts(CAT, vocabulary=words)
    assert hub.requests == []


def test_a_background_that_a_vocabulary_names_is_not_downloaded(hub, tmp_path):
    words = PartVocabulary.load(vocabulary(tmp_path / "v.safetensors", background="hf-hub:somebody/else"))
    with pytest.raises(UsageError, match="Unknown background"):
        finder_of(words, None)
    assert hub.requests == []


def test_a_vocabulary_of_a_blank_image_has_no_parts(tmp_path):
    assert PartVocabulary.load(vocabulary(tmp_path / "v.safetensors", torch.ones(0, 5))).k == 0


def test_a_vocabulary_whose_model_is_here_works(tmp_path):
    words = PartVocabulary(torch.eye(2, 3), Settings("toy-vit", 64, (-1,), (0.5, 0.25, 0.25), "none", False))
    assert finder_of(words, None).model.architecture == "toy-vit"


# indices, manifests, recipes, lists


@pytest.mark.parametrize(
    "names",
    [[7], [None], [""], ["."], [".."], ["../x.safetensors"], ["/etc/passwd"], ["a/b.safetensors"], [["x"]], [{}],
     ["config.json"], ["9" * 300 + ".safetensors"], ["a\n.safetensors"], [7, "a.safetensors"],
     [f"{i}.safetensors" for i in range(MAX_SHARDS + 1)]],
    ids=range(15),
)  # fmt: skip
def test_a_hostile_index_is_refused(tmp_path, names):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {f"w{i}": name for i, name in enumerate(names)}}))
    with pytest.raises(WeightsError):
        shards(index)


def test_a_hostile_index_on_the_hub_fetches_no_other_file(hub):
    config = json.dumps({"architecture": "toy-vit", "config": {}}).encode()
    index = json.dumps({"weight_map": {"a": "../../secret/resolve/main/x.safetensors"}}).encode()
    hub.commit("somebody/else", {"config.json": config, "model.safetensors.index.json": index})
    with pytest.raises(WeightsError, match="not beside it"):
        fetch_repo("somebody/else")
    assert not [request for request in hub.requests if "secret" in request]


@pytest.mark.parametrize(
    "change",
    [
        {"name": 7}, {"config": []}, {"files": 7}, {"files": [7]}, {"files": [{}]}, {"seed": "x"}, {"metrics": {}},
        {"parents": "abc"}, {"hub": {}}, {"hub": []}, {"hub": {"repo": "a/b"}}, {"labels_used": "no"}, {"wings": 2},
        {"files": [{"path": 7, "sha256": "0" * 64, "bytes": 1}]}, {"files": [{"path": "weights/x", "sha256": 0}]},
        {"files": [{"path": "weights/x", "sha256": "0" * 64, "bytes": "1"}]},
        {"files": [{"path": "weights/../../x", "sha256": "0" * 64, "bytes": 1}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_hostile_manifest_is_refused(tmp_path, change):
    content = json.loads((ROOT / "weights_manifest.json").read_text())
    content["weights"][0] |= change
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError):
        manifest(tmp_path / "manifest.json")


def test_a_manifest_of_brackets_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text(BRACKETS)
    with pytest.raises(WeightsError, match="nested too deeply"):
        manifest(tmp_path / "manifest.json")


@pytest.mark.parametrize(
    "text",
    [
        "a = " + BRACKETS, "method = 7\narchitecture = 'part-vitt8'", "method = 'part'\narchitecture = []",
        "method = 'part'\narchitecture = 'part-vitt8'\nsteps = 'many'",
        "method = 'part'\narchitecture = 'part-vitt8'\nminutes = nan",
        "method = 'part'\narchitecture = 'part-vitt8'\nconfig = 7",
        "method = 'part'\narchitecture = 'part-vitt8'\nwings = 7",
    ],
    ids=range(7),
)  # fmt: skip
def test_a_hostile_recipe_is_refused(tmp_path, text):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(tmp_path / "recipe.toml")


def test_a_number_in_a_recipe_is_out_of_range(tmp_path):
    from partzoo.train.run import train

    recipe = tmp_path / "recipe.toml"
    recipe.write_text("method = 'part'\narchitecture = 'part-vitt8'\nsteps = 1\n[config]\ndepth = 1000000000\n")
    with within(5), pytest.raises(UsageError, match="depth=1000000000 is out of range"):
        train("part", recipe=recipe, data=CAT.parent, out=tmp_path / "run")


def test_brackets_on_the_command_line_are_a_string():
    from partzoo.settings import parse_settings

    assert parse_settings([f"config.names={BRACKETS}"])["config"]["names"] == BRACKETS


# sizes and numbers of parts


def test_sizes_and_numbers_of_parts_have_limits_that_name_themselves():
    for call in (partzoo.discover_parts, partzoo.extract_features):
        with pytest.raises(UsageError, match=f"size={MAX_SIZE + 1} exceeds 4,096 pixels, the limit"):
            call(CAT, model="toy-vit", size=MAX_SIZE + 1)
    for call in (partzoo.discover_parts, partzoo.fit_parts):
        for images in (CAT, [CAT, CAT]):
            with pytest.raises(UsageError, match=f"k={MAX_PARTS + 1} exceeds 1,000 parts, the limit"):
                call(images, MAX_PARTS + 1, model="toy-vit", size=512)


# the Hub, out of reach


@pytest.fixture
def silent():
    """The address of a server that accepts connections and says nothing."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def ended(endpoint: str, home: Path, *command: str) -> tuple[subprocess.CompletedProcess, float]:
    """Run a command with a Hub at an address, in a process of its own; return its outcome and its seconds.

    Seconds for the imports and for work of the CPU are not counted, because the machine may be busy.
    """
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    begun, cpu = time.monotonic(), sum(os.times()[2:4])
    ran = subprocess.run(
        [sys.executable, "-m", "partzoo", *command], env=environment, capture_output=True, text=True, timeout=300
    )
    return ran, time.monotonic() - begun - (sum(os.times()[2:4]) - cpu)


@pytest.mark.parametrize("command", [("discover", str(CAT), "--model", "hf-hub:somebody/else")])
def test_a_machine_without_a_network_says_so_at_once(tmp_path, command):
    ran, seconds = ended("http://127.0.0.1:9", tmp_path, *command)
    assert ran.returncode == 1 and "the Hub is out of reach" in ran.stderr and ran.stderr.count("\n") == 1, ran.stderr
    assert seconds < 15, "116 s before"


def test_a_forced_download_without_a_hub_does_not_pass_off_the_copy_in_the_cache(hub, monkeypatch):
    assert hub_file("somebody/else", "config.json").read_bytes() == b"{}"
    monkeypatch.setattr("partzoo.weights.hub_file.answers", lambda *_: False)
    monkeypatch.setattr("partzoo.weights.hub_file._asked", {})
    assert hub_file("somebody/else", "config.json").read_bytes() == b"{}"
    with pytest.raises(WeightsError, match="the Hub is out of reach"):
        hub_file("somebody/else", "config.json", force=True)


def test_a_silent_hub_is_given_up(silent, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", silent + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    begun = time.monotonic()
    with pytest.raises(WeightsError, match="the Hub is out of reach"):
        partzoo.load("hf-hub:somebody/else")
    with pytest.raises(WeightsError, match="the Hub is out of reach"):
        partzoo.load("timm/resnet10t.c3_in1k")
    assert time.monotonic() - begun < 15


def test_nothing_is_sent_to_a_silent_hub(silent, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", silent)
    monkeypatch.setattr("partzoo.weights.hub_file.ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(HfApi, "create_repo", None)  # the client would try for minutes
    with pytest.raises(WeightsError, match="somebody/else cannot be written: the Hub is out of reach"):
        partzoo.hub.push_to_hub(partzoo.load("toy-vit"), "somebody/else")
