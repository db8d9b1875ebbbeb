"""Models that an engine runs behave as in torch."""

import copy
import dataclasses
import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo as command
from PIL import Image

import partzoo
from partzoo.errors import MissingExtraError, ShapeError, UsageError
from partzoo.hub import save_pretrained
from partzoo.models.base import Encoder
from partzoo.models.engines import kept, running
from partzoo.models.engines.graphs import Call
from partzoo.models.engines.kept import identity, kept_program
from partzoo.models.engines.recorded import Agreement, Recipe
from partzoo.models.engines.running import on_engine
from partzoo.models.engines.sessions import SESSIONS
from partzoo.models.loading import load
from partzoo.weights.checked import cache_folder

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

SIZES = ((48, 64), (67, 41))
LIMIT = 1e-4
SMALL = {"encoder": "toy-vit", "size": 32, "parts": 3, "dim": 16}
SMALLEST = "toy-vit"
MODELS = {
    "patchresnet14": {},
    "spatial-conv4": {},
    "timm/test_vit": {},
    "timm/test_convnext": {},
    "mpae-patchresnet14": SMALL | {
        "width": 16, "depth": 1, "heads": 2, "masked_width": 16, "masked_depth": 1, "masked_heads": 2,
        "decoder_depth": 1, "decoder_heads": 2, "restored": 4,
    },
    "partformer-resnet18": {"size": 32, "parts": 3, "reconstruction": 8},
}  # fmt: skip
ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is missing"))
    for name in SESSIONS
]


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


def loaded(name: str, **config) -> Encoder:
    torch.manual_seed(0)
    return load(name, pretrained=False, device="cpu", dtype="float32", **config)


@pytest.mark.parametrize("name", [SMALLEST, *(pytest.param(each, marks=pytest.mark.slow) for each in MODELS)])
def test_an_engine_gives_the_features_of_torch(name, engine):
    model = loaded(name, **MODELS.get(name, {}))
    other = on_engine(model, engine, "auto")
    for size in SIZES:
        x = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
        expected, found = model.encode(x), other.encode(x)
        assert found.grid == expected.grid and found.prefix.shape == expected.prefix.shape
        torch.testing.assert_close(found.patch, expected.patch, rtol=0, atol=LIMIT)
        torch.testing.assert_close(found.prefix, expected.prefix, rtol=0, atol=LIMIT)


@pytest.mark.slow
@pytest.mark.parametrize("name, layers", [("patchresnet14", [0, -1]), ("timm/test_vit", 2), (SMALLEST, None)])
def test_an_engine_gives_the_layers_of_torch(name, layers, engine):
    model = loaded(name)
    other = on_engine(model, engine, "auto")
    for size in SIZES:
        x = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
        for form in ("NCHW", "NLC"):
            found, expected = (each.forward_intermediates(x, layers, form) for each in (other, model))
            for one, true in zip(found, expected, strict=True):
                torch.testing.assert_close(one, true, rtol=0, atol=LIMIT)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, 2])
@pytest.mark.parametrize("name", ["mpae-patchresnet14", "partformer-resnet18"])
def test_an_engine_gives_the_parts_of_torch(name, classes, engine):
    model = loaded(name, **MODELS[name], classes=classes)
    other = on_engine(model, engine, "auto")
    given = torch.tensor([1, 0]) if classes else None
    for size in SIZES:
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(other.descriptors(x, given), model.descriptors(x, given), rtol=0, atol=LIMIT)
        for of in (None, size):
            found, expected = (each.part_maps(x, of, given) for each in (other, model))
            torch.testing.assert_close(found, expected, rtol=0, atol=LIMIT)


@pytest.mark.slow
def test_a_foreground_model_gives_the_probabilities_of_torch(engine):
    model, other = (load("foreground-lite0.masks", device="cpu", dtype="float32", engine=e) for e in ("torch", engine))
    for size in ((96, 128), (160, 64)):
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(other(x), model(x), rtol=0, atol=LIMIT)
    with pytest.raises(ShapeError, match="multiples of 32"):
        other(torch.zeros(1, 3, 75, 131))


