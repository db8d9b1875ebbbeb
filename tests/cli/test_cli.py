import dataclasses
import json
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo
from packaging.requirements import Requirement
from PIL import Image
from safetensors import safe_open

from partzoo import Parts, PartVocabulary, list_models, load
from partzoo.bench import ROWS
from partzoo.cli import diagnosis as doctor
from partzoo.cli import main
from partzoo.weights.manifest import PACKAGE, manifest

PHOTOGRAPHS = Path(__file__).parents[2] / "examples" / "images"
CAT, IBIS = PHOTOGRAPHS / "cat.jpg", PHOTOGRAPHS / "ibis.jpg"
TOY = ("--model", "toy-vit")


@pytest.fixture
def set_of_two(tmp_path):
    """Make a folder with two small images of the same name."""
    for folder, source in (("a", CAT), ("b", IBIS)):
        (tmp_path / "set" / folder).mkdir(parents=True)
        with Image.open(source) as image:
            image.resize((60, 44)).save(tmp_path / "set" / folder / "bird.png")
    return tmp_path / "set"


@pytest.mark.parametrize("name", sorted(main.commands))
def test_help_states_the_purpose_and_shows_an_example(name):
    ran = partzoo(name, "--help")
    assert ran.code == 0 and not ran.err
    assert main.commands[name].get_short_help_str(limit=60).endswith((".", "?"))
    assert f"partzoo {name}" in ran.out.partition("Options:")[2] or name == "doctor"


def test_help_needs_no_torch():
    code = "import sys; from partzoo.cli import main\ntry: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_discover_writes_an_overlay_large_enough_to_see(tmp_path):
    ran = partzoo("discover", IBIS, "-k", 4, *TOY, "-o", tmp_path / "parts.png")
    assert ran.code == 0, ran.err
    assert "of 4 parts in 169 x 208 pixels" in ran.out
    with Image.open(tmp_path / "parts.png") as overlay:
        assert overlay.size == (4 * 208, 4 * 169)


def test_an_overlay_has_the_requested_scale(tmp_path):
    assert partzoo("discover", IBIS, "-k", 4, *TOY, "--scale", 1, "-o", tmp_path / "parts.png").code == 0
    with Image.open(tmp_path / "parts.png") as overlay:
        assert overlay.size == (208, 169)


def test_a_doubtful_foreground_is_said_in_one_line(tmp_path):
    Image.new("RGB", (60, 40), (120, 120, 120)).save(tmp_path / "blank.png")
    ran = partzoo("discover", tmp_path / "blank.png", "-k", 2, *TOY)
    assert ran.code == 0 and "The foreground is doubtful in" in ran.err and "blank.png" in ran.err
    about = json.loads(partzoo("discover", IBIS, "-k", 2, *TOY, "--json").out)
    assert about["images"][0]["quality"] > 0.7


@pytest.mark.parametrize("ending", [".index.png", ".npz"])
def test_discover_writes_what_parts_load_reads(tmp_path, ending):
    ran = partzoo("discover", IBIS, "-k", 4, *TOY, "-o", tmp_path / f"parts{ending}", "--json")
    about = json.loads(ran.out)
    parts = Parts.load(tmp_path / f"parts{ending}")
    assert about["k"] == parts.k == 4
    assert [each["part"] for each in about["images"][0]["parts"]] == list(parts.present)
    assert [each["pixels"] for each in about["images"][0]["parts"]] == parts.areas[parts.areas > 0].tolist()


def test_discover_without_an_output_only_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = partzoo("discover", IBIS, "-k", 2, *TOY)
    assert ran.code == 0 and "-o parts.png" in ran.out
    assert not list(tmp_path.iterdir())


def test_images_of_one_name_get_files_of_their_own(set_of_two, tmp_path):
    ran = partzoo("discover", set_of_two, "-k", 3, *TOY, "-o", tmp_path / "out", "--format", ".npz")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in (tmp_path / "out").glob("*.npz")) == ["a-bird.npz", "b-bird.npz"]


def test_many_images_make_one_coco_file(set_of_two, tmp_path):
    pytest.importorskip("pycocotools")
    ran = partzoo("discover", set_of_two / "**" / "*.png", "-k", 3, *TOY, "-o", tmp_path / "parts.json")
    assert ran.code == 0, ran.err
    coco = json.loads((tmp_path / "parts.json").read_text())
    assert [(image["height"], image["width"]) for image in coco["images"]] == [(44, 60), (44, 60)]
    assert len(coco["categories"]) == 3


