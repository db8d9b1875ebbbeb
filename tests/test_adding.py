"""One file and one record add an encoder, one function a foreground method, one file a reader of checkpoints."""

import importlib.util
import inspect
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo as command
from helpers.weight_records import record_of

import partzoo
import partzoo.conversion
import partzoo.models
from partzoo.conversion.registry import readers
from partzoo.discovery.foreground import METHODS, method
from partzoo.errors import UsageError, WeightsError
from partzoo.evaluate import run
from partzoo.models import registry
from partzoo.weights import manifest
from partzoo.weights.release_files import check_golden, pack

ROOT = Path(__file__).parents[1]
IBIS = ROOT / "examples" / "images" / "ibis.jpg"
ENCODER = '''
"""One layer of patches."""

from dataclasses import dataclass

from torch import nn

from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder, Tokens, as_format, choose, in_precision, pad_to_multiple
from partzoo.models.registry import register


@dataclass(frozen=True)
class PlainConfig:
    """Configuration of a :class:`Plain`."""

    dim: int = 12
    size: int = 64


class Plain(Encoder):
    """Patches of 8 pixels, and a layer that mixes their channels."""

    patch = 8

    def __init__(self, config):
        super().__init__()
        self.config, self.dim = config, config.dim
        self.preprocess = Preprocess(size=config.size, multiple=self.patch)
        self.embed, self.mix = nn.Conv2d(3, self.dim, self.patch, self.patch), nn.Conv2d(self.dim, self.dim, 1)

    @in_precision
    def encode(self, x):
        return Tokens.from_maps(self._maps(x)[-1])

    @in_precision
    def forward_intermediates(self, x, indices=None, output_fmt="NCHW"):
        return as_format([self._maps(x)[i] for i in choose(indices, 2)], output_fmt)

    def _maps(self, x):
        first = self.embed(pad_to_multiple(x, self.patch))
        return [first, self.mix(first).relu()]


@register(family="encoder", config=PlainConfig())
def plain_net(config):
    """One layer of patches, for a test."""
    return Plain(config)
'''

READER = """
READS = (("Plain", "`plain.pth`", "`plain-net`"),)


def recognizes(state):
    return "plain.mix.weight" in state


def from_published(state, architecture=None):
    return architecture or "plain-net", {}, {name.removeprefix("plain."): value for name, value in state.items()}


def unused(state):
    return []
"""


