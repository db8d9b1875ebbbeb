"""The messages of commands use the commands' options and are single lines."""

import ast
import re

import click
import numpy as np
import pytest
from helpers.command_line import partzoo
from PIL import Image

from partzoo.cli import main
from partzoo.cli.wording import in_options
from partzoo.errors import UsageError
from partzoo.train.loop import CHECKPOINT, run_folder
from partzoo.train.run import train
from partzoo.weights.manifest import PACKAGE

TOY = ("--model", "toy-vit")


@pytest.fixture
def image(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("limit", ["--max-pixels", "--max-bytes"])
@pytest.mark.parametrize("command", ["discover", "features", "relate", "swap", "attention", "reconstruct"])
def test_limits_are_options_of_every_command_that_reads_images(command, limit, image, tmp_path):
    png = ("-o", tmp_path / "x.png")
    more = {"features": ("-o", tmp_path / "x.npz"), "swap": (image, *png), "attention": png, "reconstruct": png}
    ran = partzoo(command, image, *more.get(command, ()), limit, 10)
    assert ran.code == 1
    assert re.search(rf"the limit: reduce its size, or raise {limit}\.$", ran.err.strip()), ran.err
    assert limit in partzoo(command, "--help").out


def test_where_a_command_has_no_such_option_none_is_named(image, tmp_path, monkeypatch):
    monkeypatch.setattr("partzoo.images.opening.open_image.__kwdefaults__", dict(name=None, max_pixels=9, max_bytes=9))
    (tmp_path / "b.png").write_bytes(image.read_bytes())
    ran = partzoo("train", "part", "--data", image.parent, "-o", tmp_path / "out", "--steps", 1)
    assert ran.code == 1 and "b.png has more than 9 bytes, the limit." in ran.err and "max_" not in ran.err, ran.err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("-k", 0), "-k 0 must be at least 1"),
        (("--size", -1), "--size -1 must be at least 1 pixel"),
        (("--class", 3), "--class is for a part model"),
        (("-k", 10**6), "-k 1000000 exceeds"),
    ],
)
def test_errors_name_options_instead_of_arguments(arguments, said, image):
    ran = partzoo("discover", image, *TOY, *arguments)
    assert ran.code == 2 and said in ran.err, ran.err


def test_training_is_explained_in_the_caller_s_own_terms(image, tmp_path):
    arguments = ("train", "part", "--data", image.parent, "-o", tmp_path / "run")
    with pytest.raises(UsageError, match="either as steps=, as minutes= or as epochs="):
        train("part", data=image.parent, out=tmp_path / "run", steps=1, minutes=1)
    assert "either as --steps, as --minutes or as --epochs" in partzoo(*arguments, "--steps", 1, "--minutes", 1).err
    run_folder(tmp_path / "run").joinpath(CHECKPOINT).touch()
    with pytest.raises(UsageError, match=r"Add resume=True, or choose another folder with out=\."):
        train("part", data=image.parent, out=tmp_path / "run", steps=1)
    assert "Add --resume, or choose another folder with --out." in partzoo(*arguments, "--steps", 1).err


@pytest.mark.parametrize(
    "sentence, said",
    [
        ("Train with resume=False.", "Train with no --resume."),
        ("Leave refine=False out.", "Leave --no-refine out."),
        ("Use k=None for all 8.", "Use -k own for all 8."),
        ("See partzoo.list_models().", "See 'partzoo list'."),
        ("See partzoo.list_models(family='encoder').", "See 'partzoo list --family encoder'."),
        ("Train them, or pass pretrained=False for random ones.", "Train them."),
        ("Name it, or pass seed=1.", "Name it, or pass --seed 1."),
        ("config.seed=3 and data.seed=4 stay.", "config.seed=3 and data.seed=4 stay."),
    ],
)
def test_arguments_become_options(sentence, said):
    flags = [click.Option(["--resume"], is_flag=True), click.Option(["--refine/--no-refine"], default=True)]
    params = [*flags, click.Option(["-k", "k"]), click.Option(["--seed"])]
    assert in_options(UsageError(sentence), params) == said


def test_models_without_weights_are_refused_in_the_command_line_s_words(image):
    ran = partzoo("discover", image, "--model", "part-vits4")
    assert "train them" in ran.err and "pretrained=" not in ran.err
    ran = partzoo("discover", image, "--model", "part-vitq")
    assert "See 'partzoo list'." in ran.err
    ran = partzoo("discover", image, "--background", "nothing")
    assert "it is 'auto' or one of boundary" in ran.err and "None" not in ran.err


COMMANDS = re.compile(r"'?(?:partzoo|pip|git|accelerate|python) [^']*'?")  # they have options of their own
OF_THE_COMMAND_LINE = {"settings.py", "protocols"}  # parse --set, and describe the data of 'partzoo eval'


def test_no_sentence_of_the_python_interface_speaks_in_options():
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        if {"cli", "bench", *OF_THE_COMMAND_LINE} & set(file.relative_to(PACKAGE).parts):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and node.exc is not None:
                texts = [each.value for each in ast.walk(node.exc) if isinstance(each, ast.Constant)]
                sentence = COMMANDS.sub("", " ".join(each for each in texts if isinstance(each, str)))
                found += [f"{file.name}: {sentence}"] * bool(re.search(r"(?<!\w)--?[a-z]+\b(?!')", sentence))
    assert found == []


def test_warnings_are_lines_of_their_own(tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (40, 60)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.tiff")
    ran = partzoo("discover", tmp_path / "a.tiff", "-k", 2, *TOY, "-o", tmp_path / "a.png")
    assert ran.code == 0
    assert "Warning: A 16-bit image without a value above 4095 is read as 12-bit data, 0..4095" in ran.err
    assert "UserWarning" not in ran.err and ".py" not in ran.err


def test_every_option_of_limits_has_a_default_in_its_help():
    for name in ("discover", "features"):
        shown = main.commands[name].get_help(main.commands[name].make_context(name, [], resilient_parsing=True))
        assert "178956970" in shown and "536870912" in shown


@pytest.mark.parametrize(
    "words",
    [
        ("train", "part", "--data", "in", "-o", "out", "--steps", "1", "--seed", str(10**30)),
        ("train", "part", "--data", "in", "-o", "out", "--steps", "1", "--threads", "-3"),
        ("train", "part", "--data", "in", "-o", "out", "--steps", "1", "--lr", "-1"),
        ("train", "part", "--data", "in", "-o", "out", "--steps", "1", "--set", "loop.log_steps=0"),
        ("stages", "model", "--data", "in", "-o", "out", "--threads", "0"),
        ("discover", "in", "--seed", str(10**30)),
        ("relate", "a.png", "--seed", "-1"),
    ],
)
def test_numbers_out_of_range_are_refused(words):
    ran = partzoo(*words)
    assert ran.code == 2 and "Unexpected" not in ran.err, ran.err
