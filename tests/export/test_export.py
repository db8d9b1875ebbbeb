"""Exported files hold what they say, and compute what the model computes, at any batch and size."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo as command

import partzoo
from partzoo.discovery.descriptors import coherent
from partzoo.errors import MissingExtraError, PartzooError, UsageError
from partzoo.export.about import metadata
from partzoo.export.export import export_model, graph_of
from partzoo.export.graphs import ImageGraph
from partzoo.export.writing import METADATA, RT_INFO
from partzoo.tracing.graph import Axis, Graph, Input, Output, traced
from partzoo.weights.manifest import manifest

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TOY_PARTS = {
    "pretrained": False, "device": "cpu", "dtype": "float32", "encoder": "toy-vit", "size": 32, "parts": 3, "dim": 16,
    "width": 16, "depth": 1, "heads": 2, "masked_width": 16, "masked_depth": 1, "masked_heads": 2,
    "decoder_depth": 1, "decoder_heads": 2, "restored": 4,
}  # fmt: skip
SIZES = ((48, 64), (67, 41), (33, 120))  # for encoders and for images: one odd, none square
LIMIT = 1e-4
SPEC = importlib.util.spec_from_file_location("parity", Path(__file__).parents[2] / "scripts" / "export_parity.py")
PARITY = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(PARITY)


def toy_parts(**more) -> torch.nn.Module:
    """A part model of one block with random weights, far from equal parts everywhere."""
    torch.manual_seed(0)
    model = partzoo.load("mpae-patchresnet14", **(TOY_PARTS | more))
    with torch.no_grad():
        model.extractor.proj.weight.mul_(8)
    return model


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory) -> Path:
    return export_model("toy-vit", tmp_path_factory.mktemp("export") / "toy.onnx")


@pytest.fixture(scope="module")
def parts_file(tmp_path_factory) -> Path:
    return export_model(toy_parts(), tmp_path_factory.mktemp("export") / "parts.onnx")


@pytest.mark.parametrize("size", SIZES)
def test_an_encoder_s_file_gives_its_features(toy_file, size):
    assert PARITY.difference(graph_of("toy-vit")[0], onnxruntime.InferenceSession(toy_file), size) <= LIMIT


def test_the_features_are_those_of_the_encoder(toy_file):
    x = torch.rand(1, 3, 40, 56)
    dense, pooled = onnxruntime.InferenceSession(toy_file).run(None, {"x": x.numpy()})
    expected = partzoo.load("toy-vit", device="cpu", dtype="float32").encode(x).maps().detach()
    np.testing.assert_allclose(dense, expected, rtol=0, atol=LIMIT)
    np.testing.assert_allclose(pooled, expected.mean((2, 3)), rtol=0, atol=LIMIT)


@pytest.mark.parametrize("size", SIZES)
def test_a_part_model_s_file_gives_its_parts_at_the_image_s_size(parts_file, size):
    graph, _ = graph_of(toy_parts())
    assert PARITY.difference(graph, onnxruntime.InferenceSession(parts_file), size) <= LIMIT


def test_the_parts_are_those_of_discovery(parts_file):
    image = PARITY.example(graph_of(toy_parts())[0], (57, 83))["image"][:1]
    scores = onnxruntime.InferenceSession(parts_file).run(["parts"], {"image": image.numpy()})[0][0]
    expected = partzoo.discover_parts(image[0].permute(1, 2, 0).numpy(), model=toy_parts())
    assert len(np.unique(expected.labels)) > 1
    assert (scores.argmax(0) == expected.labels).mean() > 0.99


def test_a_file_says_what_it_takes_gives_and_is_made_from(parts_file):
    session = onnxruntime.InferenceSession(parts_file)
    about = session.get_modelmeta().custom_metadata_map
    assert about["partzoo_format"] == "1" and about["partzoo_version"] == partzoo.__version__
    assert about["task"] == "parts" and json.loads(about["size"]) == 32
    assert json.loads(about["names"]) == ["background", "part 1", "part 2", "part 3"]
    for key, values in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        stated = json.loads(about[key])
        assert {value.name: value.shape for value in values} == {name: each["shape"] for name, each in stated.items()}
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    [model] = json.loads(about["models"])
    assert model["architecture"] == "mpae-patchresnet14" and model["licence"].startswith("unknown")
    assert model["preprocess"]["mean"] == list(toy_parts().preprocess.mean)
    assert re.fullmatch("[0-9a-f]{64}", model["sha256"][0])


def test_released_weights_are_named_with_licence_and_sha256():
    graph, named = graph_of(None)
    encoder, foreground = json.loads(metadata(graph, named)["models"])
    assert encoder["name"] == "efficientnet-lite0.in1k" and foreground["name"] == "foreground-lite0.masks"
    for each in (encoder, foreground):
        record = manifest()[each["name"]]
        assert each["sha256"] == [file.sha256 for file in record.files] and each["licence"] == record.licence


def test_two_weights_of_one_architecture_have_different_digests():
    models = toy_parts(), toy_parts()
    models[1].extractor.proj.weight.data[0, 0] += 1
    first, second = (json.loads(metadata(*graph_of(model))["models"])[0]["sha256"] for model in models)
    assert first != second


class Coherent(Graph):
    """The attention of discovery by itself, whose rows see only cells on their side of the outline."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs = {"found": Output("", ("batch", 4, "height", "width"))}

    def inputs(self) -> dict[str, Input]:
        shape = (Axis("batch"), Axis("height"), Axis("width"))
        layer = torch.nn.functional.normalize(torch.randn(2, 4, 35, 37), dim=1)
        return {
            "layer": Input("", (shape[0], 4, *shape[1:]), layer),
            "score": Input("", shape, torch.rand(2, 35, 37)),
        }

    def forward(self, layer: torch.Tensor, score: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (coherent(layer, score),)


def test_rows_of_attention_that_see_nothing_stay_as_they_are():
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.functional.normalize(torch.randn(3, 4, 70, 66, generator=generator), dim=1)
    score = torch.zeros(3, 70, 66)
    score[0, 20], score[1, :30], score[2, ::4] = 1, 1, 1  # single lines are too thin for the coarser copy
    graph = Coherent()
    found = PARITY.session_of(graph)[0].run(None, {"layer": layer.numpy(), "score": score.numpy()})[0]
    expected = torch.stack([coherent(one, its) for one, its in zip(layer, score, strict=True)]).numpy()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=LIMIT)
    np.testing.assert_allclose(found[0, :, 20], layer[0, :, 20], rtol=0, atol=LIMIT)