def module(path):
    """Import a file that is not part of a package as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def encoder_file(tmp_path, monkeypatch):
    """Write the encoder's file to a folder of models."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "plain.py").write_text(ENCODER)
    monkeypatch.setattr(partzoo.models, "__path__", [*partzoo.models.__path__, str(folder)])
    registry.architectures.cache_clear()
    yield folder / "plain.py"
    registry._ARCHITECTURES.pop("plain-net", None)
    sys.modules.pop("partzoo.models.plain", None)
    registry.architectures.cache_clear()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """Make a clone with the pages, results and records of this one, and use its manifest."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("images"))
    shutil.copytree(ROOT / "results", folder / "results", ignore=shutil.ignore_patterns("eval"))
    for name in ("README.md", manifest.NAME):
        shutil.copy(ROOT / name, folder / name)
    monkeypatch.setattr(manifest, "_default", lambda: folder / manifest.NAME)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def record(encoder_file, clone):
    """Make the encoder's record and add it to the clone's manifest."""
    torch.manual_seed(0)
    model = partzoo.load("plain-net", pretrained=False, device="cpu", dtype="float32")
    made = {"protocol": "20 images", "command": "python release.py"}
    record = record_of(
        model,
        pack("plain-net.test", model, root=clone),
        name="plain-net.test",
        architecture="plain-net",
        data="toys, 20 images",
        method="drawing by lot",
        metrics=(
            {"name": "loss", "value": 1.5} | made,
            {"name": "knn", "value": 30.0, "headline": "kNN of toys, % ↑"} | made,
            {"name": "knn_random_weights", "value": 3.0} | made,
        ),
    )
    manifest.add_record(record, clone / manifest.NAME)
    return record


def test_an_encoder_is_one_file_and_one_record(record):
    assert registry.list_models("plain*", family="encoder") == ["plain-net"]
    assert registry.list_models("plain*", pretrained=True) == ["plain-net.test"]
    assert "plain-net encoder Weights: test. One layer" in " ".join(command("list", "plain*").out.split())
    about = command("info", "plain-net.test").out
    assert "plain-net: One layer of patches, for a test." in about and "trained on: toys, 20 images" in about
    assert check_golden(partzoo.load("plain-net", device="cpu", dtype="float32"), record.golden) < 1e-3
    assert partzoo.discover_parts(IBIS, model="plain-net.test", k=3, background=None).k == 3


def test_an_encoder_s_file_brings_it_under_the_contract(encoder_file):
    contract = module(ROOT / "tests" / "models" / "test_contract.py")
    assert "plain-net" in contract.chosen(contract.kinds())
    encoder, checked = partzoo.load("plain-net", pretrained=False, device="cpu", dtype="float32"), 0
    for name, check in vars(contract).items():
        if name.startswith("test_") and "encoder" in (asked := inspect.signature(check).parameters):
            check(encoder, **({"size": (65, 97)} if "size" in asked else {}))
            checked += 1
    assert checked >= 6


def test_an_encoder_s_record_brings_it_into_tables_and_evaluations(record, clone):
    tables = module(ROOT / "scripts" / "tables.py")
    tables.main(clone)
    row = "| `plain-net.test` | drawing by lot | toys | none | kNN of toys, % ↑ | 30.0 (3.0) | 0.0 |"
    assert row in (clone / "README.md").read_text()
    assert "| `plain-net.test` | toys, 20 images; terms:" in (clone / "docs" / "models.md").read_text()
    card = (clone / "docs" / "reproduction.md").read_text().partition("### `plain-net.test`")[2]
    assert "| kNN: 20 images | 30 | 3 |" in card
    for protocol, measured in (("faces68", True), ("tiny-imagenet", True), ("ecssd", False)):
        assert (("plain-net.test", {"background": "auto", "size": None}) in run.rows(protocol)) == measured


def test_a_reader_is_one_file(encoder_file, clone, tmp_path, monkeypatch):
    folder = tmp_path / "conversion"
    folder.mkdir()
    (folder / "plain_published.py").write_text(READER)
    monkeypatch.setattr(partzoo.conversion, "__path__", [*partzoo.conversion.__path__, str(folder)])
    readers.cache_clear()
    try:
        own = partzoo.load("plain-net", pretrained=False, device="cpu", dtype="float32")
        published = {f"plain.{name}": value for name, value in own.state_dict().items()}
        model = partzoo.convert(published, device="cpu", dtype="float32")
        assert model.architecture == "plain-net" and torch.equal(model.mix.weight, own.mix.weight)
        with pytest.raises(WeightsError, match=r"Pass a checkpoint of one of .*Plain"):
            partzoo.convert({"a": torch.zeros(1)})
        module(ROOT / "scripts" / "tables.py").main(clone)
        assert "| Plain | `plain.pth` | `plain-net` |" in (clone / "docs" / "convert.md").read_text()
    finally:
        sys.modules.pop("partzoo.conversion.plain_published", None)
        readers.cache_clear()


@pytest.fixture
def methods():
    """Register two foreground methods, of which one needs features."""

    @method()
    def bright_half(cells):
        """Score cells by whether they are brighter than the mean."""
        assert cells.features is None
        return (cells.lab[..., 0] > cells.lab[..., 0].mean()).astype(np.float32)

    @method(features=True)
    def far_features(cells):
        """Score cells by whether their features are far from the mean."""
        distance = np.linalg.norm(cells.features, axis=2)
        return (distance > distance.mean()).astype(np.float32)

    yield "bright-half", "far-features"
    for name in ("bright-half", "far-features"):
        METHODS.pop(name)


def test_a_foreground_method_is_one_function(methods, clone):
    for name in methods:
        parts = partzoo.discover_parts(IBIS, model="toy-vit", k=2, background=name)
        assert 0 < (parts.labels > 0).mean() < 1
        for verb in ("discover", "eval"):
            assert f"{name}:Score" in "".join(command(verb, "--help").out.split())
    with pytest.raises(UsageError, match=r"Unknown background 'bright'.*bright-half, far-features"):
        partzoo.discover_parts(IBIS, model="toy-vit", background="bright")
    module(ROOT / "scripts" / "tables.py").main(clone)
    page = (clone / "docs" / "discovery.md").read_text()
    assert '| `"bright-half"` | Score cells by whether they are brighter than the mean. | nothing |' in page
    assert '| `"far-features"` | Score cells by whether their features are far from the mean. | features |' in page
    for protocol in ("faces68", "ecssd"):
        asked = {chosen["background"] for _, chosen in run.rows(protocol)}
        assert "bright-half" in asked and "far-features" not in asked, "its figures depend on the encoder"
