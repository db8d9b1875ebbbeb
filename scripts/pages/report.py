"""Photograph the page of ``partzoo report`` at two widths, for docs/report.md. It needs playwright and Chromium.

python scripts/pages/report.py CALTECH101.TAR
"""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import partzoo

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SHOWN = slice(24)  # of the motorbikes: neighbours, which are much alike
PARTS = 6


def write_page(archive: Path, folder: Path) -> Path:
    """Write the page of some of the motorbikes."""
    with tarfile.open(archive) as tar:
        names = sorted(name for name in tar.getnames() if "/Motorbikes/" in f"/{name}" and Path(name).suffix)
        for name in names[SHOWN]:
            file = folder / "Motorbikes" / f"{Path(name).stem}.png"
            file.parent.mkdir(exist_ok=True)
            Image.open(io.BytesIO(tar.extractfile(name).read())).convert("RGB").save(file)
    vocabulary = partzoo.fit_parts(folder / "Motorbikes", PARTS)
    parts = partzoo.discover_parts(folder / "Motorbikes", vocabulary=vocabulary)
    page = folder / "report.html"
    partzoo.write_report(parts, page, vocabulary=vocabulary, title="Motorbikes")
    return page


def photograph(page: Page, name: str) -> None:
    page.wait_for_timeout(1000)  # for what is drawn once it is visible
    page.screenshot(path=IMAGES / name, type="jpeg", quality=82)


def main(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        address = write_page(archive, Path(folder)).as_uri()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        wide = browser.new_page(viewport={"width": 1280, "height": 900})
        wide.goto(address)
        photograph(wide, "report-1280.jpg")
        wide.get_by_label("Sort by").select_option("largest")
        wide.get_by_role("button", name="part 2", exact=True).click()
        wide.get_by_role("heading", name="Parts").evaluate("heading => heading.scrollIntoView()")
        photograph(wide, "report-parts.jpg")
        context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
        narrow = context.new_page()
        narrow.goto(address)
        narrow.get_by_role("button", name="part 2", exact=True).click()
        photograph(narrow, "report-390.jpg")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
