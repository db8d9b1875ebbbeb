"""The demo in a real browser: pip install "partzoo[demo]" playwright, then pytest -m browser tests/demo."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partzoo.parts.parts import Parts

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "examples" / "images"
WAIT = 180_000  # milliseconds; the first request loads torch and the models


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("gradio")
    place = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "partzoo", "demo", "--no-browser"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"TMPDIR": str(place)}, stdout=subprocess.PIPE, text=True
    )
    yield process.stdout.readline().split()[1]
    process.send_signal(2)
    process.wait(60)
    assert not list(place.glob("partzoo-demo-*")), "uploads and results are left"


@pytest.fixture
def page(server):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1280, "height": 1000})
        shown.set_default_timeout(WAIT)
        shown.elsewhere, shown.complaints = [], []
        shown.on(
            "request", lambda sent: sent.url.startswith((server, "data:", "blob:")) or shown.elsewhere.append(sent.url)
        )
        shown.on("console", lambda said: said.type == "error" and shown.complaints.append(said.text))
        shown.goto(server)
        shown.get_by_role("button", name="Find parts").wait_for()
        yield shown
        assert shown.elsewhere == [] and shown.complaints == []
        browser.close()


def upload(page, number, name):
    page.locator("[role=tabpanel]:visible input[type=file]").nth(number).set_input_files(IMAGES / name)
    page.wait_for_timeout(3000)


def shown_images(page, count):
    seen = "[...document.querySelectorAll('[role=tabpanel] img')].filter(image => image.offsetParent)"
    page.wait_for_function(f"count => {seen}.length >= count", arg=count)


def test_parts_are_found_and_can_be_downloaded(page, tmp_path):
    upload(page, 0, "dolphin.jpg")
    page.locator("canvas").first.wait_for()
    page.get_by_role("spinbutton").first.fill("4")
    page.get_by_role("button", name="Find parts").click()
    page.get_by_text("Confidence in the foreground").wait_for()
    with page.expect_download() as waiting:
        page.locator("a[download='parts.index.png']").click()
    waiting.value.save_as(tmp_path / "parts.index.png")
    assert list(Parts.load(tmp_path / "parts.index.png").present) == [1, 2, 3, 4]


def test_what_is_painted_is_divided(page, tmp_path):
    upload(page, 0, "dolphin.jpg")
    canvas = page.locator("canvas").first
    canvas.wait_for()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Find parts").click()
    with page.expect_download() as waiting:
        page.locator("a[download='parts.index.png']").click()
    waiting.value.save_as(tmp_path / "parts.index.png")
    labels = Parts.load(tmp_path / "parts.index.png").labels
    assert labels.shape == Image.open(IMAGES / "dolphin.jpg").size[::-1]
    assert 0 < np.count_nonzero(labels) < labels.size / 4


def test_an_error_is_shown_as_a_sentence(page):
    page.get_by_role("button", name="Find parts").click()
    page.get_by_text("Choose an image first.").wait_for()


def test_two_images_share_numbers(page):
    page.get_by_role("tab", name="Two images").click()
    upload(page, 0, "cat.jpg")
    upload(page, 1, "ibis.jpg")
    page.get_by_role("button", name="Find the same parts").click()
    shown_images(page, 4)


def test_parts_of_faces_are_exchanged(page):
    page.get_by_role("tab", name="Exchange parts of faces").click()
    upload(page, 0, "astronaut.jpg")
    upload(page, 1, "cat.jpg")
    page.get_by_role("button", name="Exchange", exact=True).click()
    shown_images(page, 3)