@pytest.mark.slow
def test_a_network_that_is_set_to_one_size_runs_at_others(engine):
    model = loaded("timm/test_maxvit")
    other = on_engine(model, engine, "auto")
    for size in ((160, 160), (150, 190)):
        x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(other.encode(x).patch, model.encode(x).patch, rtol=0, atol=LIMIT)


@pytest.mark.slow
def test_parts_and_features_of_images_are_those_of_torch(engine):
    image = np.random.default_rng(0).integers(0, 256, (57, 83, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(image[:8, :8]).resize((83, 57)))
    models = [load("toy-vit", device="cpu", dtype="float32", engine=each) for each in ("torch", engine)]
    first, second = (partzoo.extract_features(image, model=model, layer=-1) for model in models)
    np.testing.assert_allclose(second.dense, first.dense, rtol=0, atol=LIMIT)
    first, second = (partzoo.discover_parts(image, k=3, model=model, background="none") for model in models)
    assert len(np.unique(first.labels)) == 3 and (first.labels == second.labels).mean() > 0.999


def test_a_program_is_exported_once_and_kept(cache, engine, monkeypatch):
    x = torch.randn(1, 3, 40, 40)
    first = load("toy-vit", engine=engine).encode(x)
    [file] = cache.iterdir()
    monkeypatch.setattr(kept, "traced", None)
    again = load("toy-vit", engine=engine).encode(x)
    assert torch.equal(first.patch, again.patch) and list(cache.iterdir()) == [file]


def test_several_threads_share_a_model(engine):
    model = load("toy-vit", engine=engine)
    images = [torch.randn(1, 3, 40, 8 * side) for side in range(4, 12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: model.encode(x).patch, images))
    for x, patch in zip(images, found, strict=True):
        torch.testing.assert_close(patch, model.module.encode(x).patch, rtol=0, atol=LIMIT)


def test_other_weights_settings_and_architectures_have_another_program():
    model = loaded("toy-vit")
    known = {identity(model)}
    other = copy.deepcopy(model)
    next(other.parameters()).data.flatten()[0] += 1
    known.add(identity(other))
    other = copy.deepcopy(model)
    other.config = dataclasses.replace(model.config, depth=model.config.depth + 1)
    known.add(identity(other))
    other = copy.deepcopy(model)
    other.architecture = "other"
    assert len(known | {identity(other)}) == 4 and identity(copy.deepcopy(model)) in known


@pytest.mark.parametrize("damage", [lambda content: content[:9], lambda content: content[:-9] + b"?" + content[-8:]])
def test_a_damaged_program_is_made_again(cache, damage, monkeypatch):
    for name, made in (("traced", None), ("onnx_bytes", b"a program that takes no time")):
        monkeypatch.setattr(kept, name, lambda *_, made=made: made)
    model, call = loaded("toy-vit"), Call("forward")
    program = kept_program(identity(model), call, lambda: model)
    [file] = cache.iterdir()
    file.write_bytes(damage(program))
    assert kept_program(identity(model), call, lambda: model) == program
    assert [each.read_bytes() for each in cache.iterdir()] == [program]
    monkeypatch.setattr(kept, "traced", None)
    assert kept_program(identity(model), call, lambda: model) == program


def test_a_cache_that_cannot_be_written_stops_nothing(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "file"))
    assert load("toy-vit", engine="onnxruntime").encode(torch.randn(1, 3, 40, 40)).grid == (5, 5)
    assert cache_folder() == tmp_path / "file"


@pytest.mark.parametrize("name, extra", [("onnxruntime", "export"), ("openvino", "openvino")])
def test_a_missing_engine_names_the_extra(name, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf'^{name} is not installed: pip install "partzoo\[{extra}\]"\.$'):
        load("toy-vit", engine=name)


def test_what_an_engine_cannot_do_is_refused():
    with pytest.raises(UsageError, match="engine='tvm' must be one of 'auto', 'torch', 'onnxruntime', 'openvino'"):
        load("toy-vit", engine="tvm")
    with pytest.raises(UsageError, match="dtype='float16': onnxruntime computes in"):
        load("toy-vit", engine="onnxruntime", dtype="float16")
    model = load("toy-vit", engine="onnxruntime")
    with pytest.raises(UsageError, match="runs on the CPU, not on meta"):
        model.encode(torch.zeros(1, 3, 40, 40, device="meta"))
    with pytest.raises(ShapeError, match="smaller than one patch"):
        model.encode(torch.zeros(1, 3, 4, 4))
    with pytest.raises(UsageError, match="indices=9 must select among"):
        model.forward_intermediates(torch.zeros(1, 3, 40, 40), 9)


