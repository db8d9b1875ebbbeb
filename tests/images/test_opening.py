import contextlib
import functools
import gc
import http.server
import io
import os
import pickle
import struct
import subprocess
import sys
import threading
import tracemalloc
import types
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from helpers.image_files import tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

import partzoo
from partzoo.discovery.masks import open_mask
from partzoo.errors import ImageError, ShapeError, TooLargeError, UsageError
from partzoo.images.opening import OpenedImage, open_image, open_images
from partzoo.images.preprocess import to_tensor, working_size
from partzoo.limits import MAX_BYTES, MAX_PIXELS

SIZES = [(8, 8), (17, 300), (300, 17), (1, 1), (224, 224)]


class Preprocess:
    mean, std, interpolation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic"


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (17, 30, 3), np.uint8)


def encoded(image, form="PNG", **options) -> bytes:
    data = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(data, form, **options)
    return data.getvalue()


def pixels(source) -> np.ndarray:
    return open_image(source).pixels


def test_every_holder_gives_the_same_pixels(rgb, tmp_path):
    path = tmp_path / "bird.png"
    path.write_bytes(encoded(rgb))
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    with path.open("rb") as file:
        holders = [
            path,
            str(path),
            Image.fromarray(rgb),
            Image.open(path),
            rgb,
            tensor,
            path.read_bytes(),
            file,
        ]
        holders += [bytearray(path.read_bytes()), rgb / 255, rgb.astype(np.uint16) * 257, tensor / 255]
        holders += [(tensor.double() / 255).requires_grad_(), np.asfortranarray(rgb), rgb[::-1][::-1]]
        for holder in holders:
            image = open_image(holder)
            assert image.size == (17, 30)
            assert image.pixels.dtype == np.uint8
            np.testing.assert_array_equal(image.pixels, rgb)
    assert open_image(path).name == str(path)
    assert open_image(image) is image


def test_pixels_are_a_copy(rgb):
    for holder in (rgb, Image.fromarray(rgb), torch.from_numpy(rgb).permute(2, 0, 1)):
        image = open_image(holder)
        image.pixels[:] = 0
        np.testing.assert_array_equal(pixels(holder), rgb)
        assert rgb.any()


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_formats_open(form):
    smooth = np.full((40, 60, 3), (200, 100, 50), np.uint8)
    np.testing.assert_allclose(pixels(encoded(smooth, form)), smooth, atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_image_upright(rgb, orientation):
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(rgb, exif=exif)
    np.testing.assert_array_equal(pixels(data), turn(rgb))
    np.testing.assert_array_equal(pixels(Image.open(io.BytesIO(data))), turn(rgb))


def test_avif_is_turned_upright_although_pillow_takes_the_orientation_from_the_exif_it_writes():
    if not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    smooth = np.linspace(0, 255, 40 * 60 * 3).reshape(40, 60, 3).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    np.testing.assert_allclose(pixels(encoded(smooth, "AVIF", quality=100, exif=exif)), np.rot90(smooth, -1), atol=8)


def test_broken_exif_does_not_hide_the_image(rgb):
    np.testing.assert_array_equal(pixels(encoded(rgb, exif=b"Exif\0\0nonsense, not TIFF")), rgb)


def test_transparent_pixels_come_out_white_and_opaque_ones_unchanged(rgb):
    rgba = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    rgba[:5, :, 3] = 0
    expected = rgb.copy()
    expected[:5] = 255
    for holder in (rgba, encoded(rgba), encoded(rgba, "WEBP", lossless=True), Image.fromarray(rgba)):
        np.testing.assert_array_equal(pixels(holder), expected)
    np.testing.assert_array_equal(pixels(torch.from_numpy(rgba).permute(2, 0, 1)), expected)
    half = np.array([[[0, 0, 0, 128]]], np.uint8)
    assert abs(int(pixels(half)[0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_grey_tiff_with_a_second_band_is_read_like_colours_with_a_fourth(extra):
    rng = np.random.default_rng(0)
    alpha = rng.integers(1, 256, (9, 12))
    grey = (rng.random((9, 12)) * alpha).astype(np.uint8)  # not above alpha, by which 1 says it is multiplied
    two, four = (np.dstack([*[grey] * bands, alpha]).astype(np.uint8) for bands in (1, 3))
    if extra < 2 and int(PIL.__version__.partition(".")[0]) < 13:
        with pytest.raises(ImageError, match="not an image that Pillow can read"):
            pixels(tiff(two, 1, extra=[extra]))
        return
    found = pixels(tiff(two, 1, extra=[extra]))
    np.testing.assert_array_equal(found, pixels(tiff(four, 2, extra=[extra])) if extra else np.dstack([grey] * 3))


def test_palette_with_a_transparent_colour():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    found = pixels(encoded(image, transparency=0))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[1, 1].tolist() == [200, 100, 50]


def test_grey_alpha_palette_bilevel_and_cmyk():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(pixels(encoded(grey))[..., 1], grey)
    np.testing.assert_array_equal(pixels(grey[..., None])[..., 2], grey)
    np.testing.assert_array_equal(pixels(torch.from_numpy(grey)[None])[..., 0], grey)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(grey).convert("LA")))[..., 0], grey)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(grey).convert("P")))[..., 0], grey)
    np.testing.assert_array_equal(pixels(grey > 100)[..., 0], (grey > 100) * 255)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(grey > 100)))[..., 0], (grey > 100) * 255)
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    np.testing.assert_allclose(pixels(encoded(red, "JPEG"))[0, 0], [255, 0, 0], atol=3)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(form):
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    np.testing.assert_array_equal(pixels(encoded(deep, form))[..., 0], np.arange(256).reshape(16, 16))
    np.testing.assert_array_equal(pixels(deep), pixels(encoded(deep, form)))
    np.testing.assert_array_equal(pixels(deep.astype(">u2")), pixels(deep))


