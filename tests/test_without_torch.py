"""What needs no torch does not import it, which takes seconds and hundreds of megabytes."""

import subprocess
import sys
from pathlib import Path

import pytest

from partzoo.files import read_json
from partzoo.models import recorded

IMAGES = Path(__file__).parents[1] / "examples" / "images"
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


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",), ("--version",), ("discover", "--help"), ("export", "--help"), ("train", "--help"), ("list",),
        ("list", "--pretrained"), ("info", "part-vits8.tin"), ("info", "dino-vits16", "--json"),
    ],
)  # fmt: skip
def test_commands_that_run_no_model_do_without_torch(arguments):
    assert without_torch(*arguments)


def test_the_record_of_the_architectures_is_current():
    assert read_json(recorded.FILE) == recorded.to_json(), "run: python scripts/tables.py"
