"""The contract of all part protocols, and the loaders of landmarks on miniatures of the official folders."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from parity.synthetic import image as synthetic_image
from PIL import Image
from scipy.io import savemat

from partzoo.data.reading import sample, squash, squash_mask, squash_plain
from partzoo.errors import ImageError, UsageError
from partzoo.evaluate import protocols, run
from partzoo.evaluate.protocols import aflw, celeba, cub
from partzoo.evaluate.protocols.base import PartProtocol
from partzoo.skipping import SkippedWarning

PARITY = Path(__file__).parents[2] / "parity"
PART_PROTOCOLS = {
    "aflw", "celeba", "celeba-partformer", "cub", "cub-partformer", "deepfashion", "faces68", "partimagenet-ood",
    "partimagenet-partformer", "partimagenet-seg", "pascal-part",
}  # fmt: skip


LABEL_MAPS = {"cars", "celebamask", "clothing"}  # tested in test_masked_sets.py


def write_image(file, height, width):
    """Write an image whose red is 4 x and whose green is 8 y, so that its colour gives the position."""
    y, x = np.mgrid[:height, :width]
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([4 * x, 8 * y, 0 * x], 2).astype(np.uint8)).save(file, format="PNG")


def place(frame, height, width):
    """Red and green that ``write_image`` puts at each pixel of a square frame, by its centre."""
    side = len(frame)
    at = (np.arange(side) + 0.5) / side
    return np.clip(4 * (at * width - 0.5), 0, 4 * (width - 1)), np.clip(8 * (at * height - 0.5), 0, 8 * (height - 1))


@pytest.fixture(params=sorted(PART_PROTOCOLS))
def protocol(request):
    return protocols.get(request.param)


def test_all_are_listed():
    assert set(protocols.names()) >= PART_PROTOCOLS | LABEL_MAPS
    found = {name for name in protocols.names() if isinstance(protocols.get(name), PartProtocol)}
    assert found == PART_PROTOCOLS | LABEL_MAPS


def test_each_command_describes_itself(protocol):
    assert protocols.get(protocol.name) is protocol
    assert protocol.source and "--data DIR" in protocol.get and len(protocol.rules) > 100
    assert protocol.truths > 1 and protocol.grid == (None if protocol.name == "faces68" else 128)
    of_masks = protocol.background is not None
    assert of_masks == (protocol.error is None)


def test_a_name_that_is_none_gets_the_closest():
    with pytest.raises(UsageError, match=r"Unknown protocol 'pascal_part'\. Did you mean 'pascal-part'"):
        protocols.get("pascal_part")


def test_absent_data_says_what_is_missing_and_where_from(protocol, tmp_path):
    for split in {protocol.fit, protocol.report}:
        with pytest.raises(UsageError) as error:
            protocol.load(tmp_path, split)
        assert str(tmp_path) in str(error.value) and protocol.get in str(error.value)


def test_an_unknown_split_names_the_splits(protocol, tmp_path):
    with pytest.raises(UsageError, match=f"'extra'.* the splits are .*{protocol.report}"):
        protocol.load(tmp_path, "extra")


# Frames


def test_squashing_as_opencv_agrees_to_a_grey_level():
    photo = np.rint(255 * synthetic_image("partformer/pair/photo", (1, 3, 200, 180)))[0].transpose(1, 2, 0)
    reference = np.load(PARITY / "partformer/resized.npz")["resized_subset"].astype(int)
    assert np.abs(squash_plain(photo.astype(np.uint8), 256)[::8, ::8] - reference).max() <= 1


def test_plain_squashing_skips_pixels_and_the_other_averages_them():
    stripes = np.zeros((4, 16, 3), np.uint8)
    stripes[:, 1::4] = 200
    assert squash_plain(stripes, 4)[:, :, 0].tolist() == [[100] * 4] * 4
    assert 40 <= squash(stripes, 4)[2, 2, 0] <= 80


def test_sampling_interpolates_and_clamps():
    pixels = np.array([[[0] * 3, [100] * 3]], np.uint8)
    assert sample(pixels, np.array([-1.0, 5.0]), np.array([-2.0, 0.25, 3.0]))[:, :, 0].tolist() == [[0, 25, 100]] * 2


def test_masks_are_read_at_the_nearest_lower_pixel():
    mask = np.arange(24).reshape(6, 4)
    assert squash_mask(mask, 2).tolist() == [[0, 2], [12, 14]]
    assert squash_mask(mask, 3).tolist() == [[0, 1, 2], [8, 9, 10], [16, 17, 18]]


# CUB


@pytest.fixture
def birds(tmp_path):
    """Three images, 20 high and 40 wide; landmark p of bird b lies at (p, b), the odd ones being visible."""
    names = ["001.Albatross/a.jpg", "001.Albatross/b.jpg", "007.Auklet/c.jpg"]
    for name in names:
        write_image(tmp_path / "images" / name, 20, 40)
    (tmp_path / "images.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    (tmp_path / "train_test_split.txt").write_text("1 1\n2 0\n3 0\n")
    (tmp_path / "bounding_boxes.txt").write_text("1 0 0 40 20\n2 1 2 3 4\n3 10.0 5.0 20.0 10.0\n")
    (tmp_path / "parts").mkdir()
    lines = (f"{b} {p} {p}.0 {b}.0 {p % 2}\n" for b in (1, 2, 3) for p in range(1, 16))
    (tmp_path / "parts/part_locs.txt").write_text("".join(lines))
    return tmp_path


def test_cub_birds_are_squashed_with_their_landmarks(birds):
    train, test = (cub.load(birds, split) for split in ("train", "test"))
    assert len(train) == 1 and len(test) == 2
    bird = test[1]
    assert bird.image.shape == (448, 448, 3) and bird.category == 6
    red, green = place(bird.image, 20, 40)
    assert np.abs(bird.image[224, :, 0] - red).max() < 2 and np.abs(bird.image[:, 224, 1] - green).max() < 2
    assert np.allclose(bird.points, [[p * 448 / 40, 3 * 448 / 20] for p in range(1, 16)])
    assert bird.visible.tolist() == [bool(p % 2) for p in range(1, 16)]
    assert bird.box == pytest.approx((112, 112, 224, 224))


def test_cub_frames_have_the_requested_side(birds):
    bird = cub.load(birds, "test", side=80)[0]
    assert bird.image.shape == (80, 80, 3)
    assert bird.points[3].tolist() == [8, 8] and bird.box == (2, 8, 6, 16)


def test_partformers_cub_is_enlarged_and_drops_landmarks_on_the_border(birds):
    locations = birds / "parts/part_locs.txt"
    locations.write_text(locations.read_text().replace("3 1 1.0 3.0 1", "3 1 40.0 3.0 1").replace("3 3 3.0", "3 3 0.0"))
    bird = cub.load_partformer(birds, "test")[1]
    zoom = 256 / 255
    assert bird.points[1] == pytest.approx([2 * 6.4 * zoom, 3 * 12.8 * zoom])
    assert bird.points[0] == pytest.approx([0.5, 3 * 12.8 * zoom]) and bird.points[2, 0] == 0.5
    assert bird.visible.tolist() == [False, False, False, False] + [bool(p % 2) for p in range(5, 16)]
    assert bird.box == pytest.approx(np.array([64, 64, 128, 128]) * zoom)
    red, _ = place(bird.image, 20, 40)
    at = np.arange(256) * 255 / 256
    assert np.abs(bird.image[128, :, 0] - np.interp(at, np.arange(256), red)).max() <= 1


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("parts/part_locs.txt", "3 15 15.0 3.0 1\n", "", r"part_locs\.txt has lines for 44 of the 45 landmarks"),
        ("bounding_boxes.txt", "1 0 0 40 20\n", "", r"bounding_boxes\.txt has lines for 2 of the 3"),
        ("images.txt", "007.Auklet", "Auklet", r"images\.txt, line 3"),
    ],
)
def test_cub_lists_that_are_damaged_say_where(birds, file, old, new, message):
    (birds / file).write_text((birds / file).read_text().replace(old, new))
    with pytest.raises(UsageError, match=message):
        cub.load(birds, "test")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("parts/part_locs.txt", "2 3 3.0", "2 16 3.0"),
        ("parts/part_locs.txt", "2 3 3.0", "9 3 3.0"),
        ("parts/part_locs.txt", "2 3 3.0", "2 3 inf"),
        ("parts/part_locs.txt", "2 3 3.0", "2 3 1e300"),
        ("bounding_boxes.txt", "2 1 2 3 4", "2 1 2 nan 4"),
        ("bounding_boxes.txt", "2 1 2 3 4", "2 1 2 3"),
        ("bounding_boxes.txt", "2 1 2 3 4", "2 1 2 -3 4"),
        ("bounding_boxes.txt", "2 1 2 3 4", "two 1 2 3 4"),
    ],
)
def test_unusable_lines_of_cub_are_named_and_cost_only_their_bird(birds, file, old, new):
    (birds / file).write_text((birds / file).read_text().replace(old, new))
    with pytest.warns(SkippedWarning, match=rf"{file.rpartition('/')[2]}: skipped line \d+ \('{new}") as warned:
        (bird,) = cub.load(birds, "test")
    assert bird.category == 6 and len(warned) == 1


@pytest.fixture
def two_classes(tmp_path):
    """A tree of CUB's files: nine birds of each of two classes, six of them for training."""
    rng = np.random.default_rng(0)
    images, splits, boxes, parts = [], [], [], []
    for number in range(1, 19):
        name = f"{('002.Auklet', '001.Albatross')[number % 2]}/{number}.png"
        pixels = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((12, 12, 1))).astype(np.uint8)
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
        images.append(f"{number} {name}\n")
        splits.append(f"{number} {int(number <= 12)}\n")
        boxes.append(f"{number} 4 4 {30 + number % 2} 40\n")
        parts += [f"{number} {part} {x} {y} 1\n" for part, (x, y) in enumerate(rng.integers(4, 44, (15, 2)), 1)]
    (tmp_path / "parts").mkdir()
    for file, lines in zip(cub.LISTS, (images, splits, boxes, parts), strict=True):
        (tmp_path / file).write_text("".join(lines))
    return tmp_path


