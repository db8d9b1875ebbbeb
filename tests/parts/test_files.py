import json
import os

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from partzoo.errors import PartzooError, UsageError
from partzoo.parts import coco
from partzoo.parts.drawing import palette
from partzoo.parts.parts import Parts


@pytest.fixture(params=[3, 300])
def parts(request):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (20, 30))
    labels[0, 0] = request.param
    names = [f"Teil {i} ü" for i in range(request.param)]
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    return Parts(
        labels,
        k=request.param,
        image=image,
        descriptors=rng.random((request.param, 5)),
        names=names,
        source="herons/ü.jpg",
        confidences=rng.random(request.param),
    )


def test_npz_round_trip(parts, tmp_path):
    parts.save(tmp_path / "a.npz")
    back = Parts.load(tmp_path / "a.npz")
    assert back == parts
    assert back.confidences.dtype == np.float32 and np.array_equal(back.confidences, parts.confidences)
    np.testing.assert_array_equal(back.image, parts.image)
    assert back.source == parts.source
    plain = Parts(parts.labels)
    plain.save(tmp_path / "b.npz")
    assert Parts.load(tmp_path / "b.npz") == plain


def test_an_archive_without_labels_is_one_clear_error(tmp_path):
    np.savez(tmp_path / "a.npz", k=3, names=np.array(["a", "b", "c"]), source="")
    with pytest.raises(PartzooError, match=r"a\.npz.*damaged.*labels"):
        Parts.load(tmp_path / "a.npz")


def test_index_png_round_trip(parts, tmp_path):
    parts.save(tmp_path / "a.index.png")
    back = Parts.load(tmp_path / "a.index.png")
    assert (back.k, back.names) == (parts.k, parts.names)
    np.testing.assert_array_equal(back.labels, parts.labels)
    with Image.open(tmp_path / "a.index.png") as image:
        assert image.mode == ("P" if parts.k <= 255 else "I;16")
        np.testing.assert_array_equal(np.asarray(image), parts.labels)


def test_other_readers_of_an_index_png_do_as_the_docs_say(tmp_path):
    labels = np.arange(600).reshape(20, 30) % 6
    Parts(labels).save(tmp_path / "a.index.png")
    Parts(labels).save(tmp_path / "a.npz")
    assert np.array_equal(np.load(tmp_path / "a.npz")["labels"], labels)
    reader = pytest.importorskip("imageio.v3")
    assert np.array_equal(reader.imread(tmp_path / "a.index.png", mode="P"), labels)
    assert reader.imread(tmp_path / "a.index.png").shape == (20, 30, 3)


@pytest.mark.parametrize("k", [1, 3, 4, 15, 16, 255])
def test_index_pngs_have_8_bits_so_that_torchvision_reads_the_part_numbers(k, tmp_path):
    io = pytest.importorskip("torchvision.io")
    labels = np.arange(600).reshape(20, 30) % (k + 1)
    Parts(labels, k=k).save(tmp_path / "a.index.png")
    content = (tmp_path / "a.index.png").read_bytes()
    assert list(content[24:26]) == [8, 3], "bits of a pixel, and colours by a palette"
    data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    for _ in range(2):
        assert np.array_equal(io.decode_image(data)[0], labels)
    colours = io.decode_image(data, io.ImageReadMode.RGB).permute(1, 2, 0)
    assert np.array_equal(colours, palette(k)[labels])


@pytest.mark.parametrize("k", [0, 1, 2, 15, 16, 255, 256, 65535])
def test_index_png_keeps_every_label(k, tmp_path):
    labels = np.arange(min(k, 600) + 1)[None].repeat(3, 0)
    labels[0, 0] = k
    Parts(labels, k=k).save(tmp_path / "a.index.png")
    assert Parts.load(tmp_path / "a.index.png") == Parts(labels, k=k)


def test_index_png_of_others_can_be_read(tmp_path):
    Image.fromarray(np.array([[0, 2], [1, 5]], np.uint8)).save(tmp_path / "a.index.png")
    assert Parts.load(tmp_path / "a.index.png").k == 5


def test_files_of_a_newer_partzoo_say_so(tmp_path):
    parts = Parts(np.array([[0, 1, 2]], np.uint8))
    arrays, newer = tmp_path / "a.npz", "was written by a newer version of partzoo .*: upgrade partzoo"
    parts.save(arrays)
    with np.load(arrays) as file:
        assert file["format"] == 1
        content = dict(file)
    np.savez(arrays, **(content | {"format": np.array(2)}))
    with pytest.raises(PartzooError, match=newer):
        Parts.load(arrays)
    np.savez(arrays, format=np.array(2))  # whatever else it holds
    with pytest.raises(PartzooError, match=newer):
        Parts.load(arrays)
    del content["format"]  # as the first files were
    np.savez(arrays, **content)
    assert Parts.load(arrays) == parts
    for about, message in (({"format": 2}, newer), ({"format": "x"}, "states the format 'x'"), ([1], "damaged")):
        text = PngImagePlugin.PngInfo()
        text.add_itxt("partzoo", json.dumps(about))
        Image.fromarray(parts.labels).save(tmp_path / "a.index.png", pnginfo=text)
        with pytest.raises(PartzooError, match=message):
            Parts.load(tmp_path / "a.index.png")
    assert parts.to_coco("polygons")["info"]["partzoo_format"] == 1