def test_the_program_of_torch_is_saved_with_its_metadata(tmp_path):
    file = tmp_path / "toy.pt2"
    ran = command("export", "toy-vit", "--format", "torch-export", "-o", file)
    assert ran.code == 0 and str(file) in ran.out, ran.err
    extra = {METADATA: ""}
    program = torch.export.load(file, extra_files=extra)
    assert json.loads(extra[METADATA])["task"] == "features"
    graph, _ = graph_of("toy-vit")
    for size in SIZES:
        x = PARITY.example(graph, size)["x"]
        torch.testing.assert_close(program.module()(x), graph(x), rtol=0, atol=LIMIT)


def test_openvino_computes_the_same_from_its_file(tmp_path):
    """Needs pip install "partzoo[openvino]": pytest tests/export/test_export.py -k openvino."""
    openvino = pytest.importorskip("openvino")
    file = export_model(toy_parts(), tmp_path / "toy.xml", format="openvino")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy.bin", "toy.xml"]
    model = openvino.Core().read_model(file)
    assert model.get_rt_info([RT_INFO, "task"]).value == "parts"
    # Its CPU plugin may choose bfloat16, where the machine has it.
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    graph, _ = graph_of(toy_parts())
    for size in SIZES:
        image = PARITY.example(graph, size)["image"]
        with torch.inference_mode():
            expected = graph(image)
        for found, other in zip(compiled([image.numpy()]).values(), expected, strict=True):
            np.testing.assert_allclose(found, other, rtol=0, atol=LIMIT)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("-o", "x.png"), "'x.png' must end in .onnx"),
        (("-o", "x.onnx", "--format", "openvino"), "must end in .xml"),
        (("-o", "x.onnx", "--task", "parts"), "--task 'parts': toy-vit cannot do that without a vocabulary"),
        (("-o", "no/folder/x.onnx"), "there is no folder"),
        (("-o", "x.onnx", "--vocabulary", "none.safetensors"), "No such file"),
    ],
)
def test_the_command_refuses_before_it_works(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("export", "toy-vit", *arguments)
    assert ran.code in (1, 2) and said in ran.err and not list(tmp_path.iterdir()), ran.err


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(UsageError, match="format='tflite' must be one of 'onnx'"):
        export_model("toy-vit", tmp_path / "x.onnx", format="tflite")


def test_a_missing_library_is_named_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r'onnxscript is not installed: pip install "partzoo\[export\]"'):
        export_model("toy-vit", tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


class Stubborn(ImageGraph):
    def __init__(self) -> None:
        super().__init__()
        self.outputs = {"found": Output("", ("batch",))}

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (image.float().mean((1, 2, 3)) if image.float().mean() > 1 else image[:, 0, 0, 0],)


def test_what_cannot_be_traced_is_one_sentence():
    with pytest.raises(PartzooError, match=r"cannot be exported with free sizes \(\w+: [^\n]*\)\.$"):
        traced(Stubborn())


@pytest.mark.slow  # tracing with free sizes takes ten seconds to a minute
@pytest.mark.parametrize("name", PARITY.NAMES)
def test_every_family_and_the_default_compute_the_same_in_onnx_runtime(name):
    graph = PARITY.graph_for(name)
    session, _ = PARITY.session_of(graph)
    limit = 30 * LIMIT if name == "taught" else LIMIT  # coefficients of taught parts are large, and so are their errors
    for size in PARITY.sizes_for(graph):
        assert PARITY.difference(graph, session, size) <= limit


@pytest.mark.slow
def test_parts_of_several_classes_are_chosen_by_the_second_input():
    graph, _ = graph_of(toy_parts(classes=2))
    session, _ = PARITY.session_of(graph)
    assert [each.name for each in session.get_inputs()] == ["image", "classes"]
    assert PARITY.difference(graph, session, (75, 131)) <= LIMIT


@pytest.mark.slow
def test_a_finetuned_signal_model_has_its_own_length():
    model = partzoo.load("part-vit1d", pretrained=False, device="cpu", dtype="float32", depth=1, classes=5)
    graph, _ = graph_of(model)
    session, _ = PARITY.session_of(graph)
    assert session.get_inputs()[0].shape == ["batch", 6, 3000]
    assert list(graph.outputs) == ["dense", "pooled", "prefix"]
    assert PARITY.difference(graph, session, (3000,)) <= LIMIT