def only(folder, name):
    """Keep, in all lists of a tree of CUB's files, only the birds of one class."""
    kept = {line.split()[0] for line in (folder / cub.LISTS[0]).read_text().splitlines() if name in line}
    for file in cub.LISTS:
        lines = (folder / file).read_text().splitlines(keepends=True)
        (folder / file).write_text("".join(line for line in lines if line.split()[0] in kept))


def test_one_category_of_cub_is_fitted_and_reported_alone(two_classes):
    measured = partial(run.evaluate, "colour-position", "cub-partformer", two_classes, k=[2], seeds=1, size=64)
    whole, first, second = measured(), measured(category="1"), measured(category="002.Auklet")
    assert [each["images"] for each in (whole, first, second)] == [6, 3, 3]
    assert first["setting"] == "size=64,category=1" and first["command"].endswith("--size 64 --category 1")
    assert second["command"].endswith("--category 002.Auklet") and first["runs"] != second["runs"]
    only(two_classes, "001.Albatross")
    alone = measured()
    assert alone["runs"] == first["runs"] and {"nmi", "fg_ari", "nme"} <= alone["runs"][0]["metrics"].keys()


def test_a_category_that_is_not_there_is_one_clear_error(two_classes, faces):
    with pytest.raises(UsageError, match=r"category='3': .* such as 1, .* The closest is '00[12]\."):
        run.evaluate("colour-position", "cub", two_classes, category="3")
    with pytest.raises(UsageError, match="category='1': celeba cannot be restricted to one class"):
        run.evaluate("colour-position", "celeba", faces, category="1")
    with pytest.raises(UsageError, match="category cannot be set for tiny-imagenet"):
        run.evaluate("toy-vit", "tiny-imagenet", faces, category="1")


