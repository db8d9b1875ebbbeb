"""One damaged image or annotation does not end an evaluation: it is named, left out of the figures, and counted."""

import json

import numpy as np
import pytest
from helpers.command_line import partzoo as command
from PIL import Image
from scipy.io import savemat

from partzoo.errors import ImageError, PartzooError, WeightsError
from partzoo.evaluate import foreground_measurement, run
from partzoo.evaluate.report import read_csv, rows, table
from partzoo.skipping import SkippedWarning

PARTS = {"k": [2], "seeds": 2, "size": 64}


def draw(file, seed, size=(48, 64)):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels[10:30, 8 + seed : 24 + seed] = (220, 60, 40)
    Image.fromarray(pixels).save(file, "PNG")


def cut_short(file):
    file.write_bytes(file.read_bytes()[:600])


def masked_set(folder, name, count=5):
    for seed in range(count):
        draw(folder / name / "images" / f"{seed}.png", seed)
        mask = np.zeros((48, 64), np.uint8)
        mask[10:30, 8 + seed : 24 + seed] = 1
        (folder / name / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / name / "masks" / f"{seed}.png")
    return folder


def celeba(folder):
    for seed in range(8):
        draw(folder / "img_celeba" / f"{seed}.jpg", seed)
    lines = [f"{seed}.jpg,{8 + seed},10,{24 + seed},10,{16 + seed},20,10,29,22,28\n" for seed in range(8)]
    (folder / "MAFL_train_lm.txt").write_text("".join(lines[:5]))
    (folder / "MAFL_test_lm.txt").write_text("".join(lines[5:]))
    return folder


def without(file, name):
    file.write_text("".join(line for line in file.read_text().splitlines(True) if name not in line))


def aflw(folder):
    for split in ("train", "test"):
        names = [f"{split}{seed}.png" for seed in range(4)]
        for seed, name in enumerate(names):
            draw(folder / "output" / name, seed)
        (folder / f"aflw_{split}_images.txt").write_text("\n".join(names))
        points = np.random.default_rng(0).uniform(5, 40, (4, 5, 2))
        savemat(folder / f"aflw_{split}_keypoints.mat", {"gt": points})
    return folder


def tiny_imagenet(folder):
    """The official layout with two classes."""
    lines = []
    for number in range(24):
        wnid = "n01" if number % 2 else "n02"
        place = folder / "val" / "images" if number < 8 else folder / "train" / wnid / "images"
        draw(place / f"{number}.JPEG", number % 2, (64, 64))
        lines += [f"{number}.JPEG\t{wnid}\t0\t0\t9\t9\n"] if number < 8 else []
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def figures(record):
    return [(each["k"], each["seed"], each["metrics"]) for each in record["runs"]]


def failed(record):
    return [each["path"] for each in record["failed"]]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_face_is_left_out_as_if_it_were_not_listed(tmp_path, split):
    data, bad = celeba(tmp_path), {"train": "3.jpg", "test": "6.jpg"}[split]
    cut_short(data / "img_celeba" / bad)
    with pytest.warns(SkippedWarning, match=bad):
        record = run.evaluate("toy-vit", "celeba", data, **PARTS)
    assert failed(record) == [str(data / "img_celeba" / bad)]  # once, though training images are read twice
    assert record["images"] == {"train": 3, "test": 2}[split]
    without(data / f"MAFL_{split}_lm.txt", bad)
    whole = run.evaluate("toy-vit", "celeba", data, **PARTS)
    assert whole["failed"] == [] and figures(whole) == figures(record)


def test_an_annotation_that_cannot_be_used_is_in_the_record(tmp_path):
    data = aflw(tmp_path)
    file = data / "aflw_test_keypoints.mat"
    points = np.random.default_rng(0).uniform(5, 40, (4, 5, 2))
    points[2, 1, 0] = np.nan
    savemat(file, {"gt": points})
    with pytest.warns(SkippedWarning, match="test2"):
        record = run.evaluate("toy-vit", "aflw", data, **PARTS)
    assert record["failed"] == [{"path": f"{file}: test2.png", "reason": "a landmark is not finite"}]
    assert record["images"] == 3
    with pytest.raises(PartzooError, match=r"test_keypoints\.mat: skipped test2"):
        run.evaluate("toy-vit", "aflw", data, **PARTS, strict=True)


