import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo as command
from helpers.drawn_faces import write_faces
from PIL import Image

import partzoo
from partzoo.discovery.foreground import METHODS
from partzoo.errors import UsageError
from partzoo.evaluate import run
from partzoo.evaluate.floors import FLOORS, Thumbnail, floor_finder, random_weights
from partzoo.evaluate.measurement import digest
from partzoo.evaluate.parts import measurement as parts
from partzoo.features import DEFAULT_MODEL
from partzoo.locks import locked
from partzoo.weights.manifest import manifest


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_faces(tmp_path_factory.mktemp("faces"), {"train": 6, "dev": 4, "report": 3})


@pytest.fixture(scope="module")
def images_by_class(tmp_path_factory):
    """Tiny-ImageNet's official layout with two classes."""
    folder, draw = tmp_path_factory.mktemp("tin"), np.random.default_rng(0)
    (folder / "wnids.txt").write_text("n01\nn02\n")
    (folder / "words.txt").write_text("n01\tred things\nn02\tblue things\n")
    (folder / "val" / "images").mkdir(parents=True)
    lines = []
    for number in range(24):
        wnid, channel = ("n01", 0) if number % 2 else ("n02", 2)
        pixels = draw.integers(0, 80, (64, 64, 3), dtype=np.uint8)
        pixels[..., channel] += 150
        place = folder / "val" / "images" if number < 8 else folder / "train" / wnid / "images"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.JPEG")
        lines += [f"{number}.JPEG\t{wnid}\t0\t0\t9\t9\n"] if number < 8 else []
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def small(faces, **options):
    return run.evaluate("toy-vit", "faces68", faces, **({"k": [2], "seeds": 2, "size": 64} | options))


def test_the_record_states_what_was_measured_and_how(faces, tmp_path):
    record = small(faces, out=tmp_path / "deep" / "result.json")
    assert record == json.loads((tmp_path / "deep" / "result.json").read_text())
    assert record["command"] == "partzoo eval toy-vit --protocol faces68 --data DIR -k 2 --seeds 2 --size 64"
    assert (record["split"], record["images"], record["setting"]) == ("report", 3, "size=64")
    assert [(each["k"], each["seed"]) for each in record["runs"]] == [(2, 0), (2, 1), (2, None)]
    assert record["hardware"]["cores"] >= 1


def test_a_result_that_is_there_is_not_measured_again_unless_something_was_skipped(faces, tmp_path, monkeypatch):
    out = tmp_path / "result.json"
    first = small(faces, out=out)
    measured = []
    monkeypatch.setattr(parts, "part_figures", lambda *_, **__: measured.append(1) or ([], 0))
    assert small(faces, out=out) == first and not measured
    out.write_text(json.dumps(first | {"failed": [{"path": "a.png", "reason": "It is damaged."}]}))
    small(faces, out=out)
    assert measured and json.loads(out.read_text())["failed"] == []


def test_the_record_of_another_evaluation_is_not_overwritten(faces, tmp_path, monkeypatch):
    out = tmp_path / "result.json"
    small(faces, out=out)
    before = out.read_bytes()
    monkeypatch.setattr(run, "_measured", lambda *_, **__: pytest.fail("measured before the error"))
    with pytest.raises(UsageError, match=r"of another evaluation \(seeds was 2, is 3\)\. Choose another file"):
        small(faces, out=out, seeds=3)
    assert out.read_bytes() == before


def test_a_record_that_another_process_has_written_meanwhile_is_not_overwritten(faces, tmp_path, monkeypatch):
    out, moved = tmp_path / "result.json", tmp_path / "moved.json"
    first = small(faces, out=moved)
    monkeypatch.setattr(run, "_measured", lambda *_, **__: pytest.fail("measured again"))
    check = run.check_place
    monkeypatch.setattr(run, "check_place", lambda place: check(place) or moved.rename(place))
    assert small(faces, out=out) == first
    out.rename(moved)
    before = moved.read_bytes()
    with pytest.raises(UsageError, match="of another evaluation"):
        small(faces, out=out, seeds=3)
    assert out.read_bytes() == before


