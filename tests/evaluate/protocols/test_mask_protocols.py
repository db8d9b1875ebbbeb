"""The loaders of dense masks, on miniatures of the official folders."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from partzoo.errors import UsageError
from partzoo.evaluate.protocols import deepfashion, partimagenet, pascal_part
from partzoo.skipping import SkippedWarning


def write_image(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, format="PNG")


def grey(height, width):
    return np.full((height, width, 3), 90)


# DeepFashion


@pytest.fixture
def people(tmp_path):
    """Images of 64 x 32; the mask is a dress in the left half, a face at the top right, background below."""
    folder = tmp_path / "Anno/segmentation"
    mask = np.zeros((64, 32, 3))
    mask[:, :16], mask[:16, 16:] = (16, 78, 139), (245, 222, 179)
    for name in ("train", "query", "gallery"):
        image = f"img_highres/WOMEN/Dresses/{name}.jpg"
        write_image(folder / image, grey(64, 32))
        write_image(folder / f"img_highres/WOMEN/Dresses/{name}_segment.png", mask)
        listed = {"images": [{"id": 1, "file_name": image}], "annotations": []}
        (folder / f"DeepFashion_segmentation_{name}.json").write_text(json.dumps(listed))
    return tmp_path


def test_deepfashion_masks_come_from_their_colours(people):
    train, test = (deepfashion.load(people, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1, 2)
    person = test[1]
    assert person.image.shape == (256, 256, 3) and person.mask.shape == (128, 128)
    dress, face = (list(deepfashion.COLOURS).index(name) for name in ("dress", "face"))
    assert (person.mask[:, :64] == dress).all()
    assert (person.mask[:32, 64:] == face).all() and (person.mask[32:, 64:] == 0).all()


def test_every_colour_of_deepfashion_has_its_own_label(tmp_path):
    write_image(tmp_path / "all.png", [list(deepfashion.COLOURS.values())])
    assert deepfashion._labels(tmp_path / "all.png").tolist() == [list(range(16))]


def test_a_colour_that_stands_for_nothing_names_the_mask(people):
    mask = people / "Anno/segmentation/img_highres/WOMEN/Dresses/train_segment.png"
    write_image(mask, np.full((64, 32, 3), (1, 2, 255)))
    with pytest.raises(UsageError, match=r"train_segment\.png has the colour #0102ff"):
        deepfashion.load(people, "train")[0]


def test_a_mask_of_another_size_than_its_image_is_named(people):
    mask = people / "Anno/segmentation/img_highres/WOMEN/Dresses/train_segment.png"
    write_image(mask, np.zeros((32, 64, 3)))
    with pytest.raises(UsageError, match=r"train\.jpg is 64 x 32, and train_segment\.png is 32 x 64"):
        deepfashion.load(people, "train")[0]


def test_a_damaged_deepfashion_list_is_named(people):
    listed = people / "Anno/segmentation/DeepFashion_segmentation_query.json"
    listed.write_text('{"images": [{"id": 1}]}')
    with pytest.raises(UsageError, match=r"query\.json does not list 'images'"):
        deepfashion.load(people, "test")
    listed.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UsageError, match=r"query\.json is a pointer of Git LFS"):
        deepfashion.load(people, "test")
    listed.write_text('{"images":\n [')
    with pytest.raises(UsageError, match=r"query\.json is not JSON \(.*line 2"):
        deepfashion.load(people, "test")


# PartImageNet


def rectangle(x, y, width, height):
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def annotation(image, category, polygons, bbox=(0, 0, 1, 1), area=10.0, iscrowd=0):
    return {
        "id": 1, "image_id": image, "category_id": category, "segmentation": polygons, "bbox": list(bbox),
        "area": area, "iscrowd": iscrowd,
    }  # fmt: skip


def coco(images, annotations):
    """Images of 16 x 32 with these names."""
    listed = [{"id": i, "file_name": name, "height": 16, "width": 32} for i, name in images.items()]
    return json.dumps({"images": listed, "annotations": annotations, "categories": []})


LEFT, RIGHT = rectangle(0, 0, 16, 16), rectangle(16, 0, 16, 16)


def test_most_annotations_win_a_pixel_and_equals_go_to_the_lower_category():
    mask = partimagenet.part_mask(
        [annotation(0, 7, [LEFT]), annotation(0, 3, [LEFT, rectangle(20, 0, 4, 16)]), annotation(0, 7, [LEFT])],
        (16, 32),
    )
    assert (mask[:, :16] == 7).all() and (mask[:, 16:20] == 40).all() and (mask[:, 20:24] == 3).all()
    equal = partimagenet.part_mask([annotation(0, 9, [LEFT]), annotation(0, 3, [LEFT])], (16, 32))
    assert set(equal[:, :16].flat) == {3} and set(equal[:, 16:].flat) == {40}


def test_polygons_of_one_annotation_count_once():
    twice = annotation(0, 5, [LEFT, LEFT])
    mask = partimagenet.part_mask([twice, annotation(0, 4, [LEFT])], (16, 32))
    assert set(mask[:, :16].flat) == {4}


def test_crowds_and_annotations_without_area_are_passed_over():
    found = [annotation(0, 5, [LEFT], iscrowd=1), annotation(0, 6, [RIGHT], area=0)]
    assert set(partimagenet.part_mask(found, (16, 32)).flat) == {40}


def test_four_numbers_are_the_annotations_box_and_run_lengths_are_read():
    box = annotation(0, 1, [[9, 9, 9, 9]], bbox=(4, 2, 8, 6))
    mask = partimagenet.part_mask([box], (16, 32))
    expected = np.full((16, 32), 40)
    expected[2:8, 4:12] = 1
    assert (mask == expected).all()
    # Columns first: 16 zeros, 32 ones, the rest zeros.
    runs = annotation(0, 2, {"size": [16, 32], "counts": [16, 32, 464]})
    assert (partimagenet.part_mask([runs], (16, 32))[:, 1:3] == 2).all()


def ood(folder, annotations):
    for name in ("n01/a.JPEG", "n01/b.JPEG"):
        write_image(folder / "train" / name, grey(16, 32))
    (folder / "train_test.json").write_text(coco({10: "n01/a.JPEG", 11: "n01/b.JPEG"}, annotations))


def seg(folder, annotations):
    for name in ("a.JPEG", "b.JPEG"):
        write_image(folder / "images/test" / name, grey(16, 32))
    (folder / "annotations/test").mkdir(parents=True)
    (folder / "annotations/test/test.json").write_text(coco({10: "a.JPEG", 11: "b.JPEG"}, annotations))


@pytest.mark.parametrize(("layout", "load"), [(ood, partimagenet.load_ood), (seg, partimagenet.load_seg)])
def test_images_with_parts_are_squashed_and_those_without_left_out(tmp_path, layout, load):
    layout(tmp_path, [annotation(11, 0, [rectangle(8, 0, 8, 4)]), annotation(10, 0, [LEFT], area=0)])
    test = load(tmp_path, "test")
    assert len(test) == 1 and test[0].image.shape == (224, 224, 3)
    expected = np.full((128, 128), 40)
    expected[:32, 32:64] = 0
    assert (test[0].mask == expected).all()


def test_classes_are_those_that_files_are_named_by(tmp_path):
    files = {1: "n07_1.JPEG", 2: "n03_1.JPEG", 3: "n07_2.JPEG"}
    for name in files.values():
        write_image(tmp_path / "images/test" / name, grey(16, 32))
    (tmp_path / "annotations/test").mkdir(parents=True)
    listed = coco(files, [annotation(number, 0, [LEFT]) for number in files])
    (tmp_path / "annotations/test/test.json").write_text(listed)
    assert [each.category for each in partimagenet.load_seg(tmp_path, "test")] == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"images": []}), r"train_test\.json is not in COCO's format \('annotations' is missing\)"),
        (coco({1: "a"}, []), r"train_test\.json has no image with annotated parts"),
        ("[]", r"train_test\.json holds a list"),
    ],
)
def test_a_damaged_partimagenet_list_is_named(tmp_path, text, message):
    (tmp_path / "train").mkdir()
    (tmp_path / "train_test.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        partimagenet.load_ood(tmp_path, "test")


def test_annotations_that_cannot_be_used_are_passed_over_and_named(tmp_path):
    good = annotation(11, 0, [rectangle(8, 0, 8, 4)]) | {"id": 2}
    shapes = [[], [[]], [[5, 6]], [[0, 0, 8, 0, 8, float("nan")]], [[0, 0, 8, 0, 8, 1e12]], [[9, 9, 9, 9]], None]
    shapes += [{"size": [32, 16], "counts": [0, 512]}, {"size": [16, 32], "counts": [0, 10**15]}]
    odd = [annotation(11, 1, shape, bbox=(0, 0, 1e12, 1)) | {"id": 100 + i} for i, shape in enumerate(shapes)]
    odd += [{name: value for name, value in good.items() if name != field} for field in partimagenet.FIELDS]
    odd += [
        good | {"iscrowd": "no"},
        good | {"area": float("inf")},
        good | {"area": "200"},
        good | {"category_id": "3"},
        good | {"category_id": 999},
        good | {"image_id": [11]},
        good | {"image_id": 99},
        7,
    ]
    for number, each in enumerate(odd):
        folder = tmp_path / str(number)
        with pytest.warns(UserWarning, match=r"train_test\.json: skipped (the )?annotation"):
            ood(folder, [each, good])
            (test,) = partimagenet.load_ood(folder, "test")
        assert set(test.mask.flat) == {0, 40} and (test.mask[:32, 32:64] == 0).all()


@pytest.mark.parametrize("side", ["height", "width"])
def test_an_image_without_a_stated_size_is_skipped_and_named(tmp_path, side):
    ood(tmp_path, [annotation(10, 1, [LEFT]), annotation(11, 0, [LEFT])])
    file = tmp_path / "train_test.json"
    listed = json.loads(file.read_text())
    del listed["images"][0][side]
    file.write_text(json.dumps(listed))
    with pytest.warns(UserWarning, match=r"skipped image 10 \(its height and width are not stated\)"):
        (test,) = partimagenet.load_ood(tmp_path, "test")
    assert set(test.mask.flat) == {0, 40}


def test_votes_of_many_annotations_do_not_wrap_round():
    many = [annotation(0, 9, [LEFT])] * 256 + [annotation(0, 3, [LEFT])]
    assert (partimagenet.part_mask(many, (16, 32))[:, :16] == 9).all()


def test_an_image_of_another_size_than_its_annotations_is_named(tmp_path):
    ood(tmp_path, [annotation(11, 0, [LEFT])])
    file = tmp_path / "train/n01/b.JPEG"
    for height, width in ((8, 16), (32, 16), (32, 64)):
        write_image(file, grey(height, width))
        with pytest.raises(UsageError, match=rf"b\.JPEG is {height} x {width}, and its annotations are of 16 x 32"):
            partimagenet.load_ood(tmp_path, "test")[0]


def test_masks_turn_with_an_image_that_exif_turns(tmp_path):
    ood(tmp_path, [annotation(11, 0, [LEFT])])
    file = tmp_path / "train/n01/b.JPEG"
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored left is the upright top
    Image.fromarray(np.full((16, 32, 3), 90, np.uint8)).save(file, "PNG", exif=exif)
    mask = partimagenet.load_ood(tmp_path, "test")[0].mask
    assert (mask[:64] == 0).all() and (mask[64:] == 40).all()


def test_a_size_that_is_stated_too_large_takes_no_memory(tmp_path):
    ood(tmp_path, [annotation(11, 0, [LEFT])])
    listed = tmp_path / "train_test.json"
    listed.write_text(listed.read_text().replace('"height": 16, "width": 32', '"height": 10000000, "width": 20000000'))
    with pytest.raises(UsageError, match=r"b\.JPEG is 16 x 32, and its annotations are of 10000000 x 20000000"):
        partimagenet.load_ood(tmp_path, "test")[0]
    listed.write_text(listed.read_text().replace("10000000,", '"16",'))
    with pytest.warns(SkippedWarning, match="train_test.json"), pytest.raises(UsageError, match="no image with"):
        partimagenet.load_ood(tmp_path, "test")


@pytest.fixture
def by_class(tmp_path):
    write_image(tmp_path / "train_train/n01/a.JPEG", grey(16, 32))
    for name in ("b.JPEG", "c.JPEG"):
        write_image(tmp_path / "train_test/n02" / name, grey(16, 32))
    (tmp_path / "train.json").write_text(coco({0: "a", 1: "b", 2: "c"}, [annotation(1, 6, [RIGHT])]))
    rows = ("0\t0\t0\tn01\ta.JPEG", "1\t1\t108\tn02\tb.JPEG", "2\t1\t108\tn02\tc.JPEG")
    (tmp_path / "newdset.txt").write_text("\n".join(rows))
    return tmp_path


def test_partformers_images_have_their_class_and_stay_without_parts(by_class):
    train, test = (partimagenet.load_partformer(by_class, split) for split in ("train", "test"))
    assert [each.category for each in train] == [0] and [each.category for each in test] == [108, 108]
    assert test[0].image.shape == (256, 256, 3)
    assert (test[0].mask[:, :64] == 40).all() and (test[0].mask[:, 64:] == 6).all()
    assert set(test[1].mask.flat) == {40}


def test_an_image_that_the_annotations_lack_is_named(by_class):
    listed = by_class / "newdset.txt"
    listed.write_text("7\t0\t0\tn01\ta.JPEG\n")
    with pytest.raises(UsageError, match=r"newdset\.txt names image 7, which .*train\.json lacks"):
        partimagenet.load_partformer(by_class, "train")
    listed.write_text("0 0 0 n01 a.JPEG\n")
    with pytest.raises(UsageError, match=r"newdset\.txt, line 1"):
        partimagenet.load_partformer(by_class, "train")


# Pascal-Part


def struct(rows):
    """Make an array in the form of MATLAB's struct arrays."""
    fields = np.zeros((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for i, row in enumerate(rows):
        for name, value in row.items():
            fields[name][0, i] = value
    return fields


def part(name, rows, columns):
    mask = np.zeros((16, 32), np.uint8)
    mask[rows, columns] = 1
    return {"part_name": name, "mask": mask}


def thing(name, parts):
    masks = struct(parts) if parts else np.zeros((0, 0))
    return {"class": name, "class_ind": 1, "mask": np.ones((16, 32), np.uint8), "parts": masks}


def write_annotation(folder, name, things):
    (folder / "Annotations_Part").mkdir(exist_ok=True)
    anno = struct([{"imname": name, "objects": struct(things)}])
    savemat(folder / f"Annotations_Part/{name}.mat", {"anno": anno})


@pytest.fixture
def voc(tmp_path):
    sets = tmp_path / "VOCdevkit/VOC2010/ImageSets/Main"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("2008_000001\n")
    (sets / "val.txt").write_text("2008_000002\n2008_000003\n")
    for i in (1, 2, 3):
        write_image(tmp_path / f"VOCdevkit/VOC2010/JPEGImages/2008_00000{i}.jpg", grey(16, 32))
    whole, half = slice(None), slice(0, 8)
    sides = part("leftside", whole, slice(0, 16))
    wheels = [part("wheel_1", half, slice(0, 8)), part("wheel_2", half, slice(8, 16))]
    screen = part("screen", half, slice(16, 32))
    write_annotation(tmp_path, "2008_000002", [thing("bus", [sides, *wheels]), thing("tvmonitor", [screen])])
    write_annotation(tmp_path, "2008_000003", [thing("sofa", [])])
    return tmp_path


def test_pascals_later_parts_lie_over_earlier_ones_and_like_parts_are_one(voc):
    train, val = (pascal_part.load(voc, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (1, 2)
    assert val[0].image.shape == (224, 224, 3)
    label = pascal_part.LABELS
    expected = np.zeros((128, 128), int)
    expected[64:, :64] = label["bus", "leftside"]
    expected[:64, :64] = label["bus", "wheel"]
    expected[:64, 64:] = label["tvmonitor", "screen"]
    assert (val[0].mask == expected).all()


def test_an_object_without_parts_is_background(voc):
    assert set(pascal_part.load(voc, "val")[1].mask.flat) == {0}


def test_pascals_labels_are_one_for_each_class_and_part():
    labels = pascal_part.LABELS
    assert sorted(labels.values()) == list(range(1, pascal_part.PASCAL_PART.truths))
    assert labels["aeroplane", "body"] == 1 and labels["bus", "wheel"] != labels["car", "wheel"]
    assert ("horse", "lfho") in labels and ("horse", "lhorn") not in labels and ("sheep", "rhorn") in labels


def test_pascal_parts_that_cannot_be_used_are_passed_over_and_named(voc):
    whole = slice(None)
    odd = part("wheel_1", whole, whole) | {"mask": np.ones((9, 9), np.uint8)}
    none = part("wheel_2", whole, whole) | {"mask": "none"}
    good = [part("leftside", whole, slice(0, 16)), part("rightside", whole, slice(16, 32))]
    write_annotation(voc, "2008_000002", [thing("bus", [odd, *good, none])])
    with pytest.warns(UserWarning) as warned:
        mask = pascal_part.load(voc, "val")[0].mask
    assert set(mask.flat) == {pascal_part.LABELS["bus", name] for name in ("leftside", "rightside")}
    text = " ".join(str(each.message) for each in warned)
    assert "2008_000002.mat: skipped part 3 of bus" in text and "skipped wheel_1 (its mask is (9, 9)" in text


def test_damaged_pascal_annotations_are_named(voc):
    val = pascal_part.load(voc, "val")
    write_image(voc / "VOCdevkit/VOC2010/JPEGImages/2008_000002.jpg", grey(9, 9))
    with pytest.raises(UsageError, match=r"2008_000002\.jpg is 9 x 9, and the masks of .*2008_000002\.mat are 16 x 32"):
        val[0]
    savemat(voc / "Annotations_Part/2008_000003.mat", {"anno": struct([{"imname": "x"}])})
    with pytest.raises(UsageError, match=r"2008_000003\.mat is not one of Pascal-Part's"):
        val[1]
    (voc / "Annotations_Part/2008_000003.mat").unlink()
    with pytest.raises(UsageError, match=r"No such file: .*2008_000003\.mat"):
        val[1]
