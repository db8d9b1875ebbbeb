"""The messages of commands use the commands' options and are single lines."""

import re

import numpy as np
import pytest
from helpers.command_line import partzoo
from PIL import Image

from partzoo.cli import main

TOY = ("--model", "toy-vit")


@pytest.fixture
def image(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("limit", ["--max-pixels", "--max-bytes"])
@pytest.mark.parametrize("command", ["discover", "features", "relate", "swap"])
def test_limits_are_options_of_every_command_that_reads_images(command, limit, image, tmp_path):
    more = {"features": ("-o", tmp_path / "x.npz"), "swap": (image, "-o", tmp_path / "x.png")}.get(command, ())
    ran = partzoo(command, image, *more, limit, 10)
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