def test_a_second_process_is_refused_before_the_work(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_measured", lambda *_, **__: pytest.fail("measured"))
    with locked(tmp_path / "result.json"), pytest.raises(UsageError, match="is being written by process"):
        small(faces, out=tmp_path / "result.json")
    with locked(tmp_path / "faces68.csv"), pytest.raises(UsageError, match="is being written by process"):
        run.evaluate_all("faces68", faces, tmp_path, k=[2], seeds=1)
    assert not list(tmp_path.iterdir())


def test_a_table_that_is_something_else_is_not_overwritten(faces, tmp_path):
    (tmp_path / "faces68.csv").write_text("my,notes\n1,2\n")
    with pytest.raises(UsageError, match=r"faces68\.csv"):
        run.evaluate_all("faces68", faces, tmp_path, k=[2], seeds=1)
    assert (tmp_path / "faces68.csv").read_text() == "my,notes\n1,2\n" and len(list(tmp_path.iterdir())) == 1


def test_another_file_is_not_overwritten(faces, tmp_path):
    out = tmp_path / "result.json"
    out.write_text("my notes")
    with pytest.raises(UsageError, match=r"result\.json exists and is not a record"):
        small(faces, out=out)
    assert out.read_text() == "my notes"


def test_a_record_of_a_newer_partzoo_is_not_overwritten(faces, tmp_path):
    out = tmp_path / "result.json"
    out.write_text('{"format": 2}')
    with pytest.raises(UsageError, match=r"result\.json was written by a newer version of partzoo .*: upgrade partzoo"):
        small(faces, out=out)
    assert out.read_text() == '{"format": 2}'


def test_the_digest_follows_the_weights_alone():
    one, same = (partzoo.load("toy-vit", device="cpu", dtype="float32") for _ in range(2))
    assert digest(one) == digest(same)
    next(same.parameters()).data.flatten()[0] += 1e-3
    assert digest(one) != digest(same)


def test_floors_need_no_trained_weights(faces):
    assert digest(random_weights()) == digest(random_weights())
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
    records = [
        SimpleNamespace(name=name, architecture="toy-vit", measured=measured, config={"parts": 2, "classes": classes})
        for name, measured, classes in (("toy-vit", True, 0), ("of-classes", True, 5), ("large", False, 0))
    ]
    monkeypatch.setattr(run, "manifest", lambda: {each.name: each for each in records})
    file, failed = run.evaluate_all("faces68", faces, tmp_path, k=[2, 3], seeds=1)
    assert failed == []
    lines = file.read_text().splitlines()
    assert file == tmp_path / "faces68.csv"
    assert lines[0] == "model,setting,k,metric,mean,std,low,high,seeds,images,command,failed"
    assert {line.split(",")[0] for line in lines[1:]} == {
        "toy-vit", "random-weights", "colour-position", "efficientnet-lite0.in1k",
    }  # fmt: skip
    assert [name for name, _ in run.rows("tiny-imagenet")] == ["toy-vit", "of-classes", *FLOORS]
    asked = json.loads((tmp_path / "eval" / "faces68" / "toy-vit.json").read_text())["k"]
    assert asked == [2] and {line.split(",")[2] for line in lines[1:] if not line.startswith("toy")} == {"2", "3"}


def test_foregrounds_are_those_of_networks_methods_and_heads():
    asked = [(name, chosen["background"]) for name, chosen in run.rows("ecssd")]
    networks = [record for record in manifest().values() if record.architecture == "foreground-lite0"]
    assert {(each.name, "auto") for each in networks if each.measured} < set(asked)
    assert not {each.name for each in networks if not each.measured} & {name for name, _ in asked}
    alone = [(DEFAULT_MODEL, name) for name, each in METHODS.items() if each.independent and name != "none"]
    floor = asked.index(("centred-box", "auto"))
    assert asked[floor + 1 :] == [*alone, ("patchresnet14-fg.caltech101", "objectness")]
    assert (DEFAULT_MODEL, "boundary") in alone


def test_own_parts_need_a_model_that_has_parts(monkeypatch):
    monkeypatch.setattr(run, "manifest", lambda: {"parts": SimpleNamespace(config={"parts": 8})})
    for model, able in (("parts", [True, True, False]), ("colour-position", [False, True, True])):
        assert [run._can_give(model, k) for k in (None, 8, 9)] == able


def test_an_encoder_has_no_parts_of_its_own_to_measure(faces):
    with pytest.raises(UsageError, match="k=None is for part models, and toy-vit is an encoder"):
        small(faces, k=[2, None])
    ran = command("eval", "toy-vit", "--protocol", "faces68", "--data", faces, "-k", "own")
    assert ran.code == 2 and "-k own is for part models, and toy-vit is an encoder" in ran.err


def test_features_are_measured_by_a_class_protocol(images_by_class, tmp_path):
    options = {"seeds": 2, "out": tmp_path / "result.json"}
    record = run.evaluate("toy-vit", "tiny-imagenet", images_by_class, **options)
    assert record["command"] == "partzoo eval toy-vit --protocol tiny-imagenet --data DIR --seeds 2"
    by_seed = {each["seed"]: set(each["metrics"]) for each in record["runs"]}
    assert by_seed[None] == {"knn", "linear"} and {"linear_sgd", "mse_x", "antisymmetry"} <= by_seed[0] == by_seed[1]
    with pytest.raises(UsageError, match="reported on val, not on 'dev'"):
        run.evaluate("toy-vit", "tiny-imagenet", images_by_class, split="dev")
    with pytest.raises(UsageError, match="size cannot be set for tiny-imagenet, whose options are patches, augment"):
        run.evaluate("toy-vit", "tiny-imagenet", images_by_class, size=64)


def test_detections_are_measured_from_their_file(tmp_path):
    pytest.importorskip("pycocotools")
    found = {"image_id": 7, "category_id": 1, "bbox": [10, 10, 40, 40], "score": 0.9}
    truth = {"images": [{"id": 7, "width": 100, "height": 100}], "categories": [{"id": 1, "name": "heron"}]}
    truth["annotations"] = [found | {"id": 1, "area": 1600, "iscrowd": 0}]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps([found]))
    record = run.evaluate(str(tmp_path / "found.json"), "coco-detection", tmp_path)
    assert record["runs"][0]["metrics"]["ap"] == pytest.approx(100) and record["images"] == 1
    with pytest.raises(UsageError, match="takes a JSON file of detections"):
        run.evaluate("toy-vit", "coco-detection", tmp_path)
    with pytest.raises(UsageError, match="in Python"):
        run.evaluate("toy-vit", "physionet-2018", tmp_path)


