"""Mutate files with knowledge of their structure, so that damage reaches the code behind the first checks."""

import contextlib
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable

EXTREME = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63)
WORDS = (
    "", " ", "0", "-1", "1e400", "nan", "inf", "-inf", "99999999999999999999", "1" * 400, "x", "\u202etxt", "\x1b[2J",
    "a\nb", "\0", "true", "None", "../../x", "~/x", "é" * 200,
)  # fmt: skip
VALUES = (
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**63), 10**30, 0.0, -1.5, 1e308, float("nan"), float("inf"), "",
    "x", "1", "nan", "x" * 3000, "\x1b[2Jx\ny", [], {}, [[]], [None], ["x"], [0] * 50, {"x": 0}, {"": {}},
)  # fmt: skip
# Boxes of ISO media that hold others, and where these begin.
WITHIN = {b"meta": 12} | dict.fromkeys(
    (b"jp2h", b"iprp", b"ipco", b"moov", b"trak", b"edts", b"mdia", b"minf", b"dinf", b"stbl"), 8
)
Mutation = Callable[[bytes, random.Random], bytes]


def mutate(data: bytes, form: str, rng: random.Random) -> bytes:
    """Return a file with one to three pieces of damage, half of them made with knowledge of its form.

    Args:
        data: content of the file.
        form: a name in :data:`FORMS`; "" for files without a known structure.
        rng: source of randomness.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        known = FORMS.get(form)
        if known and rng.random() < 0.6:
            with contextlib.suppress(ValueError, LookupError, RecursionError):  # what was damaged before has no form
                data = known(data, rng)
                continue
        data = _bytes(data, rng)
    return data


def _bytes(data: bytes, rng: random.Random) -> bytes:
    """Damage bytes at random places."""
    found, length = bytearray(data), len(data)
    if not length:
        return rng.randbytes(rng.choice((1, 8, 300)))
    # The first bytes hold headers, so damage falls there more often.
    at = rng.randrange(length) if rng.random() < 0.6 else rng.randrange(min(length, 64))
    size = min(rng.choice((1, 2, 4, 8, 16, 64, 512)), length - at)
    match rng.randrange(9):
        case 0:
            for _ in range(rng.choice((1, 1, 2, 8, 40))):
                found[rng.randrange(length)] ^= 1 << rng.randrange(8)
        case 1:
            del found[at:]
        case 2:
            found[at : at + size] = rng.randbytes(size)
        case 3:
            found[at : at + size] = rng.choice((b"\0", b"\xff", b"\x80", b"{", b"0", b"-", b"\n")) * size
        case 4:
            del found[at : at + size]
        case 5:
            found[at:at] = found[at : at + size]
        case 6:
            other = rng.randrange(length)
            found[at : at + size] = found[other : other + size]
        case 7:
            found[at:at] = rng.randbytes(size)
        case _:
            width = rng.choice((1, 2, 4, 4, 8))
            number = rng.choice(EXTREME) % (1 << 8 * width)
            found[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
    return bytes(found)


def _of_pieces(split: Callable[[bytes], list[bytes]], repair: Callable[[bytes], bytes] = bytes) -> Mutation:
    """Return a mutation that swaps, repeats, drops and damages the units of a format.

    Args:
        split: function from a file to its units, which joined are the file.
        repair: function that corrects the checksum of a damaged unit.
    """

    def damage(data: bytes, rng: random.Random) -> bytes:
        pieces = split(data)
        if not pieces:
            return _bytes(data, rng)
        at, other = rng.randrange(len(pieces)), rng.randrange(len(pieces))
        match rng.randrange(8):
            case 0:
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case 1:
                del pieces[at]
            case 2:
                pieces[other:other] = [pieces[at]] * rng.choice((1, 1, 2, 300))
            case _:
                pieces[at] = _bytes(pieces[at], rng)
                if rng.random() < 0.8:
                    pieces[at] = repair(pieces[at])
        return b"".join(pieces)

    return damage


def _fields(width: int, within: int = 512) -> Callable[[bytes], list[bytes]]:
    """Return a function that splits the beginning of a file into fields of equal width."""
    return lambda data: [data[i : i + width] for i in range(0, min(within, len(data)), width)] + [data[within:]]


def _png_chunks(data: bytes) -> list[bytes]:
    pieces, at = [data[:8]], 8
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        pieces.append(data[at:end])
        at = end
    return [*pieces, data[at:]]


def _png_repaired(chunk: bytes) -> bytes:
    body = chunk[4:-4]
    return struct.pack(">I", max(len(body) - 4, 0)) + body + struct.pack(">I", zlib.crc32(body))


def _riff_chunks(data: bytes) -> list[bytes]:
    pieces, at = [data[:12]], 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        pieces.append(data[at : at + 8 + size + size % 2])
        at += 8 + size + size % 2
    return [*pieces, data[at:]]


def _boxes(data: bytes) -> list[bytes]:
    """Split ISO media and JPEG 2000 into boxes; those that hold others are split as well."""
    pieces, at = [], 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8 or at + size > len(data):
            break
        within = WITHIN.get(data[at + 4 : at + 8])
        if within:
            pieces += [data[at : at + within], *_boxes(data[at + within : at + size])]
        else:
            pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


def _jpeg_segments(data: bytes) -> list[bytes]:
    pieces, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        pieces.append(data[at:end])
        at = end
    return [*pieces, data[at:]]


def _tiff_entries(data: bytes) -> list[bytes]:
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
    except struct.error:
        return []
    first = start + 2
    entries = [data[first + 12 * i : first + 12 * i + 12] for i in range(min(count, 64))]
    return [data[:start], data[start:first], *entries, data[first + 12 * len(entries) :]]


def _tar_repaired(block: bytes) -> bytes:
    if len(block) != 512:
        return block
    total = sum(block) - sum(block[148:156]) + 8 * 32
    return block[:148] + b"%06o\0 " % (total % 0o1000000) + block[156:]


def _text_fields(data: bytes, rng: random.Random) -> bytes:
    """Damage a file of lines with fields between tabs, commas or spaces."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines[other:other] = [lines[at]] * rng.choice((1, 2, 100))
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case _:
            fields = re.split(r"([\t, /()=]+)", lines[at])
            place = rng.randrange(len(fields))
            fields[place] = rng.choice((*WORDS, fields[place] * 2, f"-{fields[place]}"))
            lines[at] = "".join(fields)
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _edf_fields(data: bytes, rng: random.Random) -> bytes:
    """Replace a field of the header, 8 bytes wide, by a number or a word that does not belong there."""
    at = 8 * rng.randrange(max(len(data[: 256 * 4]) // 8, 1))
    word = rng.choice((*WORDS, "2147483648", "0.0000001", "1e300", "-99999", "0", "00000001", "1,5"))
    return data[:at] + word.encode()[:8].ljust(8) + data[at + 8 :]


def _places(node: object) -> list[tuple]:
    """List the places in a JSON value: each container with the key of one of its values."""
    found: list[tuple] = []
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        found += [(node, key), *_places(value)]
    return found


def mutate_value(value: object, rng: random.Random) -> object:
    """Return a JSON value in which one value, at any depth, is replaced, removed, repeated or renamed."""
    value = json.loads(json.dumps(value))
    places = _places(value)
    if not places or rng.random() < 0.03:
        return rng.choice(VALUES)
    holder, key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(WORDS)] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder[key:key] = [holder[key]] * rng.choice((1, 3, 200))
        case 3:
            other, place = rng.choice(places)
            holder[key] = json.loads(json.dumps(other[place])) if _holds(other, place) else None
        case 4:
            holder[key] = [holder[key]]
        case _:
            holder[key] = rng.choice(VALUES)
    return value


def _holds(holder: object, key: object) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)  # type: ignore[operator,arg-type]


