"""One meaning of ``device`` in every function and command that runs a model."""

from __future__ import annotations

import inspect

import click
import numpy as np
import pytest
import torch
from helpers.command_line import partzoo as command
from PIL import Image
from torch import nn

import partzoo
from partzoo.bench import run as bench
from partzoo.cli import main
from partzoo.errors import UsageError
from partzoo.evaluate.run import evaluate, evaluate_all
from partzoo.features import placed
from partzoo.hub import from_pretrained
from partzoo.system import device as devices
from partzoo.system.device import default_device, device_of
from partzoo.train.few_labels import few_labels
from partzoo.train.loop import LoopOptions, accelerator_on, fit
from partzoo.train.release import release
from partzoo.train.run import train
from partzoo.train.stages import sample_efficiency

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
NOWHERE = "gpu"  # the name of no device


def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_names_and_devices_are_taken_and_none_is_the_default(monkeypatch):
    assert device_of("cpu") == device_of(torch.device("cpu")) == torch.device("cpu")
    no_gpu(monkeypatch)
    assert device_of(None) == default_device() == torch.device("cpu")


def test_cuda_without_a_gpu_is_one_sentence(monkeypatch):
    no_gpu(monkeypatch)
    monkeypatch.setattr(devices, "why_no_cuda", lambda: "")
    with pytest.raises(UsageError) as error:
        partzoo.load("toy-vit", device="cuda")
    assert str(error.value) == (
        "device='cuda': torch finds no CUDA GPU on this machine. Leave device= out to run on the CPU."
    )


