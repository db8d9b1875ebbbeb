"""The page that needs no server, in a real browser.

It is built first (``python web/build.py -o build/page``, docs/demo.md); then ``pytest -m browser tests/web`` needs
playwright and Chromium.
"""

import functools
import http.server
import importlib.util
import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import partzoo
from partzoo.demo.work import SIDE
from partzoo.images.opening import open_image
from partzoo.parts.drawing import scale_to_see
from partzoo.parts.parts import Parts

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "page"
EXAMPLES = ROOT / "examples" / "images"
DOLPHIN = EXAMPLES / "dolphin.jpg"
INSTALLED = {  # photographs that come with other packages
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
    "gradio": ("media_assets/images/lion.jpg",),
}
WAIT = 300_000  # milliseconds; a busy machine takes as long as it takes
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
SOURCES = ("index.html", "page.css", "page.js", "drawing.js", "png.js", "offline.js")


def installed(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return spec and Path(spec.origin).parent


PHOTOGRAPHS = [*sorted(EXAMPLES.glob("*.jpg"))] + [
    folder / name for package, names in INSTALLED.items() if (folder := installed(package)) for name in names
]


@pytest.fixture(scope="module")
def built():
    if not BUILT.exists():
        pytest.skip("the page is not built: python web/build.py -o build/page")
    for name in SOURCES:
        assert (BUILT / name).read_bytes() == (ROOT / "web" / name).read_bytes(), f"{name} has changed: build it again"
    return BUILT


@pytest.fixture(scope="module")
def address(built):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=built))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox", *CAMERA])
        yield running
        running.close()


def opened(browser, address, **options):
    """Open the page in a new context, and record what it asks for and what it logs."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.asked, page.logged = [], []
    context.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.logged.append(message.text))
    page.on("pageerror", lambda error: page.logged.append(str(error)))
    page.goto(address)
    status(page, "Ready: choose an image.")
    return page


def close(page, *addresses):
    """Close the page, and check that it asked for its own files only and logged nothing."""
    page.context.close()
    own = (*addresses, "data:", "blob:")
    assert [url for url in page.asked if not url.startswith(own)] == []
    assert page.logged == []


@pytest.fixture(scope="module")
def shared(browser, address):
    """One page for all tests that only choose images, because loading the models takes seconds."""
    page = opened(browser, address)
    yield page
    close(page, address)


def status(page, text):
    """Wait until the page says a text, or something that matches a pattern; return what it says."""
    said = page.get_by_role("status").filter(has_text=text)
    said.wait_for(state="visible")
    return said.inner_text()


DONE = re.compile(r"^(\d+) parts? in ([\d.]+) s\.")


def choose(page, file, k="auto"):
    """Choose a number of parts and an image, wait for the result, and return the seconds that it took."""
    page.get_by_label("Number of parts").select_option(str(k))
    page.get_by_role("status").evaluate("status => { status.textContent = ''; }")
    page.get_by_label("Image", exact=True).set_input_files([])  # so that the same image is a change
    page.get_by_label("Image", exact=True).set_input_files(file)
    return float(DONE.match(status(page, DONE))[2])


def saved(page, tmp_path, what="part numbers"):
    with page.expect_download() as waiting:
        page.get_by_role("button", name=f"Download the {what}").click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def labels(page, tmp_path):
    return Parts.load(saved(page, tmp_path)).labels


def agreement(found, expected):
    assert found.shape == expected.shape
    return float((found == expected).mean())


def test_there_are_ten_photographs():
    assert len(PHOTOGRAPHS) >= 10 or importlib.util.find_spec("gradio") is None


@pytest.mark.parametrize("file", PHOTOGRAPHS, ids=lambda file: file.stem)
def test_labels_are_those_of_python(shared, tmp_path, file):
    for k in ("auto", 6):
        seconds = choose(shared, file, k)
        found, expected = labels(shared, tmp_path), partzoo.discover_parts(file, k)
        share = agreement(found, expected.labels)
        print(f"{file.stem}, {found.shape[0]} x {found.shape[1]}, k={k}: {100 * share:.2f} %, {seconds} s")
        assert share >= 0.99
        assert [row.inner_text() for row in shared.get_by_role("rowheader").all()] == [str(n) for n in expected.present]


@pytest.fixture
def upright():
    with Image.open(EXAMPLES / "astronaut.jpg") as image:
        return image.convert("RGB").crop((60, 0, 360, 400)).resize((150, 200))


@pytest.mark.parametrize("kind", ["turned", "transparent", "grey", "webp", "profile"])
def test_files_of_many_kinds_are_decoded_as_in_python(shared, tmp_path, upright, kind):
    file, options = tmp_path / f"{kind}.png", {}
    if kind == "turned":
        upright, file = upright.transpose(Image.Transpose.ROTATE_90), file.with_suffix(".jpg")
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6  # turn it by 90 degrees to see it upright
    elif kind == "transparent":
        upright.putalpha(Image.linear_gradient("L").resize(upright.size))
    elif kind == "grey":
        upright = upright.convert("L")
    elif kind == "webp":
        file = file.with_suffix(".webp")
    else:
        options["icc_profile"] = swapped_profile()
    upright.save(file, **options)
    choose(shared, file)
    found = np.array(shared.evaluate("[...image.data.data]"), int).reshape(*open_image(file).size, 4)[..., :3]
    apart = np.abs(found - open_image(file).pixels)
    assert apart.max() <= (1 if kind == "transparent" else 3) and apart.mean() < 0.3
    assert agreement(labels(shared, tmp_path), partzoo.discover_parts(file).labels) >= 0.99


def swapped_profile() -> bytes:
    """Return a colour profile whose red and blue primaries are exchanged, which nobody could overlook."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


