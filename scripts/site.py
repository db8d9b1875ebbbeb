"""Build the documentation's site in ``site/html``: ``python scripts/site.py [--repository ADDRESS]``.

The pages are those of ``docs/``, which are written to be read in a clone too. Links from them to other files of the
repository lead to ``ADDRESS``, or become plain text without one, because a site does not have these files. Any warning
ends the build.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`~?([^`]+)`")
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(#[^)]*)?\)")


def page(text: str, repository: str | None) -> str:
    """Return a page for the site, with its links to files outside of ``docs/`` replaced."""

    def link(match: re.Match[str]) -> str:
        words, path = match[1], match[2]
        if not (ROOT / path).exists():
            raise SystemExit(f"A page links to {path}, which does not exist.")
        return f"[{words}]({repository.rstrip('/')}/blob/main/{path}{match[3] or ''})" if repository else words

    return OUTSIDE.sub(link, text)


def source(text: str, public: set[str]) -> str:
    """Return a module for the API's page, with the cross-references of its docstrings as Markdown."""

    def reference(match: re.Match[str]) -> str:
        name = match[1]
        target = name if name in public else f"partzoo.{name}"
        return f"[`{name}`][{target}]" if target in public else f"`{name}`"

    return ROLE.sub(reference, text)


def main() -> int:
    """Write the pages, build the site from them, and return 1 if there was a warning."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", help="address of the repository, to which links outside of docs/ lead")
    asked = parser.parse_args()
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", SITE / "pages")
    shutil.copytree(ROOT / "partzoo", SITE / "source" / "partzoo", ignore=shutil.ignore_patterns("*.safetensors"))
    public = set(re.findall(r"^::: (.+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE))
    for path in (SITE / "pages").rglob("*.md"):
        path.write_text(page(path.read_text(encoding="utf-8"), asked.repository), encoding="utf-8")
    for path in (SITE / "source").rglob("*.py"):
        path.write_text(source(path.read_text(encoding="utf-8"), public), encoding="utf-8")
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(built.stdout)
    return 1 if built.returncode or "griffe:" in built.stdout else 0


if __name__ == "__main__":
    sys.exit(main())
