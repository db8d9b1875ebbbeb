"""Every kind of source yields the same images, in order, from any number on."""

import json
import pickle
import tarfile

import fsspec
import pytest
from helpers.image_sets import encoded, write_tar

from partzoo.collections.sources import Record, kinds, open_source
from partzoo.collections.storage import Stored
from partzoo.data.tars import tar_images
from partzoo.errors import ImageError, UsageError
from partzoo.images.opening import open_image

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402


def bytes_of(record):
    """Return the encoded image of a record."""
    if isinstance(record.image, Stored):
        return record.image.read()
    return record.image if isinstance(record.image, bytes) else open(record.image, "rb").read()


@pytest.fixture
def ordered(contents):
    return dict(sorted(contents.items()))


def as_folder(place, images, contents):
    return images


def as_glob(place, images, contents):
    return f"{images}/**/*.png"


def as_list(place, images, contents):
    (place / "list.txt").write_text("".join(f"{images / key}\n\n" for key in contents))
    return place / "list.txt"


def as_csv(place, images, contents):
    lines = ["label,path", *(f'"a, b",{images / key}' for key in contents)]
    (place / "list.csv").write_text("\ufeff" + "\r\n".join(lines), newline="")
    return place / "list.csv"


def as_coco(place, images, contents):
    (images.parent / "annotations").mkdir(exist_ok=True)
    file = images.parent / "annotations" / "instances.json"
    file.write_text(json.dumps({"images": [{"id": 7, "file_name": key} for key in contents]}))
    return file


def as_tars(place, images, contents):
    items = list(contents.items())
    for number, members in enumerate((items[:4], items[4:])):
        write_tar(place / f"part-{number}.tar", dict(members))
    return place / "part-{0..1}.tar"


def as_parquet(place, images, contents):
    table = pa.table({"key": list(contents), "label": [0] * len(contents), "image": list(contents.values())})
    pq.write_table(table[:4], place / "part-0.parquet", row_group_size=3)
    pq.write_table(table[4:], place / "part-1.parquet")
    return f"{place}/*.parquet"


def as_paths_in_parquet(place, images, contents):
    pq.write_table(pa.table({"path": [str(images / key) for key in contents]}), place / "paths.parquet")
    return place / "paths.parquet"


def as_memory(place, images, contents):
    for key, data in contents.items():
        fsspec.filesystem("memory").pipe(f"/{place.name}/{key}", data)
    return f"memory://{place.name}"


def as_tars_in_memory(place, images, contents):
    as_tars(place, images, contents)
    for file in place.glob("*.tar"):
        fsspec.filesystem("memory").pipe(f"/{place.name}/{file.name}", file.read_bytes())
    return f"memory://{place.name}/*.tar"


FORMS = [value for name, value in list(globals().items()) if name.startswith("as_")]


@pytest.mark.parametrize("form", FORMS)
def test_a_source_yields_all_images_in_order_from_any_number_on(form, tmp_path, images, ordered):
    source = open_source(form(tmp_path, images, ordered))
    records = list(source.records())
    assert [bytes_of(record) for record in records] == list(ordered.values())
    assert len(source) == len(records)
    assert list(source.keys()) == [record.key for record in records]
    assert all(record.key.endswith(key) for record, key in zip(records, ordered, strict=True))
    for start, stop in ((0, 2), (2, 5), (5, 99), (6, 9)):
        assert list(source.records(start, stop)) == records[start:stop]
    assert list(pickle.loads(pickle.dumps(source)).records()) == records


def test_a_folder_has_the_same_keys_wherever_it_lies(tmp_path, images, ordered):
    places = (images, f"{images}/**/*.png", as_memory(tmp_path, images, ordered), images.as_uri())
    sources = [open_source(place) for place in places]
    assert [list(source.keys()) for source in sources] == [list(ordered)] * 4
    assert len({source.digest() for source in sources}) == 1


def test_a_pattern_of_files_elsewhere(tmp_path, images, ordered):
    source = open_source(f"{as_memory(tmp_path, images, ordered)}/a/*.png")
    assert list(source.keys()) == [key.removeprefix("a/") for key in ordered if key.startswith("a/")]