# CelebA


@pytest.fixture
def faces(tmp_path):
    """A face of 40 rows and 20 columns in every list, its landmarks at (x, 2 x)."""
    write_image(tmp_path / "img_celeba/000001.jpg", 20, 40)
    write_image(tmp_path / "img_celeba/000002.jpg", 40, 20)
    (tmp_path / "cele_train_lm.txt").write_text("000001.jpg,1,2,3,4,5,6,7,8,9,10\n")
    (tmp_path / "MAFL_train_lm.txt").write_text("000001.jpg,1,2,3,4,5,6,7,8,9,10\n000002.jpg,1,2,3,4,5,6,7,8,9,10\n\n")
    (tmp_path / "MAFL_test_lm.txt").write_text("000002.jpg,1,2,2,4,3,6,4,8,0,40.5\n")
    return tmp_path


def test_celeba_is_fitted_and_tested_on_mafl(faces):
    protocol = protocols.get("celeba")
    fit, test = (protocol.load(faces, split) for split in (protocol.fit, protocol.report))
    assert len(fit) == 2 and len(test) == 1
    assert np.allclose(fit[0].points[0], [1 * 224 / 40, 2 * 224 / 20])
    assert np.allclose(test[0].points, np.array([[1, 2], [2, 4], [3, 6], [4, 8], [0, 40.5]]) * [11.2, 5.6])
    assert test[0].visible is None and test[0].image.shape == (224, 224, 3)
    red, green = place(test[0].image, 40, 20)
    assert np.abs(test[0].image[9, :, 0] - red).max() <= 1
    # Green of rows beyond 31 wraps round.
    assert np.abs(test[0].image[:170, 9, 1] - green[:170]).max() <= 1


