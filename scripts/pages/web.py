"""Photograph the page without a server at two widths, for docs/demo.md. It needs playwright and Chromium.

python web/build.py -o build/page && python scripts/pages/web.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[2]
PAGE, IMAGES = ROOT / "build" / "page" / "index.html", ROOT / "docs" / "images"
PATIENCE = 300_000  # milliseconds


def photograph(browser: Browser, example: str, width: int, height: int, scheme: str) -> None:
    """Divide an example and save what the page shows."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(PAGE.as_uri())
    page.get_by_label("Image", exact=True).set_input_files(ROOT / "examples" / "images" / example)
    page.get_by_text("Parts, the largest first").wait_for()
    page.screenshot(path=IMAGES / f"web-{width}.jpg", type="jpeg", quality=82)
    context.close()


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        photograph(browser, "ibis.jpg", 1280, 900, "light")
        photograph(browser, "cat.jpg", 390, 844, "dark")
        browser.close()


if __name__ == "__main__":
    main()
