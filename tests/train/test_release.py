import json

import jsonschema
import numpy as np
import pytest
import torch
from helpers.drawn_faces import write_faces
from PIL import Image

from partzoo.errors import UsageError
from partzoo.evaluate import protocols
from partzoo.models.loading import build, load
from partzoo.models.registry import find
from partzoo.train.recipe import read_recipe
from partzoo.train.release import metrics, release
from partzoo.train.run import train
from partzoo.weights.manifest import NAME, PACKAGE, manifest
from partzoo.weights.release_files import check_golden


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in "ab":
            (folder / split / name).mkdir(parents=True)
            for i in range(20):
                pixels = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


@pytest.fixture
def clone(tmp_path):
    (tmp_path / NAME).write_text('{"format": 1, "weights": []}')
    return tmp_path


@pytest.mark.parametrize("name, figures, headline", [
    ("part-vitn8.tin", {"mse_x", "mse_y", "distance", "constant_mse_x", "loss", "knn", "knn_random_weights"},
     ("PART", {"distance": "position error, patches ↓"})),
    ("patchresnet14.tin", {"top1", "knn", "knn_random_weights"},
     ("classifier", {"knn": "kNN accuracy on Tiny-ImageNet-200, % ↑"})),
])  # fmt: skip
def test_a_release_is_complete(name, figures, headline, data, clone):
    record = release(name, data=data, out=clone / "run", steps=2, held_out=20, progress=False, root=clone)
    assert [stored.to_json() for stored in manifest(clone / NAME).values()] == [record.to_json()]
    schema = json.loads((PACKAGE / "weights_manifest.schema.json").read_text())
    jsonschema.validate(json.loads((clone / NAME).read_text()), schema)
    assert figures <= {metric["name"] for metric in record.metrics}
    assert record.labels_used == (record.recipe == "patchresnet14.tin")
    shown = {metric["name"]: metric["headline"] for metric in record.metrics if "headline" in metric}
    assert (record.method, shown) == headline and record.measured
    assert record.bundled == read_recipe(name).bundled
    assert record.budget["images_seen"] == 2 * read_recipe(name).loop["batch_size"]
    assert record.command == f"partzoo train --release {name} --data DIR --steps 2 --held-out 20"
    assert "20 held-out images" in record.metrics[0]["protocol"]
    base = clone / "partzoo" if record.bundled else clone
    loaded = load(base / record.files[0].path, dtype="float32")
    assert check_golden(loaded, record.golden) < 1e-3


def test_a_part_model_is_measured_on_the_faces_it_was_trained_on(clone, tmp_path):
    faces = write_faces(tmp_path, {"train": 16, "dev": 4, "report": 4})
    record = release("partformer-resnet18.faces-k8", data=faces, out=clone / "run", steps=1, progress=False, root=clone)
    assert {"nmi5", "fg_ari68", "nme", "presence"} <= {metric["name"] for metric in record.metrics}
    assert record.metrics[0]["protocol"] == "faces68, K = 8, 4 images of the report split, per cent"
    assert record.config["parts"] == 8 and record.parents == ("patchresnet14.tin",)


def test_wrong_settings_are_one_clear_error(data, tmp_path):
    for arguments, message in [
        ({"method": "parts"}, "Unknown method 'parts'. The methods are classify, finetune, "),
        ({"method": "part", "recipe": "part-vitt8.tim"}, r"Did you mean 'part-vitt8\.tin'"),
        ({"method": "part", "recipe": "patchresnet14.tin"}, "trains by 'classify', not by 'part'"),
        ({"method": "part", "speed": 3}, "part has no setting .loop.speed."),
        ({"method": "part", "model": "patchresnet14"}, "cannot be trained by 'part'"),
        ({"method": "objectness", "steps": None, "minutes": 1}, "needs its budget as steps="),
        ({"method": "part", "steps": 1, "minutes": 1}, "either as steps=, as minutes= or as epochs="),
    ]:
        with pytest.raises(UsageError, match=message):
            train(**({"data": data, "out": tmp_path / "run", "steps": 1, "progress": False} | arguments))


def test_classification_needs_labels(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    with pytest.raises(UsageError, match="needs one subfolder per class"):
        train("classify", data=tmp_path, out=tmp_path / "run", steps=1, progress=False)


def test_a_foreground_model_is_measured_on_the_sets_that_are_there(tmp_path):
    model = load("foreground-lite0", pretrained=False, device="cpu", dtype="float32")
    assert [figure["name"] for figure in metrics(model, tmp_path, 1.5)] == ["loss"]
    for kind, mode in (("images", "RGB"), ("masks", "L")):
        (tmp_path / "horses" / kind).mkdir(parents=True)
        for name in "abcdef":
            Image.new(mode, (40, 30), 1).save(tmp_path / "horses" / kind / f"{name}.png")
    found = {figure["name"]: figure for figure in metrics(model, tmp_path, 1.5)}
    assert set(found) == {"loss", "horses_iou", "horses_accuracy", "horses_max_f"}
    assert found["horses_iou"]["protocol"] == "horses, 2 images of the report split, per cent"


def test_parts_are_measured_by_the_protocol_of_their_data_or_by_the_loss(tmp_path):
    model = build(find("partformer-resnet18"), find("partformer-resnet18").configure({"parts": 2})).eval()
    assert [figure["name"] for figure in metrics(model, tmp_path, 1.5)] == ["loss"]
    for layout, name in (("cub", "cub-partformer"), ("aflw", "aflw")):
        with pytest.raises(UsageError, match=protocols.get(name).get[:40]):
            metrics(model, tmp_path, 1.5, layout)


def test_classify_trains_every_encoder_that_classifies(data, tmp_path):
    model, _ = train(
        "classify", data=data / "train", out=tmp_path / "run", model="efficientnet-lite0", steps=1, batch_size=4,
        config={"size": 32}, progress=False,
    )  # fmt: skip
    assert model.config.classes == 2
    assert load(tmp_path / "run" / "model.safetensors").classify(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
