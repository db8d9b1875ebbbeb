"""A share of the faults of ``python -m tests.faults``: nothing may be lost, misread or hang."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
AREAS = sorted(file.stem for file in (ROOT / "tests" / "faults").glob("[a-z]*.py") if "def inject" in file.read_text())


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler")
@pytest.mark.parametrize("area", AREAS)
def test_no_fault_does_harm(area):
    ran = subprocess.run(
        [sys.executable, "-m", "tests.faults", area, "--ci"], cwd=ROOT, capture_output=True, text=True, timeout=1200
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
