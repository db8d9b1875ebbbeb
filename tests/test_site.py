"""The documentation's site: its navigation, the API's page and a build without warnings."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import partzoo
from partzoo import hub

ROOT = Path(__file__).parents[1]


def pages(entry):
    """Return the files that an entry of the navigation names."""
    if isinstance(entry, str):
        return [entry]
    return [page for each in (entry.values() if isinstance(entry, dict) else entry) for page in pages(each)]


def test_the_navigation_has_every_page_once():
    settings = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(pages(settings["project"]["nav"])) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_every_public_name_is_described():
    described = re.findall(r"^::: (.+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    public = [*(f"partzoo.{name}" for name in partzoo.__all__), *(f"partzoo.hub.{name}" for name in hub.__all__)]
    public.append("partzoo.estimators.PartFeatures")
    assert sorted(described) == sorted(public)


@pytest.mark.slow
def test_the_site_is_built_without_warnings():
    pytest.importorskip("zensical")
    pytest.importorskip("mkdocstrings")
    built = subprocess.run([sys.executable, "scripts/site.py"], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    page = (ROOT / "site" / "html" / "api" / "index.html").read_text(encoding="utf-8")
    assert page.count('class="doc doc-heading"') >= len(partzoo.__all__) and ":func:" not in page
