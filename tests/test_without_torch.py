"""What needs no torch does not import it, which takes seconds and hundreds of megabytes."""

import pytest
from helpers.without_torch import without_torch

from partzoo.files import read_json
from partzoo.models import recorded


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
