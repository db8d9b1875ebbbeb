"""The package is typed for those who use it: ``py.typed`` lets their type checker read its annotations."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import partzoo

RIGHT = """\
import partzoo

model = partzoo.load("part-vitn8", device="cpu")
names: list[str] = partzoo.list_models("part-*")
partzoo.fit_parts(["a.jpg", "b.jpg"], k=4).save("photographs.parts.safetensors")
"""
WRONG = 'partzoo.load("part-vitn8", pretrained="no")\n'


@pytest.mark.slow  # mypy reads torch's annotations anew
def test_mypy_checks_calls_of_the_public_functions(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "use.py").write_text(RIGHT + WRONG)
    # As installed, not as mypy's own source: only then does it ask for py.typed.
    place = os.pathsep.join([str(Path(partzoo.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", "cache", "use.py"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": place}, capture_output=True, text=True,
    )  # fmt: skip
    errors = [line for line in ran.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, ran.stdout + ran.stderr
    assert errors[0].startswith("use.py:6:") and '"pretrained"' in errors[0]
