"""Run a command in a process that may not import torch."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from partzoo.cli import main
try:
    main(sys.argv[1:], prog_name="partzoo")
except SystemExit as ended:
    assert not ended.code, ended.code
sys.exit(f"{len(sys.modules)} modules, torch among them" if "torch" in sys.modules else 0)
"""


def without_torch(*arguments: object) -> str:
    """Run a command in another process, which fails if it imports torch; return what it prints."""
    ran = subprocess.run([sys.executable, "-c", CODE, *map(str, arguments)], capture_output=True, text=True)
    assert not ran.returncode, ran.stderr
    return ran.stdout
