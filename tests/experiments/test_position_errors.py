"""The script for position errors runs, writes its results, and does not repeat finished work."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.experiments import experiment
from PIL import Image


@pytest.fixture(scope="module")
def script():
    return experiment("position_errors")


@pytest.fixture(scope="module")
def ran(script, tmp_path_factory):
    """Run the script once; return its folder and arguments."""
    folder = tmp_path_factory.mktemp("position-errors")
    (folder / "images").mkdir()
    draw = np.random.default_rng(0)
    for number in range(40):
        pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:02}.png")
    options = ["--data", folder / "images", "-o", folder / "out", "--tiny"]
    options = [str(each) for each in (*options, "--results", folder / "results", "--images", folder / "images")]
    CliRunner().invoke(script.main, options, catch_exceptions=False)
    return folder, options


def test_every_setting_is_measured_off_the_grid_and_on_it(script, ran):
    rows = script.read(ran[0] / "results" / "position-errors.csv")
    encoders = {(row["encoder"], row["sampling"], row["evaluated"]) for row in rows if row["targets"] == "2"}
    samplings, evaluated = ("integer", "on-grid"), ("off-grid", "on-grid")
    assert encoders == {(a, b, c) for a in script.ENCODERS for b in samplings for c in evaluated}
    assert {row["pairs"] for row in rows} == {"256", "1024", "2048", "4096"}
    assert all(float(row[name]) > 0 for row in rows for name in ("mse_x", "mse_y", "distance", "antisymmetry"))
    cells = next(row for row in rows if row["evaluated"] == "on-grid")
    assert float(cells["constant_mse_x"]) == 2.5  # twice the variance of columns 0, 1, 2, 3
    four = [row for row in rows if row["targets"] == "4"]
    assert [row["evaluated"] for row in four] == ["multi-scale"] and float(four[0]["mse_w"]) > 0
    weights = {row["encoder"]: int(row["relative_parameters"]) for row in rows if row["targets"] == "2"}
    assert weights["mlp"] == 16 * 32 * 16**2 * 2 and weights["pairwise-mlp"] == 2 * 32 * 2
    assert Image.open(ran[0] / "images" / "position-errors.png").width > 1000


def test_what_is_there_is_not_done_again(script, ran, monkeypatch):
    folder, options = ran
    before = (folder / "results" / "position-errors.csv").read_text()
    monkeypatch.setattr(script, "fit", None)
    shown = CliRunner().invoke(script.main, options, catch_exceptions=False).output
    assert (folder / "results" / "position-errors.csv").read_text() == before
    assert sum(line.startswith("| ") for line in shown.splitlines()) == (2 + 9) + (2 + 4) + (2 + 2)


def test_the_page_shows_what_was_measured(script):
    root = Path(script.__file__).parents[1]
    page = (root / "docs" / "relations.md").read_text(encoding="utf-8")
    rows = script.read(root / "results" / "part" / "position-errors.csv")
    for text in script.tables(script.Setting(), rows):
        assert text in page, "copy what experiments/position_errors.py prints"