def test_a_saved_vocabulary_gives_the_same_parts_again(set_of_two, tmp_path):
    words = tmp_path / "birds.parts.safetensors"
    first = partzoo(
        "discover",
        set_of_two,
        "-k",
        3,
        *TOY,
        "-o",
        tmp_path / "a",
        "--format",
        ".npz",
        "--save-vocabulary",
        words,
    )
    again = partzoo("discover", set_of_two / "b" / "bird.png", "--vocabulary", words, "-o", tmp_path / "b.npz")
    assert first.code == again.code == 0, first.err + again.err
    assert PartVocabulary.load(words).k == 3
    assert Parts.load(tmp_path / "a" / "b-bird.npz") == Parts.load(tmp_path / "b.npz")


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_features_are_written_with_the_images_names(set_of_two, tmp_path, ending):
    out = tmp_path / f"features{ending}"
    ran = partzoo("features", set_of_two, *TOY, "-o", out)
    assert ran.code == 0, ran.err
    if ending == ".npz":
        with np.load(out) as file:
            names, arrays = file["names"].tolist(), {key: file[key] for key in file if key not in ("names", "format")}
            assert file["format"] == 1
    else:
        with safe_open(out, "np") as file:
            names = json.loads(file.metadata()["names"])
            assert file.metadata()["partzoo_format"] == "1"
            arrays = {key: file.get_tensor(key) for key in file.keys()}
    assert [Path(name).parent.name for name in names] == ["a", "b"]
    assert sorted(arrays) == ["dense.0", "dense.1", "pooled", "size"]
    assert arrays["size"].tolist() == [[44, 60], [44, 60]]
    np.testing.assert_allclose(arrays["pooled"][1], arrays["dense.1"].mean((0, 1)), rtol=1e-5)


def test_pooled_features_come_alone(set_of_two, tmp_path):
    assert partzoo("features", set_of_two, *TOY, "--pooled", "-o", tmp_path / "f.npz").code == 0
    with np.load(tmp_path / "f.npz") as file:
        assert sorted(file) == ["format", "names", "pooled", "size"]


def test_list_shows_the_result_of_list_models():
    listed = json.loads(partzoo("list", "part-*", "--json").out)
    assert [each["name"] for each in listed] == list_models("part-*")
    assert "part-vitt8" in partzoo("list", "part-*").out