def test_a_build_without_cuda_is_named_as_the_reason(monkeypatch):
    no_gpu(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(UsageError, match=r"built without CUDA.*pytorch\.org"):
        device_of("cuda:0")


@pytest.mark.parametrize(("number", "said"), [(1, "1 CUDA GPU: choose 'cuda:0'"), (2, "2 CUDA GPUs: choose 'cuda:0'")])
def test_a_gpu_beyond_the_last_is_counted(number, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    with pytest.raises(UsageError, match=said):
        device_of("cuda:7")


def test_mps_without_an_apple_gpu_is_one_sentence(monkeypatch):
    no_gpu(monkeypatch)
    with pytest.raises(UsageError, match="no Apple GPU on this machine"):
        partzoo.load("toy-vit", device="mps")


@pytest.mark.parametrize("name", [NOWHERE, "", "cuda:x", "cuda:-1", 1.5, object()])
def test_nonsense_is_not_a_device(name):
    with pytest.raises(UsageError, match="is not a device: choose 'cpu'"):
        device_of(name)


def test_a_device_that_cannot_compute_is_refused():
    with pytest.raises(UsageError, match="'meta' cannot be used here"):
        device_of("meta")


def test_a_module_is_moved_to_the_device_and_otherwise_stays():
    module = nn.Linear(2, 2, device="meta")
    assert placed(module, None) is module
    assert placed(nn.Linear(2, 2), "cpu").weight.device.type == "cpu"
    with pytest.raises(UsageError, match="is not a device"):
        placed(nn.Linear(2, 2), NOWHERE)


def pairs():
    return [IMAGE[:16, :16], IMAGE[16:32, 16:32]]


FUNCTIONS = {
    "load": lambda: partzoo.load("toy-vit", device=NOWHERE),
    "from_pretrained": lambda: from_pretrained("nowhere", device=NOWHERE),
    "discover_parts": lambda: partzoo.discover_parts(IMAGE, device=NOWHERE),
    "discover_parts of a module": lambda: partzoo.discover_parts(
        IMAGE, model=partzoo.load("toy-vit"), background=None, device=NOWHERE
    ),
    "fit_parts": lambda: partzoo.fit_parts([IMAGE, IMAGE], device=NOWHERE),
    "extract_features": lambda: partzoo.extract_features(IMAGE, device=NOWHERE),
    "relate": lambda: partzoo.relate(IMAGE, device=NOWHERE),
    "relate with a module": lambda: partzoo.relate(IMAGE, model=partzoo.load("part-vitn"), device=NOWHERE),
    "assemble": lambda: partzoo.assemble(pairs(), device=NOWHERE),
    "relate_images": lambda: partzoo.relate_images(IMAGE, IMAGE, device=NOWHERE),
    "swap_parts": lambda: partzoo.swap_parts("partformer-resnet18", IMAGE, IMAGE, device=NOWHERE),
    "reconstruct": lambda: partzoo.reconstruct(IMAGE, model="partformer-resnet18", device=NOWHERE),
    "part_attention": lambda: partzoo.part_attention(IMAGE, model="partformer-resnet18", device=NOWHERE),
    "feature_pyramid": lambda: partzoo.feature_pyramid("toy-vit", device=NOWHERE),
    "evaluate": lambda: evaluate("part-vitn", "tiny-imagenet", "nowhere", device=NOWHERE),
    "evaluate, parts": lambda: evaluate("part-vitn", "faces68", "nowhere", device=NOWHERE),
    "evaluate, foregrounds": lambda: evaluate("foreground-lite0.masks", "ecssd", "nowhere", device=NOWHERE),
    "evaluate, a floor": lambda: evaluate("random-weights", "tiny-imagenet", "nowhere", device=NOWHERE),
    "train": lambda: train("part", data="nowhere", out="nowhere", steps=1, device=NOWHERE),
    "fit": lambda: fit(nn.Linear(1, 1), [], LoopOptions(steps=1), "nowhere", device=NOWHERE),
    "sample_efficiency": lambda: sample_efficiency("nowhere", "nowhere", "nowhere", device=NOWHERE),
    "bench": lambda: bench(["discover"], quick=True, device=NOWHERE),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_that_runs_a_model_passes_the_device_on(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="device='gpu' is not a device"):
        FUNCTIONS[name]()


def test_every_public_function_that_takes_a_model_takes_a_device():
    public = [getattr(partzoo, name) for name in partzoo.__all__]
    functions = [each for each in public if inspect.isfunction(each)]
    functions += [evaluate, train, release, few_labels, sample_efficiency, fit]
    taking = [each for each in functions if {"model", "parents"} & set(inspect.signature(each).parameters)]
    assert len(taking) > 10
    without = {each.__name__ for each in taking if "device" not in inspect.signature(each).parameters}
    assert without == {"export_model"}  # which traces on the CPU, for programs that run anywhere
    assert "options" in inspect.signature(evaluate_all).parameters  # which are those of evaluate


COMMANDS = {
    "discover": ["photo.png"],
    "report": ["photo.png", "-o", "out.html"],
    "features": ["photo.png", "-o", "out.npz"],
    "fit": [".", "-o", "out.parts.safetensors"],
    "suggest": ["photo.png", "--vocabulary", "words.safetensors"],
    "vocabulary": ["words.safetensors", "--split", "1", "--images", "photo.png"],
    "relate": ["photo.png"],
    "swap": ["photo.png", "photo.png", "-o", "out.png"],
    "reconstruct": ["photo.png", "-o", "out.png"],
    "attention": ["photo.png", "-o", "out.png"],
    "train": ["part", "--data", ".", "--steps", "1"],
    "stages": ["part-signals", "--data", ".", "-o", "out"],
    "eval": ["part-vitn", "--protocol", "faces68", "--data", "."],
    "bench": ["discover", "--quick"],
}


def test_every_command_that_runs_a_model_has_the_option():
    having = {
        name
        for name, command in main.commands.items()
        if any(isinstance(each, click.Option) and each.name == "device" for each in command.params)
    }
    assert having == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_device_is_one_sentence_in_the_words_of_the_command_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(IMAGE).save("photo.png")
    partzoo.fit_parts(IMAGE, 2, model="toy-vit", background="none").save("words.safetensors")
    ran = command(name, *COMMANDS[name], "--device", NOWHERE)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: --device 'gpu' is not a device: choose 'cpu'") and ran.err.count("\n") == 1
    assert "or leave --device out" in ran.err


def test_training_on_the_cpu_is_asked_of_accelerate():
    pytest.importorskip("accelerate")
    assert accelerator_on("cpu").device.type == "cpu"


def test_a_device_that_accelerate_does_not_give_is_one_sentence(monkeypatch):
    accelerate = pytest.importorskip("accelerate")

    def refuse(**_):
        raise ValueError("AcceleratorState has already been initialized")

    monkeypatch.setattr(accelerate, "Accelerator", refuse)
    with pytest.raises(UsageError, match="this process has trained on another device: begin a new process"):
        accelerator_on("cpu")