def test_a_detection_s_truth_that_cannot_be_used_is_in_the_record(tmp_path):
    pytest.importorskip("pycocotools")
    found = {"image_id": 7, "category_id": 1, "bbox": [10, 10, 40, 40], "score": 0.9}
    truth = {"images": [{"id": 7, "width": 100, "height": 100}], "categories": [{"id": 1, "name": "heron"}]}
    truth["annotations"] = [found | {"id": 1, "area": 1600, "iscrowd": 0}, found | {"id": 2, "area": 9, "iscrowd": 5}]
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps([found]))
    with pytest.warns(SkippedWarning, match="annotation 2"):
        record = run.evaluate(str(tmp_path / "found.json"), "coco-detection", tmp_path)
    assert failed(record) == [f"{file}: annotation 2"]


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("name", ["horses", "cars"])
def test_a_damaged_image_or_mask_of_a_set_is_left_out(tmp_path, name, kind):
    data = masked_set(tmp_path, name, 10)
    cut_short(data / name / kind / "5.png") if kind == "images" else (data / name / kind / "5.png").write_bytes(b"")
    options = PARTS if name == "cars" else {"background": "boundary", "seeds": 1}
    with pytest.warns(SkippedWarning, match="5"):
        record = run.evaluate("toy-vit", name, data, **options)
    assert failed(record) == [f"{data / name}: images/5.png"] and record["images"] == 1
    if name == "horses":
        assert figures(run.evaluate("toy-vit", name, data, limit=1, **options)) == figures(record)


@pytest.mark.parametrize("bad", ["train/n01/images/11.JPEG", "val/images/3.JPEG"])
def test_a_damaged_image_is_left_out_of_features_as_if_it_were_not_there(tmp_path, bad):
    data = tiny_imagenet(tmp_path)
    cut_short(data / bad)
    with pytest.warns(SkippedWarning, match="Skipped"):
        record = run.evaluate("toy-vit", "tiny-imagenet", data, seeds=1)
    assert failed(record) == [str(data / bad)] and record["images"] == (8 if "train" in bad else 7)
    (data / bad).unlink()
    without(data / "val" / "val_annotations.txt", "3.JPEG" if "val" in bad else "nothing")
    assert figures(run.evaluate("toy-vit", "tiny-imagenet", data, seeds=1)) == figures(record)


@pytest.mark.parametrize(("protocol", "make"), [("celeba", celeba), ("tiny-imagenet", tiny_imagenet)])
def test_data_of_which_nothing_can_be_used_is_an_error(tmp_path, protocol, make):
    data = make(tmp_path)
    for file in (*data.glob("img_celeba/*"), *data.glob("train/*/images/*")):
        cut_short(file)
    with pytest.warns(SkippedWarning), pytest.raises(ImageError, match="None of the"):
        run.evaluate("toy-vit", protocol, data, seeds=1)


def test_a_missing_library_is_no_fault_of_an_image(tmp_path, monkeypatch):
    data = celeba(tmp_path)

    def missing(file):
        from partzoo.errors import MissingExtraError

        raise MissingExtraError('pycocotools is not installed: pip install "partzoo[coco]".')

    monkeypatch.setattr("partzoo.evaluate.protocols.celeba.open_image", missing)
    with pytest.raises(PartzooError, match=r"^pycocotools is not installed"):
        run.evaluate("toy-vit", "celeba", data, **PARTS)