def test_a_model_on_an_engine_is_copied_and_saved_as_the_one_in_torch(tmp_path):
    model = load("toy-vit", engine="onnxruntime")
    x = torch.randn(1, 3, 40, 40)
    assert torch.equal(model.encode(x).patch, copy.deepcopy(model).encode(x).patch)
    save_pretrained(model, tmp_path / "saved")
    torch.testing.assert_close(load(tmp_path / "saved").encode(x).patch, model.encode(x).patch, rtol=0, atol=LIMIT)


@pytest.mark.slow
def test_the_commands_take_an_engine(tmp_path, engine):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "one.png")
    found = {}
    for each in ("torch", engine):
        file = tmp_path / f"{each}.npz"
        ran = command("features", tmp_path / "one.png", "--model", "toy-vit", "--engine", each, "-o", file)
        assert ran.code == 0, ran.err
        found[each] = np.load(file)["dense.0"]
        options = ("--model", "toy-vit", "--background", "none", "-k", 3, "--engine", each)
        ran = command("discover", tmp_path / "one.png", *options, "-o", tmp_path / f"{each}.index.png")
        assert ran.code == 0, ran.err
    np.testing.assert_allclose(found[engine], found["torch"], rtol=0, atol=LIMIT)
    labels = [np.asarray(Image.open(tmp_path / f"{each}.index.png")) for each in ("torch", engine)]
    assert (labels[0] == labels[1]).mean() > 0.999


def test_auto_takes_an_engine_that_is_installed_and_leaves_gpus_to_torch(monkeypatch):
    for found, expected in (
        ({"openvino", "onnxruntime"}, "openvino"),
        ({"onnxruntime"}, "onnxruntime"),
        (set(), "torch"),
    ):
        monkeypatch.setattr(running, "find_spec", found.__contains__)
        assert running.fastest("cpu") == expected
    monkeypatch.setattr(running, "device_of", torch.device)
    monkeypatch.setattr(running, "find_spec", lambda _: True)
    assert running.fastest("cuda") == "torch"


AGREES, DIFFERS = Agreement(0.9995, 0.995), Agreement(0.9995, 0.98)


@pytest.mark.parametrize(
    "figures, vnni, bf16, expected",
    [
        ({"int8": AGREES, "bfloat16": AGREES}, True, True, "int8"),
        ({"int8": AGREES, "bfloat16": AGREES}, False, True, "bfloat16"),
        ({"int8": DIFFERS, "bfloat16": AGREES}, True, True, "bfloat16"),
        ({"int8": DIFFERS, "bfloat16": Agreement(0.998, 1.0)}, True, True, "float32"),
        ({"int8": AGREES, "bfloat16": AGREES}, False, False, "float32"),
        ({}, True, True, "float32"),
    ],
)
def test_auto_is_the_fastest_precision_that_agrees_and_that_the_cpu_has(figures, vnni, bf16, expected, monkeypatch):
    monkeypatch.setattr(running, "has_vnni", lambda: vnni)
    monkeypatch.setattr(running, "has_bf16", lambda _: bf16)
    assert running.offered("openvino", Recipe("x", {}, {"openvino": figures})) == expected
    assert running.offered("openvino", None) == "float32"


def test_int8_needs_a_cpu_that_has_it_and_recorded_ranges(monkeypatch):
    monkeypatch.setattr(running, "has_vnni", lambda: True)
    with pytest.raises(UsageError, match=r"no ranges are recorded for these weights of toy-vit, only for .*part-vits8"):
        load("toy-vit", engine="onnxruntime", dtype="int8")
    monkeypatch.setattr(running, "has_vnni", lambda: False)
    with pytest.raises(UsageError, match="does not multiply int8 natively"):
        load("toy-vit", engine="onnxruntime", dtype="int8")
