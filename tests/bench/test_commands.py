"""Whole commands of two builds, compared, and records compared with earlier ones."""

import json
import zipfile
from pathlib import Path

import pytest
from helpers.command_line import partzoo as command

import partzoo
from partzoo.bench import commands, run
from partzoo.bench.baseline import slower
from partzoo.bench.commands import Work
from partzoo.bench.process import Spent
from partzoo.errors import PartzooError, UsageError

ROOT = Path(partzoo.__file__).parents[1]


@pytest.fixture
def wheel(tmp_path):
    """A wheel of this very build."""
    path = tmp_path / "partzoo-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in (ROOT / "partzoo").rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(ROOT))
        archive.write(ROOT / "weights_manifest.json", "partzoo/weights_manifest.json")
    return path


@pytest.mark.slow
def test_commands_of_two_builds_are_timed(wheel):
    record = run(["commands"], 1, quick=True, against=wheel)
    assert [case["unit"] for case in record["cases"]] == ["mebibytes", "cpu_seconds_per_image"]
    memory, folder = record["cases"]
    assert memory["ratio"] == pytest.approx(1, abs=0.2) and memory["ours"]["mebibytes"] > 50
    assert 0 < folder["ours"]["cpu_seconds_per_image"] < 10


def test_the_cost_of_one_image_is_a_difference(monkeypatch, tmp_path):
    spent = {commands.PEER: 3.0, commands.OURS: 1.0}
    ran = []

    def process(work, images, steps, source):
        ran.append((images.name, steps, source == tmp_path))
        each = spent[commands.PEER if source == tmp_path else commands.OURS]
        return Spent(5 + steps * each, 7 + steps * each / 2, 100 * each)

    monkeypatch.setattr(commands, "run_process", process)
    work = Work("w", ("discover", "IMAGES"), 1, {"cpu_seconds_per_image": 0.4, "seconds_per_image": 0.3}, True)
    cpu, wall = commands._compared(work, tmp_path, tmp_path, (2, 12), False, 1)
    assert ran == [("2", 2, False), ("12", 12, False), ("2", 2, True), ("12", 12, True)] * 2
    assert cpu["ours"]["cpu_seconds_per_image"] == 1 and cpu["peer"]["cpu_seconds_per_image"] == 3
    assert cpu["ratio"] == wall["ratio"] == pytest.approx(1 / 3, abs=1e-3) and cpu["met"] and not wall["met"]
    assert cpu["facts"] == {"cores_busy": 2.0}
    work = Work("t", ("train", "part", "--data", "IMAGES", "--steps", "STEPS"), 8, {"cpu_seconds_per_image": 0.9})
    ran.clear()
    (trained,) = commands._compared(work, tmp_path, tmp_path, (2, 12), False, 1)
    assert {name for name, _, _ in ran} == {"12"} and {steps for _, steps, _ in ran} == set(commands.STEPS)
    assert trained["ours"]["cpu_seconds_per_image"] == 1 / 8
    whole = Work("p", ("discover", "IMAGES/000.jpg"), 0, {"cpu_seconds": 0.2, "mebibytes": 0.2})
    seconds, memory = commands._compared(whole, tmp_path, tmp_path, (2, 12), False, 1)
    assert seconds["ours"]["cpu_seconds"] == 7 and memory["ratio"] == pytest.approx(1 / 3, abs=1e-3)


def test_builds_that_cannot_be_compared_are_refused(tmp_path):
    with pytest.raises(UsageError, match="--against"):
        run(["commands"], 1, quick=True)
    (tmp_path / "bad.whl").write_text("no zip")
    with pytest.raises(UsageError, match="cannot be read"):
        run(["commands"], 1, quick=True, against=tmp_path / "bad.whl")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(UsageError, match="not a wheel of partzoo"):
        run(["commands"], 1, quick=True, against=tmp_path / "other.whl")
    with pytest.raises(PartzooError, match=r"partzoo discover .* failed: "):
        commands.run_process(Work("w", ("discover", "IMAGES"), 1, {}), tmp_path / "nothing", 1, ROOT)


def case(name, measure, ratio, low, high):
    return {"name": name, "measure": measure, "ratio": ratio, "ratio_min": low, "ratio_max": high}


def test_a_row_is_slower_if_it_is_worse_than_all_of_the_earlier_record():
    earlier = {"cases": [case("fast", "speedup", 2.0, 1.8, 2.2), case("cheap", "cost", 0.5, 0.4, 0.6)]}
    assert slower({"cases": [case("fast", "speedup", 1.65, 1, 2), case("cheap", "cost", 0.65, 0, 1)]}, earlier) == []
    found = slower({"cases": [case("fast", "speedup", 1.6, 1, 2), case("cheap", "cost", 0.7, 0, 1)]}, earlier)
    assert [sentence.split(":")[0] for sentence in found] == ["fast", "cheap"] and "was 0.50" in found[1]
    assert slower({"cases": [case("new", "cost", 9.0, 9, 9)]}, earlier) == []


def test_the_exit_code_says_whether_a_row_has_become_slower(tmp_path, monkeypatch):
    cases = [case("x", "cost", 2.0, 2.0, 2.0)]
    monkeypatch.setattr("partzoo.bench.run", lambda *_, **__: {"cases": cases})
    for bound, code in ((3.0, 0), (1.0, 1)):
        earlier = tmp_path / "earlier.json"
        earlier.write_text(json.dumps({"cases": [case("x", "cost", bound, bound, bound)]}))
        ran = command("bench", "discover", "--baseline", earlier, "--json")
        assert ran.code == code and ("Slower: x: 2.00" in ran.err) == bool(code)
    earlier.write_text("{}")
    ran = command("bench", "discover", "--baseline", earlier)
    assert ran.code == 2 and "not a record of the bench" in ran.err