def test_labels_of_a_large_image_are_reduced(shared, tmp_path):
    """The programs see all pixels, as in Python; only their labels are fewer."""
    file = tmp_path / "large.jpg"
    Image.open(EXAMPLES / "cat.jpg").resize((2706, 1800), Image.Resampling.BICUBIC).save(file, quality=95)
    choose(shared, file)
    found, expected = labels(shared, tmp_path), Image.fromarray(partzoo.discover_parts(file).labels)
    assert max(found.shape) == SIDE
    assert agreement(found, np.asarray(expected.resize(found.shape[::-1], Image.Resampling.NEAREST))) >= 0.99


def test_the_downloads_are_those_of_python(shared, tmp_path):
    choose(shared, DOLPHIN, 4)
    parts = Parts.load(saved(shared, tmp_path))
    expected = partzoo.discover_parts(DOLPHIN, 4)
    assert parts.k == 4 and parts.names == expected.names and (tmp_path / "dolphin.index.png").exists()
    with Image.open(tmp_path / "dolphin.index.png") as image:
        expected.save(tmp_path / "python.index.png")
        with Image.open(tmp_path / "python.index.png") as other:
            assert image.mode == "P" and image.getpalette() == other.getpalette()
    overlay = saved(shared, tmp_path, "overlay")
    assert overlay.name == "dolphin.png"
    found = np.asarray(Image.open(overlay).convert("RGB"), int)
    drawn = np.asarray(expected.overlay(scale=scale_to_see(expected.size)), int)
    assert found.shape == drawn.shape
    assert (
        np.abs(found - drawn).max(2) > 24
    ).mean() < 0.03  # along lines and in numbers, which browsers draw otherwise


def test_another_k_divides_the_same_image_again(shared, tmp_path):
    choose(shared, DOLPHIN, 2)
    for k in (5, 1):
        shared.get_by_label("Number of parts").select_option(str(k))
        status(shared, f"{k} part")
        assert np.array_equal(np.unique(labels(shared, tmp_path)), range(k + 1))
    assert shared.get_by_role("img").get_attribute("aria-label") == "dolphin.jpg with 1 part in colour"


def test_the_latest_choice_wins(shared, tmp_path):
    choose(shared, EXAMPLES / "cat.jpg")
    for k in (2, 3, 4, 5, 6, 7):
        shared.get_by_label("Number of parts").select_option(str(k))
    status(shared, "7 parts in")
    assert agreement(labels(shared, tmp_path), partzoo.discover_parts(EXAMPLES / "cat.jpg", 7).labels) >= 0.99


def test_an_image_without_an_object_has_no_parts(shared, tmp_path):
    Image.new("RGB", (90, 60), "grey").save(tmp_path / "blank.png")
    shared.get_by_label("Image", exact=True).set_input_files(tmp_path / "blank.png")
    assert status(shared, "No object was found in blank.png.")
    assert not labels(shared, tmp_path).any() and not shared.get_by_role("table").is_visible()