@pytest.mark.parametrize("bits", [np.float16, np.float64])
def test_tiff_of_a_float_that_pillow_does_not_know_is_read_rightly_or_one_clear_error(bits):
    with contextlib.suppress(ImageError):
        assert (pixels(tiff(np.full((4, 5), 0.5, bits), 1, kind=3)) == 128).all()


def test_16_bit_colour_png():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"\0" + struct.pack(">6H", 65535, 32896, 0, 257, 0, 65535)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert pixels(png).tolist() == [[[255, 128, 0], [1, 0, 255]]]


def test_float_tiff_and_32_bit_integers():
    np.testing.assert_array_equal(pixels(Image.fromarray(np.full((2, 2), 0.2, np.float32))), 51)
    with pytest.raises(ImageError, match="16 bits"):
        open_image(Image.fromarray(np.full((2, 2), 70_000, np.int32)))


def test_animations_give_their_first_frame():
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        np.testing.assert_allclose(pixels(data)[3, 3], [255, 0, 0], atol=3)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_kept(size):
    assert open_image(encoded(np.zeros((*size, 3), np.uint8))).size == size


BAD_ARRAYS = {
    "NaN": (np.full((4, 4, 3), np.nan), "NaN or infinite"),
    "one NaN": (np.pad([[np.nan]], 3), "NaN or infinite"),
    "infinite": (np.full((4, 4), np.inf, np.float32), "NaN or infinite"),
    "float 0..255": (np.full((4, 4, 3), 200.0), "0..1"),
    "normalized": (torch.full((3, 4, 4), -2.0), "0..1"),
    "int64": (np.zeros((4, 4), np.int64), "int64"),
    "channels first": (np.zeros((3, 20, 20), np.uint8), r"\(H, W, C\)"),
    "channels last": (torch.zeros(20, 20, 3), r"\(C, H, W\)"),
    "five channels": (np.zeros((4, 4, 5), np.uint8), r"\(H, W, C\)"),
    "vector": (np.zeros(4, np.uint8), r"\(H, W\)"),
    "empty": (np.zeros((0, 4, 3), np.uint8), "no pixels"),
}


@pytest.mark.parametrize("what", BAD_ARRAYS)
def test_bad_arrays_are_one_clear_error(what):
    array, message = BAD_ARRAYS[what]
    with pytest.raises((ImageError, ShapeError), match=message) as caught:
        open_image(array)
    assert_one_sentence(caught)


