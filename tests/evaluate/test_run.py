import json

import pytest
import torch

import partzoo
from partzoo.errors import UsageError
from partzoo.evaluate import run
from partzoo.evaluate.floors import FLOORS, Thumbnail, floor_finder, random_weights
from tests.command_line import partzoo as command
from tests.evaluate.drawn_faces import write_faces


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_faces(tmp_path_factory.mktemp("faces"), {"train": 6, "dev": 4, "report": 3})


def small(faces, **options):
    return run.evaluate("toy-vit", "faces68", faces, **({"k": [2], "seeds": 2, "size": 64} | options))


def test_the_record_says_what_was_measured_and_how(faces, tmp_path):
    record = small(faces, out=tmp_path / "deep" / "result.json")
    assert record == json.loads((tmp_path / "deep" / "result.json").read_text())
    assert record["command"] == "partzoo eval toy-vit --protocol faces68 --data DIR -k 2 --seeds 2 --size 64"
    assert (record["split"], record["pictures"], record["setting"]) == ("report", 3, "size=64")
    assert [(each["k"], each["seed"]) for each in record["runs"]] == [(2, 0), (2, 1), (2, None)]
    assert record["hardware"]["cores"] >= 1


def test_a_result_that_is_there_is_not_measured_again_unless_something_changed(faces, tmp_path, monkeypatch):
    out = tmp_path / "result.json"
    first = small(faces, out=out)
    measured = []
    monkeypatch.setattr(run, "part_figures", lambda *_, **__: measured.append(1) or ([], 0))
    assert small(faces, out=out) == first and not measured
    small(faces, out=out, seeds=3)
    assert measured == [1]


def test_another_file_is_not_overwritten(faces, tmp_path):
    out = tmp_path / "result.json"
    out.write_text("my notes")
    with pytest.raises(UsageError, match=r"result\.json is there and is no record"):
        small(faces, out=out)
    assert out.read_text() == "my notes"


def test_the_digest_follows_the_weights_alone():
    one, same = (partzoo.load("toy-vit", device="cpu", dtype="float32") for _ in range(2))
    assert run.digest(one) == run.digest(same)
    next(same.parameters()).data.flatten()[0] += 1e-3
    assert run.digest(one) != run.digest(same)


def test_floors_need_no_trained_weights(faces):
    assert run.digest(random_weights()) == run.digest(random_weights())
    finder = floor_finder("colour-position")
    assert sum(finder.settings.weights) == pytest.approx(1) and finder.settings.weights[0] == 0
    assert finder.settings.background == "none"
    x = torch.zeros(2, 3, 64, 64)
    x[1, 0, :8, :8] = 1
    token = Thumbnail().encode(x).patch
    assert token.shape == (2, 1, 192) and token[1].sum() == 1 and token[1, 0, 0] == 1
    for floor in FLOORS:
        assert run.evaluate(floor, "faces68", faces, k=[2], seeds=1, size=64)["runs"][0]["metrics"]["presence"] > 0


def test_all_covers_every_weight_and_floor_and_writes_one_csv(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "manifest", lambda: ["toy-vit"])
    file = run.evaluate_all("faces68", faces, tmp_path, k=[2], seeds=1)
    lines = file.read_text().splitlines()
    assert file == tmp_path / "faces68.csv"
    assert lines[0] == "model,setting,k,metric,mean,std,low,high,seeds,pictures,command"
    assert {line.split(",")[0] for line in lines[1:]} == {
        "toy-vit", "random-weights", "colour-position", "patchresnet14-fg.caltech101",
    }  # fmt: skip
    assert (tmp_path / "eval" / "faces68" / "toy-vit.json").is_file()


def test_the_command_prints_figures_and_writes_the_record(faces, tmp_path):
    out = tmp_path / "result.json"
    arguments = ("--protocol", "faces68", "--data", faces, "-k", "2", "--seeds", "1", "--size", "64", "-o", out)
    ran = command("eval", "toy-vit", *arguments)
    assert ran.code == 0 and "NMI 5" in ran.out and "report split, 3 pictures" in ran.out
    assert json.loads(command("eval", "toy-vit", *arguments, "--json").out) == json.loads(out.read_text())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--protocol", "faces68", "--data", "x"], "Name a model"),
        (["toy-vit", "--all", "--protocol", "faces68", "--data", "x"], "Name a model"),
        (["toy-vit", "--protocol", "face68", "--data", "x"], "Did you mean 'faces68'"),
        (["toy-vit", "--protocol", "faces68", "--data", "x", "-k", "4;8"], "numbers with commas"),
        (["toy-vit", "--protocol", "faces68", "--data", "x", "-k", "0"], "at least 1"),
        (["toy-vit", "--protocol", "faces68", "--data", "nowhere"], "needs nowhere"),
        (["toy-vit", "--protocol", "faces68", "--data", "x", "--seeds", "0"], "seeds=0"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments, sentence):
    ran = command("eval", *arguments)
    assert ran.code == 2 and sentence in ran.err and ran.err.count("\n") == 1
