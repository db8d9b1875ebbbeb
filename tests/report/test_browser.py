"""The page in a real browser: ``pytest -m browser``, which needs playwright and Chromium."""

import shutil

import numpy as np
import pytest
from PIL import Image

import partzoo
from partzoo.parts.drawing import palette
from partzoo.parts.parts import Parts

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NAMES = ["b.png", "<img src=x onerror=window.hurt=1>.png", '"><script>window.hurt=1</script>.png', "a10.png", "a9.png"]
CONTRAST = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = channels(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
  };
  return [...document.querySelectorAll("body *")]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && e.checkVisibility())
    .filter((e) => !["SCRIPT", "NOSCRIPT"].includes(e.tagName))
    .map((e) => [light(channels(getComputedStyle(e).color)), light(behind(e)), e.outerHTML.slice(0, 80)])
    .map(([a, b, what]) => [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), what]);
}"""
PIXEL = """([card, x, y]) => {
  const canvas = document.querySelectorAll("canvas")[card];
  const copy = new OffscreenCanvas(1, 1).getContext("2d");  // reading the page's own canvas often logs a warning
  copy.drawImage(canvas, -x, -y);
  return [...copy.getImageData(0, 0, 1, 1).data];
}"""


def image(number):
    """Part 1 is on the left and part 2 on the right of a background; the later the image, the larger the parts."""
    labels = np.zeros((60, 80), np.uint8)
    labels[10:50, 5 : 20 + number] = 1
    if number != 1:
        labels[10:50, 50 : 60 + 3 * number] = 2
    pixels = np.full((60, 80, 3), 200, np.uint8)
    quality, confidences = (0.9, 0.5, 0.8, 0.6, 1.0)[number], [0.9 - 0.1 * number, 0.5]
    return Parts(labels, k=2, image=pixels, source=NAMES[number], quality=quality, confidences=confidences)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(params=["light", "dark"])
def page(request, browser, tmp_path):
    """The opened page; the test fails if it asks for anything that it does not hold, or logs anything."""
    file = tmp_path / "report.html"
    partzoo.write_report([image(i) for i in range(5)], file)
    context = browser.new_context(viewport={"width": 1000, "height": 800}, color_scheme=request.param)
    opened = context.new_page()
    asked, logged = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: logged.append(message.text))
    opened.on("pageerror", lambda error: logged.append(str(error)))
    opened.goto(file.as_uri())
    opened.locator(".view canvas[width='80']").first.wait_for()  # the policy forbids wait_for_function
    yield opened
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert logged == []
    assert opened.evaluate("window.hurt") is None
    context.close()


def pixel(page, x, y, card=0):
    return page.evaluate(PIXEL, [card, x, y])


def order(page):
    return [
        int(each.removeprefix("image-")) - 1 for each in page.eval_on_selector_all(".card", "e => e.map(x => x.id)")
    ]


LEFT, RIGHT, OUTSIDE = (10, 30), (54, 30), (40, 30)


def tinted(page, place, part):
    """Return whether a pixel has its part's colour; the canvas rounds colours under their opacity."""
    return np.abs(np.subtract(pixel(page, *place)[:3], palette(2)[part])).max() <= 1


def test_all_parts_are_coloured_until_the_box_is_cleared(page):
    assert tinted(page, LEFT, 1) and tinted(page, RIGHT, 2) and pixel(page, *OUTSIDE)[:3] == [0, 0, 0]
    page.get_by_label("Colours").uncheck()
    assert pixel(page, *LEFT) == pixel(page, *RIGHT) == pixel(page, *OUTSIDE) == [0, 0, 0, 0]


def test_pointing_at_a_part_shows_it_in_all_images(page):
    box = page.locator(".view").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] * LEFT[0] / 80, box["y"] + box["height"] / 2)
    dimmed = pixel(page, *OUTSIDE)
    assert tinted(page, LEFT, 1) and pixel(page, *RIGHT) == dimmed and dimmed[3] > 100
    page.mouse.move(1, 1)
    assert tinted(page, RIGHT, 2) and pixel(page, *OUTSIDE)[3] < 100