def test_bad_files_are_one_clear_error(rgb, tmp_path):
    def file(name, data):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    jpeg, png = encoded(noise, "JPEG"), encoded(noise)
    wrong = [
        (tmp_path / "none.jpg", "No such file"),
        (file("text.jpg", b"hello, I am no image"), "not an image that Pillow can read"),
        (file("cut.jpg", jpeg[: len(jpeg) // 2]), "damaged or truncated"),
        (file("cut.png", png[: len(png) // 2]), "damaged or truncated"),
        (file("header.png", png[:20]), "damaged|Pillow can read"),
        (file("zero.jpg", b""), "0 bytes"),
        (
            file("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"),
            "Pillow can read",
        ),
        (file("phone.heic", b"\0\0\0\x18ftypheic" + bytes(40)), "HEIC"),
        (tmp_path, "folder"),
        ("null\0byte.jpg", r"null\\x00byte\.jpg cannot be read"),
        (b"", "0 bytes"),
        (io.StringIO("text"), "mode 'rb'"),
        (Image.new("RGB", (0, 5)), "no pixels"),
        (None, "image is of type NoneType"),
        (7, "type int"),
    ]
    for source, message in wrong:
        with pytest.raises(ImageError, match=message) as caught:
            open_image(source)
        assert_one_sentence(caught)
        if isinstance(source, Path):
            assert source.name in str(caught.value)


def test_unreadable_file(tmp_path, monkeypatch):
    def refuse(self, mode):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.chdir(tmp_path)
    Path("secret.png").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"Cannot read 'secret\.png': Permission denied") as caught:
        open_image("secret.png")
    assert_one_sentence(caught)


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_bytes_raise_only_image_errors(data):
    form = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]))
    image = bytearray(encoded(np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8), form))
    for _ in range(data.draw(st.integers(1, 6))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = open_image(bytes(image[: data.draw(st.integers(1, len(image)))]))
    except ImageError:
        return
    assert found.pixels.dtype == np.uint8
    assert found.pixels.shape[2] == 3


def test_too_many_pixels_are_refused_before_decoding(monkeypatch):
    bomb = encoded(Image.new("1", (20_000, 4_000)))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match="4000 x 20000: more than 1,000,000 pixels") as caught:
        open_image(bomb, max_pixels=1_000_000)
    assert_one_sentence(caught)
    with pytest.raises(ImageError, match="pixels"):
        open_image(Image.new("L", (300, 300)), max_pixels=89_999)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [14_000, 20_000])
def test_default_limits_stop_bombs(side):
    with pytest.raises(ImageError, match="pixels, the limit: reduce its size, or raise max_pixels"):
        open_image(encoded(Image.new("1", (side, side))))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "GIF", "WEBP", "JPEG"])
def test_pillows_own_limit_is_not_ours_and_stays_as_it_was(form, monkeypatch):
    data = encoded(Image.new("RGB", (60, 50), "red"), form)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ThreadPoolExecutor(4) as pool:
            assert {image.size for image in pool.map(open_image, [data] * 20)} == {(50, 60)}
        assert open_image(data, max_pixels=3000).size == (50, 60)
        with pytest.raises(ImageError, match="50 x 60: more than 2,999 pixels"):
            open_image(data, max_pixels=2999)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_the_default_limits_let_a_photograph_of_108_megapixels_through():
    assert 12_000 * 9_000 < MAX_PIXELS and 3 * MAX_PIXELS <= MAX_BYTES


def test_functions_take_the_limits_that_their_errors_name(tmp_path):
    path = tmp_path / "large.png"
    Image.new("RGB", (30, 20)).save(path)
    model = partzoo.load("toy-vit")
    for function in (partzoo.discover_parts, partzoo.fit_parts, partzoo.extract_features):
        for limit in ("max_pixels", "max_bytes"):
            with pytest.raises(TooLargeError, match=f"raise {limit}") as caught:
                function(path, model=model, **{limit: 10})
            assert_one_sentence(caught)
            assert pickle.loads(pickle.dumps(caught.value)).limit == limit