def test_the_digest_changes_with_order_and_number(tmp_path, images, ordered):
    keys = [str(images / key) for key in ordered]
    digests = set()
    for names in (keys, keys[::-1], keys[:-1]):
        (tmp_path / "list.txt").write_text("\n".join(names))
        digests.add(open_source(tmp_path / "list.txt").digest())
    assert len(digests) == 3


def test_paths_in_a_list_are_relative_to_it(images):
    (images.parent / "relative.txt").write_text("images/a/0.png\n")
    (record,) = open_source(images.parent / "relative.txt").records()
    assert record == Record("images/a/0.png", str(images / "a" / "0.png"))


def test_a_label_map_beside_an_image_is_not_an_image(tmp_path):
    write_tar(tmp_path / "a.tar", {"x/7.jpg": b"1", "x/7.seg.png": b"2", "x/7.json": b"3", "x/8.left.png": b"4"})
    assert list(open_source(tmp_path / "a.tar").keys()) == ["a.tar/x/7.jpg", "a.tar/x/8.left.png"]


def test_images_of_the_datasets_library_without_bytes_are_read_by_their_path(tmp_path, images):
    """Its ``to_parquet`` embeds nothing: bytes are null, and the paths are those of the machine that wrote it."""
    path = images / "a" / "0.png"
    rows = [{"bytes": None, "path": str(path)}, {"bytes": b"1", "path": "elsewhere.png"}]
    pq.write_table(pa.table({"image": rows}), tmp_path / "hf.parquet")
    records = list(open_source(tmp_path / "hf.parquet").records())
    assert records == [Record("hf.parquet:0", str(path)), Record("hf.parquet:1", b"1")]


def test_an_unnamed_column_of_bytes_is_read_and_two_are_refused(tmp_path):
    pq.write_table(pa.table({"pixels": [b"1"], "n": [1]}), tmp_path / "one.parquet")
    assert list(open_source(tmp_path / "one.parquet").records()) == [Record("one.parquet:0", b"1")]
    pq.write_table(pa.table({"left": [b"1"], "right": [b"2"]}), tmp_path / "two.parquet")
    with pytest.raises(UsageError, match="no column that is known to hold images"):
        open_source(tmp_path / "two.parquet")


def test_a_range_of_bytes_that_the_file_does_not_have_is_an_error(tmp_path):
    (tmp_path / "short").write_bytes(b"12345")
    assert Stored(str(tmp_path / "short"), "x", 2, 3).read() == b"345"
    with pytest.raises(ImageError, match="x is truncated: it has 3 of 4 bytes"):
        Stored(str(tmp_path / "short"), "x", 2, 4).read()
    with pytest.raises(ImageError, match="x cannot be read"):
        Stored(str(tmp_path / "missing"), "x").read()


def test_a_file_larger_than_the_limit_is_not_read_whole(tmp_path):
    data = encoded(0)
    (tmp_path / "a.png").write_bytes(data)
    found = Stored(str(tmp_path / "a.png"), "a").read(max_bytes=100)
    assert len(found) == 101
    with pytest.raises(ImageError, match="more than 100 bytes"):
        open_image(found, name="a", max_bytes=100)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"[]", "is not a COCO dataset"),
        ("b.json", b'{"images": [{"file_name": 3}]}', "is not a COCO dataset"),
        ("c.json", b'{"images": []}', "holds no images"),
        ("a.csv", b"name;path\n", "has no column of paths"),
        ("a.txt", b"\n\n", "holds no images"),
        ("b.txt", b"\xff\xfe\xff", "cannot be read"),
        ("a.tar", b"no tar", "cannot be read as a tar"),
        ("a.tar.gz", b"", "is compressed"),
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
        ("a.png", b"", "is not a collection of images: name"),
    ],
)
def test_what_is_no_collection_is_an_error_of_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        open_source(tmp_path / name)