def test_what_is_no_image_is_refused(shared, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    shared.get_by_label("Image", exact=True).set_input_files(tmp_path / "text.jpg")
    status(shared, "text.jpg is not an image that this browser can read.")


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_images_are_dropped_and_pasted(shared, event):
    transfer = shared.evaluate_handle(
        """(bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(bytes)], "given.jpg", { type: "image/jpeg" }));
          return transfer;
        }""",
        [*DOLPHIN.read_bytes()],
    )
    shared.get_by_role("status").evaluate("status => { status.textContent = ''; }")
    kind, name = ("DragEvent", "dataTransfer") if event == "drop" else ("ClipboardEvent", "clipboardData")
    given = {"event": event, "transfer": transfer, "kind": kind, "name": name}
    shared.evaluate(
        """({ event, transfer, kind, name }) => document.body.dispatchEvent(
          new window[kind](event, { bubbles: true, cancelable: true, [name]: transfer }))""",
        given,
    )
    status(shared, DONE)
    assert shared.get_by_role("img").get_attribute("aria-label").startswith("given.jpg with")


def test_the_camera_gives_an_image(shared, tmp_path):
    shared.get_by_role("button", name="Use the camera").click()
    shared.get_by_role("button", name="Take the photograph").click()
    status(shared, re.compile(r"^(\d+ parts? in|No object was found in the photograph)"))
    assert labels(shared, tmp_path).shape == (480, 640)
    shared.get_by_role("button", name="Close the camera").click()
    assert not shared.get_by_role("button", name="Take the photograph").is_visible()
    assert shared.evaluate("video.srcObject") is None


def test_the_page_is_used_with_the_keyboard(shared):
    choose(shared, DOLPHIN, 2)
    file = shared.get_by_label("Image", exact=True)
    file.focus()
    reached = []
    for _ in range(4):
        shared.keyboard.press("Tab")
        reached.append(shared.evaluate("document.activeElement.id"))
    assert reached == ["open-camera", "k", "save-overlay", "save-labels"]
    with shared.expect_download():
        shared.keyboard.press("Enter")
    shared.get_by_label("Number of parts").focus()
    shared.keyboard.press("ArrowDown")
    status(shared, "3 parts in")


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off(shared, tmp_path, width, scheme):
    choose(shared, DOLPHIN, 12)
    shared.set_viewport_size({"width": width, "height": 800})
    shared.emulate_media(color_scheme=scheme)
    assert shared.evaluate("document.documentElement.scrollWidth <= innerWidth")
    heights = "e => e.filter((each) => each.checkVisibility()).map((each) => each.getBoundingClientRect().height)"
    assert min(shared.eval_on_selector_all("button, select, input", heights)) >= 40
    shared.set_viewport_size({"width": 1280, "height": 900})


def test_it_works_without_a_network(browser, address, tmp_path):
    page = opened(browser, address)
    page.get_by_text("opens without a network too").wait_for()
    page.context.set_offline(True)
    choose(page, DOLPHIN)
    expected = partzoo.discover_parts(DOLPHIN).labels
    assert agreement(labels(page, tmp_path), expected) >= 0.99
    page.reload()
    status(page, "Ready: choose an image.")
    choose(page, DOLPHIN)
    assert agreement(labels(page, tmp_path), expected) >= 0.99
    close(page, address)


def test_it_works_from_disk(browser, built, tmp_path):
    page = opened(browser, (built / "index.html").as_uri())
    choose(page, DOLPHIN)
    assert agreement(labels(page, tmp_path), partzoo.discover_parts(DOLPHIN).labels) >= 0.99
    close(page, built.as_uri())


def test_a_missing_file_is_named(browser, built, tmp_path):
    shutil.copytree(built, tmp_path / "page")
    (tmp_path / "page" / "packed" / "labels.onnx.js").unlink()
    page = browser.new_page()
    page.goto((tmp_path / "page" / "index.html").as_uri())
    status(page, "This page cannot be used: packed/labels.onnx.js is missing.")
    page.close()


def test_the_folder_is_small_and_complete(built):
    about = json.loads((built / "about.js").read_text().split("const ABOUT = ")[1].removesuffix(";\n"))
    files = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert {"./", *files} == {*about["files"]}
    assert sum((built / name).stat().st_size for name in files) < 25e6
    assert "Permission is hereby granted" in (built / "licences" / "onnxruntime.txt").read_text()