@pytest.mark.parametrize("arguments", [(), ("--pretrained",), ("--all",)])
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_list_fits_into_the_terminal(arguments, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = partzoo("list", *arguments).out.splitlines()
    assert max(map(len, lines)) <= max(80, min(columns, 100))
    assert " ".join(" ".join(lines).split()).count("of any photograph.") >= 1  # nothing is cut off


def test_superseded_weights_are_listed_only_where_all_are_asked_for():
    old = "foreground-lite0.masks-first"
    for arguments in (("--pretrained",), ()):
        shown, everything = (partzoo("list", "foreground-*", *arguments, *more).out for more in ((), ("--all",)))
        assert "masks-first" not in shown and "masks-first" in everything
    assert old in list_models(pretrained=True)
    assert "replaced" in partzoo("list", "--help").out


def test_list_reports_that_nothing_matches():
    ran = partzoo("list", "heron-*")
    assert ran.code == 0 and "No model matches 'heron-*'" in ran.out


def test_info_shows_configuration_and_size():
    about = json.loads(partzoo("info", "part-vitt", "--json").out)
    assert about["name"] == "part-vitt8" and about["config"]["dim"] == 192
    assert 5e6 < about["parameters"] < 6e6
    assert "parameters" in partzoo("info", "toy-vit").out


def test_nothing_needs_to_be_downloaded_for_a_seeded_model():
    ran = partzoo("download", "no-such-model", "toy-vit")
    assert ran.code == 1 and ran.out.startswith("toy-vit: ") and ran.err.count("Unknown model 'no-such-model'") == 1
    assert "1 of the 2 models could not be used and was skipped. It is named above." in ran.err
    ran = partzoo("download", "toy-vit")
    assert ran.code == 0 and "none needed" in ran.out


def test_verify_reports_a_state_for_every_file():
    ran = partzoo("verify", "--json")
    assert ran.code == 0, ran.out
    assert {each["state"] for each in json.loads(ran.out)} <= {"ok", "absent"}


def test_training_makes_a_model_that_discover_takes(tmp_path):
    pytest.importorskip("accelerate")
    run = tmp_path / "run"
    arguments = ("train", "part", "--data", PHOTOGRAPHS, "--batch-size", 2, "-o", run)
    ran = partzoo(*arguments, "--steps", 1)
    assert ran.code == 0, ran.err
    ran = partzoo(*arguments, "--steps", 2, "--resume")
    assert ran.code == 0 and "2 steps and 4 images" in ran.out, ran.err
    ran = partzoo("discover", IBIS, "--model", run / "model.safetensors", "-k", 2, "--json")
    assert ran.code == 0 and json.loads(ran.out)["k"] == 2, ran.err


def test_bench_reports_what_it_measured(monkeypatch):
    calls = []

    def run(rows, repetitions, out, *, quick, progress, device, against):
        calls.append((rows, repetitions, out, quick))
        progress("discover: 1.00 times the peer")

    monkeypatch.setattr("partzoo.bench.run", run)
    ran = partzoo("bench", "discover", "--quick", "--repetitions", 2, "-o", "record.json")
    assert ran.out == "discover: 1.00 times the peer\n"
    assert calls == [(("discover",), 2, "record.json", True)]


def test_the_help_of_bench_names_every_row():
    text = partzoo("bench", "--help").out
    assert all(row in text for row in ROWS)


def test_doctor_reports_the_same_to_people_and_programs():
    found = json.loads(partzoo("doctor", "--json").out)
    assert {"versions", "device", "caches", "weights", "extras", "problems"} == set(found)
    text = partzoo("doctor").out
    assert f"torch {found['versions']['torch']}" in text
    assert found["device"]["why"] in text and found["caches"]["hugging_face"] in text


def test_doctor_names_the_fix_for_a_missing_extra_and_a_missing_package(monkeypatch):
    stated = ["torch>=2.6", 'matplotlib>=3.8; extra == "plot"', 'partzoo[plot]; extra == "dev"']
    monkeypatch.setattr(doctor, "requires", lambda _: stated)
    monkeypatch.setattr(doctor, "_version", lambda _: None)
    found = doctor.examine()
    assert found["extras"] == [{"name": "plot", "missing": ["matplotlib"], "fix": 'pip install "partzoo[plot]"'}]
    assert found["problems"][0] == 'torch is missing: pip install "torch>=2.6".'
    assert Requirement(found["problems"][0].partition('pip install "')[2].rstrip('".')).name == "torch"
    text = "\n".join(doctor.lines(found))
    assert 'plot: pip install "partzoo[plot]"' in text and "Problems:" in text


def test_doctor_counts_one_thread_as_one():
    found = doctor.examine()
    found["device"] |= {"cores": 1, "threads": 1}
    assert "  1 core, 1 thread, " in "\n".join(doctor.lines(found))
    found["device"] |= {"cores": 2, "threads": 4}
    assert "  2 cores, 4 threads, " in "\n".join(doctor.lines(found))


def test_doctor_says_that_the_folder_of_checkpoints_is_wrong(monkeypatch, tmp_path):
    monkeypatch.setenv("PARTZOO_CHECKPOINTS", str(tmp_path / "nowhere"))
    ran = partzoo("doctor")
    assert ran.code == 1 and ran.out.count("which is not a folder: set it to checkpoints/ of a clone.") == 1


def test_doctor_recommends_no_download_of_weights_that_have_no_repository(monkeypatch):
    verify = doctor.verify
    monkeypatch.setattr(doctor, "verify", lambda: [dataclasses.replace(each, path=None) for each in verify()])
    found = doctor.examine()
    for each in found["weights"]:
        fix = each["fix"]
        assert each["state"] == "absent" and fix in "\n".join(doctor.lines(found))
        if named := re.fullmatch("run 'partzoo download (.*)'", fix):
            assert manifest()[named[1]].hub is not None
        else:
            assert fix.startswith(("run 'git -C ", "set PARTZOO_CHECKPOINTS", "install partzoo again"))


def test_precisions_that_doctor_recommends_run():
    said = set(re.findall(r"dtype='(\w+)'", "\n".join(doctor.lines(doctor.examine()))))
    assert {"auto", "int8"} <= said
    for dtype in said | {"bfloat16"}:
        model = load("toy-vit", device="cpu", dtype=dtype)
        assert model(torch.zeros(1, 3, 64, 64)).isfinite().all()


def test_an_extra_that_doctor_names_exists():
    offered = metadata("partzoo").get_all("Provides-Extra")
    for module in sorted(PACKAGE.rglob("*.py")):
        assert set(re.findall(r'require\("[\w.]+", "(\w+)"\)', module.read_text(encoding="utf-8"))) <= set(offered)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell):
    ran = partzoo("completion", shell)
    assert ran.code == 0 and "_PARTZOO_COMPLETE" in ran.out


def test_names_are_completed_without_torch(tmp_path):
    code = (
        "import sys; from partzoo.cli.options import complete_weights\n"
        "complete_weights(None, None, 'part'); assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