def test_heic_is_read_by_pillow_heif_where_that_is_installed(monkeypatch):
    called = []
    plugin = types.SimpleNamespace(register_heif_opener=lambda: called.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    with pytest.raises(ImageError, match="convert it to JPEG, or pip install"):
        open_image(b"\0\0\0\x18ftypheic" + bytes(40))
    assert called


def test_too_many_bytes(rgb, tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(encoded(rgb))
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        with pytest.raises(ImageError, match="more than 100 bytes") as caught:
            open_image(source, max_bytes=100)
        assert_one_sentence(caught)


@pytest.fixture
def site(tmp_path, rgb):
    """Run a local web server that serves ``bird.png`` and some wrong answers; return its address."""
    (tmp_path / "bird.png").write_bytes(encoded(rgb))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/endless":
                self.send_response(200)
                self.end_headers()
                try:
                    while True:
                        self.wfile.write(bytes(4096))
                except OSError:
                    return
            elif self.path == "/elsewhere":
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
            elif self.path == "/moved":
                self.send_response(301)
                self.send_header("Location", "/bird.png")
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_url(site, rgb):
    for address in (f"{site}/bird.png", f"{site}/moved"):
        image = open_image(address)
        np.testing.assert_array_equal(image.pixels, rgb)
        assert image.name == address
    assert open_images(f"{site}/bird.png")[1]


def test_url_errors(site):
    for address, message in [
        (f"{site}/none.png", "404"),
        (f"{site}/elsewhere", "redirects to another scheme"),
        ("http://127.0.0.1:9/x.jpg", "Cannot download"),
        ("https://example.com/x.jpg", "Cannot download"),
        ("http://", "Cannot download"),
        ("http://127.0.0.1/a b.jpg", "not a valid address"),
    ]:
        with pytest.raises(ImageError, match=message) as caught:
            open_image(address)
        assert_one_sentence(caught)
    for address in (f"{site}/endless", f"{site}/bird.png"):
        with pytest.raises(ImageError, match="more than 100 bytes"):
            open_image(address, max_bytes=100)


def test_folder_is_recursive_sorted_and_leaves_out_what_is_no_image(tmp_path, rgb):
    for name in ("b.png", "a.PNG", "sub/c.jpg", ".hidden.png", ".cache/d.png", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(rgb, "JPEG" if name.endswith("jpg") else "PNG"))
    found, single = open_images(tmp_path)
    assert not single
    assert [Path(image.name).relative_to(tmp_path).as_posix() for image in found] == [
        "a.PNG",
        "b.png",
        "sub/c.jpg",
    ]
    assert [found.name(i) for i in range(3)] == [image.name for image in found]
    assert [p.name for p in open_images(f"{tmp_path}/*.png")[0]] == [str(tmp_path / "b.png")]
    assert len(open_images(f"{tmp_path}/**/*")[0]) == 3
    assert len(open_images([tmp_path / "b.png", tmp_path, f"{tmp_path}/*.png"])[0]) == 5
    assert len(found[1:]) == 2
    assert found[-1].name == found[2].name
    for empty in (tmp_path / ".cache" / "none*", f"{tmp_path}/*.gif"):
        with pytest.raises(ImageError, match="No images in"):
            open_images(empty)
    with pytest.raises(IndexError):
        found[3]


def test_a_file_named_like_a_glob_is_a_file(tmp_path, rgb):
    path = tmp_path / "bird[1].png"
    path.write_bytes(encoded(rgb))
    found, single = open_images(str(path))
    assert single
    assert found[0].size == (17, 30)


def test_what_is_single(rgb):
    data = encoded(rgb)
    for one in (
        rgb,
        rgb[..., 0],
        torch.zeros(3, 4, 4),
        data,
        io.BytesIO(data),
        Image.fromarray(rgb),
        OpenedImage(rgb),
    ):
        found, single = open_images(one)
        assert single and len(found) == 1 and found[0].pixels.ndim == 3
    many = [[rgb], (rgb, data), np.stack([rgb, rgb]), torch.zeros(2, 3, 4, 4), iter([data, data])]
    for source in many:
        found, single = open_images(source)
        assert not single
        assert all(image.pixels.ndim == 3 for image in found)
    assert found[1].name == "image 2"
    with pytest.raises(ImageError, match="empty"):
        open_images([])


def test_ten_thousand_images_stay_in_constant_memory(tmp_path):
    path = tmp_path / "one.bmp"
    Image.new("RGB", (64, 64)).save(path)
    found, _ = open_images([path] * 10_000)
    assert len(found) == 10_000
    gc.collect()
    tracemalloc.start()
    for i in range(0, 10_000, 50):
        assert found[i].size == (64, 64)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1024), st.sampled_from([1, 4, 8, 14, 16]))