def test_partformers_celeba_has_its_frame_and_moves_coordinates_outside(faces):
    face = celeba.load_partformer(faces, "mafl-test")[0]
    assert face.image.shape == (256, 256, 3)
    assert np.allclose(face.points[:2], [[12.8, 12.8], [25.6, 25.6]]) and face.points[4].tolist() == [0.5, 0.5]


def test_celeba_lists_that_are_damaged_say_where(faces):
    lines = "000002.jpg,1,2,3,4,5,6,7,8,9,10\n000002.jpg,1,2,3\n000001.jpg,1,2,3,4,5,6,7,8,9,nan\n"
    (faces / "MAFL_test_lm.txt").write_text(lines)
    named = r"MAFL_test_lm\.txt: skipped 000002\.jpg \(its landmarks are '1,2,3', not ten .*, 000001\.jpg \(its"
    with pytest.warns(UserWarning, match=named):
        assert len(celeba.load(faces, "mafl-test")) == 1
    (faces / "MAFL_test_lm.txt").write_text("000002.jpg,1,2,3,4,5,6,7,8,9,nan\n")
    with pytest.raises(UsageError, match=r"MAFL_test_lm\.txt has no line that is 'image,x1"):
        celeba.load(faces, "mafl-test")
    (faces / "MAFL_test_lm.txt").write_text("\n")
    with pytest.raises(UsageError, match=r"MAFL_test_lm\.txt is empty"):
        celeba.load(faces, "mafl-test")


def test_images_are_opened_on_demand(faces):
    fit = celeba.load(faces, "mafl-train")
    (faces / "img_celeba/000002.jpg").unlink()
    assert [len(each) for each in (fit, fit[1:], fit[:9])] == [2, 1, 2]
    assert fit[0].image.shape == fit[:1][-1].image.shape
    with pytest.raises(ImageError, match=r"000002\.jpg"):
        fit[1]


# AFLW


@pytest.fixture
def aflw_faces(tmp_path):
    for split, count in {"train": 2, "test": 1}.items():
        names = [f"{split}{i}.jpg" for i in range(count)]
        for name in names:
            write_image(tmp_path / "output" / name, 20, 40)
        (tmp_path / f"aflw_{split}_images.txt").write_text("\n".join(names))
        points = np.arange(10.0 * count).reshape(count, 5, 2)
        savemat(tmp_path / f"aflw_{split}_keypoints.mat", {"gt": points, "hw": np.full((count, 2), (20, 40))})
    return tmp_path


def test_aflw_landmarks_are_stored_with_y_first(aflw_faces):
    train, test = (aflw.load(aflw_faces, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (2, 1) and test[0].image.shape == (256, 256, 3)
    assert np.allclose(train[1].points[0], [11 * 256 / 40, 10 * 256 / 20])


def test_aflw_faces_with_landmarks_that_are_not_finite_are_passed_over(aflw_faces):
    points = np.arange(20.0).reshape(2, 5, 2)
    points[0, 3, 1] = np.nan
    savemat(aflw_faces / "aflw_train_keypoints.mat", {"gt": points})
    with pytest.warns(UserWarning, match=r"keypoints\.mat: skipped train0\.jpg \(a landmark is not finite\)"):
        train = aflw.load(aflw_faces, "train")
    assert len(train) == 1 and np.allclose(train[0].points[0], [11 * 256 / 40, 10 * 256 / 20])


def test_aflw_files_that_do_not_fit_are_refused(aflw_faces):
    (aflw_faces / "aflw_train_images.txt").write_text("train0.jpg\n")
    with pytest.raises(UsageError, match=r"keypoints\.mat holds 'gt' \(2, 5, 2\) for the 1 images"):
        aflw.load(aflw_faces, "train")
    (aflw_faces / "aflw_test_keypoints.mat").write_bytes(b"MATLAB 5.0 and then nothing")
    with pytest.raises(UsageError, match=r"aflw_test_keypoints\.mat holds no readable 'gt'"):
        aflw.load(aflw_faces, "test")
