"""Run JavaScript of the static page (``web/``) with node."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "web"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


def run(script: str, expression: str, **given):
    """Return the value of an expression over the given values, after a script of the page has run."""
    program = f"""{(WEB / script).read_text()}
        const {{ {", ".join(given)} }} = JSON.parse(require("fs").readFileSync(0, "utf8"));
        process.stdout.write(JSON.stringify({expression}));"""
    done = subprocess.run([NODE, "-e", program], input=json.dumps(given), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