@pytest.mark.parametrize("name", ["missing.txt", "missing.json", "missing.tar", "missing.parquet", "x/*.tar", "x"])
def test_a_missing_collection_is_an_error_of_one_sentence(tmp_path, name):
    with pytest.raises(UsageError):
        open_source(tmp_path / name)


def test_every_kind_says_what_its_addresses_look_like():
    assert all(kind.form for kind in kinds()) and len(kinds()) >= 5


def test_no_list_of_all_images_of_tars_is_kept(tmp_path, ordered):
    """Nor does one go to the workers with each shard."""
    for number in range(20):
        write_tar(tmp_path / f"{number:02}.tar", {f"{each}.png": encoded(each) for each in range(20)})
    source = open_source(f"{tmp_path}/*.tar")
    assert len(list(source.keys())) == len(source) == 400
    assert list(source.records(39, 41)) == [*source.records(39, 40), *source.records(40, 41)]
    assert len(pickle.dumps(source)) < 4000


def test_a_range_of_a_file_elsewhere_is_read_without_what_is_around_it(monkeypatch):
    files = fsspec.filesystem("memory")
    files.pipe("/ranges/a.tar", bytes(range(100)))
    monkeypatch.setattr(type(files), "_open", lambda *_, **__: pytest.fail("the whole file was opened"))
    asked = []
    monkeypatch.setattr(type(files), "cat_file", lambda _, path, start, end: asked.append((path, start, end)) or b"12")
    assert Stored("memory://ranges/a.tar", "x", 7, 2).read() == b"12"
    assert asked == [("/ranges/a.tar", 7, 9)]


@pytest.mark.parametrize("how", ["a header of noise", "cut at a header", "cut in a header", "no end"])
def test_a_tar_that_does_not_end_as_tars_do_is_refused_with_all_its_images(tmp_path, how):
    file = tmp_path / "whole.tar"
    write_tar(file, {f"{number}.png": encoded(number) for number in range(6)})
    whole = file.read_bytes()
    with tarfile.open(file) as tar:
        starts = [member.offset for member in tar.getmembers()]
        end = tar.offset
    damaged = {
        "a header of noise": whole[: starts[3]] + b"\x07" * 512 + whole[starts[3] + 512 :],
        "cut at a header": whole[: starts[3]],
        "cut in a header": whole[: starts[3] + 200],
        "no end": whole[:end],
    }[how]
    (tmp_path / "bad.tar").write_bytes(damaged)
    with pytest.raises(UsageError, match=r"bad\.tar (is damaged, or was cut short|cannot be read as a tar)"):
        open_source(str(tmp_path / "bad.tar"))
    with pytest.raises(UsageError, match=r"bad\.tar"):
        tar_images(tmp_path / "bad.tar", lambda names: names)
    assert len(open_source(str(file))) == 6


def test_whole_numbers_are_keys(tmp_path):
    table = pa.table({"id": [7, 1002], "image": [encoded(0), encoded(1)]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert list(open_source(str(tmp_path / "t.parquet")).keys()) == ["7", "1002"]
    assert list(open_source(table.to_pylist()).keys()) == ["7", "1002"]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_any_records_can_be_picked(form, tmp_path, images, ordered):
    source = open_source(str(form(tmp_path, images, ordered)))
    every = [*source.records()]
    numbers = range(len(every))[::2]
    assert [(each.key, bytes_of(each)) for each in source.picked(numbers)] == [
        (every[number].key, bytes_of(every[number])) for number in numbers
    ]


def test_no_group_of_rows_is_read_twice_to_pick_from_it(tmp_path, monkeypatch):
    table = pa.table({"key": [f"{i:03}" for i in range(300)], "image": [b"%d" % i for i in range(300)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    source, read, of_parquet = open_source(str(tmp_path / "t.parquet")), [], pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda self, *args, row_groups, **kwargs: (
            read.extend(row_groups) or of_parquet(self, *args, row_groups=row_groups, **kwargs)
        ),
    )
    assert [each.key for each in source.picked([0, 63, 64, 99, 250])] == ["000", "063", "064", "099", "250"]
    assert read == [0, 2]
