import tarfile
from itertools import chain

import numpy as np
import pytest
from PIL import Image

from partzoo.data.masks import MaskedSet, find_set, hashes_of, is_known, perceptual_hash
from partzoo.data.tars import source_name
from partzoo.errors import ImageError, UsageError
from partzoo.images.opening import open_image
from partzoo.skipping import SkippedWarning


@pytest.fixture
def folder(tmp_path):
    """Ten drawn images with masks, in a folder ``drawn`` and in ``masks/packed.tar``."""
    rng = np.random.default_rng(0)
    for i in range(10):
        for kind, pixels in (("images", rng.integers(0, 255, (12, 16 + i, 3))), ("masks", np.full((12, 16 + i), i))):
            file = tmp_path / "drawn" / kind / f"sub/{i:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    (tmp_path / "masks").mkdir()
    with tarfile.open(tmp_path / "masks" / "packed.tar", "w") as tar:
        for kind in ("masks", "images"):
            tar.add(tmp_path / "drawn" / kind, kind)
    return tmp_path


@pytest.mark.parametrize("name", ["drawn", "packed"])
def test_a_folder_and_a_tar_are_read_alike(folder, name):
    found = MaskedSet(find_set(folder, name))
    assert found.names == [f"sub/{i:02}" for i in range(10)]
    for i, each in enumerate(found):
        assert each.pixels.shape == (12, 16 + i, 3) and (each.mask == i).all() and each.name == f"sub/{i:02}"
        assert np.array_equal(open_image(found.source(i)).pixels, each.pixels)
    assert source_name(found.source(3)).endswith("images/sub/03.png")


def test_splits_are_every_fifth_image_and_share_none(folder):
    splits = {split: MaskedSet(find_set(folder, "drawn"), split).names for split in ("report", "dev", "train")}
    assert splits["report"] == ["sub/00", "sub/05"] and splits["dev"] == ["sub/01", "sub/06"]
    assert sorted(chain.from_iterable(splits.values())) == MaskedSet(find_set(folder, "drawn")).names


def test_what_is_missing_is_named(folder):
    with pytest.raises(UsageError, match=r"neither nothing\.tar nor nothing/"):
        find_set(folder, "nothing")
    with pytest.raises(UsageError, match="Unknown split 'test'"):
        MaskedSet(folder / "drawn", "test")
    (folder / "drawn" / "masks" / "sub" / "03.png").unlink()
    with pytest.raises(ImageError, match=r"no masks/sub/03\.png, the mask of images/sub/03\.png"):
        MaskedSet(folder / "drawn")[3]
    (folder / "drawn" / "masks").rename(folder / "drawn" / "elsewhere")
    with pytest.raises(UsageError, match=r"no masks/sub/00\.png, and none for any other"):
        MaskedSet(folder / "drawn")


@pytest.mark.parametrize("damage", ["image cut short", "mask cut short", "no mask", "mask of another size"])
def test_one_image_that_cannot_be_used_is_passed_over_and_named(folder, damage):
    image, mask = (folder / "drawn" / kind / "sub" / "04.png" for kind in ("images", "masks"))
    if damage == "image cut short":
        image.write_bytes(image.read_bytes()[:100])
    elif damage == "mask cut short":
        mask.write_bytes(mask.read_bytes()[:45])
    elif damage == "no mask":
        mask.unlink()
    else:
        Image.fromarray(np.zeros((5, 5), np.uint8)).save(mask)
    images = MaskedSet(folder / "drawn")
    with pytest.warns(SkippedWarning, match=r"Skipped: .*04") as warned:
        assert [each.name for each in images.usable()] == [name for name in images.names if name != "sub/04"]
    assert [name for each in warned for name, _ in each.message.items] == [f"{folder / 'drawn'}: images/sub/04.png"]


def test_a_mask_of_another_size_is_refused(folder):
    mask = folder / "drawn" / "masks" / "sub" / "00.png"
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(mask)
    with pytest.raises(UsageError, match=r"sub/00\.png is 12 x 16, and .*masks/sub/00\.png is 5 x 5"):
        MaskedSet(folder / "drawn")[0]


def test_a_mask_turns_with_an_image_that_exif_turns(folder):
    image, mask = (folder / "drawn" / kind / "sub" / "00.png" for kind in ("images", "masks"))
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored left is the upright top
    Image.open(image).save(image, exif=exif)
    left = np.zeros((12, 16), np.uint8)
    left[:, :8] = 1
    Image.fromarray(left).save(mask)
    found = MaskedSet(folder / "drawn")[0].mask
    assert found.shape == (16, 12) and (found[:8] == 1).all() and (found[8:] == 0).all()


def test_masks_that_hold_no_labels_are_named(folder):
    mask = folder / "drawn" / "masks" / "sub" / "00.png"
    size = MaskedSet(folder / "drawn")[0].mask.shape
    for values in (np.full(size, 256, np.uint16), np.zeros((*size, 3), np.uint8)):
        Image.fromarray(values).save(mask)
        with pytest.raises(ImageError, match=r"00\.png is not one label from 0 to 255 for each pixel"):
            MaskedSet(folder / "drawn")[0]
    for content in (b"", mask.read_bytes()[:45]):
        mask.write_bytes(content)
        with pytest.raises(ImageError, match=r"00\.png is damaged"):
            MaskedSet(folder / "drawn")[0]


def test_copies_of_an_image_are_known_and_others_are_not():
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)) for _ in range(9)]
    smooth = [np.asarray(image.resize((160, 120))) for image in coarse]
    known = hashes_of(smooth[:1])
    small = np.asarray(Image.fromarray(smooth[0]).resize((70, 60)))
    assert known.shape == (1, 63) and is_known(small, known) and is_known(small[:, ::-1], known)
    assert not any(is_known(each, known) for each in smooth[1:])
    assert (perceptual_hash(smooth[0]) == perceptual_hash(smooth[0].copy())).all()
    assert not is_known(smooth[0], hashes_of([]))
