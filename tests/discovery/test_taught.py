"""Parts that a user teaches with labels."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo as command
from PIL import Image

import partzoo
from partzoo.discovery.discriminant import Sums, directions, discriminant
from partzoo.discovery.given_labels import GivenLabels
from partzoo.discovery.lessons import FEW, cell_labels, drawn_cells, sides
from partzoo.discovery.surroundings import MAPS
from partzoo.discovery.taught import levels
from partzoo.discovery.vocabulary import Network, PartVocabulary
from partzoo.errors import UsageError, WeightsError
from partzoo.images.opening import open_images

NAMES = ("red", "yellow")
COLOURS = ((60, 120, 70), (220, 60, 40), (240, 220, 90), (60, 80, 220))


def truth(at=(20, 30), size=(90, 120)):
    """Labels of an object whose left half is part 1 and whose right half is part 2."""
    labels = np.zeros(size, np.uint8)
    y, x = at
    labels[y : y + size[0] // 2, x : x + size[1] // 4] = 1
    labels[y : y + size[0] // 2, x + size[1] // 4 : x + size[1] // 2] = 2
    return labels


def drawn(labels, seed=0):
    """An image in which each label has a colour, with a little noise."""
    noise = np.random.default_rng(seed).integers(-6, 7, (*labels.shape, 3))
    return np.clip(np.array(COLOURS)[labels] + noise, 0, 255).astype(np.uint8)


PLACES = ((20, 30), (35, 10), (10, 50))
LABELS = [truth(at) for at in PLACES]
IMAGES = [drawn(labels, seed) for seed, labels in enumerate(LABELS)]
NEW = truth((30, 40))


@pytest.fixture(scope="module")
def encoder():
    return partzoo.load("toy-vit")


@pytest.fixture(scope="module")
def taught(encoder):
    return partzoo.fit_parts(IMAGES, labels=LABELS, names=NAMES, model=encoder)


def found(words, encoder, labels=NEW):
    return partzoo.discover_parts(drawn(labels, 9), vocabulary=words, model=encoder)


def agreement(parts, labels=NEW):
    """Return the lowest IoU of a label that the image has."""
    ious = [
        ((parts.labels == i) & (labels == i)).sum() / ((parts.labels == i) | (labels == i)).sum() for i in (0, 1, 2)
    ]
    return min(ious)


def test_taught_parts_are_found_in_a_new_image(taught, encoder):
    parts = found(taught, encoder)
    assert parts.names == NAMES and parts.k == 2 and agreement(parts) > 0.85
    assert parts.scores.shape == (3, *NEW.shape) and np.allclose(parts.scores.sum(0), 1, atol=1e-4)
    assert (parts.confidences > 0.5).all() and 0.5 < parts.quality <= 1


def test_a_few_strokes_for_each_part_are_enough(encoder):
    strokes = []
    for labels, (y, x) in zip(LABELS, PLACES, strict=True):
        stroke = np.full_like(labels, 255)
        for row, column in ((y + 10, x + 5), (y + 10, x + 35), (3, 3)):
            stroke[row : row + 3, column : column + 18] = labels[row : row + 3, column : column + 18]
        strokes.append(stroke)
    assert sum((stroke < 255).sum() for stroke in strokes) < 0.02 * NEW.size * len(strokes)
    assert agreement(found(partzoo.fit_parts(IMAGES, labels=strokes, model=encoder), encoder)) > 0.75


def test_the_same_labels_teach_the_same_in_any_order_and_survive_a_file(taught, encoder, tmp_path):
    again = partzoo.fit_parts(IMAGES[::-1], labels=LABELS[::-1], names=NAMES, model=encoder)
    assert torch.allclose(again.centres, taught.centres, rtol=1e-3, atol=1e-3)
    taught.save(tmp_path / "mine.parts.safetensors")
    loaded = PartVocabulary.load(tmp_path / "mine.parts.safetensors")
    assert loaded.settings == taught.settings and loaded.names == NAMES
    assert found(loaded, encoder) == found(taught, encoder)


def test_a_network_sees_what_other_images_teach_to_find_so_one_image_teaches_none(taught, encoder, tmp_path):
    alone = partzoo.fit_parts(IMAGES[:1], labels=LABELS[:1], names=NAMES, model=encoder)
    assert alone.network is None and agreement(found(alone, encoder)) > 0.5
    hidden, output = taught.network
    assert output.shape == (3, len(hidden) + 1) and hidden.shape[1] == MAPS * 3 + taught.centres.shape[1]
    for network, message in (
        (Network(hidden, output[:2]), "does not fit its centres"),
        (Network(hidden.double(), output), "not two tables of finite numbers"),
        (Network(hidden, torch.full_like(output, torch.nan)), "not two tables of finite numbers"),
    ):
        dataclasses.replace(taught, network=network).save(tmp_path / "v.parts.safetensors")
        with pytest.raises(WeightsError, match=message):
            PartVocabulary.load(tmp_path / "v.parts.safetensors")
    with pytest.raises(WeightsError, match="teach the parts again"):
        found(dataclasses.replace(taught, network=Network(hidden[:, 1:], output)), encoder)


def test_labels_that_others_teach_too_little_to_find_are_not_shown_to_the_network(encoder):
    """Part 3 is in one image alone, so the other images never find it."""
    labels = [LABELS[0], LABELS[1], np.where(LABELS[2] == 2, 3, LABELS[2])]
    images = [drawn(each, seed) for seed, each in enumerate(labels)]
    network = partzoo.fit_parts(images, labels=labels, model=encoder).network
    seen = network.hidden[:, : MAPS * 4].unflatten(1, (MAPS, 4)).abs().amax((0, 1))
    assert seen[3] == 0 and (seen[:3] > 0).all()


def test_taught_parts_are_shaped_like_others(taught, encoder):
    joined = found(taught.join([1, 2], name="flag"), encoder)
    assert joined.names == ("flag",) and ((joined.labels == 1) == (NEW > 0)).mean() > 0.95
    dropped = found(taught.drop(1), encoder)
    assert dropped.present == (2,) and ((dropped.labels == 2) == (NEW == 2)).mean() > 0.95
    with pytest.raises(UsageError, match="label its pieces"):
        taught.split(1, images=IMAGES, model=encoder)


def test_left_and_right_are_kept_apart_only_if_asked_for(encoder):
    def eyes(x):
        labels = np.zeros((64, 128), np.uint8)
        labels[20:44, x : x + 24], labels[20:44, x + 50 : x + 74] = 1, 2
        return labels

    places = [eyes(x) for x in (24, 27, 30)]
    images = [drawn(np.minimum(labels, 1), seed) for seed, labels in enumerate(places)]
    names, image = ("left eye", "right eye"), drawn(np.minimum(eyes(27), 1), 7)
    sided = partzoo.fit_parts(images, labels=places, names=names, sided=True, model=encoder, background=None)
    parts = partzoo.discover_parts(image, vocabulary=sided, model=encoder)
    assert (parts.labels == eyes(27)).mean() > 0.95
    mirror = partzoo.discover_parts(np.ascontiguousarray(image[:, ::-1]), vocabulary=sided, model=encoder)
    assert (mirror.labels == eyes(27)).mean() > 0.95
    mixed = partzoo.fit_parts(images, labels=places, names=names, model=encoder, background=None)
    parts = partzoo.discover_parts(image, vocabulary=mixed, model=encoder)
    assert (parts.labels == eyes(27))[eyes(27) > 0].mean() < 0.75


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("l_eye", "r_eye", "nose"), {1: 2, 2: 1}),
        (("back_left_door", "hood", "back_right_door", "left_mirror"), {1: 3, 3: 1}),
        (("Left wing", "Right wing"), {1: 2, 2: 1}),
        (("pillar", "upper lip"), {}),
    ],
)
def test_sides_are_told_by_names(names, pairs):
    assert sides(names) == pairs


@pytest.mark.parametrize("ending", [".index.png", ".labelme.json", ".json", ".geojson", ".txt", ".npz"])
def test_a_corrected_prediction_is_read_back_from_every_format(taught, encoder, tmp_path, ending):
    """A prediction is saved, its second part is renumbered as the first in the file, and the parts are taught again."""
    predicted = found(taught, encoder)
    file = tmp_path / f"new{ending}"
    predicted.save(file)
    if ending == ".txt":
        (tmp_path / "data.yaml").write_text("names: [red, yellow]\n")
    _correct(file, ending)
    opened, _ = open_images([drawn(NEW, 9)])
    given = GivenLabels.of(opened, False, [file], None)
    ((_, labels),) = given
    assert given.names == NAMES and np.array_equal(labels, np.minimum(predicted.labels, 1))
    again = partzoo.fit_parts([drawn(NEW, 9)], labels=[file], model=encoder)
    assert again.names == NAMES and found(again, encoder).present == (1,)


def _correct(file, ending):
    if ending in (".index.png", ".npz"):
        parts = partzoo.Parts.load(file)
        partzoo.Parts(np.minimum(parts.labels, 1), k=2, names=parts.names).save(file)
    elif ending == ".txt":
        file.write_text("".join(f"0{line[1:]}\n" for line in file.read_text().splitlines()))
    else:
        data = json.loads(file.read_text())
        for shape in data.get("shapes", ()):
            shape["label"] = "red"
        for annotation in data.get("annotations", ()):
            annotation["category_id"] = 1
        for feature in data.get("features", ()):
            feature["properties"]["classification"]["name"] = "red"
        file.write_text(json.dumps(data))


def test_a_folder_of_labels_is_matched_by_name_and_images_without_are_left_out(encoder, tmp_path):
    images, files = tmp_path / "images", tmp_path / "labels"
    images.mkdir(), files.mkdir()
    for number, (pixels, labels) in enumerate(zip(IMAGES, LABELS, strict=True)):
        Image.fromarray(pixels).save(images / f"{number}.png")
        if number < 2:
            Image.fromarray(labels).save(files / f"{number}.png")
    given = GivenLabels.of(open_images(images)[0], False, files, None)
    assert len(given) == 2 and [np.array_equal(found, LABELS[i]) for i, (_, found) in enumerate(given)] == [True, True]
    words = partzoo.fit_parts(images, labels=files, names=NAMES, model=encoder)
    assert agreement(found(words, encoder)) > 0.8
    assert len(GivenLabels.of(open_images(tmp_path)[0], False, files, None)) == 2  # labels below the images are none


def test_strokes_of_background_make_everything_else_unknown(tmp_path):
    square = {"shape_type": "rectangle", "points": [[0, 0], [10, 10]]}
    shapes = [square | {"label": "background"}, square | {"label": "wing", "points": [[20, 20], [30, 30]]}]
    about = {"version": "6", "imageHeight": 40, "imageWidth": 50, "imagePath": "a.png", "shapes": shapes}
    (tmp_path / "a.json").write_text(json.dumps(about))
    opened, single = open_images(np.zeros((40, 50, 3), np.uint8))
    given = GivenLabels.of(opened, single, tmp_path / "a.json", None)
    ((_, labels),) = given
    assert given.names == ("wing",) and labels[5, 5] == 0 and labels[25, 25] == 1 and labels[35, 35] == 255


def test_labels_of_files_with_different_names_do_not_mix(tmp_path):
    for number, name in enumerate(("wing", "beak")):
        shape = {"shape_type": "rectangle", "points": [[0, 0], [10, 10]], "label": name}
        about = {"version": "6", "imageHeight": 40, "imageWidth": 50, "imagePath": "a.png", "shapes": [shape]}
        (tmp_path / f"{number}.json").write_text(json.dumps(about))
    opened, single = open_images([np.zeros((40, 50, 3), np.uint8)] * 2)
    given = GivenLabels.of(opened, single, [tmp_path / "0.json", tmp_path / "1.json"], None)
    assert given.names == ("wing", "beak") and [int(labels.max()) for _, labels in given] == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [LABELS[0][:-1], *LABELS[1:]]}, "labels of image 1 are .* and the image"),
        ({"labels": [LABELS[0].astype(int) + 255, *LABELS[1:]]}, "must be whole numbers"),
        ({"labels": LABELS[:2]}, "sequence with the labels of 3 images"),
        ({"labels": [None] * 3}, "none of the images"),
        ({"labels": [np.full_like(LABELS[0], 255)] * 3}, "every pixel|Every pixel"),
        ({"k": 2}, "k= is for discovered parts"),
        ({"background": "boundary"}, "background='boundary' has no features to teach with"),
        ({"labels": None}, "names= is for labels="),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"model": "partformer-resnet18.faces-k8"}, "encoder as model="),
    ],
)
def test_wrong_labels_are_named(encoder, change, message):
    arguments = {"labels": LABELS, "names": NAMES, "model": encoder} | change
    with pytest.raises(UsageError, match=message):
        partzoo.fit_parts(IMAGES, **arguments)


def test_taught_images_are_judged_by_what_the_others_teach(taught, encoder):
    found = taught.evaluate(IMAGES, LABELS, model=encoder)
    assert found.left_out == 3 and found.images.tolist() == [3, 3] and (found.ious > 0.7).all()
    direct = taught.evaluate([drawn(NEW, 9)], [NEW], model=encoder)
    parts = found_iou(taught, encoder)
    assert direct.left_out == 0 and np.allclose(direct.ious, parts) and direct.mean == pytest.approx(np.mean(parts))


def test_a_part_that_one_image_alone_teaches_is_not_found_in_it_when_left_out(encoder):
    labels = [LABELS[0], LABELS[1], np.minimum(LABELS[2], 1)]
    images = [drawn(each, seed) for seed, each in enumerate(labels)]
    labels[0] = np.where(labels[0] == 2, 3, labels[0])  # the yellow part has another name in the first image
    words = partzoo.fit_parts(images, labels=labels, names=("red", "yellow", "gold"), model=encoder)
    scores = words.evaluate(images, labels, model=encoder)
    assert (
        scores.ious[2] == 0 and scores.advice(3) == "label more" and "gold: 0.00 in 1 image, label more" in str(scores)
    )


def test_an_image_cannot_judge_what_it_alone_has_taught(encoder):
    image, labels = drawn(LABELS[0], 0), LABELS[0]
    words = partzoo.fit_parts(image, labels=labels, model=encoder)
    with pytest.raises(UsageError, match="cannot judge them: label another one"):
        words.evaluate(image, labels, model=encoder)
    assert words.evaluate([image, drawn(NEW, 9)], [labels, NEW], model=encoder).images.max() == 2


@pytest.mark.parametrize(
    ("names", "message"), [(("red", "red"), "names= has 'red' twice"), (("red", " "), "names= has an empty name")]
)
def test_names_differ_and_are_not_empty(encoder, names, message):
    with pytest.raises(UsageError, match=message):
        partzoo.fit_parts(drawn(LABELS[0], 0), labels=LABELS[0], names=names, model=encoder)


def test_two_files_of_labels_for_one_image_are_an_error(folder, tmp_path):
    labels = tmp_path / "labels"
    shutil.copytree(folder / "labels", labels)
    shutil.copy(folder / "images" / "0.png", labels / "0.jpg")  # a copy of the image is no label
    assert command("fit", folder / "images", "--labels", labels, "-o", tmp_path / "v.safetensors").code == 0
    Image.fromarray(LABELS[0].astype(np.uint8)).save(labels / "0.png")
    ran = command("fit", folder / "images", "--labels", labels, "-o", tmp_path / "w.safetensors")
    assert ran.code == 2 and "--labels has 0.index.png and 0.png for 0.png: keep one of them." in ran.err


def test_numbers_beside_names_need_names(folder, tmp_path):
    labels = tmp_path / "labels"
    shutil.copytree(folder / "labels", labels)
    (labels / "0.index.png").unlink()
    Image.fromarray(LABELS[0].astype(np.uint8)).save(labels / "0.png")
    ran = command("fit", folder / "images", "--labels", labels, "-o", tmp_path / "v.safetensors")
    assert ran.code == 2 and "Some labels are numbers and others have names: pass --names" in ran.err
    given = ("--names", "red,yellow", "-o", tmp_path / "w.safetensors")
    assert command("fit", folder / "images", "--labels", labels, *given).code == 0


def test_colours_are_no_labels(encoder):
    image = drawn(LABELS[0], 0)
    grey = Image.fromarray(LABELS[0].astype(np.uint8)).convert("RGB")
    assert partzoo.fit_parts(image, labels=grey, model=encoder).k == 2
    with pytest.raises(UsageError, match="Labels are a colour image"):
        partzoo.fit_parts(image, labels=Image.fromarray(image), model=encoder)


def found_iou(words, encoder):
    parts = found(words, encoder)
    return [((parts.labels == i) & (NEW == i)).sum() / ((parts.labels == i) | (NEW == i)).sum() for i in (1, 2)]


def test_images_unlike_the_taught_ones_are_suggested_first(encoder):
    taught = partzoo.fit_parts(IMAGES, labels=LABELS, names=NAMES, model=encoder, background=None)
    strange = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    chosen = partzoo.suggest_images([IMAGES[0], strange, drawn(NEW, 9)], taught, count=2, model=encoder)
    assert len(chosen) == 2 and chosen[0][0] == "image 2" and 0 <= chosen[1][1] < chosen[0][1] <= 1


def test_cells_take_the_label_that_most_of_their_known_pixels_have():
    labels = np.full((8, 8), 255)
    labels[0, 0], labels[1, :3], labels[5:7, 5:7] = 1, 2, 0
    assert cell_labels(labels, (2, 2)).tolist() == [[2, 255], [255, 0]]
    assert cell_labels(np.array([[1, 2]]), (2, 4)).tolist() == [[1, 1, 2, 2]] * 2


def test_small_parts_keep_their_cells_in_the_sample():
    labels = np.zeros(20_000, np.int64)
    labels[100:150], labels[200:300] = 1, 255
    places, weights = drawn_cells(labels, 1000, 0)
    assert (labels[places] == 1).sum() == FEW and weights.sum() == pytest.approx(19_900, rel=1e-4)
    assert 900 < len(places) < 1100 and len({*places.tolist()}) == len(places)


def test_the_discriminant_is_that_of_the_definition():
    random = np.random.default_rng(0)
    y = np.repeat([0, 1, 3], (50, 30, 20))
    x = random.normal(size=(100, 4)) + y[:, None] * (1, 0, 0.5, 0)
    sums = dataclasses.replace(Sums.of(torch.tensor(x).float(), torch.tensor(y), torch.ones(100), 4), groups=40)
    means = np.array([x[y == c].mean(0) for c in (0, 1, 3)])
    within = sum((x[y == c] - x[y == c].mean(0)).T @ (x[y == c] - x[y == c].mean(0)) for c in (0, 1, 3)) / 100
    shrunk = 0.8 * within + 0.2 * np.diag(x.var(0))
    slopes = np.linalg.solve(shrunk, means.T).T
    constants = np.log([0.5, 0.3, 0.2]) - (slopes * means).sum(1) / 2
    rows = discriminant(sums).numpy()
    assert np.allclose(rows[[0, 1, 3]], np.concatenate([slopes, constants[:, None]], 1), atol=1e-3)
    assert rows[2, -1] < -1000


def test_directions_vary_by_one_within_classes_and_most_between_them():
    random = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], (60, 40, 50))
    x = random.normal(size=(150, 5)) * (1, 2, 3, 1, 1) + y[:, None] * (0, 0, 9, 0, 0)
    sums = dataclasses.replace(Sums.of(torch.tensor(x).float(), torch.tensor(y), torch.ones(150), 3), groups=10**6)
    rows = directions(sums, 2).double().numpy()
    values = x @ rows[:, :-1].T + rows[:, -1]
    within = sum(np.cov(values[y == c].T, bias=True) * (y == c).sum() for c in (0, 1, 2)) / 150
    assert rows.shape == (2, 6) and np.allclose(values.mean(0), 0, atol=1e-3)
    assert np.allclose(within, np.eye(2), atol=1e-3)
    assert values[:, 1].var() > 4 and abs(np.corrcoef(values[:, 1], x[:, 2])[0, 1]) > 0.95


def test_sums_can_be_taken_away_again():
    x, y = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    one, other = (Sums.of(x[part], y[part], torch.ones(30), 3) for part in (slice(0, 30), slice(30, 60)))
    assert torch.allclose(discriminant(one + other - other), discriminant(one), atol=1e-4)


def test_the_layers_are_the_last_of_each_grid(encoder):
    assert levels(partzoo.load("efficientnet-lite0.in1k")) == (1, 2, 3, 4)
    assert levels(encoder) == (0, 1)  # two blocks, of one stride


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images and labels in files, and the vocabulary that the command has taught with them."""
    root = tmp_path_factory.mktemp("taught")
    (root / "images").mkdir(), (root / "labels").mkdir()
    for number, (pixels, each) in enumerate(zip(IMAGES, LABELS, strict=True)):
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        partzoo.Parts(each, names=NAMES).save(root / "labels" / f"{number}.index.png")
    done = command("fit", root / "images", "--labels", root / "labels", "-o", root / "mine.parts.safetensors")
    assert done.code == 0 and "2 parts from 3 labelled images: red, yellow" in done.out, done.err
    return root