@pytest.mark.parametrize("ending", [".npz", ".index.png"])
def test_what_stands_in_for_a_file_is_named(tmp_path, ending):
    for content, message in ((b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"), (b"<html>", "web page")):
        (tmp_path / f"a{ending}").write_bytes(content)
        with pytest.raises(PartzooError, match=message):
            Parts.load(tmp_path / f"a{ending}")


def test_overlay_png(parts, tmp_path):
    parts.save(str(tmp_path / "a.PNG"))
    with Image.open(tmp_path / "a.PNG") as image:
        assert image.size == (810, 540)
    parts.save(tmp_path / "a.png", scale=1)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (30, 20)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(parts.overlay()))


def test_coco_json_is_what_pycocotools_reads(parts, tmp_path, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    parts.save(tmp_path / "heron.json")
    for path in (tmp_path / "heron.json", tmp_path / "polygons.json"):
        if not path.exists():
            path.write_text(json.dumps(parts.to_coco("polygons")))
        data = coco.COCO(str(path))
        assert len(data.cats) == parts.k
        (image,) = data.imgs.values()
        assert (image["height"], image["width"], image["file_name"]) == (*parts.size, "herons/ü.jpg")
        assert len(data.anns) == len(parts.present)
        for annotation in data.anns.values():
            part = annotation["category_id"]
            assert data.cats[part]["name"] == parts.names[part - 1]
            assert annotation["area"] == parts.areas[part - 1]
            left, top, right, bottom = parts.boxes[part - 1]
            assert annotation["bbox"] == [left, top, right - left, bottom - top]
            np.testing.assert_array_equal(data.annToMask(annotation).astype(bool), parts.mask(part))


def test_coco_of_several_images():
    several = [Parts(np.array([[0, 1, 2]]), source="a.jpg"), Parts(np.array([[0], [0], [2], [2], [2]]), source="b.jpg")]
    data = coco.to_coco(several, "polygons")
    assert [(a["id"], a["image_id"], a["category_id"]) for a in data["annotations"]] == [
        (1, 1, 1),
        (2, 1, 2),
        (3, 2, 2),
    ]
    assert [image["file_name"] for image in data["images"]] == ["a.jpg", "b.jpg"]
    assert [a["bbox"] for a in data["annotations"]] == [[1, 0, 1, 1], [2, 0, 1, 1], [0, 2, 1, 3]]
    assert coco.to_coco([])["images"] == []
    joined = "".join(coco.joined(lambda: [coco.to_coco([parts], "polygons") for parts in several]))
    assert json.loads(joined) == data
    with pytest.raises(UsageError, match="share"):
        coco.to_coco([several[0], Parts(np.array([[3]]))])
    with pytest.raises(UsageError, match="'rle' or 'polygons'"):
        several[0].to_coco("png")


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.npy", "png"])
def test_unknown_endings_list_the_known(parts, name, tmp_path):
    with pytest.raises(UsageError, match=r"\.index\.png.*\.npz.*\.json"):
        parts.save(tmp_path / name)
    with pytest.raises(UsageError, match="read back"):
        Parts.load(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".png", ".index.png", ".npz", ".json"])
def test_unwritable_output_is_one_clear_error(parts, ending, tmp_path):
    (tmp_path / f"folder{ending}").mkdir()
    (tmp_path / "file").write_text("")
    for path in (f"none/a{ending}", f"folder{ending}", f"file/a{ending}", "x" * 300 + ending):
        with pytest.raises(PartzooError, match="Cannot write") as caught:
            parts.save(tmp_path / path)
        assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", f"folder{ending}"]


def test_a_failed_save_leaves_the_old_file(parts, tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    parts.save(path)
    before = path.read_bytes()

    def break_off(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", break_off)
    with pytest.raises(PartzooError, match="No space left on device"):
        parts.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.npz"]


def test_missing_and_damaged_files(parts, tmp_path):
    for ending in (".npz", ".index.png"):
        (tmp_path / f"folder{ending}").mkdir()
        with pytest.raises(PartzooError, match="Is a directory"):
            Parts.load(tmp_path / f"folder{ending}")
        path = tmp_path / f"a{ending}"
        with pytest.raises(PartzooError, match="No such file"):
            Parts.load(path)
        parts.save(path)
        data = path.read_bytes()
        for damaged in (b"", b"text", data[: len(data) // 2], data[:-30]):
            path.write_bytes(damaged)
            with pytest.raises(PartzooError, match="damaged"):
                Parts.load(path)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(PartzooError, match=r"Parts\.save"):
        Parts.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"text", "it is not an .npz archive"), (b"\x1f\x8b\x08 text", "is compressed with gzip")]
)
def test_text_or_gzip_named_npz_is_not_taken_for_a_pickle(tmp_path, content, reason):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(PartzooError, match=reason) as raised:
        Parts.load(tmp_path / "a.npz")
    assert "pickle" not in str(raised.value)


def test_npz_with_a_pickle_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, labels=np.array([[0, 1]]), k=1, names=np.array(["x"], dtype=object))
    with pytest.raises(PartzooError, match="damaged"):
        Parts.load(path)
