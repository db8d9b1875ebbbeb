"""A model of every family computes on a GPU what it computes on the CPU: ``pytest -m gpu``."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.experiments import experiment

import partzoo
from partzoo.models.registry import architectures, find

IMAGES = Path(__file__).parents[1] / "examples" / "images"
MODELS = (
    "toy-vit", "efficientnet-lite0", "foreground-lite0", "part-vitn8", "part-classifier-vitn8", "part-vit1d",
    "mpae-patchresnet14", "partformer-patchresnet14", "spatial-conv4",
)  # fmt: skip
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def test_every_family_has_a_model_here():
    assert {find(name).family for name in MODELS} == {each.family for each in architectures().values()}


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_the_same_on_a_gpu(name):
    torch.manual_seed(0)
    model = partzoo.load(name, pretrained=False, device="cpu", dtype="float32")
    x = torch.randn((2, 6, 3000) if name == "part-vit1d" else (2, 3, 64, 64))
    with torch.inference_mode():
        of_cpu = model(x)
        of_gpu = model.cuda()(x.cuda()).cpu()
    assert torch.allclose(of_cpu, of_gpu, rtol=1e-2, atol=1e-2 * of_cpu.abs().max().item())


@pytest.mark.gpu
@gpu
def test_parts_found_on_a_gpu_are_those_found_on_the_cpu():
    images = [IMAGES / "ibis.jpg", IMAGES / "cat.jpg"]
    vocabulary = partzoo.fit_parts(images, k=4, device="cpu")
    of_cpu, of_gpu = (partzoo.discover_parts(images, vocabulary=vocabulary, device=each) for each in ("cpu", "cuda"))
    for ours, theirs in zip(of_cpu, of_gpu, strict=True):
        assert np.mean(ours.labels == theirs.labels) > 0.999


def test_the_measurement_for_a_gpu_runs_on_the_cpu():
    ran = CliRunner().invoke(experiment("gpu_speed").main, ["--device", "cpu", "--quick"], catch_exceptions=False)
    lines = [line for line in ran.output.splitlines() if line.startswith("|")]
    assert ran.exit_code == 0 and [line.split("|")[1].strip() for line in lines[2:]] == [
        "test_vit, float32", "mpae-patchresnet14, maps", "discover, toy-vit",
    ]  # fmt: skip
    assert all(line.split("|")[6].strip() == "100.00" for line in lines[3:])
