"""The script for Spatial Reasoning's table runs, writes its results, and does not repeat finished work."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.experiments import experiment
from PIL import Image


@pytest.fixture(scope="module")
def script():
    return experiment("spatial_table")


@pytest.fixture(scope="module")
def ran(script, tmp_path_factory):
    """Run the script once; return its folder and arguments."""
    folder = tmp_path_factory.mktemp("spatial-table")
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            place = folder / "data" / split / name / "images"
            place.mkdir(parents=True)
            for number in range(4):
                Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(place / f"{number}.png")
    options = ["--data", folder / "data", "-o", folder / "out", "--tiny", "--seeds", "0,1"]
    options = [str(each) for each in (*options, "--results", folder / "results", "--images", folder / "images")]
    result = CliRunner().invoke(script.main, options, catch_exceptions=False)
    return folder, options, result.output


def test_every_method_and_seed_is_measured_with_every_number_of_patches(script, ran):
    rows = script.read(ran[0] / "results" / "linear.csv")
    assert len(rows) == 2 * (2 + 6 + 6 + 1 + 1)
    assert {row["images"] for row in rows if row["method"] != "random"} == {"2"}
    assert all(0 <= float(row[figure]) <= 100 for row in rows for figure in ("linear", "linear_sgd"))
    assert (ran[0] / "images" / "spatial-patches.png").stat().st_size > 1000


def test_the_paper_s_figures_stand_beside_ours(ran):
    assert "| relational reasoning | 0 | 30.54 |" in ran[2] and "| 9 | 33.08 |" in ran[2]


def test_nothing_is_measured_twice(script, ran, monkeypatch):
    _, options, output = ran
    monkeypatch.setattr(script, "trained", lambda *_, **__: pytest.fail("trained again"))
    assert CliRunner().invoke(script.main, options, catch_exceptions=False).output == output


def test_a_table_holds_one_setting(script, ran):
    again = CliRunner().invoke(script.main, [*ran[1], "--model", "spatial-resnet8"])
    assert again.exit_code == 2 and "another architecture" in again.output


def test_rows_can_be_chosen(script, ran, tmp_path):
    options = list(ran[1])
    for name in ("-o", "--results", "--images"):
        options[options.index(name) + 1] = str(tmp_path / name.strip("-"))
    done = CliRunner().invoke(script.main, [*options, "--method", "random"], catch_exceptions=False)
    assert "random weights" in done.output and "relational" not in done.output


def test_a_new_row_of_another_setting_is_refused_too(script, ran):
    again = CliRunner().invoke(
        script.main, [*ran[1], "--model", "spatial-resnet8", "--seeds", "7", "--method", "random"]
    )
    assert again.exit_code == 2 and "another architecture" in again.output


def test_the_page_shows_what_was_measured(script):
    root = Path(script.__file__).parents[1]
    page = (root / "docs" / "spatial.md").read_text(encoding="utf-8")
    for text in script.tables(script.read(root / "results" / "spatial" / script.TABLE)):
        assert text in page


def test_means_and_deviations_are_of_the_seeds(script):
    rows = [{"method": "plain", "patches": "9", "linear_sgd": value} for value in ("10.0", "12.0")]
    assert script.shown(script.of(rows, "plain", 9)) == "11.00 ± 1.41" and script.of(rows, "plain", 0) == []