def test_working_size_keeps_multiples_and_aspect(height, width, target, multiple):
    h, w = working_size((height, width), target, multiple)
    assert h % multiple == w % multiple == 0 and min(h, w) >= multiple
    assert abs(max(h, w) - max(target, multiple)) <= multiple / 2
    long, short = (h, w) if height >= width else (w, h)
    wanted = long * min(height, width) / max(height, width)
    assert abs(short - max(wanted, multiple)) <= multiple / 2 + 1e-6
    assert working_size((width, height), target, multiple) == (w, h)


def test_working_size_by_example():
    assert working_size((17, 300), 224, 8) == (16, 224)
    assert working_size((300, 17), 224, 14) == (224, 14)
    assert working_size((8, 8), 224, 16) == (224, 224)
    assert working_size((1080, 1920), 448, 16) == (256, 448)
    with pytest.raises(UsageError):
        working_size((8, 8), 0, 8)


@pytest.mark.parametrize("size", SIZES)
def test_to_tensor_has_the_requested_size(size):
    image = open_image(np.random.default_rng(0).random(size))
    h, w = working_size(size, 64, 8)
    x = to_tensor(image, (h, w), Preprocess)
    assert x.shape == (3, h, w) and x.dtype == torch.float32 and x.is_contiguous()
    assert torch.isfinite(x).all()


def test_to_tensor_normalizes_and_antialiases():
    grey = np.full((10, 12, 3), 128, np.uint8)
    x = to_tensor(grey, (10, 12), Preprocess)
    expected = (128 / 255 - torch.tensor(Preprocess.mean)) / torch.tensor(Preprocess.std)
    torch.testing.assert_close(x[:, 3, 4], expected)
    torch.testing.assert_close(x, to_tensor(OpenedImage(grey), (5, 24), Preprocess)[:, :1, :1].expand_as(x))
    chequered = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    small = to_tensor(open_image(chequered.astype(np.uint8)), (8, 8), Preprocess)
    assert small[0].std() < 0.05
    with pytest.raises(UsageError, match="bicubic"):
        to_tensor(grey, (8, 8), type("P", (Preprocess,), {"interpolation": "cubical"}))


def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    for source in ("", ["a.png", ""]):
        with pytest.raises(UsageError, match="path is empty"):
            open_images(source)


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    images, _ = open_images(tmp_path)
    assert images[0].size == (8, 8)
    for read in (lambda: images[1], lambda: open_image(tmp_path / "b.png"), lambda: open_mask(images.name(1), (8, 8))):
        with pytest.raises(ImageError, match=r"b\.png.*it is a pipe, socket or device"):
            read()


def test_a_sparse_tensor_is_one_clear_error():
    for tensor in (torch.eye(9).to_sparse(), torch.empty(9, 9, device="meta")):
        with pytest.raises(ImageError, match="sparse or without values"):
            open_image(tensor)


def assert_one_sentence(caught) -> None:
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 300


def test_common_files_do_not_import_all_formats_of_pillow(tmp_path):
    """That takes as long as importing partzoo."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.webp")
    ibis = Path(__file__).parents[2] / "examples" / "images" / "ibis.jpg"
    code = (
        "import sys\nfrom PIL import Image\nfrom partzoo.images.opening import open_image\n"
        "open_image(sys.argv[1])\nassert 'WEBP' not in Image.ID\nopen_image(sys.argv[2])\nassert 'WEBP' in Image.ID"
    )
    subprocess.run([sys.executable, "-c", code, ibis, tmp_path / "a.webp"], check=True)


def test_images_are_read_while_another_thread_imports_torch(monkeypatch):
    stream = io.BytesIO()
    Image.new("RGB", (3, 2), (10, 20, 30)).save(stream, "PNG")
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert open_image(stream.getvalue()).size == (2, 3)