def test_the_command_names_and_counts_what_it_leaves_out(tmp_path):
    data, out = masked_set(tmp_path, "horses", 10), tmp_path / "deep" / "result.json"
    words = ("eval", "centred-box", "--protocol", "horses", "--data", data, "-o", out)
    good = (data / "horses" / "masks" / "5.png").read_bytes()
    (data / "horses" / "masks" / "5.png").write_bytes(b"")
    strict = command(*words, "--strict")
    assert strict.code == 1 and "Error: " in strict.err and "masks/5.png is damaged" in strict.err and not out.exists()
    ran = command(*words)
    assert ran.code == 1 and ran.err.count("masks/5.png is damaged") == 1
    closing = " ".join(ran.err.split())
    assert "Error: 1 of the images and annotations could not be used" in closing
    assert "above, " not in closing and "under 'failed' in the result" in closing and "BytesIO" not in ran.err
    assert "report split, 1 image (1 skipped):" in ran.out
    assert json.loads(command(*words, "--json").out) == json.loads(out.read_text())
    assert len(json.loads(out.read_text())["failed"]) == 1

    (data / "horses" / "masks" / "5.png").write_bytes(good)
    mended = command(*words)  # a record with failures does not count as measured
    assert mended.code == 0 and "report split, 2 images:" in mended.out
    assert json.loads(out.read_text())["failed"] == []


def test_a_table_says_that_a_figure_leaves_something_out(tmp_path, monkeypatch):
    data = masked_set(tmp_path, "horses", 10)
    (data / "horses" / "masks" / "5.png").write_bytes(b"")
    monkeypatch.setattr(run, "_foreground_rows", lambda *_: [("centred-box", {"background": "auto", "size": None})])
    words = ("eval", "--all", "--protocol", "horses", "--data", data, "-o", tmp_path / "results")
    ran = command(*words)
    assert ran.code == 1 and "1 of the models, images and annotations could not be used" in ran.err
    found = read_csv(tmp_path / "results" / "horses.csv")
    assert {(row.images, row.failed) for row in found} == {(1, 1)}
    assert "`centred-box` (1 skipped)" in table(found, ["iou"])


def test_a_model_without_its_weights_does_not_end_the_others(tmp_path, monkeypatch):
    data = masked_set(tmp_path, "horses", 10)
    plain = {"background": "auto", "size": None}
    monkeypatch.setattr(run, "_foreground_rows", lambda *_: [(str(tmp_path / "none.safetensors"), plain)])
    words = ("eval", "--all", "--protocol", "horses", "--data", data, "-o", tmp_path / "results")
    ran = command(*words)
    assert ran.code == 1 and "Error: No model can be measured by horses. Of the first: " in ran.err
    names = ("gone", "centred-box")
    load = foreground_measurement.load
    monkeypatch.setattr(run, "_foreground_rows", lambda *_: [(name, plain) for name in names])
    monkeypatch.setattr(foreground_measurement, "is_foreground_model", lambda name: name == "gone")
    monkeypatch.setattr(foreground_measurement, "load", lambda name, **more: _gone() if name == "gone" else load(name))
    ran = command(*words)
    assert ran.code == 1 and ran.err.count("Skipped: gone: its weights are gone") == 1
    assert {row.model for row in read_csv(tmp_path / "results" / "horses.csv")} == {"centred-box"}
    strict = command(*words, "--strict")
    assert strict.code == 1 and "Error: its weights are gone." in strict.err


def _gone():
    raise WeightsError("its weights are gone.")


def test_records_and_tables_of_earlier_versions_are_read(tmp_path):
    record = {"format": 1, "protocol": "p", "split": "s", "model": "m", "setting": "default", "images": 3}
    record |= {"command": "c", "runs": [{"k": None, "seed": None, "metrics": {"iou": 5.0}}]}
    assert [row.failed for row in rows([record])] == [0]
    head = "model,setting,k,metric,mean,std,low,high,seeds,images,command"
    (tmp_path / "p.csv").write_text(f"{head}\nm,default,,iou,5,,,,1,3,c\n")
    assert read_csv(tmp_path / "p.csv") == rows([record])