def _json(data: bytes, rng: random.Random) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _bytes(data, rng)
    match rng.randrange(12):
        case 0:  # a key twice, the second time with another value
            return data.replace(b"{", b'{"format": [], "format": 1e999, ', 1)
        case 1:
            return data[: len(data) // 2] + rng.choice((b"[", b'{"a":')) * rng.choice((50, 5000)) + data[-5:]
        case 2:
            return re.sub(rb"\d+", lambda found: rng.choice((found[0], b"9" * 5000)), data, count=3)
        case _:
            return json.dumps(mutate_value(value, rng)).encode()


def _toml(data: bytes, rng: random.Random) -> bytes:
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    at = rng.randrange(len(lines))
    name, equals, _ = lines[at].partition("=")
    match rng.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines[at:at] = [lines[at]]
        case 2:
            lines[at] = f"{name}{rng.choice('._[]= ')}{equals}{rng.choice(WORDS)!r}"
        case _:
            value = rng.choice((
                "-1", "0", "1e400", "nan", "inf", '""', '"x"', "[]", "[[]]", "{}", "true", "99999999999999999999",
                "1979-05-27", "[" * 3000, '"\\u001b[2J"', "[1, 'a']", "07:32:00",
            ))  # fmt: skip
            lines[at] = f"{name}= {value}" if equals else f"{lines[at]}\nx = {value}"
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _yaml(data: bytes, rng: random.Random) -> bytes:
    """Replace what follows a key or a dash by a value that does not belong there."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    at = rng.randrange(len(lines))
    head = re.match(r"\s*(- |[^:]*:)?", lines[at])
    begin = head[0] if head else ""
    grown = "".join(f", &x{i} [*x{i - 1}, *x{i - 1}, *x{i - 1}, *x{i - 1}]" for i in range(1, 14))
    match rng.randrange(6):
        case 0:
            return _text_fields(data, rng)
        case 1:
            lines[at] = f"{rng.choice((' ', '- ', '? ', '&x ', '!!python/name:os.system ', chr(9)))}{lines[at]}"
        case 2:
            number = rng.choice((-1, 10**9, 2**63, 10**30, 1.5, "true", "'5'", "1:30", "2020-01-01"))
            lines[at] = re.sub(r"[^\s:][^:]*:", lambda _: f"{number}:", lines[at], count=1)
        case _:
            value = rng.choice((
                "", "x", "1", "[]", "{}", "[[]]", "[{}]", "[a, [b]]", "&x [*x]", "*x", "{{}: 1}",
                "2020-01-01", "2020-99-99", "0b", ".inf", "!!binary 'a'", "!!set {a}", "!!timestamp x",
                "[" * 3000,
                "'\x1b[2J'", "|\n a", "{1000000000: x}", "{-5: x}", "{x: y}", "{1.5: x}", "<<: 5", "{<<: [1]}",
                f"[&x0 [x, x]{grown}]",
            ))  # fmt: skip
            lines[at] = f"{begin} {value}"
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _npy(data: bytes, rng: random.Random) -> bytes:
    """Damage the text that describes an array, and keep its length right."""
    size = int.from_bytes(data[8:10], "little")
    text = data[10 : 10 + size].decode("latin1")
    shapes = ("(-1,)", "()", "(2**9,)", "(1000000000,)", "(0, 5)", "None", "(3,)", "(4294967296, 4294967296)", "(1.5,)")
    kinds = ("'|O'", "'<U9'", "'<f16'", "'<c8'", "'|b1'", "3", "[('a', '<i4')]", "'<M8[s]'", "'|V9'", "'|S0'")
    match rng.randrange(5):
        case 0:
            text = re.sub(r"\([^)]*\)", rng.choice(shapes), text)
        case 1:
            text = re.sub(r"'descr': '[^']*'", f"'descr': {rng.choice(kinds)}", text)
        case 2:
            text = text.replace("False", rng.choice(("True", "7", "None")))
        case 3:
            text = _bytes(text.encode("latin1"), rng).decode("latin1")
        case _:
            text = rng.choice(("{", "(" * 300, "{}", "[]", "x"))
    coded = text.encode("latin1")[:60000]
    return data[:8] + len(coded).to_bytes(2, "little") + coded + data[10 + size :]


def _zip(data: bytes, rng: random.Random) -> bytes:
    """Damage, drop, rename or repeat a member of a zip, with correct checksums."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(each, archive.read(each)) for each in archive.infolist()]
    except Exception:
        return _bytes(data, rng)
    at = rng.randrange(len(members))
    about, content = members[at]
    match rng.randrange(8):
        case 0:
            del members[at]
        case 1:
            members.append((zipfile.ZipInfo(rng.choice(WORDS).replace("\0", "x") or "x"), content))
        case 2:
            members[at] = about, members[rng.randrange(len(members))][1]
        case _:
            members[at] = about, mutate(content, "npy" if about.filename.endswith(".npy") else "", rng)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for each, content in members:
            archive.writestr(zipfile.ZipInfo(each.filename), content, each.compress_type)
    return file.getvalue()


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    """Damage the JSON header, and keep its length right most of the time."""
    size = int.from_bytes(data[:8], "little")
    header = _json(data[8 : 8 + size], rng)
    inner = re.search(rb'"config": "((?:[^"\\]|\\.)*)"', header)
    if inner and rng.random() < 0.3:
        text = json.loads(b'"' + inner[1] + b'"').encode()
        header = header.replace(inner[1], json.dumps(_json(text, rng).decode("latin1"))[1:-1].encode())
    length = len(header) if rng.random() < 0.9 else rng.choice(EXTREME) % 2**64
    return length.to_bytes(8, "little") + header + data[8 + size :]


FORMS: dict[str, Mutation] = {
    "png": _of_pieces(_png_chunks, _png_repaired),
    "riff": _of_pieces(_riff_chunks),
    "boxes": _of_pieces(_boxes),
    "jpeg": _of_pieces(_jpeg_segments),
    "tiff": _of_pieces(_tiff_entries),
    "tar": _of_pieces(_fields(512, 1 << 30), _tar_repaired),
    "bytes 2": _of_pieces(_fields(2)),
    "bytes 4": _of_pieces(_fields(4)),
    "bytes 8": _of_pieces(_fields(8)),
    "rows": _text_fields,
    "edf": _edf_fields,
    "json": _json,
    "toml": _toml,
    "yaml": _yaml,
    "npy": _npy,
    "zip": _zip,
    "safetensors": _safetensors,
}
