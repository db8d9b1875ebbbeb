"""Static quantization to int8, and its record."""

import json

import pytest
import torch
from helpers.command_line import partzoo as command
from torch import nn

from partzoo.models.engines.kept import identity
from partzoo.models.engines.quantizing import QuantizedLinear, layers_of, observed, quantized
from partzoo.models.engines.recorded import FILE, recipes
from partzoo.models.engines.running import on_engine
from partzoo.models.loading import load
from partzoo.weights.manifest import manifest


def test_a_quantized_layer_rounds_its_input_and_weights_to_eight_bits():
    linear = nn.Linear(3, 2)
    linear.weight.data = torch.tensor([[1.27, -0.5, 0.004], [2.54, 0.0, 0.03]])
    linear.bias.data = torch.tensor([1.0, -1.0])
    layer = QuantizedLinear(linear, -1.0, 1.55)  # steps of 0.01
    found = layer(torch.tensor([[0.104, -0.5, 9.0]]))
    # 0.104 is 0.10, and 9 is the end of the range. 0.004 is no step of 0.01, and 0.03 is one and a half of 0.02.
    expected = [[0.1 * 1.27 + 0.5 * 0.5 + 1, 0.1 * 2.54 + 1.55 * 0.04 - 1]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_ranges_span_all_images_and_zero():
    model = load("toy-vit", device="cpu", dtype="float32")
    name, layer = list(layers_of(model).items())[-1]
    seen = []
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.randn(3, 1, 3, 32, 32)
    ranges = observed(model, images, model.encode)
    lowest, highest = min(x.min().item() for x in seen), max(x.max().item() for x in seen)
    assert ranges[name] == pytest.approx((min(0, lowest), max(0, highest)), abs=1e-4)
    assert len(layer._forward_pre_hooks) == 1  # only the one above is left
    assert all(low <= 0 <= high for low, high in ranges.values())


def test_only_layers_with_ranges_are_quantized():
    model = load("toy-vit", device="cpu", dtype="float32")
    first, *others = layers_of(model)
    quantized(model, {first: (-1.0, 1.0)})
    assert isinstance(model.get_submodule(first), QuantizedLinear)
    assert not any(isinstance(model.get_submodule(name), QuantizedLinear) for name in others)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_computes_what_quantized_layers_compute(engine):
    pytest.importorskip(engine)
    model = load("part-vitn8.tin", device="cpu", dtype="float32")
    x = torch.randn(2, 3, 67, 41, generator=torch.Generator().manual_seed(0))
    ranges = observed(model, [x], model.encode)
    found = on_engine(model, engine, "int8", ranges).encode(x).patch
    exact = model.encode(x).patch
    expected = quantized(model, ranges).encode(x).patch
    tolerance = 0.5 if engine == "onnxruntime" else 1.5  # OpenVINO has bfloat16 for the rest where the CPU has it
    assert (found - expected).abs().mean() < tolerance * (expected - exact).abs().mean()
    assert nn.functional.cosine_similarity(found, exact, dim=-1).mean() > 0.98


def test_recorded_ranges_are_of_released_weights_and_their_layers():
    assert recipes()
    for key, recipe in recipes().items():
        model = load(manifest()[recipe.name].name, device="cpu", dtype="float32")
        assert identity(model) == key, f"run: python scripts/int8.py DATA {recipe.name}"
        assert set(recipe.ranges) <= set(layers_of(model))
    used = json.loads(FILE.read_text(encoding="utf-8"))["calibration"]
    assert all(len(set(each["calibration"])) == len(each["calibration"]) > 0 for each in used.values())


def test_info_shows_how_precisions_agree():
    ran = command("info", "part-vits8.tin")
    assert "int8 in onnxruntime: features have a cosine of 0.99" in ran.out, ran.err
    about = json.loads(command("info", "part-vits8.tin", "--json").out)
    [found] = about["precisions"].values()
    assert found["agreement"]["onnxruntime"]["int8"]["offered"] and "blocks.0.attn.qkv" in found["int8"]