def test_keyboard_focus_shows_a_part_and_escape_ends_it(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "part 2"
    assert tinted(page, RIGHT, 2) and pixel(page, *LEFT) == pixel(page, *OUTSIDE)
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="part 2", exact=True).get_attribute("aria-pressed") == "true"
    assert "part 2, in 4 of 5 images" in page.get_by_role("status").inner_text()
    page.keyboard.press("Tab")
    assert pixel(page, *LEFT) == pixel(page, *OUTSIDE), "a chosen part stays when the focus leaves"
    page.keyboard.press("Escape")
    assert tinted(page, LEFT, 1) and tinted(page, RIGHT, 2)


@pytest.mark.parametrize(
    ("value", "expected", "of_part_2"),
    [
        ("given", [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        ("largest", [4, 3, 2, 0, 1], [4, 3, 2, 0, 1]),
        ("smallest", [1, 0, 2, 3, 4], [0, 2, 3, 4, 1]),
        ("clearest", [1, 0, 2, 3, 4], [0, 2, 3, 4, 1]),
        ("vaguest", [4, 3, 2, 0, 1], [0, 2, 3, 4, 1]),
        ("quality", [1, 3, 2, 0, 4], [1, 3, 2, 0, 4]),
    ],
)
def test_images_are_sorted_by_all_parts_or_by_the_chosen_one(page, value, expected, of_part_2):
    page.get_by_label("Sort by").select_option(value)
    assert order(page) == expected
    page.get_by_role("button", name="part 2", exact=True).click()
    assert order(page) == of_part_2


def test_names_are_sorted_as_people_do(page):
    page.get_by_label("Sort by").select_option("name")
    names = [NAMES[i] for i in order(page)]
    assert names.index("a9.png") < names.index("a10.png") < names.index("b.png")
    assert "file name" in page.get_by_role("status").inner_text()


def test_each_part_is_shown_over_the_set_in_the_order_of_the_images(page):
    page.get_by_label("Sort by").select_option("largest")
    page.get_by_role("heading", name="Part 2").scroll_into_view_if_needed()
    links = page.locator('.crops[data-of="2"] a')
    links.first.wait_for()
    assert [links.nth(i).get_attribute("href") for i in range(links.count())] == [
        f"#image-{i + 1}" for i in (4, 3, 2, 0)
    ]
    assert links.first.get_attribute("aria-label") == "part 2 in a9.png"
    page.wait_for_timeout(300)
    centre = "c => [...c.getContext('2d').getImageData(48, 48, 1, 1).data]"
    assert links.first.locator("canvas").evaluate(centre) == [200, 200, 200, 255]
    links.first.click()
    assert page.evaluate("location.hash") == "#image-5"


def test_text_stands_out_in_both_schemes_and_fits_a_telephone(page):
    seen = page.evaluate(CONTRAST)
    assert len(seen) > 20 and [each for each in seen if each[0] < 4.5] == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_policy_keeps_a_foreign_script_and_a_foreign_image_out(browser, tmp_path):
    """The same policy, in a page that something was added to."""
    file = tmp_path / "report.html"
    partzoo.write_report(image(0), file)
    Image.new("RGB", (2, 2)).save(tmp_path / "foreign.png")
    added = "<script>window.hurt=1</script><img id='foreign' src='foreign.png' onerror='window.hurt=2'></body>"
    file.write_text(file.read_text(encoding="utf-8").replace("</body>", added), encoding="utf-8")
    opened = browser.new_page()
    logged = []
    opened.on("console", lambda message: logged.append(message.text))
    opened.goto(file.as_uri())
    opened.wait_for_timeout(300)
    assert opened.evaluate("window.hurt") is None
    assert opened.evaluate("document.getElementById('foreign').naturalWidth") == 0
    assert sum("Content Security Policy" in each for each in logged) >= 2
    opened.close()
