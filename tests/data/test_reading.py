import codecs

import pytest

from partzoo.data.reading import read_json, read_rows, read_text
from partzoo.errors import UsageError

LINES = ["1 001.Häher/x.jpg", "", "2 001.Häher/y.jpg"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_marks_and_line_ends_of_other_systems_are_no_part_of_a_list(tmp_path, end, encoding):
    file = tmp_path / "images.txt"
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    file.write_bytes(mark + end.join([*LINES, ""]).encode(encoding))
    rows = read_rows(file, "id class/image", lambda fields: (int(fields[0]), fields[1]))
    assert rows == [(1, "001.Häher/x.jpg"), (2, "001.Häher/y.jpg")]
    assert read_text(file).splitlines() == LINES
    file.write_bytes(mark + end.join([*LINES, "three"]).encode(encoding))
    with pytest.raises(UsageError, match="line 4: 'three' is not 'id class/image'"):
        read_rows(file, "id class/image", lambda fields: int(fields[0]))


def test_a_list_with_a_mark_alone_is_empty_and_json_may_have_one(tmp_path):
    file = tmp_path / "list"
    file.write_bytes(codecs.BOM_UTF8)
    with pytest.raises(UsageError, match="is empty"):
        read_rows(file, "name", str)
    file.write_bytes(codecs.BOM_UTF8 + b'{"a": 1}')
    assert read_json(file) == {"a": 1}