def test_the_command_finds_what_it_has_taught(folder, tmp_path):
    Image.fromarray(drawn(NEW, 9)).save(tmp_path / "new.png")
    file = folder / "mine.parts.safetensors"
    done = command("discover", tmp_path / "new.png", "--vocabulary", file, "-o", tmp_path / "new.json")
    assert done.code == 0 and "yellow" in done.out, done.err
    assert [each["name"] for each in json.loads((tmp_path / "new.json").read_text())["categories"]] == ["red", "yellow"]
    assert command("fit", folder / "images", "--labels", tmp_path / "none", "-o", tmp_path / "v").code != 0


def test_the_command_judges_and_suggests(folder):
    file, images, labels = folder / "mine.parts.safetensors", folder / "images", folder / "labels"
    done = command("vocabulary", file, "--images", images, "--labels", labels)
    assert done.code == 0 and "yellow" in done.out and "3 images that taught these parts" in done.out, done.err
    done = command("suggest", images, "--vocabulary", file, "-n", "1", "--json")
    assert done.code == 0 and len(json.loads(done.out)["images"]) == 1, done.err
    assert command("vocabulary", file, "--labels", labels).code == 2


def test_the_command_replaces_no_input(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir(), labels.mkdir()
    Image.fromarray(IMAGES[0]).save(images / "0.png")
    Image.fromarray(LABELS[0]).save(labels / "0.png")
    for out in (images / "0.png", labels / "0.png"):
        content = out.read_bytes()
        done = command("fit", images, "--labels", labels, "-o", out)
        assert done.code == 2 and "is an input" in done.err and out.read_bytes() == content
    done = command("fit", images, "--labels", labels, "-o", tmp_path / "v.safetensors", "--json")
    assert json.loads(done.out) == {"output": str(tmp_path / "v.safetensors"), "k": 2, "names": ["part 1", "part 2"]}