def test_the_command_prints_figures_and_writes_the_record(faces, tmp_path):
    out = tmp_path / "result.json"
    arguments = ("--protocol", "faces68", "--data", faces, "-k", "2", "--seeds", "1", "--size", "64", "-o", out)
    ran = command("eval", "toy-vit", *arguments)
    assert ran.code == 0 and "NMI 5" in ran.out and "report split, 3 images" in ran.out and "None" not in ran.out
    assert json.loads(command("eval", "toy-vit", *arguments, "--json").out) == json.loads(out.read_text())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--protocol", "faces68", "--data", "x"], "Name a model"),
        (["toy-vit", "--all", "--protocol", "faces68", "--data", "x"], "Name a model"),
        (["toy-vit", "--protocol", "face68", "--data", "x"], "Did you mean 'faces68'"),
        (["toy-vit", "--protocol", "faces68", "--data", "x", "-k", "4;8"], "numbers separated by commas"),
        (["toy-vit", "--protocol", "faces68", "--data", "x", "-k", "0"], "at least 1"),
        (["toy-vit", "--protocol", "faces68", "--data", "nowhere"], "needs nowhere"),
        (["toy-vit", "--protocol", "faces68", "--data", "x", "--seeds", "0"], "--seeds 0"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments, sentence):
    ran = command("eval", *arguments)
    assert ran.code == 2 and sentence in ran.err and ran.err.count("\n") == 1
